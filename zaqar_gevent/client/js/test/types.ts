// What a program in TypeScript may write, and what it may not. Compiled, never run.

import { APIError, Client, decode, encode, msgpack, type Message, OutcomeUnknown, type State } from '../zaqar.js';

const client = new Client('http://localhost:8888', {
  project: 'demo',
  getToken: async () => ({ token: 'gAAAA', expiresAt: new Date() }),
  transport: 'auto',
  WebSocket,
  fetch,
  msgpack,
});
client.addEventListener('state', ({ state, previous, reason }) => {
  const now: State = state;
  console.log(previous, now, reason ?? '');
});
// @ts-expect-error There are no other events.
client.addEventListener('message', () => {});
// @ts-expect-error Nor other transports.
new Client('http://localhost:8888', { transport: 'carrier pigeon' });

const queue = client.queue('orders');
const ids: string[] = await queue.post([{ sku: 42, large: 2n ** 60n, at: new Date() }, 'text'], { ttl: 300 });
await queue.post('later', { deliverAt: new Date(), attributes: { type: 'order' }, group: 'customer-42' });
// @ts-expect-error Attributes are texts.
await queue.post('text', { attributes: { count: 1 } });
// @ts-expect-error A function has no form in JSON.
await queue.post({ call: () => {} });
for await (const message of queue.messages({ limit: 10 })) console.log(message.id, message.body.sku);
const claim = await queue.claim({ limit: 10, ttl: 60, signal: AbortSignal.timeout(5000) });
for (const message of claim) await message.delete();
const subscription = queue.subscribe({ marker: '' });
await subscription.ready;
queue.subscribe({ filter: { type: ['order'], region: { prefix: 'eu-' }, tenant: { exists: true }, kind: 'a' } });
// @ts-expect-error A condition is no number.
queue.subscribe({ filter: { type: 7 } });
const { value }: { value?: Message } = await subscription.next({ timeout: 5 });
for await (const { marker, body } of subscription) console.log(marker, body, ids, value?.claimId);
for await (const message of queue.consume({ credit: 10 })) {
  const wasOurs: boolean = await message.ack();
  console.log(wasOurs, message.attributes.type, message.group?.length, message.attempt, message.deadLetter?.reason);
  if (message.attempt === 3) await message.reject('three times');
  else await message.release({ delay: 30 });
}
// @ts-expect-error Topics have no consumers.
client.topic('news').consume();
try {
  await client.call('claim_get', { queue_name: 'orders', claim_id: 'none' });
} catch (error) {
  if (error instanceof APIError) console.log(error.status, error.code);
  if (error instanceof OutcomeUnknown) console.log(error.message);
}
decode(encode({ a: 1 }));
for await (const pool of client.pools.list()) console.log(pool.name);
const { total } = (await queue.stats()).messages;
console.log(total);
await client.close();
