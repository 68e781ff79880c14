// MsgPack.

import { EncodingError } from './errors.js';

// What JSON can say, and binary. Integers beyond 2^53 - 1 are BigInts, in both directions.

const MAX_DEPTH = 128;
const SHORT_TEXT = 24;
export const utf8Encoder = new TextEncoder();
const utf8Decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

class Packer {
  #bytes = new Uint8Array(256);
  #view = new DataView(this.#bytes.buffer);
  #size = 0;

  pack(document) {
    this.#value(document, 0);
    return this.#bytes.slice(0, this.#size);
  }

  // Makes room for so many bytes more; where they begin.
  #reserve(count) {
    const start = this.#size;
    const needed = start + count;
    if (needed > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    this.#size = needed;
    return start;
  }

  #byte(value) {
    const start = this.#reserve(1);
    this.#bytes[start] = value;
  }

  // A type and a number of 1, 2, 4 or 8 bytes; `kind` as in DataView's setters.
  #typed(type, size, kind, value) {
    const start = this.#reserve(1 + size);
    this.#bytes[start] = type;
    this.#view[`set${kind}`](start + 1, value);
  }

  #value(value, depth) {
    if (value === null || value === undefined) this.#byte(0xc0);
    else if (typeof value === 'boolean') this.#byte(value ? 0xc3 : 0xc2);
    else if (typeof value === 'number') this.#number(value);
    else if (typeof value === 'string') this.#text(value);
    else if (typeof value === 'bigint') this.#bigint(value);
    else if (typeof value === 'object') this.#object(value, depth);
    else throw new EncodingError(`A ${typeof value} cannot be encoded.`);
  }

  #number(value) {
    const isInteger = Number.isSafeInteger(value) && !Object.is(value, -0);
    if (!isInteger) this.#typed(0xcb, 8, 'Float64', value);
    else if (value >= 0) this.#positive(value);
    else this.#negative(value);
  }

  #positive(value) {
    if (value < 0x80) this.#byte(value);
    else if (value < 0x100) this.#typed(0xcc, 1, 'Uint8', value);
    else if (value < 0x10000) this.#typed(0xcd, 2, 'Uint16', value);
    else if (value < 0x100000000) this.#typed(0xce, 4, 'Uint32', value);
    else this.#typed(0xcf, 8, 'BigUint64', BigInt(value));
  }

  #negative(value) {
    if (value >= -0x20) this.#byte(0x100 + value);
    else if (value >= -0x80) this.#typed(0xd0, 1, 'Int8', value);
    else if (value >= -0x8000) this.#typed(0xd1, 2, 'Int16', value);
    else if (value >= -0x80000000) this.#typed(0xd2, 4, 'Int32', value);
    else this.#typed(0xd3, 8, 'BigInt64', BigInt(value));
  }

  #bigint(value) {
    if (Number.isSafeInteger(Number(value))) this.#number(Number(value));
    else if (BigInt.asUintN(64, value) === value) this.#typed(0xcf, 8, 'BigUint64', value);
    else if (BigInt.asIntN(64, value) === value) this.#typed(0xd3, 8, 'BigInt64', value);
    else throw new EncodingError('An integer is larger than 64 bits.');
  }

  #text(value) {
    const bytes = utf8Encoder.encode(value);
    if (bytes.length < 32) this.#byte(0xa0 | bytes.length);
    else this.#length(bytes.length, [0xd9, 0xda, 0xdb]);
    this.#raw(bytes);
  }

  #raw(bytes) {
    const start = this.#reserve(bytes.length);
    this.#bytes.set(bytes, start);
  }

  // A length of 8, 16 or 32 bits, with the type of each; null where there is no such type.
  #length(length, [type8, type16, type32]) {
    if (type8 !== null && length < 0x100) this.#typed(type8, 1, 'Uint8', length);
    else if (length < 0x10000) this.#typed(type16, 2, 'Uint16', length);
    else this.#typed(type32, 4, 'Uint32', length);
  }

  #object(value, depth) {
    if (depth >= MAX_DEPTH) throw new EncodingError('The document is nested too deeply.');
    if (Array.isArray(value)) this.#array(value, depth);
    else if (ArrayBuffer.isView(value)) this.#binary(value);
    else if (typeof value.toJSON === 'function') this.#value(value.toJSON(), depth + 1);
    else this.#map(value, depth);
  }

  #binary(value) {
    this.#length(value.byteLength, [0xc4, 0xc5, 0xc6]);
    this.#raw(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  }

  #array(value, depth) {
    if (value.length < 16) this.#byte(0x90 | value.length);
    else this.#length(value.length, [null, 0xdc, 0xdd]);
    for (const one of value) this.#value(one, depth + 1);
  }

  // Members that are undefined are left out, as JSON does.
  #map(value, depth) {
    const names = Object.keys(value).filter((name) => value[name] !== undefined);
    if (names.length < 16) this.#byte(0x80 | names.length);
    else this.#length(names.length, [null, 0xde, 0xdf]);
    for (const name of names) {
      this.#text(name);
      this.#value(value[name], depth + 1);
    }
  }
}

class Unpacker {
  #bytes;
  #view;
  #at = 0;

  constructor(bytes) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  unpack() {
    const document = this.#value(0);
    if (this.#at !== this.#bytes.length) throw new EncodingError('MsgPack: bytes are left over.');
    return document;
  }

  // Takes so many bytes; where they began.
  #take(count) {
    const start = this.#at;
    if (count > this.#bytes.length - start) throw new EncodingError('MsgPack: the end is missing.');
    this.#at = start + count;
    return start;
  }

  #uint(size) {
    const start = this.#take(size);
    if (size === 1) return this.#bytes[start];
    return size === 2 ? this.#view.getUint16(start) : this.#view.getUint32(start);
  }

  #value(depth) {
    const type = this.#bytes[this.#take(1)];
    if (type < 0x80) return type;
    if (type >= 0xe0) return type - 0x100;
    if (type < 0x90) return this.#map(type & 0x0f, depth);
    if (type < 0xa0) return this.#array(type & 0x0f, depth);
    if (type < 0xc0) return this.#text(type & 0x1f);
    return this.#typed(type, depth);
  }

  #typed(type, depth) {
    const read = Unpacker.#readers[type];
    if (read === undefined) {
      throw new EncodingError(`MsgPack: values of type 0x${type.toString(16)} are not supported.`);
    }
    return read(this, depth);
  }

  static #readers = {
    0xc0: () => null,
    0xc2: () => false,
    0xc3: () => true,
    0xc4: (one) => one.#binary(one.#uint(1)),
    0xc5: (one) => one.#binary(one.#uint(2)),
    0xc6: (one) => one.#binary(one.#uint(4)),
    0xca: (one) => one.#view.getFloat32(one.#take(4)),
    0xcb: (one) => one.#view.getFloat64(one.#take(8)),
    0xcc: (one) => one.#uint(1),
    0xcd: (one) => one.#uint(2),
    0xce: (one) => one.#uint(4),
    0xcf: (one) => numberOf(one.#view.getBigUint64(one.#take(8))),
    0xd0: (one) => one.#view.getInt8(one.#take(1)),
    0xd1: (one) => one.#view.getInt16(one.#take(2)),
    0xd2: (one) => one.#view.getInt32(one.#take(4)),
    0xd3: (one) => numberOf(one.#view.getBigInt64(one.#take(8))),
    0xd9: (one) => one.#text(one.#uint(1)),
    0xda: (one) => one.#text(one.#uint(2)),
    0xdb: (one) => one.#text(one.#uint(4)),
    0xdc: (one, depth) => one.#array(one.#uint(2), depth),
    0xdd: (one, depth) => one.#array(one.#uint(4), depth),
    0xde: (one, depth) => one.#map(one.#uint(2), depth),
    0xdf: (one, depth) => one.#map(one.#uint(4), depth),
  };

  #binary(length) {
    const start = this.#take(length);
    return this.#bytes.slice(start, start + length);
  }

  #text(length) {
    const start = this.#take(length);
    if (length <= SHORT_TEXT) {
      const ascii = this.#ascii(start, length);
      if (ascii !== null) return ascii;
    }
    try {
      return utf8Decoder.decode(this.#bytes.subarray(start, start + length));
    } catch {
      throw new EncodingError('MsgPack: a text is not UTF-8.');
    }
  }

  // A short text, which is cheaper to read by hand; null where it is not ASCII.
  #ascii(start, length) {
    let text = '';
    for (let at = start; at < start + length; at += 1) {
      if (this.#bytes[at] >= 0x80) return null;
      text += String.fromCharCode(this.#bytes[at]);
    }
    return text;
  }

  // Each member takes a byte at least, so a length that is a lie is told before room is made for it.
  #check(members, depth) {
    if (depth >= MAX_DEPTH) throw new EncodingError('MsgPack: nested too deeply.');
    if (members > this.#bytes.length - this.#at) {
      throw new EncodingError('MsgPack: the end is missing.');
    }
  }

  #array(length, depth) {
    this.#check(length, depth);
    const array = new Array(length);
    for (let index = 0; index < length; index += 1) array[index] = this.#value(depth + 1);
    return array;
  }

  #map(length, depth) {
    this.#check(length * 2, depth);
    const map = {};
    for (let index = 0; index < length; index += 1) {
      const name = this.#value(depth + 1);
      if (typeof name !== 'string') throw new EncodingError('MsgPack: a key is not text.');
      const value = this.#value(depth + 1);
      if (name === '__proto__') define(map, name, value);
      else map[name] = value;
    }
    return map;
  }
}

// A BigInt as a number, where that says it.
function numberOf(value) {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

// A member of any name, as JSON.parse makes it.
function define(map, name, value) {
  Object.defineProperty(map, name, {
    value,
    configurable: true,
    enumerable: true,
    writable: true,
  });
}

// A document as MsgPack, a Uint8Array. Throws EncodingError.
export const encode = (document) => new Packer().pack(document);

// The one document in these bytes (a Uint8Array or an ArrayBuffer). Throws EncodingError.
export const decode = (bytes) =>
  new Unpacker(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes)).unpack();

export const msgpack = { encode, decode };
