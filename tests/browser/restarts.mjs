// A subscription of the client, read message by message.

import { Client } from '../../zaqar_gevent/client/js/zaqar.js';

let client;
let subscription;
const told = [];

export const follow = async (url, options, asked) => {
  client = new Client(url, { project: 'demo', ...options });
  client.addEventListener('restart', ({ queueName }) => told.push(queueName));
  subscription = client.queue('orders').subscribe(asked);
  await subscription.ready;
};

export const read = async (count) => {
  const bodies = [];
  while (bodies.length < count) bodies.push((await subscription.next({ timeout: 20 })).value.body);
  return bodies;
};

export const restarts = () => ({ count: subscription.restarts, told });

export const close = () => client.close();
