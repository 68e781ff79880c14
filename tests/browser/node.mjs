// Calls functions of sockets.mjs: [name, arguments] on a line of its own, answered likewise.

import { createInterface } from 'node:readline';
import * as sockets from './sockets.mjs';

for await (const line of createInterface({ input: process.stdin })) {
  const [name, parameters] = JSON.parse(line);
  try {
    console.log(JSON.stringify({ value: await sockets[name](...parameters) }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
