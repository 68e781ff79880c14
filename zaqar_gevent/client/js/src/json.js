// JSON with exact integers.

import { randomHex } from './identity.js';

// JSON.parse rounds integers beyond 2^53, and JSON.stringify refuses BigInts and makes integers of
// large numbers. So these travel as texts with a mark that no one can know before.

const LONG_NUMBER = /\d{16}/;
const TEXT_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g;
const LONG_INTEGER = /^-?[1-9]\d{15,}$/;

const secret = () => `${randomHex(Math.random, 16)}:`;

export function toJSON(document) {
  const mark = secret();
  let marked = false;
  const text = JSON.stringify(document, (name, value) => {
    const exact = exactly(value);
    if (exact === null) return value;
    marked = true;
    return `${mark}${exact}`;
  });
  return marked ? text.replace(new RegExp(`"${mark}([-+.e\\d]+)"`, 'g'), '$1') : text;
}

// How a number is written that JSON.stringify cannot be left to write; null for all else.
function exactly(value) {
  if (typeof value === 'bigint') return String(value);
  if (Object.is(value, -0)) return '-0.0';
  const isLarge = typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value);
  return isLarge ? value.toExponential() : null;
}

export function fromJSON(text) {
  if (!LONG_NUMBER.test(text)) return JSON.parse(text);
  const mark = secret();
  const isRounded = (found) => LONG_INTEGER.test(found) && !Number.isSafeInteger(Number(found));
  const marked = text.replace(TEXT_OR_NUMBER, (found) =>
    isRounded(found) ? `"${mark}${found}"` : found,
  );
  return JSON.parse(marked, (name, value) =>
    typeof value === 'string' && value.startsWith(mark) ? BigInt(value.slice(mark.length)) : value,
  );
}
