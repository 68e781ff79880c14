// What may be sent: checked before it is encoded.

import { EncodingError } from './errors.js';

// The most levels that a server takes, by its default, envelope included.
const MAX_SENT_DEPTH = 64;

const SURROGATE = /\p{Surrogate}/u;

// Throws EncodingError for what JSON and MsgPack cannot both say as it is. JSON.stringify would write
// null or {} for much of it, and a TextEncoder another character. Members that are undefined are left
// out, as JSON does, and toJSON is asked.
// depth: of what it is in; a request's body is in an envelope.
export function checkDocument(value, place = '$', depth = 1) {
  const refuse = (what) => {
    throw new EncodingError(`${what} cannot be sent - at ${place}`);
  };
  if (typeof value === 'string') {
    if (SURROGATE.test(value)) refuse('A text with half of a surrogate pair');
  } else if (typeof value === 'number') {
    if (!Number.isFinite(value)) refuse(String(value));
  } else if (typeof value === 'bigint') {
    if (BigInt.asIntN(64, value) !== value) refuse('An integer outside -2^63 to 2^63 - 1');
  } else if (value !== null && typeof value === 'object') {
    if (depth >= MAX_SENT_DEPTH) refuse(`A document of more than ${MAX_SENT_DEPTH} levels, or that holds itself,`);
    checkMembers(value, place, depth, refuse);
  } else if (value !== null && typeof value !== 'boolean') {
    refuse(value === undefined ? 'undefined' : `A ${typeof value}`);
  }
}

function checkMembers(value, place, depth, refuse) {
  if (Array.isArray(value)) {
    // By number, so that a gap is found, which is undefined.
    for (let index = 0; index < value.length; index += 1) {
      checkDocument(value[index], `${place}[${index}]`, depth + 1);
    }
    return;
  }
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) refuse('Binary data');
  if (typeof value.toJSON === 'function') {
    const said = value.toJSON();
    if (value instanceof Date && said === null) refuse('An invalid date');
    checkDocument(said, place, depth + 1);
    return;
  }
  // What a Map, a Set or a Promise holds are no members.
  const kind = Object.prototype.toString.call(value).slice(8, -1);
  if (kind !== 'Object') refuse(`A value of the kind ${kind}`);
  if (Object.getOwnPropertySymbols(value).length > 0) refuse('A member whose name is a symbol');
  for (const [name, member] of Object.entries(value)) {
    if (SURROGATE.test(name)) refuse('A name with half of a surrogate pair');
    if (member !== undefined) checkDocument(member, `${place}.${name}`, depth + 1);
  }
}

// The document as JSON has it, for codecs that write undefined as null, or dates in their own way.
export function plain(value) {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value.toJSON === 'function') return plain(value.toJSON());
  const given = Object.entries(value).filter(([, member]) => member !== undefined);
  return Object.fromEntries(given.map(([name, member]) => [name, plain(member)]));
}
