// A program that uses the package, in Node or bundled for a page.

import { Client } from 'zaqar-gevent';

// Posts and receives by a client with these options: how it was connected, and what it received.
export async function run(url, options) {
  const client = new Client(url, { project: 'demo', timeout: 10, ...options });
  try {
    const queue = client.queue(`queue-${Math.random()}`);
    await queue.post([1, 2]);
    const bodies = [];
    for await (const { body } of queue.subscribe({ marker: '' })) if (bodies.push(body) === 2) break;
    return { state: client.state, bodies };
  } catch (error) {
    return { name: error.constructor.name, message: error.message };
  } finally {
    await client.close();
  }
}
