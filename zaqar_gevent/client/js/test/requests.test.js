// What becomes of requests whose connection dies, and of those that may be in flight together.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { uuid7 } from '../src/identity.js';
import { BadRequest, BodyTooLarge, Client, OutcomeUnknown, ZaqarError } from '../zaqar.js';
import { outcomeOf, settle } from './clocks.js';
import { CAPABILITIES, ScriptedServer, clientOf } from './scripted_server.js';

async function connected(server, options) {
  const made = clientOf(server, options);
  await made.clock.step(0);
  return made;
}

// A server whose connection dies when it is asked for this, as often as said.
function dyingOn(action, times = 1, answer = { status: 200, body: {} }) {
  let left = times;
  return new ScriptedServer({
    answer: (request, socket) => {
      if (request.action !== action) return undefined;
      left -= 1;
      if (left < 0) return answer;
      socket.end();
      return undefined;
    },
  });
}

const queued = { queue_name: 'q' };

for (const [action, body] of [
  ['queue_get', queued],
  ['queue_create', queued],
  ['message_delete', { ...queued, message_id: '1' }],
  ['message_delete_many', { ...queued, message_ids: ['1'] }],
  ['queue_update', { ...queued, changes: [{ op: 'add', path: '/metadata/a', value: 1 }] }],
  ['claim_update', { ...queued, claim_id: '1' }],
]) {
  test(`${action} is made again when its connection dies`, async () => {
    const server = dyingOn(action);
    const { client, clock } = await connected(server);
    const asked = outcomeOf(client.call(action, body));
    await clock.step(1);
    assert.deepEqual(asked.value, {});
    assert.equal(server.asked(action).length, 2);
    await client.close();
  });
}

for (const [action, body] of [
  ['claim_create', queued],
  ['message_delete_many', { ...queued, pop: 1 }],
  ['queue_purge', queued],
  ['subscription_create', { ...queued, subscriber: 'http://a.test' }],
  ['queue_update', { ...queued, changes: [{ op: 'remove', path: '/metadata/a' }] }],
  ['an_action_of_the_future', queued],
]) {
  test(`of ${action} nobody knows whether it was done when its connection dies`, async () => {
    const server = dyingOn(action);
    const { client, clock } = await connected(server);
    const asked = outcomeOf(client.call(action, body));
    await clock.step(1);
    assert.ok(asked.error instanceof OutcomeUnknown, asked.error);
    assert.equal(server.asked(action).length, 1);
    await client.close();
  });
}

test('a post is repeated under the same id, by which the server knows it', async () => {
  const server = dyingOn('message_post', 2, { status: 201, body: { message_ids: ['1'] } });
  const { client, clock } = await connected(server);
  const posted = outcomeOf(client.queue('q').post('a', { ttl: 60 }));
  await clock.step(2);
  assert.deepEqual(posted.value, ['1']);
  const [first, ...others] = server.asked('message_post').map(({ body }) => body.post_id);
  assert.match(first, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.deepEqual(others, [first, first]);
  await client.close();
});

test('where the server cannot tell posts apart, they have no id and are not repeated', async () => {
  const server = dyingOn('message_post');
  server.capabilities = { ...CAPABILITIES, idempotency_seconds: 0 };
  const { client, clock } = await connected(server);
  const posted = outcomeOf(client.queue('q').post('a'));
  await clock.step(1);
  assert.ok(posted.error instanceof OutcomeUnknown);
  const [{ body }] = server.asked('message_post');
  assert.equal(body.post_id, undefined);
  await client.close();
});

test('a post is not repeated by a server that does not know its id', async () => {
  const server = dyingOn('message_post');
  const { client, clock } = await connected(server);
  const posted = outcomeOf(client.queue('q').post('a'));
  server.capabilities = { ...CAPABILITIES, idempotency_seconds: 0 };
  await clock.step(1);
  assert.ok(posted.error instanceof OutcomeUnknown);
  await client.close();
});

test('a post is not repeated when its id may have been forgotten', async () => {
  const server = new ScriptedServer();
  server.capabilities = { ...CAPABILITIES, idempotency_seconds: 10 };
  const { client, clock } = await connected(server);
  const posted = outcomeOf(client.queue('q').post('a'));
  await clock.step(11);
  server.socket.end();
  await clock.step(1);
  assert.ok(posted.error instanceof OutcomeUnknown);
  assert.equal(server.asked('message_post').length, 1);
  await client.close();
});

test('as many requests are in flight as the server says; the others wait, and are never lost', async () => {
  const server = new ScriptedServer();
  server.capabilities = { ...CAPABILITIES, max_in_flight: 2 };
  const { client, clock } = await connected(server);
  const claims = Array.from({ length: 4 }, () => outcomeOf(client.call('claim_create', queued)));
  await settle();
  assert.equal(server.asked('claim_create').length, 2);
  server.socket.end();
  await clock.step(1);
  // Those that were sent are unknown; those that were not are sent by the next connection.
  assert.deepEqual(claims.map(({ error }) => error?.name), ['OutcomeUnknown', 'OutcomeUnknown', undefined, undefined]);
  const [, , third, fourth] = server.asked('claim_create');
  for (const { id, socket } of [third, fourth]) socket.receive({ id, status: 204, body: {} });
  await settle();
  assert.deepEqual(claims.map(({ value }) => value), [undefined, undefined, {}, {}]);
  await client.close();
});

test('answers come in any order', async () => {
  const server = new ScriptedServer();
  const { client } = await connected(server);
  const asked = [1, 2, 3].map((number) => outcomeOf(client.call('queue_get', { queue_name: `q${number}` })));
  await settle();
  for (const { id, body, socket } of server.asked('queue_get').reverse()) {
    socket.receive({ id, status: 200, body: { name: body.queue_name } });
    await settle();
  }
  assert.deepEqual(asked.map(({ value }) => value.name), ['q1', 'q2', 'q3']);
  await client.close();
});

test('a claim that comes when nobody waits for it any more is given back', async () => {
  const server = new ScriptedServer();
  const { client } = await connected(server);
  const abort = new AbortController();
  const claimed = outcomeOf(client.queue('q').claim({ wait: 20, signal: abort.signal }));
  await settle();
  abort.abort(new Error('enough'));
  await settle();
  assert.equal(claimed.error.message, 'enough');
  const [{ id, socket }] = server.asked('claim_create');
  socket.receive({ id, status: 201, body: { claim_id: 'c', messages: [] } });
  await settle();
  assert.deepEqual(server.asked('claim_delete')[0].body, { queue_name: 'q', claim_id: 'c' });
  await client.close();
});

test('over REST what may be is made again, at increasing distances', async () => {
  const times = [];
  const server = new ScriptedServer({
    rest: ({ path }) => {
      if (path === '/v2/ping') times.push(clock.now());
      if (path === '/v2/ping' && times.length < 5) throw new TypeError('fetch failed');
      return { status: 204, body: null };
    },
  });
  const { client, clock } = await connected(server, { transport: 'rest' });
  const pinged = outcomeOf(client.ping());
  await clock.step(2);
  assert.equal(pinged.value, true);
  const distances = times.slice(1).map((time, index) => time - times[index]);
  assert.equal(distances.length, 4);
  for (const index of [1, 2, 3]) assert.ok(distances[index] > distances[index - 1], `${distances}`);
  await client.close();
});

test('over REST what never left is made again, whatever it is', async () => {
  let away = true;
  const server = new ScriptedServer({
    rest: ({ path }) => {
      if (path.endsWith('/claims') && away) {
        away = false;
        throw new TypeError('fetch failed', { cause: { code: 'ECONNREFUSED' } });
      }
      return { status: 204, body: null };
    },
  });
  const { client, clock } = await connected(server, { transport: 'rest' });
  const claimed = outcomeOf(client.queue('q').claim());
  await clock.step(1);
  assert.equal(claimed.value.id, null);
  await client.close();
});

test('over REST of what may have left nobody knows', async () => {
  const server = new ScriptedServer({
    rest: ({ path }) => {
      if (path.endsWith('/claims')) throw new TypeError('fetch failed');
      return { status: 204, body: null };
    },
  });
  const { client, clock } = await connected(server, { transport: 'rest' });
  const claimed = outcomeOf(client.queue('q').claim());
  await clock.step(1);
  assert.ok(claimed.error instanceof OutcomeUnknown);
  await client.close();
});

test('ids of posts are in the order of time', () => {
  const ids = [1e12, 1e12 + 1, 1.7e12, 2e12].map((time) => uuid7(time));
  assert.deepEqual(ids, [...ids].sort());
  assert.equal(new Set(Array.from({ length: 1000 }, () => uuid7(1e12))).size, 1000);
});

const REFUSAL = { id: null, status: 400, body: { code: 'malformed_document', description: 'Unreadable.' } };

test('a refusal without an id is that of the only request', async () => {
  const server = new ScriptedServer();
  const { client } = await connected(server);
  const asked = outcomeOf(client.call('queue_get', queued));
  await settle();
  server.socket.receive(REFUSAL);
  await settle();
  assert.ok(asked.error instanceof BadRequest, asked.error);
  await client.close();
});

test('a refusal without an id is given to none of several', async (t) => {
  const warn = t.mock.method(console, 'warn', () => {});
  const server = new ScriptedServer();
  const { client } = await connected(server);
  const asked = ['a', 'b'].map((name) => outcomeOf(client.call('queue_get', { queue_name: name })));
  await settle();
  server.socket.receive(REFUSAL);
  const [{ id, socket }] = server.asked('queue_get');
  socket.receive({ id, status: 200, body: { name: 'a' } });
  await settle();
  assert.deepEqual(asked.map(({ value, error }) => [value, error]), [[{ name: 'a' }, undefined], [undefined, undefined]]);
  assert.match(warn.mock.calls[0].arguments[0], /without an id \(status 400\) came while 2 requests waited/);
  await client.close();
});

for (const encoding of ['json', 'msgpack']) {
  test(`what is longer than the server takes is refused before it is sent (${encoding})`, async () => {
    const server = new ScriptedServer();
    server.capabilities = { ...CAPABILITIES, max_message_size: 2000 };
    const { client, clock } = clientOf(server, { encoding });
    // There is no connection yet, so no limit is known.
    const posted = outcomeOf(client.queue('q').post('\u00e9'.repeat(1000)));
    await clock.step(0);
    await settle();
    assert.ok(posted.error instanceof BodyTooLarge, posted.error);
    assert.match(posted.error.message, /has 2\d\d\d bytes.*at most 2000 are/);
    assert.equal(server.asked('message_post').length, 0);
    assert.equal(server.sockets.length, 1);
    await client.close();
  });
}

test('what a connection was closed over for its length is not made again, all else is', async () => {
  const server = new ScriptedServer();
  const { client, clock } = await connected(server);
  const short = outcomeOf(client.call('queue_get', queued));
  const long = outcomeOf(client.queue('q').post('x'.repeat(3000)));
  await settle();
  server.socket.end(1009, 'Too long.');
  await clock.step(1);
  assert.ok(long.error instanceof BodyTooLarge, long.error);
  assert.match(long.error.message, /has 3\d\d\d bytes.*1009/);
  assert.equal(server.asked('message_post').length, 1);
  const [, { id, socket }] = server.asked('queue_get');
  socket.receive({ id, status: 200, body: {} });
  await settle();
  assert.deepEqual(short.value, {});
  assert.equal(server.sockets.length, 2);
  await client.close();
});

test('options that there are not are refused', async () => {
  const server = new ScriptedServer();
  const { client } = await connected(server);
  const queue = client.queue('q');
  const refused = { name: 'ZaqarError', message: /There is no option 'tll'/ };
  assert.throws(() => new Client('http://a.test', { tll: 1 }), refused);
  assert.throws(() => queue.subscribe({ tll: 1 }), refused);
  assert.throws(() => queue.consume({ tll: 1 }), refused);
  for (const ask of [
    () => queue.post('a', { tll: 1 }),
    () => queue.claim({ tll: 1 }),
    () => queue.create({}, { tll: 1 }),
    () => queue.messages({ tll: 1 }).next(),
    () => queue.subscriptions({ tll: 1 }).next(),
    () => client.queues({ tll: 1 }).next(),
    () => client.pools.list({ tll: 1 }).next(),
    () => client.call('queue_get', queued, { tll: 1 }),
    () => client.capabilities({ tll: 1 }),
  ]) await assert.rejects(async () => ask(), refused);
  assert.deepEqual(server.requests.map(({ action }) => action), ['hello']);
  await client.close();
});

test('an unknown option is told with all that the call takes', async () => {
  const server = new ScriptedServer();
  const { client } = await connected(server);
  const queue = client.queue('q');
  await assert.rejects(queue.post(1, { tll: 5 }), /no option 'tll' of post\(\); there are ttl, delay, deliverAt, attributes, group, postId, timeout, signal, headers\./);
  await assert.rejects(queue.claim({ tll: 5 }), /of claim\(\); there are limit, ttl, grace, wait, timeout/);
  await assert.rejects(client.ping({ tll: 5 }), /of a request; there are timeout, signal, headers\./);
  await client.close();
});

test('a client that belongs to no project is refused', async () => {
  const url = 'http://a.test';
  for (const options of [undefined, {}, { project: null, headers: { 'X-Roles': 'admin' } }]) {
    assert.throws(() => new Client(url, options), /Whose queues\? Give project: '\.\.\.', or a token/);
  }
  for (const options of [{ token: 'a token' }, { getToken: () => 'a token' }, { headers: { 'x-project-id': 'p' } }]) {
    await new Client(url, { ...options, transport: 'rest' }).close();
  }
});

test('a transport or URL that is none is refused', () => {
  assert.throws(() => new Client('http://a.test', { transport: 'pigeon' }), /no transport 'pigeon'; there are auto/);
  for (const url of ['', undefined, null, 'ftp://a.test', 'a.test', 'http://', 'mailto:a@b.test']) {
    assert.throws(() => new Client(url), (error) => error instanceof ZaqarError && /Not the URL of a server/.test(error.message));
  }
  assert.throws(() => new Client('http://a.test', { websocketUrl: 'ftp://a.test' }), /Not the URL of a server/);
});
