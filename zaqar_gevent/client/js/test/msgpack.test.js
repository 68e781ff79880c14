// The MsgPack codec says and understands what @msgpack/msgpack does.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EncodingError, decode, encode } from '../zaqar.js';
import { load } from './dependencies.js';
import { Documents, randomOf } from './documents.js';

const other = await load('@msgpack/msgpack');
const DOCUMENTS = 10000;

// A document in which integers are BigInts only where they have to be.
function settled(value) {
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  if (Array.isArray(value)) return value.map(settled);
  if (value === null || typeof value !== 'object' || value instanceof Uint8Array) return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, settled(one)]));
}

test(`${DOCUMENTS} documents are written to the byte as by @msgpack/msgpack, and read back`, () => {
  const documents = new Documents(1, { binary: true });
  for (let number = 0; number < DOCUMENTS; number += 1) {
    const document = documents.next();
    const bytes = encode(document);
    assert.deepEqual(Buffer.from(bytes), Buffer.from(other.encode(document)));
    assert.deepEqual(decode(bytes), document);
  }
});

test(`${DOCUMENTS} documents with integers of 64 bits go both ways`, () => {
  const documents = new Documents(2, { binary: true, bigints: true });
  for (let number = 0; number < DOCUMENTS; number += 1) {
    const document = documents.next();
    const theirs = other.encode(document, { useBigInt64: true });
    assert.deepEqual(decode(theirs), document);
    assert.deepEqual(settled(other.decode(encode(document), { useBigInt64: true })), document);
  }
});

test('integers are numbers up to 2^53 - 1 and BigInts beyond, in whatever form they come', () => {
  const most = Number.MAX_SAFE_INTEGER;
  assert.equal(decode(encode(most)), most);
  assert.equal(decode(encode(-most)), -most);
  assert.equal(decode(encode(BigInt(most))), most);
  assert.equal(decode(encode(2n ** 53n)), 2n ** 53n);
  assert.equal(decode(encode(2n ** 64n - 1n)), 2n ** 64n - 1n);
  assert.equal(decode(encode(-(2n ** 63n))), -(2n ** 63n));
  assert.equal(decode(Uint8Array.of(0xcf, 0, 0, 0, 0, 0, 0, 0, 7)), 7);
  assert.equal(decode(Uint8Array.of(0xd3, 255, 255, 255, 255, 255, 255, 255, 255)), -1);
});

test('integers of more than 64 bits cannot be written', () => {
  assert.throws(() => encode(2n ** 64n), EncodingError);
  assert.throws(() => encode(-(2n ** 63n) - 1n), EncodingError);
});

test('forms that are longer than they need be are read', () => {
  assert.equal(decode(Uint8Array.of(0xd9, 1, 0x61)), 'a');
  assert.equal(decode(Uint8Array.of(0xdb, 0, 0, 0, 1, 0x61)), 'a');
  assert.deepEqual(decode(Uint8Array.of(0xdd, 0, 0, 0, 1, 0xc0)), [null]);
  assert.deepEqual(decode(Uint8Array.of(0xdf, 0, 0, 0, 1, 0xa1, 0x61, 0xc3)), { a: true });
  assert.equal(decode(Uint8Array.of(0xca, 0x3f, 0x80, 0, 0)), 1);
});

test('documents are written as in JSON: undefined is left out, and toJSON asked', () => {
  const date = new Date(0);
  const document = { a: undefined, list: [undefined, 1], date };
  assert.deepEqual(decode(encode(document)), JSON.parse(JSON.stringify(document)));
});

test('functions and symbols cannot be written', () => {
  assert.throws(() => encode({ call: () => {} }), EncodingError);
  assert.throws(() => encode([Symbol('a')]), EncodingError);
});

test('a member of any name is a member and nothing else', () => {
  const document = JSON.parse('{"__proto__": {"polluted": 1}, "constructor": 2, "toString": 3}');
  const read = decode(encode(document));
  assert.deepEqual(Object.keys(read), ['__proto__', 'constructor', 'toString']);
  assert.equal(read.polluted, undefined);
  assert.equal({}.polluted, undefined);
});

const nested = (levels, innermost = 0) => {
  let document = innermost;
  for (let level = 0; level < levels; level += 1) document = [document];
  return document;
};

test('nesting is read and written up to 128 levels', () => {
  assert.deepEqual(decode(encode(nested(128))), nested(128));
  assert.throws(() => encode(nested(129)), EncodingError);
  assert.throws(() => decode(new Uint8Array(200).fill(0x91)), EncodingError);
  assert.throws(() => decode(new Uint8Array(1e6).fill(0x91)), EncodingError);
  const loop = {};
  loop.loop = loop;
  assert.throws(() => encode(loop), EncodingError);
});

test('a document that ends too early is not read, wherever it ends', () => {
  const documents = new Documents(3, { bigints: true, binary: true });
  for (let number = 0; number < 100; number += 1) {
    const bytes = encode([documents.next()]);
    for (let length = 0; length < bytes.length; length += 1) {
      assert.throws(() => decode(bytes.subarray(0, length)), EncodingError);
    }
  }
});

test('a document with something behind it is not read', () => {
  assert.throws(() => decode(Uint8Array.of(0xc0, 0xc0)), EncodingError);
  assert.throws(() => decode(new Uint8Array()), EncodingError);
});

test('lengths that are lies are told before room is made for them', () => {
  const lies = [0xc6, 0xdb, 0xdd, 0xdf].map((type) => Uint8Array.of(type, 255, 255, 255, 255, 0));
  const began = process.memoryUsage().arrayBuffers;
  for (const lie of lies) assert.throws(() => decode(lie), EncodingError);
  assert.ok(process.memoryUsage().arrayBuffers - began < 1e6);
});

test('what JSON cannot say is not read: extensions, timestamps, keys that are no text', () => {
  const unsayable = [
    [0xc1],
    [0xd4, 1, 0],
    [0xd6, 0xff, 0, 0, 0, 0],
    [0xc7, 1, 5, 0],
    [0x81, 0x01, 0xc0],
    [0x81, 0xc0, 0xc0],
  ];
  for (const bytes of unsayable) assert.throws(() => decode(Uint8Array.from(bytes)), EncodingError);
});

test('text that is not UTF-8 is not read', () => {
  for (const bytes of [[0xa1, 0xff], [0xa2, 0xc0, 0x80], [0xa3, 0xed, 0xa0, 0x80]]) {
    assert.throws(() => decode(Uint8Array.from(bytes)), EncodingError);
  }
});

test('100,000 strings of random bytes are read or refused, and nothing else', () => {
  const random = randomOf(4);
  let read = 0;
  for (let number = 0; number < 100000; number += 1) {
    const bytes = Uint8Array.from({ length: 1 + random() * 24 }, () => random() * 256);
    try {
      decode(bytes);
      read += 1;
    } catch (error) {
      assert.ok(error instanceof EncodingError, error);
    }
  }
  assert.ok(read > 1000, 'none was worth reading');
});

test('bytes of a part of a buffer are read', () => {
  const buffer = Uint8Array.of(9, 9, 0x92, 1, 2, 9).buffer;
  assert.deepEqual(decode(new Uint8Array(buffer, 2, 3)), [1, 2]);
  assert.deepEqual(decode(Uint8Array.of(0x91, 1).buffer), [1]);
});
