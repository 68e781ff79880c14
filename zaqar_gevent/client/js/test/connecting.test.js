// How a client gets and keeps its way to the server, with a clock that is stepped.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClientClosed, ConnectionLost, NotFound, NotZaqar, OutcomeUnknown, Timeout, Unauthorized } from '../zaqar.js';
import { outcomeOf, settle } from './clocks.js';
import { CAPABILITIES, ScriptedServer, clientOf } from './scripted_server.js';

const unreachable = () => {
  throw new TypeError('fetch failed');
};

async function connected(server, options) {
  const made = clientOf(server, options);
  await made.clock.step(0);
  assert.equal(made.client.state, 'websocket');
  return made;
}

test('a WebSocket is opened at once and greeted with who the client is', async () => {
  const server = new ScriptedServer();
  const { client, states } = await connected(server, { clientId: 'an id', token: 'a token' });
  assert.equal(server.socket.url, 'ws://scripted.test:8888/v2/ws');
  const [{ headers }] = server.asked('hello');
  const named = { 'Client-ID': 'an id', 'X-Project-ID': 'demo', 'X-Auth-Token': 'a token' };
  assert.deepEqual(headers, named);
  assert.deepEqual(states, ['websocket']);
  assert.deepEqual(await client.capabilities(), CAPABILITIES);
  assert.equal(client.protocol, 'zaqar.v2');
  await client.close();
  assert.deepEqual(states, ['websocket', 'closed']);
  await assert.rejects(client.ping(), ClientClosed);
});

test('a handshake that is swallowed leads to REST after 3 s, and back when the way is free', async () => {
  const server = new ScriptedServer();
  server.handshake = 'swallow';
  const { client, clock } = clientOf(server);
  await clock.step(2.9);
  assert.equal(client.state, 'connecting');
  await clock.step(0.1);
  assert.equal(client.state, 'polling');
  await clock.step(61);
  assert.equal(client.state, 'polling');
  assert.equal(server.sockets.length, 2);
  server.handshake = 'accept';
  await clock.step(64);
  assert.equal(client.state, 'websocket');
  await client.close();
});

test('one that is not greeted back within 3 s is as good as swallowed', async () => {
  const server = new ScriptedServer();
  const { client, clock } = clientOf(server);
  server.answer = () => new Promise(() => {});
  await clock.step(3);
  assert.equal(client.state, 'polling');
  assert.ok(server.socket.isClosed);
  await client.close();
});

test('a handshake that is refused leads to REST at once', async () => {
  const server = new ScriptedServer();
  server.handshake = 'refuse';
  const { client, clock, states } = clientOf(server);
  await clock.step(0.01);
  assert.deepEqual(states, ['polling']);
  await client.ping();
  assert.equal(server.restRequests.at(-1).path, '/v2/ping');
  await client.close();
});

test('a server that cannot be reached at all is tried on', async () => {
  const server = new ScriptedServer({ rest: unreachable });
  server.handshake = 'refuse';
  const { client, clock, states } = clientOf(server, { timeout: 2 });
  const refused = outcomeOf(client.ping());
  await clock.step(3);
  assert.deepEqual(states, []);
  assert.ok(server.sockets.length > 3);
  assert.ok(refused.error instanceof ConnectionLost, refused.error);
  server.handshake = 'accept';
  await clock.step(10);
  assert.deepEqual(states, ['websocket']);
  await client.close();
});

const PAGE = `<!DOCTYPE html>\n<h1>Hello</h1>\n${'x'.repeat(1000)}`;

for (const transport of ['auto', 'rest']) {
  for (const [status, text, kind] of [
    [200, PAGE, NotZaqar],
    [200, '["hello"]', NotZaqar],
    [404, PAGE, NotFound],
  ]) {
    test(`another web server that answers ${status} ${text.slice(0, 9)} to ${transport} is no Zaqar`, async () => {
      const server = new ScriptedServer({ rest: () => ({ status, text }) });
      server.handshake = 'refuse';
      server.capabilities = null;
      const { client, clock } = clientOf(server, { transport });
      const posted = outcomeOf(client.queue('q').post(1));
      await clock.step(1);
      assert.ok(posted.error instanceof kind, posted.error);
      const told = `The server at http://scripted.test:8888 is no Zaqar: it answered ${status}: ${text.slice(0, 9)}`;
      assert.ok(posted.error.message.includes(told), posted.error.message);
      assert.ok(posted.error.message.length < 300);
      await client.close();
    });
  }
}

for (const [code, kind, told] of [
  ['ECONNRESET', OutcomeUnknown, /The server at http:.* ended the connection without an answer: .*may be no Zaqar/],
  ['HPE_INVALID_CONSTANT', NotZaqar, /The server at http:.* is no Zaqar: it does not answer in HTTP/],
]) {
  test(`a server over which Node says ${code} may be no Zaqar`, async () => {
    const cut = ({ path }) => {
      if (path === '/v2/capabilities') return {};
      throw new TypeError('fetch failed', { cause: Object.assign(new Error('why'), { code }) });
    };
    const { client, clock } = clientOf(new ScriptedServer({ rest: cut }), { transport: 'rest' });
    const claimed = outcomeOf(client.queue('q').claim());
    await clock.step(1);
    assert.ok(claimed.error instanceof kind, claimed.error);
    assert.match(String(claimed.error.cause?.message ?? '') + claimed.error.message, told);
    await client.close();
  });
}

test('a server that is away is told of once in an outage, after 3 s', async (context) => {
  const warn = context.mock.method(console, 'warn', () => {});
  const told = () => warn.mock.calls.map((call) => call.arguments.join(' '));
  for (const transport of ['auto', 'websocket', 'rest']) {
    warn.mock.resetCalls();
    const server = new ScriptedServer({ rest: unreachable });
    server.handshake = 'refuse';
    if (transport === 'rest') server.capabilities = null;
    const { client, clock } = clientOf(server, { transport });
    const subscription = client.queue('q').subscribe();
    await clock.step(2.9);
    assert.deepEqual(told(), [], transport);
    await clock.step(100);
    assert.equal(told().length, 1, transport);
    assert.match(told()[0], /no connection to (http|ws):\/\/scripted\.test:8888.*tried again until the client is closed/);
    await subscription.close();
    await client.close();
    assert.deepEqual(clock.pending, [], transport);
  }
});

test('each outage is told of anew, and a short one not at all', async (context) => {
  const warn = context.mock.method(console, 'warn', () => {});
  const server = new ScriptedServer({ rest: unreachable });
  const { client, clock } = await connected(server);
  for (const [seconds, count] of [[1, 0], [10, 1], [10, 2]]) {
    server.handshake = 'refuse';
    server.socket.end();
    await clock.step(seconds);
    server.handshake = 'accept';
    await clock.step(60);
    assert.equal(client.state, 'websocket');
    assert.equal(warn.mock.callCount(), count);
  }
  await client.close();
});

test('a server that comes back between two questions is not taken for one without WebSockets', async () => {
  const server = new ScriptedServer({ rest: unreachable });
  const { client, clock, states } = await connected(server);
  server.handshake = 'refuse';
  server.socket.end();
  await clock.step(5);
  server.rest = () => ({ status: 200, body: {} });
  const tried = server.sockets.length;
  while (server.sockets.length === tried) await clock.step(0.1);
  server.handshake = 'accept';
  await clock.step(30);
  assert.deepEqual(states, ['websocket', 'connecting', 'websocket']);
  await client.close();
});

test('with the WebSocket alone REST is never asked', async () => {
  const server = new ScriptedServer();
  server.handshake = 'refuse';
  const { client, clock } = clientOf(server, { transport: 'websocket' });
  await clock.step(60);
  assert.equal(client.state, 'connecting');
  assert.ok(server.sockets.length > 5);
  assert.deepEqual(server.restRequests, []);
  await client.close();
});

test('with REST alone no WebSocket is opened', async () => {
  const server = new ScriptedServer();
  const { client, clock } = clientOf(server, { transport: 'rest' });
  await clock.step(100);
  assert.equal(client.state, 'polling');
  assert.deepEqual(server.sockets, []);
  await client.close();
});

test('a server that says when to come back is left alone until then', async () => {
  const server = new ScriptedServer();
  const { client, clock, states } = await connected(server);
  server.socket.receive({ push: 'closing', reason: 'Stopping.', reconnect_after_ms: 5000 });
  server.socket.end(1001, 'Stopping.');
  await clock.step(4.9);
  assert.equal(server.sockets.length, 1);
  assert.equal(client.state, 'connecting');
  await clock.step(0.2);
  assert.deepEqual(states, ['websocket', 'connecting', 'websocket']);
  await client.close();
});

test('connections that are lost three times in 60 s lead to REST', async () => {
  const server = new ScriptedServer();
  const { client, clock } = await connected(server);
  for (let round = 0; round < 3; round += 1) {
    assert.equal(client.state, 'websocket');
    await clock.step(5);
    server.socket.end();
    await clock.step(1);
  }
  assert.equal(client.state, 'polling');
  await client.close();
});

test('upstream, which knows no subprotocol, is spoken to in its own envelope', async () => {
  const server = new ScriptedServer();
  server.handshake = 'default';
  server.capabilities = null;
  server.rest = () => ({ status: 404, body: {} });
  server.answer = ({ action, headers }) => ({
    request: { action, headers, body: {}, api: 'v2' },
    headers: { status: action === 'queue_create' ? 201 : 404 },
    body: { error: 'There is none.', exception: 'NotFound' },
  });
  const { client, clock } = clientOf(server);
  await clock.step(0.1);
  assert.equal(client.state, 'websocket');
  assert.equal(client.protocol, 'default');
  assert.equal(await client.queue('q').create(), true);
  assert.equal(server.asked('queue_create')[0].headers['X-Project-ID'], 'demo');
  await assert.rejects(client.queue('q').getMetadata(), (error) => {
    assert.ok(error instanceof NotFound);
    assert.deepEqual([error.code, error.description], ['not_found', 'There is none.']);
    return true;
  });
  await client.close();
});

test('a silent connection is asked after 20 s, and given up after 10 s more', async () => {
  const server = new ScriptedServer();
  const { client, clock } = await connected(server);
  await clock.step(19.9);
  assert.equal(server.asked('ping').length, 0);
  await clock.step(0.2);
  assert.equal(server.asked('ping').length, 1);
  await clock.step(9.7);
  assert.equal(client.state, 'websocket');
  await clock.step(0.3);
  assert.ok(server.sockets[0].isClosed);
  await client.close();
});

test('one that answers is kept', async () => {
  const server = new ScriptedServer({ answer: ({ action }) => action === 'ping' && { status: 200, body: {} } });
  const { client, clock } = await connected(server);
  await clock.step(300);
  assert.equal(server.sockets.length, 1);
  assert.ok(server.asked('ping').length >= 14);
  await client.close();
});

test('what cannot be read ends the connection, and no more', async () => {
  const server = new ScriptedServer();
  const { client, clock, states } = await connected(server);
  server.socket.onmessage({ data: '{' });
  await clock.step(1);
  assert.deepEqual(states, ['websocket', 'connecting', 'websocket']);
  await client.close();
});

const answering =
  (...actions) =>
  ({ action }) =>
    actions.includes(action) && { status: 200, body: {} };

const asMany = (tokens) => () => tokens.shift();

test('a token is replaced in place before it ends', async () => {
  const server = new ScriptedServer({ answer: answering('authenticate', 'ping') });
  const tokens = [{ token: 'first', expiresAt: 1000e3 + 600e3 }, { token: 'second', expiresAt: 1000e3 + 9000e3 }];
  const { client, clock } = await connected(server, { getToken: asMany(tokens) });
  await clock.step(530);
  assert.deepEqual(server.asked('authenticate'), []);
  await clock.step(20);
  assert.equal(server.asked('authenticate')[0].headers['X-Auth-Token'], 'second');
  assert.equal(server.asked('hello').length, 1);
  await client.close();
});

test('a connection that is closed with 4003 is opened again at once, with another token', async () => {
  const server = new ScriptedServer();
  const { client, clock, states } = await connected(server, { getToken: asMany(['first', 'second']) });
  server.socket.end(4003, 'The token has expired.');
  await clock.step(0.01);
  const tokens = server.asked('hello').map(({ headers }) => headers['X-Auth-Token']);
  assert.deepEqual(tokens, ['first', 'second']);
  assert.deepEqual(states, ['websocket', 'connecting', 'websocket']);
  await client.close();
});

const unauthorized = { status: 401, body: { code: 'unauthorized', title: 'Unauthorized', description: 'No.' } };

test('a token that is refused is asked for anew, once, over the WebSocket and over REST', async () => {
  const wanted = new ScriptedServer({
    answer: ({ headers }) => (headers?.['X-Auth-Token'] === 'first' ? unauthorized : undefined),
  });
  const socket = await connected(wanted, { getToken: asMany(['first', 'second']) });
  await socket.client.close();
  const rest = new ScriptedServer({
    rest: ({ headers }) => (headers['X-Auth-Token'] === 'second' ? { status: 204, body: null } : unauthorized),
  });
  const { client, clock } = clientOf(rest, { transport: 'rest', getToken: asMany(['first', 'second']) });
  const pinged = outcomeOf(client.ping());
  await clock.step(1);
  assert.equal(pinged.value, true);
  await client.close();
});

test('who has no other token is told, and the next one asks again', async () => {
  const server = new ScriptedServer({ answer: () => unauthorized });
  const { client, clock } = clientOf(server, { token: 'wrong' });
  const first = outcomeOf(client.ping());
  await clock.step(0.1);
  assert.ok(first.error instanceof Unauthorized);
  assert.equal(server.sockets.length, 1);
  server.answer = ({ action }) => action === 'ping_node' && { status: 204, body: {} };
  const second = outcomeOf(client.ping());
  await clock.step(1);
  assert.equal(second.value, true);
  await client.close();
});

test('a request that is not answered in time fails by its timeout, and by its signal', async () => {
  const server = new ScriptedServer();
  const { client, clock } = await connected(server);
  const late = outcomeOf(client.call('queue_get', { queue_name: 'q' }, { timeout: 5 }));
  const abort = new AbortController();
  const given = outcomeOf(client.call('queue_get', { queue_name: 'q' }, { signal: abort.signal }));
  await clock.step(4.9);
  assert.equal(late.error, undefined);
  await clock.step(0.2);
  assert.ok(late.error instanceof Timeout);
  abort.abort(new Error('not wanted'));
  await settle();
  assert.equal(given.error.message, 'not wanted');
  await client.close();
});

test('nothing is left to be done when a client is closed', async () => {
  const server = new ScriptedServer();
  const { client, clock } = await connected(server);
  const asked = outcomeOf(client.call('queue_get', { queue_name: 'q' }));
  const next = outcomeOf(client.queue('q').subscribe().next());
  await settle();
  await client.close();
  await settle();
  assert.ok(asked.error instanceof ConnectionLost || asked.error instanceof ClientClosed);
  assert.deepEqual(next.value, { value: undefined, done: true });
  assert.deepEqual(clock.pending, []);
});
