// Filters mean what the vectors say, which the server and the Python client run as well.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { parseFilter } from '../src/filters.js';

const file = new URL('../../../../tests/client/filter_vectors.json', import.meta.url);
const vectors = JSON.parse(await readFile(file, 'utf8'));

for (const { filter, met, unmet } of vectors.filters) {
  test(`the filter ${JSON.stringify(filter)} is met by just these attributes`, () => {
    const meets = parseFilter(filter);
    assert.deepEqual(met.filter((one) => !meets(one)), []);
    assert.deepEqual(unmet.filter((one) => meets(one)), []);
  });
}

for (const { filter, told } of vectors.refused) {
  test(`${JSON.stringify(filter)} is no filter`, () => {
    assert.throws(() => parseFilter(filter), (error) => {
      assert.ok(error instanceof TypeError);
      assert.ok(error.message.includes(told), error.message);
      return true;
    });
  });
}

test('what is too much is refused', () => {
  const many = Object.fromEntries(Array.from({ length: 17 }, (_, index) => [`a${index}`, '']));
  assert.throws(() => parseFilter(many), /1 to 16 attributes, not 17/);
  assert.throws(() => parseFilter({ a: Array(101).fill('x') }), /1 to 100 texts, not 101/);
  assert.throws(() => parseFilter({ a: 'x'.repeat(8193) }), /at most 8192 characters, not 8193/);
  assert.throws(() => parseFilter({ ['n'.repeat(129)]: '' }), /1 to 128 letters/);
});
