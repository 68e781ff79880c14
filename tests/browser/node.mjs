// Calls functions of the module that it is given: [name, arguments] on a line of its own, answered likewise.

import { createInterface } from 'node:readline';

const functions = await import(process.argv[2]);

for await (const line of createInterface({ input: process.stdin })) {
  const [name, parameters] = JSON.parse(line);
  try {
    console.log(JSON.stringify({ value: await functions[name](...parameters) }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
