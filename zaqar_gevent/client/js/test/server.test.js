// Everything against a real server: ZAQAR_URL, in admin mode, and one with pooling, ZAQAR_POOLED_URL.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { uuid7 } from '../src/identity.js';
import * as zaqar from '../zaqar.js';
import { WebSocket, load } from './dependencies.js';
import { scenario } from './scenario.js';

const { APIError, BadRequest, Client, Conflict, NotFound, Timeout, Unsupported } = zaqar;
const url = process.env.ZAQAR_URL;
const pooledUrl = process.env.ZAQAR_POOLED_URL;
const transcript = process.env.ZAQAR_TRANSCRIPT;
assert.ok(url && pooledUrl, 'ZAQAR_URL and ZAQAR_POOLED_URL must be those of servers in admin mode');

const ways = [
  { transport: 'websocket', encoding: 'msgpack' },
  { transport: 'websocket', encoding: 'json' },
  { transport: 'rest', encoding: 'json' },
];
let projects = 0;

async function using({ at = url, ...options }, use) {
  projects += 1;
  const project = `${process.pid}-${projects}`;
  const client = new Client(at, { project, WebSocket, ...options });
  try {
    await use(client);
  } finally {
    await client.close();
  }
}

// A test of each transport and encoding.
function everywhere(title, ...given) {
  const [use, options = {}] = given.reverse();
  for (const way of ways) {
    test(`${title} (${way.transport}, ${way.encoding})`, () => using({ ...way, ...options }, use));
  }
}

const all = async (iterable) => {
  const found = [];
  for await (const one of iterable) found.push(one);
  return found;
};

test('the scenario of all clients gives their transcript', async () => {
  const expected = JSON.parse(await readFile(transcript, 'utf8'));
  await using({ transport: 'websocket' }, async (client) => {
    assert.deepEqual(await scenario(client, 'scenario', zaqar), expected);
  });
});

everywhere('queues are created, listed, changed and deleted', async (client) => {
  for (const name of ['one', 'three', 'two']) assert.equal(await client.queue(name).create({ name }), true);
  const listed = await all(client.queues({ limit: 2, detailed: true }));
  assert.deepEqual(listed.map((one) => one.name), ['one', 'three', 'two']);
  assert.equal(listed[0].metadata.name, 'one');
  assert.deepEqual((await all(client.queues({ name: 't' }))).map((one) => one.name), ['three', 'two']);
  const queue = client.queue('one');
  assert.equal((await queue.update({ color: 'red', 'a/b~c': [1] })).color, 'red');
  assert.equal((await queue.update({ color: undefined })).color, undefined);
  const { name, 'a/b~c': list } = await queue.getMetadata();
  assert.deepEqual([name, list], ['one', [1]]);
  assert.equal(await queue.exists(), true);
  assert.equal(await queue.delete(), null);
  assert.equal(await queue.exists(), false);
  assert.deepEqual((await all(client.queues())).map((one) => one.name), ['three', 'two']);
});

everywhere('settings have names, and are set whether the queue exists or not', async (client) => {
  const queue = client.queue('q');
  for (const maxClaims of [3, 4]) {
    const made = await queue.configure({ maxClaims, deadLetterQueue: 'dead' });
    assert.deepEqual([made._max_claim_count, made._dead_letter_queue], [maxClaims, 'dead']);
  }
  const changed = await queue.configure({ maxClaims: null, retryDelay: { initial: 2 }, encrypt: undefined });
  assert.deepEqual([changed._max_claim_count, changed._dead_letter_queue], [null, 'dead']);
  assert.deepEqual(changed._retry_delay, { initial: 2 });
  assert.equal((await queue.configure({ retryDelay: null, traceContext: null }))._retry_delay, undefined);
  await assert.rejects(queue.configure({ maxClaim: 3 }), /no option 'maxClaim' of configure\(\); there are maxPostSize, defaultTtl, /);
  await assert.rejects(queue.configure({ maxClaims: 'three' }), BadRequest);
  await assert.rejects(client.topic('t').configure({ maxClaims: 3 }), /no option 'maxClaims'/);
  assert.equal((await client.topic('t').configure({ defaultTtl: 600 }))._default_message_ttl, 600);
  assert.equal(await queue.create({ _dead_letter_queue: 'dead' }), false);
  await assert.rejects(queue.create({ _dead_letter_queue: 'other' }), Conflict);
});

everywhere('messages are posted, read, taken and deleted', async (client) => {
  const queue = client.queue('q');
  const ids = await queue.post([{ a: 'é' }, [1, 2], 'text', null, 7, true], { ttl: 300 });
  assert.equal(ids.length, 6);
  const [single] = await queue.post({ last: true });
  const bodies = (await all(queue.messages({ limit: 3 }))).map(({ body }) => body);
  assert.deepEqual(bodies, [{ a: 'é' }, [1, 2], 'text', null, 7, true, { last: true }]);
  assert.deepEqual(await all(queue.messages({ echo: false })), []);
  const found = await queue.get(single);
  assert.deepEqual([found.id, found.body, found.claimId], [single, { last: true }, null]);
  assert.deepEqual((await queue.getMany(ids.slice(0, 2))).map(({ id }) => id), ids.slice(0, 2));
  const [popped] = await queue.pop(1);
  assert.deepEqual(popped.body, { a: 'é' });
  await queue.deleteMessages(ids.slice(1, 3));
  await found.delete();
  await assert.rejects(queue.get(single), NotFound);
  assert.deepEqual(await queue.getMany([single]), []);
  assert.equal((await queue.stats()).messages.total, 3);
  const { newest } = (await queue.stats()).messages;
  assert.equal(newest.id, ids[5]);
  const kept = await queue.notify('http://127.0.0.1:1/');
  await queue.purge();
  assert.deepEqual((await all(queue.subscriptions())).map((one) => one.id), [kept]);
  await queue.deleteSubscription(kept);
  assert.equal((await queue.stats()).messages.total, 0);
});

everywhere('integers of 64 bits come back as they went', async (client) => {
  const queue = client.queue('q');
  const body = { large: [2n ** 63n - 1n, -(2n ** 63n), 2n ** 53n, 9007199254740991], float: 1e20, half: 0.5 };
  await queue.post(body);
  const [message] = await all(queue.messages());
  assert.deepEqual(message.body, body);
});

everywhere('messages are claimed for a while', async (client) => {
  const queue = client.queue('q');
  await queue.post([1, 2, 3]);
  const claim = await queue.claim({ limit: 2, ttl: 60, grace: 60 });
  assert.deepEqual([...claim].map(({ body, claimId }) => [body, claimId]), [[1, claim.id], [2, claim.id]]);
  await claim.renew({ ttl: 120 });
  const told = await client.call('claim_get', { queue_name: 'q', claim_id: claim.id });
  assert.deepEqual([told.ttl, told.messages.map(({ body }) => body)], [120, [1, 2]]);
  assert.equal((await all(queue.messages({ includeClaimed: true }))).length, 3);
  await claim.messages[0].delete();
  await claim.release();
  assert.deepEqual((await queue.claim({ limit: 9 })).messages.map(({ body }) => body), [2, 3]);
  const none = await queue.claim();
  assert.deepEqual([none.id, none.messages], [null, []]);
});

everywhere('a claim waits for a message', async (client) => {
  const queue = client.queue('q');
  const claimed = queue.claim({ wait: 10 });
  await queue.post('late');
  assert.equal((await claimed).messages[0].body, 'late');
});

everywhere('topics have messages and subscriptions', async (client) => {
  const topic = client.topic('t');
  assert.equal(await topic.create(), true);
  const subscription = topic.subscribe();
  await subscription.ready;
  await topic.post(['a', 'b']);
  const bodies = [];
  for await (const message of subscription) if (bodies.push(message.body) === 2) break;
  assert.deepEqual(bodies, ['a', 'b']);
  assert.deepEqual((await all(client.topics())).map(({ name }) => name), ['t']);
  await topic.delete();
});

everywhere('subscriptions of URIs are made, listed and ended', async (client) => {
  const queue = client.queue('q');
  const id = await queue.notify('http://127.0.0.1:9/hook', { ttl: 600, options: { a: 1 } });
  const [found] = await all(queue.subscriptions());
  assert.deepEqual([found.id, found.subscriber, found.options], [id, 'http://127.0.0.1:9/hook', { a: 1 }]);
  await queue.updateSubscription(id, { ttl: 900, options: { a: 2 } });
  const changed = await queue.getSubscription(id);
  assert.deepEqual([changed.id, changed.ttl, changed.options], [id, 900, { a: 2 }]);
  await queue.deleteSubscription(id);
  assert.deepEqual(await all(queue.subscriptions()), []);
  await assert.rejects(queue.getSubscription(id), NotFound);
});

everywhere('claims are renewed and released by their ids', async (client) => {
  const queue = client.queue('q');
  await queue.post(['a', 'b']);
  const { id } = await queue.claim({ ttl: 60 });
  await queue.renewClaim(id, { ttl: 90, grace: 60 });
  assert.deepEqual(await all(queue.messages()), []);
  await queue.releaseClaim(id);
  await queue.releaseClaim(id);
  assert.equal((await all(queue.messages())).length, 2);
  await assert.rejects(queue.renewClaim(id, { ttl: 90 }), NotFound);
});

everywhere('two subscriptions of one queue each get all', async (client) => {
  const queue = client.queue('q');
  const pair = [queue.subscribe({ marker: '' }), queue.subscribe({ marker: '' })];
  await queue.post([1, 2, 3]);
  for (const subscription of pair) {
    const bodies = [];
    for await (const message of subscription) if (bodies.push(message.body) === 3) break;
    assert.deepEqual(bodies, [1, 2, 3]);
  }
});

everywhere('a subscription with a filter gives what meets it, and passes the rest', async (client) => {
  const queue = client.queue('q');
  const filter = { type: ['order', 'refund'], region: { prefix: 'eu-' } };
  await queue.post(Array(25).fill('gift'), { attributes: { type: 'gift', region: 'eu-1' } });
  await queue.post('order', { attributes: { type: 'order', region: 'eu-1' } });
  await queue.post('elsewhere', { attributes: { type: 'order', region: 'us-1' } });
  await queue.post('refund', { attributes: { type: 'refund', region: 'eu-2' } });
  const subscription = queue.subscribe({ marker: '', filter });
  assert.deepEqual([(await subscription.next()).value.body, (await subscription.next()).value.body], ['order', 'refund']);
  const { marker } = subscription;
  await subscription.close();
  await queue.post('more', { attributes: { type: 'order', region: 'eu-' } });
  const pair = [queue.subscribe({ marker, filter }), queue.subscribe({ marker, filter })];
  for (const one of pair) assert.equal((await one.next()).value.body, 'more');
  for (const one of pair) await one.close();
  assert.throws(() => queue.subscribe({ filter: { type: [] } }), /1 to 100 texts, not 0 - at `filter\.type`/);
});

everywhere('a subscription can be taken up by another client where it ended', async (client) => {
  const queue = client.queue('q');
  await queue.post([1, 2, 3, 4]);
  const first = queue.subscribe({ marker: '' });
  assert.equal((await first.next()).value.body, 1);
  assert.equal((await first.next()).value.body, 2);
  const { marker } = first;
  await first.close();
  await using({ project: client.project }, async (other) => {
    const second = other.queue('q').subscribe({ marker });
    assert.equal((await second.next()).value.body, 3);
    await second.close();
  });
});

everywhere('a slow reader gets all that it was too slow for', async (client) => {
  const queue = client.queue('q');
  const subscription = queue.subscribe({ marker: '' });
  const count = 4000;
  for (let start = 0; start < count; start += 200) {
    await queue.post(Array.from({ length: 200 }, (_, index) => start + index));
  }
  const bodies = [];
  for await (const message of subscription) if (bodies.push(message.body) === count) break;
  assert.deepEqual(bodies, Array.from({ length: count }, (_, index) => index));
});

everywhere('consumers settle messages, and give back what they have not', async (client) => {
  const queue = client.queue('q');
  await queue.post([1, 2, 3]);
  const consumer = queue.consume({ credit: 3, ttl: 60 });
  const messages = [];
  for (let count = 0; count < 3; count += 1) messages.push((await consumer.next({ timeout: 10 })).value);
  assert.equal(await messages[0].ack(), true);
  assert.equal(await messages[1].release(), true);
  await consumer.close();
  // What was being claimed at the time comes back a little later.
  let stats;
  for (let left = 50; left > 0; left -= 1) {
    stats = (await queue.stats()).messages;
    if (stats.claimed === 0) break;
    await sleep(100);
  }
  assert.deepEqual([stats.claimed, stats.free], [0, 2]);
});

everywhere('attributes come back with messages, and dead letters say where they are from', async (client) => {
  const queue = client.queue('q');
  await queue.create({ _dead_letter_queue: 'dead' });
  const attributes = { type: 'order', note: 'é' };
  const ids = await queue.post([1, 2, 3, 4], { attributes, group: 'é 1' });
  await queue.post('later', { deliverAt: new Date(Date.now() + 3600e3) });
  const posted = await all(queue.messages());
  assert.deepEqual(posted.map((one) => [one.body, one.attributes, one.attempt]), [1, 2, 3, 4].map((body) => [body, attributes, null]));
  assert.ok(posted.every((one) => one.group === 'é 1'));
  const claim = await queue.claim({ limit: 2 });
  const [first, second] = claim.messages;
  assert.deepEqual([first.attempt, first.deadLetter], [1, null]);
  assert.equal(await first.reject('no such sku'), true);
  assert.equal(await second.release({ delay: 900 }), true);
  const consumer = queue.consume({ credit: 2, ttl: 60 });
  const [third, fourth] = [(await consumer.next({ timeout: 30 })).value, (await consumer.next({ timeout: 30 })).value];
  assert.deepEqual([third.body, third.attempt, third.attributes], [3, 1, attributes]);
  assert.equal(await third.reject('not today'), true);
  assert.equal(await fourth.release({ delay: 900 }), true);
  await consumer.close();
  const dead = await all(client.queue('dead').messages());
  assert.deepEqual(dead.map((one) => [one.body, one.attributes, one.deadLetter.reason]), [[1, attributes, 'no such sku'], [3, attributes, 'not today']]);
  const { queue: source, messageId, claimCount, at } = dead[0].deadLetter;
  assert.deepEqual([source, messageId, claimCount], ['q', ids[0], 1]);
  assert.ok(Date.parse(at) > 0);
});

everywhere('a consumer has one message of a group at a time where groups are ordered', async (client) => {
  const queue = client.queue('q');
  await queue.configure({ orderedGroups: true });
  await queue.post(['first', 'second'], { group: 'a' });
  await queue.post('other', { group: 'b' });
  const consumer = queue.consume({ credit: 4, ttl: 60 });
  const next = async () => (await consumer.next({ timeout: 30 })).value;
  const had = [await next(), await next()];
  assert.deepEqual(had.map((one) => one.body).sort(), ['first', 'other']);
  await had.find((one) => one.body === 'first').ack();
  assert.equal((await next()).body, 'second');
  await consumer.close();
});

everywhere('a message that cannot be rejected can still be settled', async (client) => {
  const queue = client.queue('q');
  await queue.post(1);
  const consumer = queue.consume({ credit: 1, ttl: 60 });
  const { value: message } = await consumer.next({ timeout: 30 });
  await assert.rejects(message.reject('why'), BadRequest);
  assert.equal(await message.ack(), true);
  await consumer.close();
  assert.equal((await queue.stats()).messages.total, 0);
});

everywhere('others use a queue by a pre-signed URL, and no other', async (client) => {
  await client.queue('q').post('shared');
  const signed = await client.queue('q').share({ paths: ['messages'], methods: ['GET'] });
  const headers = {
    'URL-Signature': signed.signature,
    'URL-Expires': signed.expires,
    'URL-Methods': signed.methods.join(','),
    'URL-Paths': signed.paths.join(','),
  };
  await using({ project: signed.project, headers }, async (other) => {
    const [message] = await all(other.queue('q').messages());
    assert.equal(message.body, 'shared');
    await assert.rejects(other.queue('q').post('more'), APIError);
  });
});

const administered = { at: pooledUrl, headers: { 'X-Roles': 'admin' } };

everywhere('pools and flavors are managed', administered, async (client) => {
  const [pool, flavor] = [`pool-${projects}`, `flavor-${projects}`];
  await client.pools.create(pool, { uri: `sqlite:///${process.env.ZAQAR_POOLS}/${pool}`, weight: 10 });
  assert.ok((await all(client.pools.list())).some(({ name }) => name === pool));
  assert.equal((await client.pools.get(pool)).weight, 10);
  assert.equal((await client.pools.update(pool, { weight: 20 })).weight, 20);
  await client.flavors.create(flavor, { pool_list: [pool] });
  assert.deepEqual((await client.flavors.get(flavor)).pool_list, [pool]);
  assert.ok((await all(client.flavors.list())).some(({ name }) => name === flavor));
  await client.flavors.delete(flavor);
  await client.pools.delete(pool);
  await assert.rejects(client.pools.get(pool), NotFound);
});

everywhere('the server says what it can do and how it is', { headers: administered.headers }, async (client) => {
  const capabilities = await client.capabilities();
  assert.ok(capabilities.idempotency_seconds > 0 && capabilities.max_wait > 0);
  assert.equal(await client.ping(), true);
  assert.equal((await client.health()).storage_reachable, true);
  assert.ok((await client.call('get_openapi')).openapi);
  assert.equal((await client.request('get_versions')).status, 300);
  await client.queue('a').create();
  assert.deepEqual((await client.quotas()).zaqar_queues, { used: 1, allowed: null });
});

everywhere('an error says what was wrong', async (client) => {
  await assert.rejects(client.queue('q').post('a', { ttl: 1 }), (error) => {
    assert.ok(error instanceof BadRequest && error instanceof APIError && error.name === 'BadRequest');
    assert.deepEqual([error.status, error.code], [400, 'bad_request']);
    assert.match(error.description, /TTL/i);
    return true;
  });
  await assert.rejects(client.call('no_such_action'), { code: 'unknown_action' });
  await assert.rejects(client.queue('q').claim({ wait: 5, timeout: -4.8 }), Timeout);
  // Of the queue above, a claim that nobody waits for any more may take it.
  const [id] = await client.queue('unclaimed').post('a');
  await assert.rejects((await client.queue('unclaimed').get(id)).release(), Unsupported);
});

test('a post that is repeated is stored once', async () => {
  await using({ transport: 'websocket' }, async (client) => {
    const asked = { queue_name: 'q', messages: [{ body: 1 }], post_id: uuid7(Date.now()) };
    const [first, second] = [await client.call('message_post', asked), await client.call('message_post', asked)];
    assert.deepEqual(first, second);
    assert.equal((await client.queue('q').stats()).messages.total, 1);
  });
});

test('another codec of MsgPack may be given', async () => {
  const msgpack = await load('@msgpack/msgpack');
  await using({ transport: 'websocket', msgpack }, async (client) => {
    await client.queue('q').post({ a: [1, 'é'] });
    const [message] = await all(client.queue('q').messages());
    assert.deepEqual(message.body, { a: [1, 'é'] });
  });
});

test('the examples of the guide run', async () => {
  const guide = await readFile(new URL('../../../../docs/browser-client.md', import.meta.url), 'utf8');
  const examples = [...guide.matchAll(/^```js\n([\s\S]*?)^```$/gm)].map(([, code]) => code);
  const [messages, subscription, consumer] = examples;
  await using({ transport: 'websocket' }, async (client) => {
    await run(messages, { zaqar: client });
    const orders = client.queue('orders');
    await orders.post([{ sku: 44 }, { sku: 45 }]);
    const seen = [];
    const localStorage = {};
    const see = async (body) => {
      if (seen.push(body.sku) % 2 === 0) throw new Error('enough');
    };
    await assert.rejects(run(subscription, { orders, marker: '', show: see, localStorage }), /enough/);
    assert.ok(localStorage.marker);
    await assert.rejects(run(consumer, { orders, work: see }), /enough/);
    assert.deepEqual(seen, [44, 45, 44, 45]);
  });
});

test('the example of the package runs', async () => {
  const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8');
  const [, code] = readme.match(/^```js\n([\s\S]*?)^```$/m);
  const said = [];
  const log = (body) => said.push(body);
  class OfTests extends Client {
    constructor(where, options) {
      assert.equal(where, 'http://localhost:8888');
      super(url, { ...options, WebSocket });
    }
  }
  await run(code.replace(/^import .*$/m, ''), { Client: OfTests, console: { log } });
  assert.deepEqual(said, [{ sku: 42 }]);
});

// Runs a piece of code with these names.
const run = (code, names) =>
  new (async () => {}).constructor(...Object.keys(names), code)(...Object.values(names));
