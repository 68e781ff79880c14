// Subscriptions and consumers: pushed or polled, at the pace of who reads.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AccessEnded, Forbidden, Timeout } from '../zaqar.js';
import { settle } from './clocks.js';
import { ScriptedServer, clientOf } from './scripted_server.js';

const idOf = (number) => String(number).padStart(16, '0');
const messageOf = (number) => ({ id: idOf(number), ttl: 60, age: 0, claim_id: null, body: number });

async function connected(server, options) {
  const made = clientOf(server, options);
  await made.clock.step(0);
  return made;
}

async function read(stream, count) {
  const bodies = [];
  while (bodies.length < count) bodies.push((await stream.next()).value.body);
  return bodies;
}

const range = (start, end) => Array.from({ length: end - start }, (_, index) => start + index);

// A server that subscribes whoever asks, and can be told to push.
class PushingServer extends ScriptedServer {
  subscriptions = 0;

  constructor() {
    super({
      answer: ({ action }) => {
        if (action === 'subscription_create') {
          this.subscriptions += 1;
          return { status: 201, body: { subscription_id: `s${this.subscriptions}`, marker: idOf(0) } };
        }
        return action === 'subscription_delete' || action === 'subscription_resume'
          ? { status: 204, body: {} }
          : undefined;
      },
    });
  }

  push(number, socket = this.socket, subscription = `s${this.subscriptions}`) {
    const [marker, message] = [idOf(number), messageOf(number)];
    const whose = { subscription_id: subscription, queue_name: 'q' };
    socket.receive({ push: 'message', ...whose, marker, message });
  }
}

test('a subscription says where it begins, and where it is', async () => {
  const server = new PushingServer();
  const { client } = await connected(server);
  const subscription = client.queue('q').subscribe();
  assert.equal(subscription.marker, null);
  await subscription.ready;
  assert.equal(subscription.marker, idOf(0));
  assert.equal('marker' in server.asked('subscription_create')[0].body, false);
  for (const number of [1, 2, 3]) server.push(number);
  assert.deepEqual(await read(subscription, 2), [1, 2]);
  assert.equal(subscription.marker, idOf(2));
  await client.close();
});

test('after its connection died it goes on behind the last message that came', async () => {
  const server = new PushingServer();
  const { client, clock } = await connected(server);
  const subscription = client.queue('q').subscribe({ marker: '' });
  await settle();
  for (const number of [1, 2, 3]) server.push(number);
  server.socket.end();
  await clock.step(1);
  const markers = server.asked('subscription_create').map(({ body }) => body.marker);
  assert.deepEqual(markers, ['', idOf(3)]);
  for (const number of [3, 4]) server.push(number);
  assert.deepEqual(await read(subscription, 4), [1, 2, 3, 4]);
  await client.close();
});

test('one that has not been answered yet when its connection dies loses nothing', async () => {
  const server = new PushingServer();
  const answer = server.answer;
  server.answer = () => undefined;
  const { client, clock } = await connected(server);
  const subscription = client.queue('q').subscribe({ marker: idOf(7) });
  await settle();
  server.answer = answer;
  server.socket.end();
  await clock.step(1);
  server.push(8);
  assert.deepEqual(await read(subscription, 1), [8]);
  await client.close();
});

test('a reader that is slow is pushed no more than fits, and then the rest', async () => {
  const server = new PushingServer();
  const { client } = await connected(server);
  const subscription = client.queue('q').subscribe({ marker: '' });
  await settle();
  for (const number of range(1, 2001)) server.push(number, server.socket, 's1');
  await settle();
  assert.deepEqual(server.asked('subscription_delete')[0].body, { queue_name: 'q', subscription_id: 's1' });
  assert.equal(server.subscriptions, 1);
  assert.deepEqual(await read(subscription, 499), range(1, 500));
  await settle();
  assert.equal(server.subscriptions, 1);
  await read(subscription, 1);
  await settle();
  assert.equal(server.asked('subscription_create')[1].body.marker, idOf(1000));
  for (const number of range(1001, 1101)) server.push(number);
  assert.deepEqual(await read(subscription, 600), range(501, 1101));
  await client.close();
});

test('one that the server has paused goes on where it stands', async () => {
  const server = new PushingServer();
  const { client } = await connected(server);
  const subscription = client.queue('q').subscribe({ marker: '' });
  await settle();
  for (const number of range(1, 701)) server.push(number);
  server.socket.receive({ push: 'paused', subscription_id: 's1', marker: null });
  await settle();
  assert.deepEqual(server.asked('subscription_resume'), []);
  await read(subscription, 200);
  await settle();
  const [{ body }] = server.asked('subscription_resume');
  assert.deepEqual(body, { subscription_id: 's1', marker: idOf(700) });
  await client.close();
});

test('one that ends with an expired token or another user is made anew where it stands', async () => {
  for (const reason of ['token_expired', 'user_changed']) {
    const server = new PushingServer();
    const { client } = await connected(server);
    const subscription = client.queue('q').subscribe({ marker: '' });
    await settle();
    for (const number of [1, 2]) server.push(number);
    server.socket.receive({ push: 'ended', subscription_id: 's1', queue_name: 'q', reason, description: '' });
    await settle();
    assert.equal(server.subscriptions, 2);
    assert.equal(server.asked('subscription_create')[1].body.marker, idOf(2));
    server.push(3);
    assert.deepEqual(await read(subscription, 3), [1, 2, 3]);
    await client.close();
  }
});

test('one that ends with its project or pre-signed URL fails when all that came is read', async () => {
  for (const reason of ['project_changed', 'signature_expired']) {
    const server = new PushingServer();
    const { client } = await connected(server);
    const subscription = client.queue('q').subscribe({ marker: '' });
    await settle();
    server.push(1);
    const push = { push: 'ended', subscription_id: 's1', queue_name: 'q', reason, description: 'Why.' };
    server.socket.receive(push);
    await settle();
    assert.deepEqual(await read(subscription, 1), [1]);
    await assert.rejects(subscription.next(), (error) => {
      assert.ok(error instanceof AccessEnded);
      assert.deepEqual([error.reason, error.message], [reason, 'Why.']);
      return true;
    });
    assert.equal(server.subscriptions, 1);
    await client.close();
  }
});

test('a consumer that ends with its project fails, and one that ends with its user goes on', async () => {
  for (const [reason, count] of [['user_changed', 2], ['project_changed', 1]]) {
    const server = new ScriptedServer({
      answer: ({ action }) =>
        action === 'queue_consume'
          ? { status: 201, body: { consumer_id: `c${server.asked('queue_consume').length}` } }
          : undefined,
    });
    const { client } = await connected(server);
    const consumer = client.queue('q').consume();
    await settle();
    server.socket.receive({ push: 'message', consumer_id: 'c1', queue_name: 'q', message: messageOf(1) });
    const push = { push: 'ended', consumer_id: 'c1', queue_name: 'q', reason, description: 'Why.' };
    server.socket.receive(push);
    await settle();
    assert.equal(consumer.unsettled, 0);
    assert.equal(server.asked('queue_consume').length, count);
    if (count === 1) await assert.rejects(consumer.next(), AccessEnded);
    await client.close();
  }
});

test('who leaves the loop ends the subscription', async () => {
  const server = new PushingServer();
  const { client } = await connected(server);
  const subscription = client.queue('q').subscribe({ marker: '' });
  await settle();
  for (const number of [1, 2, 3]) server.push(number);
  for await (const message of subscription) {
    assert.equal(message.queueName, 'q');
    if (message.body === 2) break;
  }
  assert.equal(server.asked('subscription_delete').length, 1);
  assert.deepEqual(await subscription.next(), { value: undefined, done: true });
  await client.close();
});

test('a wait for a message ends in time or by its signal, and takes nothing', async () => {
  const server = new PushingServer();
  const { client, clock } = await connected(server);
  const subscription = client.queue('q').subscribe({ marker: '' });
  await settle();
  const late = assert.rejects(subscription.next({ timeout: 2 }), Timeout);
  await clock.step(2.1);
  await late;
  const abort = new AbortController();
  const given = assert.rejects(subscription.next({ signal: abort.signal }), { message: 'enough' });
  abort.abort(new Error('enough'));
  await given;
  server.push(1);
  assert.deepEqual(await read(subscription, 1), [1]);
  await client.close();
});

test('a signal ends a subscription with its reason', async () => {
  const server = new PushingServer();
  const { client } = await connected(server);
  const abort = new AbortController();
  const subscription = client.queue('q').subscribe({ marker: '', signal: abort.signal });
  await settle();
  const next = assert.rejects(subscription.next(), { message: 'enough' });
  abort.abort(new Error('enough'));
  await next;
  await settle();
  assert.equal(server.asked('subscription_delete').length, 1);
  await client.close();
});

test('what the server forbids ends a subscription with the error', async () => {
  const error = { code: 'forbidden', title: 'Not authorized', description: 'No.' };
  const server = new ScriptedServer({
    answer: ({ action }) => action === 'subscription_create' && { status: 403, body: error },
  });
  const { client } = await connected(server);
  const subscription = client.queue('q').subscribe();
  await assert.rejects(subscription.next(), Forbidden);
  await assert.rejects(subscription.ready, Forbidden);
  await client.close();
});

// A queue behind REST, whose messages' ids are markers.
class PolledServer extends ScriptedServer {
  messages = [];
  lists = [];

  constructor() {
    super({
      rest: ({ path, query }) => {
        if (path.endsWith('/stats')) return { status: 200, body: this.#stats() };
        this.lists.push(Object.fromEntries(query));
        return { status: 200, body: this.page(path, query) };
      },
    });
    this.handshake = 'refuse';
  }

  #stats() {
    const newest = this.messages.length ? { newest: { href: `/x/${this.messages.at(-1).id}` } } : {};
    return { messages: { claimed: 0, free: 0, total: 0, ...newest } };
  }

  page(path, query) {
    const found = this.messages.filter(({ id }) => id > (query.get('marker') ?? '')).slice(0, 20);
    const messages = found.map(({ claim_id, ...one }) => ({ ...one, href: `${path}/${one.id}` }));
    const links = [{ rel: 'next', href: `${path}?limit=20&marker=${found.at(-1)?.id}` }];
    return found.length ? { messages, links } : { messages: [], links: [] };
  }
}

test('over REST all is read by pages, and then asked for again at growing distances', async () => {
  const server = new PolledServer();
  server.capabilities = { protocols: ['zaqar.v2'], max_wait: 0 };
  server.messages = range(1, 51).map(messageOf);
  const { client, clock } = await connected(server);
  const subscription = client.queue('q').subscribe({ marker: '' });
  await clock.step(0);
  assert.deepEqual(await read(subscription, 50), range(1, 51));
  const asked = server.lists.length;
  await clock.step(0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 0.01);
  assert.equal(server.lists.length - asked, 5);
  await clock.step(20);
  assert.equal(server.lists.length - asked, 5 + 10);
  server.messages.push(messageOf(51));
  await clock.step(2);
  assert.deepEqual(await read(subscription, 1), [51]);
  const { marker, wait, ...others } = server.lists.at(-1);
  assert.equal(wait, undefined);
  assert.deepEqual(others, { limit: '20', echo: 'true', include_claimed: 'true' });
  await client.close();
});

test('over REST "from now on" begins behind the newest message', async () => {
  const server = new PolledServer();
  server.messages = [messageOf(1), messageOf(2)];
  server.capabilities = { protocols: ['zaqar.v2'], max_wait: 0 };
  const { client, clock } = await connected(server);
  const subscription = client.queue('q').subscribe();
  await clock.step(0);
  await subscription.ready;
  assert.equal(subscription.marker, idOf(2));
  server.messages.push(messageOf(3));
  await clock.step(1);
  assert.deepEqual(await read(subscription, 1), [3]);
  await client.close();
});

test('a store that begins anew where a marker is gone brings nothing twice', async () => {
  const server = new PolledServer();
  server.messages = range(1, 11).map(messageOf);
  server.capabilities = { protocols: ['zaqar.v2'], max_wait: 0 };
  const { client, clock } = await connected(server);
  const subscription = client.queue('q').subscribe({ marker: '' });
  await clock.step(0);
  await read(subscription, 10);
  const page = server.page.bind(server);
  server.page = (path) => page(path, new URLSearchParams());
  server.messages.push(messageOf(11));
  await clock.step(2);
  assert.deepEqual(await read(subscription, 1), [11]);
  server.page = page;
  await client.close();
});

test('it begins again where the store does not know its marker any more, and says so', async () => {
  for (const transport of ['websocket', 'rest']) {
    let isReplaced = false;
    const unknown = { code: 'unknown_marker', title: 'Unknown marker', description: 'no such' };
    const server = transport === 'rest' ? new PolledServer() : new PushingServer();
    const isUnknown = (marker) => {
      const isSo = isReplaced && Boolean(marker) && !/^0+$/.test(marker);
      if (isSo) isReplaced = false;
      return isSo;
    };
    if (transport === 'rest') {
      server.messages = [1, 2].map(messageOf);
      const answer = server.rest;
      server.rest = (request) =>
        isUnknown(request.query.get('marker')) ? { status: 400, body: unknown } : answer(request);
    } else {
      const { answer } = server;
      server.answer = (request) =>
        isUnknown(request.body.marker) ? { status: 400, body: unknown } : answer(request);
    }
    const { client, clock } = await connected(server, { transport });
    const told = [];
    client.addEventListener('restart', ({ queueName, marker, error }) => told.push([queueName, marker, error.code]));
    const subscription = client.queue('q').subscribe({ marker: '' });
    await clock.step(0);
    if (transport === 'websocket') for (const number of [1, 2]) server.push(number);
    await clock.step(1);
    assert.deepEqual(await read(subscription, 2), [1, 2]);
    isReplaced = true;
    if (transport === 'rest') server.messages = [1, 2].map((number) => ({ ...messageOf(number), body: -number }));
    else server.socket.end();
    await clock.step(25);
    if (transport === 'websocket') {
      assert.equal(server.asked('subscription_create').at(-1).body.marker, '');
      server.socket.receive({ push: 'message', subscription_id: `s${server.subscriptions}`, queue_name: 'q', marker: idOf(1), message: { ...messageOf(1), body: -1 } });
    }
    assert.deepEqual(await read(subscription, 1), [-1]);
    assert.equal(subscription.restarts, 1);
    assert.deepEqual(told, [['q', idOf(2), 'unknown_marker']]);
    await client.close();
  }
});

test('the marker of an empty page is where it stands', async () => {
  const server = new PolledServer();
  server.messages = [messageOf(1)];
  const page = server.page.bind(server);
  server.page = (path, query) => {
    const found = page(path, new URLSearchParams({ marker: (query.get('marker') ?? '').replace('-e', '') }));
    const last = found.messages.at(-1)?.href.split('/').at(-1) ?? query.get('marker')?.replace('-e', '');
    if (query.has('wait') && last) found.links = [{ rel: 'next', href: `${path}?marker=${last}-e` }];
    return found;
  };
  const { client, clock } = await connected(server, { transport: 'rest' });
  const subscription = client.queue('q').subscribe({ marker: '' });
  await clock.step(1);
  await read(subscription, 1);
  assert.equal(subscription.marker, `${idOf(1)}-e`);
  const other = client.queue('q').subscribe({ marker: idOf(1) });
  await clock.step(1);
  assert.equal(other.marker, `${idOf(1)}-e`);
  await client.close();
});

test('where only pages have markers, one in the midst of a page stands at its beginning', async () => {
  const server = new PolledServer();
  server.messages = range(1, 26).map(messageOf);
  server.capabilities = { protocols: ['zaqar.v2'], max_wait: 0 };
  const page = server.page.bind(server);
  server.page = (path, query) => {
    const found = page(path, new URLSearchParams({ marker: (query.get('marker') ?? '').replace('p', '') }));
    for (const link of found.links) link.href = link.href.replace('marker=', 'marker=p');
    return found;
  };
  const { client, clock } = await connected(server);
  const subscription = client.queue('q').subscribe({ marker: '' });
  await clock.step(1);
  await read(subscription, 19);
  assert.equal(subscription.marker, '');
  await read(subscription, 1);
  assert.equal(subscription.marker, `p${idOf(20)}`);
  await read(subscription, 1);
  assert.equal(subscription.marker, `p${idOf(20)}`);
  await client.close();
});

test('it moves between WebSocket and REST, always behind the last message', async () => {
  const server = new PolledServer();
  server.capabilities = { ...server.capabilities, protocols: ['zaqar.v2'], max_wait: 0, max_in_flight: 64 };
  server.messages = range(1, 6).map(messageOf);
  const { client, clock, states } = await connected(server);
  const subscription = client.queue('q').subscribe({ marker: '' });
  await clock.step(1);
  const pushing = new PushingServer();
  server.answer = pushing.answer;
  server.handshake = 'accept';
  await clock.step(60);
  assert.deepEqual(states, ['polling', 'websocket']);
  assert.equal(server.asked('subscription_create')[0].body.marker, idOf(5));
  pushing.push(6, server.socket);
  server.handshake = 'refuse';
  server.messages.push(messageOf(6), messageOf(7));
  server.socket.end();
  await clock.step(1);
  assert.deepEqual(states, ['polling', 'websocket', 'connecting', 'polling']);
  assert.deepEqual(await read(subscription, 7), range(1, 8));
  await client.close();
});

// A server that leases messages to consumers.
class WorkServer extends ScriptedServer {
  consumers = 0;

  constructor() {
    super({
      answer: ({ action }) => {
        if (action !== 'queue_consume') return { status: 204, body: {} };
        this.consumers += 1;
        return { status: 201, body: { consumer_id: `c${this.consumers}` } };
      },
    });
    const answer = this.answer;
    this.answer = (request) => (request.action === 'hello' ? undefined : answer(request));
  }

  push(number) {
    const message = { ...messageOf(number), claim_id: `claim${number}` };
    const whose = { consumer_id: `c${this.consumers}`, queue_name: 'q' };
    this.socket.receive({ push: 'message', ...whose, message });
  }
}

test('a consumer settles its messages one by one, and gives back the rest', async () => {
  const server = new WorkServer();
  const { client } = await connected(server);
  const consumer = client.queue('q').consume({ credit: 5, ttl: 90 });
  await settle();
  const [{ body }] = server.asked('queue_consume');
  assert.deepEqual(body, { queue_name: 'q', credit: 5, ttl: 90 });
  for (const number of [1, 2, 3]) server.push(number);
  const [first, second] = [(await consumer.next()).value, (await consumer.next()).value];
  assert.equal(consumer.unsettled, 3);
  assert.equal(await first.ack(), true);
  assert.equal(await second.release(), true);
  assert.equal(consumer.unsettled, 1);
  assert.deepEqual(server.asked('message_ack')[0].body, { consumer_id: 'c1', message_ids: [idOf(1)] });
  assert.deepEqual(server.asked('message_release')[0].body, { consumer_id: 'c1', message_ids: [idOf(2)] });
  await consumer.close();
  assert.deepEqual(server.asked('consumer_stop')[0].body, { consumer_id: 'c1' });
  await client.close();
});

test('a consumer ends after the messages that were settled before', async () => {
  const server = new WorkServer();
  const { client } = await connected(server);
  const consumer = client.queue('q').consume({ credit: 5 });
  await settle();
  server.push(1);
  const [{ value: message }] = [await consumer.next()];
  const others = server.answer;
  let acknowledge;
  const acknowledged = new Promise((resolve) => (acknowledge = () => resolve({ status: 204, body: {} })));
  server.answer = (request) => (request.action === 'message_ack' ? acknowledged : others(request));
  const told = message.ack();
  const closed = consumer.close();
  await settle();
  assert.equal(server.asked('message_ack').length, 1);
  assert.equal(server.asked('consumer_stop').length, 0);
  acknowledge();
  assert.equal(await told, true);
  await closed;
  assert.equal(server.asked('consumer_stop').length, 1);
  await client.close();
});

test('a client that is closed leaves no timer of a consumer behind, which would keep Node running', async () => {
  for (const transport of ['websocket', 'rest']) {
    const server = new WorkServer();
    server.rest = ({ method, path }) =>
      method === 'POST' && path.endsWith('/claims')
        ? { status: 201, body: { claim_id: 'c', messages: [{ ...messageOf(1), href: `/v2/queues/q/messages/${idOf(1)}?claim_id=c` }] } }
        : { status: 200, body: {} };
    const { client, clock } = await connected(server, { transport });
    const consumer = client.queue('q').consume({ credit: 1 });
    await settle();
    if (transport === 'websocket') server.push(1);
    assert.equal((await consumer.next()).value.body, 1);
    await client.close();
    await settle();
    assert.deepEqual(clock.pending, [], transport);
  }
});

test('what a consumer had when its connection died is deleted under its claim, if that stands', async () => {
  const server = new WorkServer();
  const { client, clock } = await connected(server);
  const consumer = client.queue('q').consume({ credit: 5 });
  await settle();
  for (const number of [1, 2, 3]) server.push(number);
  const [first, second] = [(await consumer.next()).value, (await consumer.next()).value];
  server.socket.end();
  await clock.step(1);
  assert.equal(server.consumers, 2);
  assert.equal(await first.ack(), true);
  const { body } = server.asked('message_delete')[0];
  assert.deepEqual(body, { queue_name: 'q', message_id: idOf(1), claim_id: 'claim1' });
  server.answer = ({ action }) => action === 'message_delete' && {
    status: 400,
    body: { code: 'bad_request', title: 'Unable to delete', description: 'The claim has expired.' },
  };
  assert.equal(await second.ack(), false);
  server.push(4);
  assert.equal((await consumer.next()).value.body, 4);
  await client.close();
});

// A queue behind REST whose messages can be claimed.
class ClaimedServer extends ScriptedServer {
  left = range(1, 6);
  claims = 0;
  asked = [];

  constructor() {
    super({ rest: (request) => this.#rest(request) });
    this.capabilities = { protocols: ['zaqar.v2'], max_wait: 0 };
  }

  #rest({ method, path, query }) {
    this.asked.push(`${method} ${path.replace('/v2/queues/q', '')}`);
    if (method !== 'POST') return { status: 204, body: null };
    const found = this.left.splice(0, Number(query.get('limit')));
    if (!found.length) return { status: 204, body: null };
    this.claims += 1;
    const href = (number) => `/v2/queues/q/messages/${idOf(number)}?claim_id=k${this.claims}`;
    const messages = found.map((number) => ({ id: idOf(number), body: number, ttl: 60, age: 0, href: href(number) }));
    return { status: 201, body: { messages } };
  }
}

test('over REST a consumer claims up to its credit, renews, and gives a claim back when all is settled', async () => {
  const server = new ClaimedServer();
  const { client, clock } = await connected(server, { transport: 'rest' });
  const consumer = client.queue('q').consume({ credit: 3, ttl: 100 });
  await clock.step(1);
  assert.deepEqual(server.left, [4, 5]);
  const messages = [];
  for (let count = 0; count < 3; count += 1) messages.push((await consumer.next()).value);
  assert.deepEqual(messages.map(({ claimId }) => claimId), ['k1', 'k1', 'k1']);
  await clock.step(101);
  assert.deepEqual(server.asked.filter((one) => one === 'PATCH /claims/k1').length, 2);
  await messages[0].ack();
  await messages[1].release();
  assert.equal(server.asked.includes('DELETE /claims/k1'), false);
  await messages[2].ack();
  assert.equal(server.asked.filter((one) => one === 'DELETE /claims/k1').length, 1);
  await clock.step(1);
  assert.deepEqual(server.left, []);
  await consumer.close();
  assert.equal(server.asked.filter((one) => one === 'DELETE /claims/k2').length, 1);
  await client.close();
  assert.deepEqual(clock.pending, []);
});
