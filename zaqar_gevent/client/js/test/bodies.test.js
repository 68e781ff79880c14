// A body is stored as it was given, or refused before it is sent: over every transport and encoding.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EncodingError, decode, encode, fromJSON, toJSON } from '../zaqar.js';
import { ScriptedServer, clientOf } from './scripted_server.js';

class Order {
  constructor(sku) {
    this.sku = sku;
  }
}

class Money {
  toJSON() {
    return '7.50';
  }
}

function circular() {
  const list = [];
  list.push(list);
  return list;
}

function nested(levels) {
  let list = [];
  for (let level = 1; level < levels; level += 1) list = [list];
  return list;
}

const REFUSED = {
  'not a number': NaN,
  'infinity': Infinity,
  'minus infinity': -Infinity,
  'an integer of 64 bits without sign': 2n ** 63n,
  'an integer of 65 bits': 2n ** 64n,
  'too many levels': nested(64),
  'a negative integer of 65 bits': -(2n ** 63n) - 1n,
  'a function': () => {},
  'a symbol': Symbol('a'),
  'a map': new Map([[1, 2]]),
  'a set': new Set([1]),
  'a weak map': new WeakMap(),
  'a promise': Promise.resolve(1),
  'a regular expression': /a/,
  'an error': new Error('a'),
  'a boxed number': Object(1),
  'a boxed text': Object('a'),
  'a boxed boolean': Object(false),
  'bytes': Uint8Array.of(1, 2),
  'floats': Float64Array.of(1.5),
  'a buffer of Node': Buffer.from('a'),
  'an array buffer': new ArrayBuffer(2),
  'a data view': new DataView(new ArrayBuffer(2)),
  'an invalid date': new Date(NaN),
  'the parameters of a query': new URLSearchParams('a=b'),
  'half of a surrogate pair': '\ud800',
  'the other half': 'a\udc00b',
  'a gap': [1, , 3],
  'an array that holds undefined': [undefined],
  'a member named by a symbol': { [Symbol('a')]: 1 },
  'half of a pair in a name': { '\ud800': 1 },
  'what holds itself': circular(),
  'what toJSON makes undefined': [{ toJSON: () => undefined }],
};

const SENT = {
  'an empty text': ['', ''],
  'null': [null, null],
  'false': [false, false],
  'nothing': [{}, {}],
  'an empty list': [[], []],
  'minus zero': [-0, -0],
  'the smallest number': [5e-324, 5e-324],
  'a large number': [1e300, 1e300],
  'a BigInt': [2n ** 63n - 1n, 2n ** 63n - 1n],
  'a date': [new Date(0), '1970-01-01T00:00:00.000Z'],
  'a URL': [new URL('http://a.example/'), 'http://a.example/'],
  'what has toJSON': [new Money(), '7.50'],
  'an object of a class': [new Order(7), { sku: 7 }],
  'an object without prototype': [Object.assign(Object.create(null), { a: 1 }), { a: 1 }],
  'a member that is undefined': [{ a: undefined, b: 1 }, { b: 1 }],
  'a byte order mark': ['\ufeffa', '\ufeffa'],
  'line ends': ['a\r\nb\0', 'a\r\nb\0'],
  'a pair of surrogates': ['\ud83d\ude00', '\ud83d\ude00'],
};

const WAYS = [
  { transport: 'websocket', encoding: 'msgpack' },
  { transport: 'websocket', encoding: 'json' },
  { transport: 'rest', encoding: 'json' },
];

async function connected(way) {
  const posted = { status: 201, body: { message_ids: ['1'] } };
  const server = new ScriptedServer({
    answer: ({ action }) => (action === 'message_post' ? posted : undefined),
    rest: () => ({ status: 201, body: { resources: ['/v2/queues/q/messages/1'] } }),
  });
  const made = clientOf(server, way);
  await made.clock.step(0);
  return { server, ...made };
}

const bodiesIn = (requests) =>
  requests.flatMap(({ body }) => body?.messages ?? []).map(({ body }) => body);

for (const way of WAYS) {
  for (const [what, body] of Object.entries(REFUSED)) {
    test(`${what} is refused (${way.transport}, ${way.encoding})`, async () => {
      const { server, client } = await connected(way);
      for (const one of [[body], [{ deep: { down: body } }], [[body]]]) {
        await assert.rejects(client.queue('q').post(one), EncodingError);
      }
      assert.deepEqual(bodiesIn([...server.requests, ...server.restRequests]), []);
      await client.close();
    });
  }

  for (const [what, [body, expected]] of Object.entries(SENT)) {
    test(`${what} is sent as it is (${way.transport}, ${way.encoding})`, async () => {
      const { server, client } = await connected(way);
      await client.queue('q').post([body, { deep: [body] }]);
      const sent = bodiesIn([...server.requests, ...server.restRequests]);
      assert.deepStrictEqual(sent, [expected, { deep: [expected] }]);
      await client.close();
    });
  }
}

test('a refusal says where', async () => {
  const { client } = await connected(WAYS[0]);
  const where = /NaN cannot be sent - at \$\.messages\[1\]\.body\.a\[1\]\.b/;
  await assert.rejects(client.queue('q').post([1, { a: [1, { b: NaN }] }]), where);
  await client.close();
});

test('minus zero stays minus zero in either encoding', () => {
  assert.ok(Object.is(decode(encode(-0)), -0));
  assert.ok(Object.is(fromJSON(toJSON(-0)), -0));
});

test('a document has as many levels as servers take, envelope included', async () => {
  const { server, client } = await connected(WAYS[0]);
  // In the envelope, its body, the list of messages, and a message.
  await client.queue('q').post([nested(60)]);
  assert.deepEqual(bodiesIn(server.requests), [nested(60)]);
  await assert.rejects(client.queue('q').post([nested(61)]), /more than 64 levels.* - at \$\.messages\[0\]\.body/);
  await client.close();
});

test('undefined is no body', async () => {
  const { server, client } = await connected(WAYS[0]);
  await assert.rejects(client.queue('q').post(undefined), EncodingError);
  await assert.rejects(client.queue('q').post(), /undefined cannot be sent - at \$\.messages\[0\]\.body/);
  assert.deepEqual(bodiesIn(server.requests), []);
  await client.close();
});
