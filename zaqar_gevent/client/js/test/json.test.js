// Integers beyond 2^53 travel in JSON as they are, and all else as ever.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromJSON, toJSON } from '../zaqar.js';
import { Documents } from './documents.js';

test('10,000 documents come back as they went', () => {
  // JSON.parse of Node 24 takes some names that are escaped for others.
  const documents = new Documents(5, { bigints: true, plainNames: true });
  for (let number = 0; number < 10000; number += 1) {
    const document = documents.next();
    assert.deepEqual(fromJSON(toJSON(document)), document);
  }
});

test('integers are written as such, and read as BigInts only where numbers would be rounded', () => {
  assert.equal(toJSON({ a: [2n ** 60n, 1] }), '{"a":[1152921504606846976,1]}');
  assert.deepEqual(fromJSON('[9007199254740991, 9007199254740992, -9007199254740993]'), [
    9007199254740991,
    9007199254740992n,
    -9007199254740993n,
  ]);
});

test('digits in texts, fractions and exponents are left as they are', () => {
  const text = '{"12345678901234567890":"\\"12345678901234567890","a":0.12345678901234567,"b":1234567890123456789e2}';
  assert.deepEqual(fromJSON(text), JSON.parse(text));
});

test('what is not JSON is refused', () => {
  for (const text of ['', '{', '[1234567890123456789', '"1234567890123456789', '01234567890123456789']) {
    assert.throws(() => fromJSON(text), SyntaxError);
  }
});
