// zaqar_gevent's client for browsers and Node. Built from the modules in src; do not edit. Apache-2.0.

// What goes wrong, by kind.

// ZaqarError
// ├── APIError                 the server's: status, code, title, description
// │   ├── BadRequest              400
// │   ├── Unauthorized            401
// │   ├── Forbidden               403
// │   ├── NotFound                404
// │   ├── NotAcceptable           406
// │   ├── Conflict                409
// │   ├── BodyTooLarge            413
// │   ├── UnsupportedMediaType    415
// │   ├── TooManyRequests         429
// │   ├── NotImplementedThere     501
// │   └── ServiceUnavailable      503
// ├── ConnectionLost           the server cannot be reached; nothing was done, or nothing that matters
// │   └── OriginRefused           it answers, but its answers are kept from this page
// ├── NotZaqar                 what answers at the URL is something else than a Zaqar
// ├── Timeout                  no answer in time; what was asked may yet be done, or have been
// ├── OutcomeUnknown           the connection died before the answer; it may have been done or not
// ├── AccessEnded              what a subscription or consumer was made with is not valid any more
// ├── ClientClosed             the client has been closed
// ├── Unsupported              there is nothing to do it with
// └── EncodingError            what cannot be encoded, or is not MsgPack

class ZaqarError extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = new.target.name;
  }
}

class APIError extends ZaqarError {
  constructor({ status, code, title, description }) {
    super(`${status} ${code}: ${description || title}`);
    Object.assign(this, { status, code, title, description });
  }
}

class BadRequest extends APIError {}
class Unauthorized extends APIError {}
class Forbidden extends APIError {}
class NotFound extends APIError {}
class NotAcceptable extends APIError {}
class Conflict extends APIError {}
class BodyTooLarge extends APIError {}
class UnsupportedMediaType extends APIError {}
class TooManyRequests extends APIError {}
class NotImplementedThere extends APIError {}
class ServiceUnavailable extends APIError {}

class ConnectionLost extends ZaqarError {
  // sent: whether the server may have got the request.
  constructor(message, { sent = false, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.sent = sent;
  }
}

// The server answers, but the browser keeps its answers from this page, most often since the server
// does not allow the page's origin. The client tries on.
class OriginRefused extends ConnectionLost {
  // origin: the page's. url: the server's.
  constructor({ origin, url }, options) {
    super(
      `The server at ${url} answers, but not to this page: it may not allow the page's origin. Start the server ` +
        `with --allowed-origin ${origin}, or add ${origin} to allowed_origin in [cors]. Its log says what it refused.`,
      options,
    );
    this.origin = origin;
  }
}

// What answers at the URL is something else than a Zaqar, such as another web server.
class NotZaqar extends ZaqarError {}
class Timeout extends ZaqarError {}
class OutcomeUnknown extends ZaqarError {}
class ClientClosed extends ZaqarError {}

// The server has ended a subscription or consumer, which cannot be made anew as it was. reason, for
// programs: project_changed, signature_expired.
class AccessEnded extends ZaqarError {
  constructor({ reason, description }) {
    super(description || reason);
    this.reason = reason;
  }
}

class Unsupported extends ZaqarError {}
class EncodingError extends ZaqarError {}

// What a certificate is refused for, or a server not found by name: nothing was sent then.
const UNSENT = /^(ECONNREFUSED|ENOTFOUND|EAI_|CERT_|CRL_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|ERR_TLS_|ERR_SSL_)/;

// What is at the bottom of an error, as Node says; of a browser, nothing is ever to be learnt.
function rootOf(error) {
  let root = error;
  while (root?.cause) root = root.cause;
  return root?.errors?.length ? root.errors[0] : root;
}

// The same for people: ': ' and the reason, or nothing.
function reasonIn({ message = '', code = '' } = {}) {
  const reason = message && code && !message.includes(code) ? `${message} (${code})` : message || code;
  return reason ? `: ${reason}` : '';
}

const ERROR_OF_STATUS = {
  400: [BadRequest, 'bad_request'],
  401: [Unauthorized, 'unauthorized'],
  403: [Forbidden, 'forbidden'],
  404: [NotFound, 'not_found'],
  406: [NotAcceptable, 'not_acceptable'],
  409: [Conflict, 'conflict'],
  413: [BodyTooLarge, 'body_too_large'],
  415: [UnsupportedMediaType, 'unsupported_media_type'],
  429: [TooManyRequests, 'too_many_requests'],
  501: [NotImplementedThere, 'not_implemented'],
  503: [ServiceUnavailable, 'service_unavailable'],
};

// The error that an answer tells of, in whichever of the forms that servers have for it.
function errorOf(status, body) {
  const said = body && typeof body === 'object' ? body : { description: body };
  const [kind, usual] = ERROR_OF_STATUS[status] ?? [APIError, 'error'];
  const title = textOf(said.title ?? said.exception);
  const description = textOf(said.description ?? said.error);
  return new kind({ status, code: said.code ?? usual, title, description });
}

const textOf = (said) => (typeof said === 'string' ? said : JSON.stringify(said ?? ''));

// Where a server is, and whether it is of another origin than the page.


const SCHEMES = ['http:', 'https:', 'ws:', 'wss:'];

// The URL of a server; in a browser it may be relative to the page.
function serverOf(given) {
  let url = null;
  try {
    if (given) url = new URL(given, globalThis.location?.href);
  } catch {
    // It is told below.
  }
  if (!SCHEMES.includes(url?.protocol)) {
    const shown = String(given).replace(/\/\/[^/?#]*@/, '//');
    throw new ZaqarError(`Not the URL of a server: '${shown}'. It begins with http, https, ws or wss.`);
  }
  return url;
}

// The addresses of a server: of REST, without a slash at the end, and of its WebSocket.
function addressesOf(url, websocketUrl) {
  const base = serverOf(url);
  base.protocol = base.protocol.replace(/^ws/, 'http');
  // Neither is sent, and errors show the URL.
  base.username = base.password = '';
  const rest = base.href.replace(/[?#].*$/, '').replace(/(\/v2)?\/*$/, '');
  const socket = serverOf(websocketUrl ?? `${rest}/v2/ws`);
  socket.protocol = socket.protocol.replace(/^http/, 'ws');
  return { rest, socket: socket.href };
}

// The origin of the page that this runs in, where it is not that of `url`; null elsewhere.
function foreignOrigin(url) {
  const origin = globalThis.location?.origin;
  return origin === undefined || origin === new URL(url).origin ? null : origin;
}

// Time, and what ends with it: scopes, promises and pauses.


// Seconds that never go back, and timers; another one may be given for tests.
const systemClock = {
  now: () => performance.now() / 1000,
  // What the time is, in milliseconds since 1970.
  time: () => Date.now(),
  // Calls back after so many seconds; what `clear` takes.
  set: (callback, seconds) => setTimeout(callback, Math.min(seconds * 1000, 0x7fffffff)),
  clear: (timer) => clearTimeout(timer),
};

// A signal with an end: aborted when others are, after some seconds, or by hand.
class Scope {
  #controller = new AbortController();
  #clock;
  #timer = null;
  #outer;
  #follow;

  constructor(clock, { signals = [], seconds = null, what = 'The request' } = {}) {
    this.#clock = clock;
    this.#outer = signals.filter(Boolean);
    this.#follow = () => this.abort(this.#outer.find((one) => one.aborted).reason);
    for (const one of this.#outer) one.addEventListener('abort', this.#follow, { once: true });
    if (this.#outer.some((one) => one.aborted)) this.#follow();
    if (seconds !== null && Number.isFinite(seconds)) {
      const late = () => this.abort(new Timeout(`${what} was not answered within ${seconds} s.`));
      this.#timer = clock.set(late, seconds);
    }
  }

  get signal() {
    return this.#controller.signal;
  }

  abort(reason) {
    this.end();
    this.#controller.abort(reason);
  }

  end() {
    this.#clock.clear(this.#timer);
    for (const one of this.#outer) one.removeEventListener('abort', this.#follow);
  }
}

// A promise together with what settles it; one that nobody waits for fails quietly.
function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  made.promise.catch(() => {});
  return made;
}

// The same promise, which fails with the signal's reason when that comes first.
function abortable(promise, signal) {
  if (signal === undefined || signal === null) return promise;
  if (signal.aborted) {
    // Nobody is told what else becomes of it.
    promise.catch(() => {});
    return Promise.reject(signal.reason);
  }
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    const done = (settle) => (value) => {
      signal.removeEventListener('abort', stop);
      settle(value);
    };
    signal.addEventListener('abort', stop, { once: true });
    promise.then(done(resolve), done(reject));
  });
}

async function sleep(clock, seconds, signal) {
  const { promise, resolve } = deferred();
  const timer = clock.set(resolve, seconds);
  try {
    await abortable(promise, signal);
  } finally {
    clock.clear(timer);
  }
}

// Random ids.

// Math.random where there is nothing better (Node 18): these ids are to differ, not to be secret.
function randomHex(random, digits) {
  const bytes = new Uint8Array(digits / 2);
  if (random === Math.random && globalThis.crypto?.getRandomValues) {
    globalThis.crypto.getRandomValues(bytes);
  } else {
    for (let index = 0; index < bytes.length; index += 1) bytes[index] = random() * 256;
  }
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

const asUUID = (hex) => hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

// A random UUID, version 4 (RFC 9562).
function uuid4(random) {
  const hex = randomHex(random, 32);
  const variant = '89ab'[parseInt(hex[16], 16) & 3];
  return asUUID(`${hex.slice(0, 12)}4${hex.slice(13, 16)}${variant}${hex.slice(17)}`);
}

// A UUID that begins with the time, version 7 (RFC 9562); `milliseconds` since 1970.
function uuid7(milliseconds, random = Math.random) {
  const time = Math.floor(milliseconds).toString(16).padStart(12, '0');
  const hex = randomHex(random, 20);
  const variant = '89ab'[parseInt(hex[3], 16) & 3];
  return asUUID(`${time}7${hex.slice(0, 3)}${variant}${hex.slice(4, 19)}`);
}

// JSON with exact integers.


// JSON.parse rounds integers beyond 2^53, and JSON.stringify refuses BigInts and makes integers of
// large numbers. So these travel as texts with a mark that no one can know before.

const LONG_NUMBER = /\d{16}/;
const TEXT_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g;
const LONG_INTEGER = /^-?[1-9]\d{15,}$/;

const secret = () => `${randomHex(Math.random, 16)}:`;

function toJSON(document) {
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

function fromJSON(text) {
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

// MsgPack.


// What JSON can say, and binary. Integers beyond 2^53 - 1 are BigInts, in both directions.

const MAX_DEPTH = 128;
const SHORT_TEXT = 24;
const utf8Encoder = new TextEncoder();
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
    if (value >= -32) this.#byte(0x100 + value);
    else if (value >= -128) this.#typed(0xd0, 1, 'Int8', value);
    else if (value >= -32768) this.#typed(0xd1, 2, 'Int16', value);
    else if (value >= -2147483648) this.#typed(0xd2, 4, 'Int32', value);
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
const encode = (document) => new Packer().pack(document);

// The one document in these bytes (a Uint8Array or an ArrayBuffer). Throws EncodingError.
const decode = (bytes) =>
  new Unpacker(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes)).unpack();

const msgpack = { encode, decode };

// From what REST answers to what a WebSocket does: ids and markers in place of hrefs and links.

const lastOf = (href) => decodeURIComponent(href.split('?')[0].split('/').at(-1));
const queryOf = (href) => new URLSearchParams(href.split('?')[1] ?? '');

function unlink({ href, ...members }) {
  return members;
}

function messageOf({ href, ...members }) {
  return { ...members, id: members.id ?? lastOf(href), claim_id: queryOf(href).get('claim_id') };
}

function pageOf(kind, convert) {
  return (body) => {
    const { links = [], ...page } = body ?? {};
    page[kind] = (page[kind] ?? []).map(convert);
    const marker = links.length ? queryOf(links[0].href).get('marker') : null;
    return marker === null ? page : { ...page, marker };
  };
}

function claimOf(body) {
  const messages = (body?.messages ?? []).map(messageOf);
  return { claim_id: messages[0]?.claim_id ?? null, messages };
}

function statsOf({ messages }) {
  const ends = ['oldest', 'newest'].filter((name) => messages[name]);
  const named = ends.map((name) => {
    const { href, ...members } = messages[name];
    return [name, { ...members, id: lastOf(href) }];
  });
  return { messages: { ...messages, ...Object.fromEntries(named) } };
}

const messagePageOf = pageOf('messages', messageOf);
const popped = (body) => (body ? { messages: body.messages.map((one) => ('href' in one ? messageOf(one) : one)) } : {});

const FROM_REST = {
  message_post: (body) => ({ message_ids: body.resources.map(lastOf) }),
  message_list: messagePageOf,
  message_get_many: (body) => ({ messages: body.messages.map(messageOf) }),
  message_get: (body) => ({ messages: messageOf(body) }),
  message_delete_many: popped,
  claim_create: claimOf,
  claim_get: ({ href, ...claim }) => ({ ...claim, messages: claim.messages.map(messageOf) }),
  queue_list: pageOf('queues', unlink),
  topic_list: pageOf('topics', unlink),
  queue_get_stats: statsOf,
  topic_get_stats: statsOf,
  subscription_list: pageOf('subscriptions', (one) => one),
  pool_list: pageOf('pools', unlink),
  pool_get: unlink,
  pool_update: unlink,
  flavor_list: pageOf('flavors', unlink),
  flavor_get: unlink,
  flavor_update: unlink,
};

const fromREST = (action, body) => {
  const convert = FROM_REST[action] ?? FROM_REST[action.replace(/^topic_/, '')];
  return convert ? convert(body) : (body ?? {});
};

// Answers that no Zaqar gives: of another server at the URL, or of something on the way to it.

const MAX_QUOTED_CHARACTERS = 160;
// What gateways and proxies answer in their own words, though there is a Zaqar behind them.
const OF_INTERMEDIARIES = new Set([401, 403, 407, 408, 413, 429, 431]);
const NOT_IMPLEMENTED = 501;

// Whether an answer that is not in JSON says that there is no Zaqar.
const isForeign = (status) =>
  status === NOT_IMPLEMENTED || (status < 500 && !OF_INTERMEDIARIES.has(status));

// What to tell of such an answer. url: of the server.
function describeForeign(url, status, text) {
  const said = text.trim() ? `: ${quote(text)}` : ' with nothing in it';
  return `The server at ${url} is no Zaqar: it answered ${status}${said}`;
}

// The beginning of what was answered, in one line that can be printed.
function quote(text) {
  const line = text.slice(0, 2000).trim().replace(/\s+/g, ' ').replace(/\p{C}/gu, '?');
  return line.length > MAX_QUOTED_CHARACTERS ? `${line.slice(0, MAX_QUOTED_CHARACTERS)}...` : line;
}

// Every operation that a server may offer, by its WebSocket action.
//
// Written by `tox -e genoperations` from the declarations in zaqar_gevent/api.
//
// method, path: its route in REST, null where it has none.
// query: from the names of query parameters to those of arguments.
// payload: the argument that is the whole body.
// filters: the argument whose members are query parameters.
// mediaType: of the body.
// optionalBody: whether no body means something else than an empty one.
// repeat: when a request may be repeated safely, null for never. `given` and `absent` name an
// argument that must or must not be there; `changes` lists the operations of a JSON patch that
// each change must be one of.
const OPERATIONS = {
  message_post: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/messages',
    repeat: { given: 'post_id' },
  },
  topic_message_post: {
    method: 'POST',
    path: '/v2/topics/{topic_name}/messages',
    repeat: { given: 'post_id' },
  },
  message_list: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/messages',
    repeat: {},
    query: { marker: 'marker', limit: 'limit', echo: 'echo', include_claimed: 'include_claimed', include_delayed: 'include_delayed', wait: 'wait' },
  },
  topic_message_list: {
    method: 'GET',
    path: '/v2/topics/{topic_name}/messages',
    repeat: {},
    query: { marker: 'marker', limit: 'limit', echo: 'echo', include_claimed: 'include_claimed', include_delayed: 'include_delayed', wait: 'wait' },
  },
  message_get_many: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/messages',
    repeat: {},
    query: { ids: 'message_ids' },
  },
  topic_message_get_many: {
    method: 'GET',
    path: '/v2/topics/{topic_name}/messages',
    repeat: {},
    query: { ids: 'message_ids' },
  },
  message_get: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/messages/{message_id}',
    repeat: {},
  },
  topic_message_get: {
    method: 'GET',
    path: '/v2/topics/{topic_name}/messages/{message_id}',
    repeat: {},
  },
  message_delete: {
    method: 'DELETE',
    path: '/v2/queues/{queue_name}/messages/{message_id}',
    repeat: {},
    query: { claim_id: 'claim_id' },
  },
  topic_message_delete: {
    method: 'DELETE',
    path: '/v2/topics/{topic_name}/messages/{message_id}',
    repeat: {},
    query: { claim_id: 'claim_id' },
  },
  message_delete_many: {
    method: 'DELETE',
    path: '/v2/queues/{queue_name}/messages',
    repeat: { absent: 'pop' },
    query: { ids: 'message_ids', claim_ids: 'claim_ids', pop: 'pop' },
  },
  topic_message_delete_many: {
    method: 'DELETE',
    path: '/v2/topics/{topic_name}/messages',
    repeat: { absent: 'pop' },
    query: { ids: 'message_ids', claim_ids: 'claim_ids', pop: 'pop' },
  },
  message_ack_many: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/messages/ack',
    repeat: null,
  },
  message_release_many: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/messages/release',
    repeat: null,
  },
  message_reject_many: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/messages/reject',
    repeat: null,
  },
  message_extend_many: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/messages/extend',
    repeat: {},
  },
  claim_create: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/claims',
    repeat: null,
    query: { limit: 'limit', wait: 'wait' },
  },
  claim_get: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/claims/{claim_id}',
    repeat: {},
  },
  claim_update: {
    method: 'PATCH',
    path: '/v2/queues/{queue_name}/claims/{claim_id}',
    repeat: {},
  },
  claim_delete: {
    method: 'DELETE',
    path: '/v2/queues/{queue_name}/claims/{claim_id}',
    repeat: {},
    query: { delay: 'delay' },
  },
  get_versions: {
    method: 'GET',
    path: '/',
    repeat: {},
  },
  get_capabilities: {
    method: 'GET',
    path: '/v2/capabilities',
    repeat: {},
  },
  get_home_doc: {
    method: 'GET',
    path: '/v2/',
    repeat: {},
  },
  ping_node: {
    method: 'GET',
    path: '/v2/ping',
    repeat: {},
  },
  check_node_health: {
    method: 'GET',
    path: '/v2/health',
    repeat: {},
  },
  quota_get: {
    method: 'GET',
    path: '/v2/quotas',
    repeat: {},
  },
  get_openapi: {
    method: 'GET',
    path: '/v2/openapi.json',
    repeat: {},
  },
  get_asyncapi: {
    method: 'GET',
    path: '/v2/asyncapi.json',
    repeat: {},
  },
  flavor_list: {
    method: 'GET',
    path: '/v2/flavors',
    repeat: {},
    query: { detailed: 'detailed', limit: 'limit', marker: 'marker' },
  },
  flavor_get: {
    method: 'GET',
    path: '/v2/flavors/{flavor_name}',
    repeat: {},
  },
  flavor_create: {
    method: 'PUT',
    path: '/v2/flavors/{flavor_name}',
    repeat: {},
  },
  flavor_update: {
    method: 'PATCH',
    path: '/v2/flavors/{flavor_name}',
    repeat: {},
  },
  flavor_delete: {
    method: 'DELETE',
    path: '/v2/flavors/{flavor_name}',
    repeat: {},
  },
  pool_list: {
    method: 'GET',
    path: '/v2/pools',
    repeat: {},
    query: { detailed: 'detailed', limit: 'limit', marker: 'marker' },
  },
  pool_get: {
    method: 'GET',
    path: '/v2/pools/{pool_name}',
    repeat: {},
    query: { detailed: 'detailed' },
  },
  pool_create: {
    method: 'PUT',
    path: '/v2/pools/{pool_name}',
    repeat: {},
  },
  pool_update: {
    method: 'PATCH',
    path: '/v2/pools/{pool_name}',
    repeat: {},
  },
  pool_delete: {
    method: 'DELETE',
    path: '/v2/pools/{pool_name}',
    repeat: {},
  },
  queue_list: {
    method: 'GET',
    path: '/v2/queues',
    repeat: {},
    query: { marker: 'marker', limit: 'limit', detailed: 'detailed', name: 'name', with_count: 'with_count' },
    filters: 'metadata',
  },
  topic_list: {
    method: 'GET',
    path: '/v2/topics',
    repeat: {},
    query: { marker: 'marker', limit: 'limit', detailed: 'detailed', name: 'name', with_count: 'with_count' },
    filters: 'metadata',
  },
  queue_create: {
    method: 'PUT',
    path: '/v2/queues/{queue_name}',
    repeat: {},
    payload: 'metadata',
  },
  topic_create: {
    method: 'PUT',
    path: '/v2/topics/{topic_name}',
    repeat: {},
    payload: 'metadata',
  },
  queue_get: {
    method: 'GET',
    path: '/v2/queues/{queue_name}',
    repeat: {},
  },
  topic_get: {
    method: 'GET',
    path: '/v2/topics/{topic_name}',
    repeat: {},
  },
  queue_delete: {
    method: 'DELETE',
    path: '/v2/queues/{queue_name}',
    repeat: {},
  },
  topic_delete: {
    method: 'DELETE',
    path: '/v2/topics/{topic_name}',
    repeat: {},
  },
  queue_update: {
    method: 'PATCH',
    path: '/v2/queues/{queue_name}',
    repeat: { changes: ['add', 'replace'] },
    payload: 'changes',
    mediaType: 'application/openstack-messaging-v2.0-json-patch',
  },
  topic_update: {
    method: 'PATCH',
    path: '/v2/topics/{topic_name}',
    repeat: { changes: ['add', 'replace'] },
    payload: 'changes',
    mediaType: 'application/openstack-messaging-v2.0-json-patch',
  },
  queue_get_stats: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/stats',
    repeat: {},
  },
  topic_get_stats: {
    method: 'GET',
    path: '/v2/topics/{topic_name}/stats',
    repeat: {},
  },
  queue_purge: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/purge',
    repeat: null,
    optionalBody: true,
  },
  topic_purge: {
    method: 'POST',
    path: '/v2/topics/{topic_name}/purge',
    repeat: null,
    optionalBody: true,
  },
  queue_share: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/share',
    repeat: {},
  },
  redrive_create: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/redrives',
    repeat: null,
  },
  redrive_list: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/redrives',
    repeat: {},
    query: { marker: 'marker', limit: 'limit' },
  },
  redrive_get: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/redrives/{redrive_id}',
    repeat: {},
  },
  redrive_delete: {
    method: 'DELETE',
    path: '/v2/queues/{queue_name}/redrives/{redrive_id}',
    repeat: {},
  },
  subscription_list: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/subscriptions',
    repeat: {},
    query: { marker: 'marker', limit: 'limit' },
  },
  topic_subscription_list: {
    method: 'GET',
    path: '/v2/topics/{topic_name}/subscriptions',
    repeat: {},
    query: { marker: 'marker', limit: 'limit' },
  },
  subscription_create: {
    method: 'POST',
    path: '/v2/queues/{queue_name}/subscriptions',
    repeat: null,
  },
  topic_subscription_create: {
    method: 'POST',
    path: '/v2/topics/{topic_name}/subscriptions',
    repeat: null,
  },
  subscription_get: {
    method: 'GET',
    path: '/v2/queues/{queue_name}/subscriptions/{subscription_id}',
    repeat: {},
  },
  topic_subscription_get: {
    method: 'GET',
    path: '/v2/topics/{topic_name}/subscriptions/{subscription_id}',
    repeat: {},
  },
  subscription_update: {
    method: 'PATCH',
    path: '/v2/queues/{queue_name}/subscriptions/{subscription_id}',
    repeat: {},
  },
  topic_subscription_update: {
    method: 'PATCH',
    path: '/v2/topics/{topic_name}/subscriptions/{subscription_id}',
    repeat: {},
  },
  subscription_delete: {
    method: 'DELETE',
    path: '/v2/queues/{queue_name}/subscriptions/{subscription_id}',
    repeat: {},
  },
  topic_subscription_delete: {
    method: 'DELETE',
    path: '/v2/topics/{topic_name}/subscriptions/{subscription_id}',
    repeat: {},
  },
  subscription_confirm: {
    method: 'PUT',
    path: '/v2/queues/{queue_name}/subscriptions/{subscription_id}/confirm',
    repeat: {},
  },
  topic_subscription_confirm: {
    method: 'PUT',
    path: '/v2/topics/{topic_name}/subscriptions/{subscription_id}/confirm',
    repeat: {},
  },
  queue_consume: {
    method: null,
    path: null,
    repeat: null,
  },
  message_ack: {
    method: null,
    path: null,
    repeat: null,
  },
  message_release: {
    method: null,
    path: null,
    repeat: null,
  },
  message_reject: {
    method: null,
    path: null,
    repeat: null,
  },
  consumer_stop: {
    method: null,
    path: null,
    repeat: {},
  },
  subscription_resume: {
    method: null,
    path: null,
    repeat: {},
  },
  hello: {
    method: null,
    path: null,
    repeat: {},
  },
  ping: {
    method: null,
    path: null,
    repeat: {},
  },
  authenticate: {
    method: null,
    path: null,
    repeat: {},
  },
};

// What each operation is as a request to REST, and which may be repeated, from the generated table.

// The operation of this name; undefined where there is none.
const operationOf = (action) => (Object.hasOwn(OPERATIONS, action) ? OPERATIONS[action] : undefined);

// The path with its query, and the body (undefined for none), of a request with these arguments.
function fill({ path, query = {}, filters, ...operation }, given) {
  const left = { ...given };
  const take = (name) => {
    const value = left[name];
    delete left[name];
    return value;
  };
  const target = path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(take(name)));
  const pairs = Object.entries(query).map(([name, argument]) => [name, take(argument)]);
  if (filters) pairs.push(...Object.entries(take(filters) ?? {}));
  const text = pairs.filter(([, value]) => isGiven(value)).map(parameter).join('&');
  return { target: text ? `${target}?${text}` : target, body: bodyOf(operation, left) };
}

function bodyOf({ method, payload, optionalBody }, left) {
  if (method === 'GET' || method === 'DELETE') return undefined;
  if (payload) return left[payload] ?? undefined;
  // No body is another request than an empty one where there is something to be chosen.
  if (optionalBody && !Object.values(left).some(isGiven)) return undefined;
  return left;
}

// The server takes a list as values between commas, which must not be escaped.
function parameter([name, value]) {
  const values = Array.isArray(value) ? value : [value];
  return `${encodeURIComponent(name)}=${values.map(encodeURIComponent).join(',')}`;
}

const isGiven = (value) => value !== undefined && value !== null && value !== '';

// Whether an operation may be repeated when it is not known whether it was done.
function isRepeatable(action, body) {
  const { given, absent, changes } = operationOf(action)?.repeat ?? { given: 'nothing' };
  if (given && !isThere(body[given])) return false;
  if (absent && isThere(body[absent])) return false;
  return !changes || Array.from(body.changes ?? []).every((change) => changes.includes(change?.op));
}

const isThere = (value) => value !== undefined && value !== null;

// What REST answers with 404 where there is none, and a WebSocket with an empty list.
const isEmptyList = (action) => action.endsWith('message_get_many');

const isPost = (action) => action === 'message_post' || action === 'topic_message_post';

// The server over REST.


const UPSTREAM = { max_wait: 0, idempotency_seconds: 0, max_in_flight: 64, protocols: [] };
// Asks for what upstream's API does not know, such as attributes.
const EXTENSIONS = { 'OpenStack-API-Version': 'messaging 2.1' };
// Browsers open six connections to a server; requests need some that nobody waits on.
const MAX_LONG_POLLS = 3;
// What Node says of a connection that the server has ended, and of what is no HTTP.
const CUT = /^(ECONNRESET|EPIPE|UND_ERR_SOCKET)$/;
const NO_HTTP = /^HPE_/;

// The server over REST, for one period of polling. `left` is aborted at its end.
class Rest {
  #base;
  #fetch;
  #headers;
  #left = new AbortController();
  #polls = 0;

  pushes = false;
  capabilities = UPSTREAM;

  // headers: gives those of the next request.
  constructor({ base, fetch, headers }) {
    this.#base = base;
    this.#fetch = fetch;
    this.#headers = headers;
  }

  get left() {
    return this.#left.signal;
  }

  leave() {
    this.#left.abort(new ConnectionLost('Polling has ended.'));
  }

  // Asks what the server can do; upstream's server does not say.
  async learn(signal) {
    try {
      const { body } = await this.request('get_capabilities', {}, { signal });
      this.capabilities = { ...UPSTREAM, ...body };
    } catch (error) {
      if (!(error instanceof NotFound || error instanceof BadRequest)) throw error;
    }
    return this.capabilities;
  }

  // The seconds that a request may wait for a message; 0 where enough do so already.
  get wait() {
    return this.#polls < MAX_LONG_POLLS ? (this.capabilities.max_wait ?? 0) : 0;
  }

  async request(action, body, { signal, headers, accept } = {}) {
    const operation = operationOf(action);
    if (!operation?.path) throw this.#unknown(action);
    if (body.wait) this.#polls += 1;
    try {
      const answer = await this.#ask(action, operation, body, headers, signal);
      accept?.(answer);
      return answer;
    } finally {
      if (body.wait) this.#polls -= 1;
    }
  }

  // A page of another origin may not send this header to every server of upstream's.
  #extensions() {
    return this.capabilities.server ? EXTENSIONS : {};
  }

  #unknown(action) {
    const description = `REST has no action ${action}.`;
    const title = 'Invalid API request';
    return new BadRequest({ status: 400, code: 'unknown_action', title, description });
  }

  async #ask(action, operation, given, own, signal) {
    const { target, body } = fill(operation, given);
    const headers = { Accept: 'application/json', ...this.#extensions(), ...(await this.#headers()), ...own };
    const request = { method: operation.method, headers, signal, cache: 'no-store' };
    if (body !== undefined) {
      headers['Content-Type'] = operation.mediaType ?? 'application/json';
      request.body = toJSON(body);
    }
    if (action === 'get_home_doc') headers.Accept = 'application/json-home';
    const { status, text } = await this.#exchange(target, request, signal);
    const document = parse(text);
    if (document === undefined && isForeign(status)) throw this.#foreign(status, text);
    if (status === 404 && isEmptyList(action)) return { status: 200, body: { messages: [] } };
    if (status >= 400) throw errorOf(status, document);
    try {
      return { status, body: fromREST(action, document) };
    } catch (cause) {
      throw this.#foreign(status, text, cause);
    }
  }

  // The error of an answer that no Zaqar gives. One that says a status of an error keeps it, as there
  // are gateways that put pages of their own in place of errors.
  #foreign(status, text, cause) {
    const told = describeForeign(this.#base, status, text);
    return status >= 400 ? errorOf(status, told) : new NotZaqar(`${told}.`, { cause });
  }

  async #exchange(target, request, signal) {
    try {
      const response = await this.#fetch(this.#base + target, request);
      return { status: response.status, text: await response.text() };
    } catch (cause) {
      if (signal?.aborted) throw signal.reason;
      const root = cause?.cause ? rootOf(cause) : {};
      const sent = !UNSENT.test(root.code ?? '');
      if (NO_HTTP.test(root.code ?? '')) {
        throw new NotZaqar(`The server at ${this.#base} is no Zaqar: it does not answer in HTTP.`, { cause });
      }
      const message = CUT.test(root.code ?? '')
        ? `The server at ${this.#base} ended the connection without an answer${reasonIn(root)}. ` +
          'If it goes on so, it may be no Zaqar.'
        : `${this.#base} cannot be reached over REST${reasonIn(root)}.`;
      throw new ConnectionLost(message, { sent, cause });
    }
  }
}

// Undefined for what is not JSON: an intermediary's page, or another server's.
function parse(text) {
  if (text === '') return null;
  try {
    return fromJSON(text);
  } catch {
    return undefined;
  }
}

// One WebSocket, from its handshake to its end.


const COMPACT = 'zaqar.v2';
// Without a word for this long, the server is asked; without an answer, the connection is dead.
const KEEPALIVE_SECONDS = 20;
const KEEPALIVE_TIMEOUT_SECONDS = 10;
const EXPIRED = 4003;
const TOO_LONG = 1009;

function tooLong(size, reason) {
  const description = `The request has ${size} bytes as a WebSocket message; ${reason}.`;
  return errorOf(413, { title: 'Request body too large', description });
}

// Where the server refuses another request for its length, it refuses this one as well.
const longestOf = (requests) =>
  [...requests].reduce((longest, one) => (longest && longest.size >= one.size ? longest : one), null);

// The envelope of `zaqar.v2`.
const compactEnvelope = {
  wrap: (id, action, body, headers) => (headers ? { id, action, headers, body } : { id, action, body }),
  unwrap: (document) => document,
};

// Upstream's, the default. It has no ids: a header that is echoed does as one.
const defaultEnvelope = {
  wrap: (id, action, body, headers) => ({
    action,
    headers: { ...headers, 'Request-ID': String(id) },
    body,
  }),
  unwrap: ({ request, headers, body, ...push }) => {
    if (request === undefined) return { push: push.Message_Type, body, ...push };
    const id = request.headers?.['Request-ID'];
    return { id: id === undefined ? undefined : Number(id), status: headers?.status ?? 500, body };
  },
};

// One WebSocket, from its handshake to its end. `left` is aborted at its end.
class Connection {
  #options;
  #socket;
  #envelope;
  #clock;
  #waiting = new Map();
  #unsent = [];
  #left = new AbortController();
  #id = 0;
  #heardAt = 0;
  #timer = null;
  #reconnectAfterMs = null;
  #isOpen = false;

  listeners = new Map();
  capabilities = UPSTREAM;

  // options: url, compact, codec, clock, headers (of each request of the default envelope).
  constructor(options) {
    this.#options = options;
    this.#clock = options.clock;
    this.#envelope = options.compact ? compactEnvelope : defaultEnvelope;
  }

  get left() {
    return this.#left.signal;
  }

  get pushes() {
    return this.#options.compact;
  }

  // Whether the handshake came to its end.
  get wasOpen() {
    return this.#isOpen;
  }

  // In the default envelope answers come in order, so nobody may wait.
  get wait() {
    return this.#options.compact ? (this.capabilities.max_wait ?? 0) : 0;
  }

  // Opens a WebSocket of this class; fails with the signal.
  async open(WebSocket, signal) {
    const { url, compact } = this.#options;
    const opened = deferred();
    const fail = (code, cause) => {
      const why = cause === undefined ? '' : reasonIn(rootOf(cause));
      opened.reject(new ConnectionLost(`The handshake failed (${code})${why}.`, { cause }));
    };
    const socket = compact ? new WebSocket(url, [COMPACT]) : new WebSocket(url);
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      this.#isOpen = true;
      opened.resolve();
    };
    // Node says why, and that there is a `close` to come: not always.
    socket.onerror = ({ error, message }) => {
      if (error || message) fail(1006, error ?? { message });
    };
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => {
      fail(code);
      this.#end(code, reason);
    };
    try {
      await abortable(opened.promise, signal);
    } catch (error) {
      this.abandon(error.message);
      throw error;
    }
    this.#heard();
    this.#watch();
  }

  // Authenticates and names the client, and learns what the server can do.
  async greet(headers, signal) {
    if (this.#options.compact) {
      const { body } = await this.request('hello', {}, { headers, signal });
      this.capabilities = { ...UPSTREAM, ...body };
      return;
    }
    if (headers['X-Auth-Token']) await this.request('authenticate', {}, { headers, signal });
  }

  // Sends a request: its answer. `accept` is called with it before anything else is received.
  request(action, body, { headers, signal, accept } = {}) {
    if (this.left.aborted) return Promise.reject(new ConnectionLost('The connection is closed.'));
    const answered = deferred();
    const id = (this.#id += 1);
    const own = this.#options.compact ? headers : { ...this.#options.headers(), ...headers };
    const document = this.#envelope.wrap(id, action, body, own);
    const payload = this.#options.codec.encode(document);
    const size = typeof payload === 'string' ? utf8Encoder.encode(payload).length : payload.length;
    const limit = this.#options.compact ? (this.capabilities.max_message_size ?? Infinity) : Infinity;
    if (size > limit) return Promise.reject(tooLong(size, `at most ${limit} are allowed`));
    const waiting = { id, payload, size, accept, ...answered };
    this.#unsent.push(waiting);
    this.#send();
    return abortable(answered.promise, signal).finally(() => this.#forget(waiting));
  }

  // What was not sent need not be; what was has a right to be answered, which nobody listens to.
  #forget(waiting) {
    this.#unsent = this.#unsent.filter((one) => one !== waiting);
  }

  #send() {
    while (this.#unsent.length && this.#waiting.size < this.capabilities.max_in_flight) {
      const waiting = this.#unsent.shift();
      this.#waiting.set(waiting.id, waiting);
      this.#socket.send(waiting.payload);
    }
  }

  #receive(data) {
    this.#heard();
    let document;
    try {
      document = this.#envelope.unwrap(this.#decode(data));
    } catch (error) {
      this.abandon(`What the server sent cannot be read: ${error.message}`);
      return;
    }
    if (document.push) this.#pushed(document, data.byteLength ?? data.length);
    else this.#answered(document);
  }

  #decode(data) {
    return typeof data === 'string' ? fromJSON(data) : this.#options.codec.decode(new Uint8Array(data));
  }

  #pushed(push, size) {
    if (push.push === 'closing') this.#reconnectAfterMs = push.reconnect_after_ms ?? 0;
    else this.listeners.get(push.subscription_id ?? push.consumer_id)?.(push, size);
  }

  #answered({ id: said, status, body }) {
    const id = said ?? this.#idWithout(status);
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    this.#waiting.delete(id);
    if (status >= 400) {
      waiting.reject(errorOf(status, body));
    } else {
      waiting.accept?.({ status, body });
      waiting.resolve({ status, body });
    }
    this.#send();
  }

  // Which request an answer without an id is for; undefined where that is not known. Upstream does
  // not echo the id of every request, but answers in order. In `zaqar.v2` such an answer refuses a
  // frame that could not be read: where several requests wait, none may be given the refusal of
  // another. They get their own answers, and the one that was refused times out.
  #idWithout(status) {
    const [first] = this.#waiting.keys();
    if (!this.#options.compact || (this.#waiting.size === 1 && status >= 400)) return first;
    const count = this.#waiting.size;
    console.warn(`zaqar: an answer without an id (status ${status}) came while ${count} requests waited.`);
    return undefined;
  }

  #heard() {
    this.#heardAt = this.#clock.now();
  }

  // Asks after the server when it has been silent: half-open connections are told by nobody else.
  #watch() {
    if (this.left.aborted) return;
    const silent = this.#clock.now() - this.#heardAt;
    if (silent >= KEEPALIVE_SECONDS + KEEPALIVE_TIMEOUT_SECONDS) {
      this.abandon('The server is silent.');
      return;
    }
    if (silent >= KEEPALIVE_SECONDS) {
      this.request(this.#options.compact ? 'ping' : 'ping_node', {}).catch(() => {});
    }
    const next = silent >= KEEPALIVE_SECONDS ? KEEPALIVE_TIMEOUT_SECONDS : KEEPALIVE_SECONDS - silent;
    this.#timer = this.#clock.set(() => this.#watch(), next);
  }

  close() {
    this.#socket.close(1000);
    this.#end(1000, 'The client is closed.');
  }

  // Ends a connection from which nothing is to be expected, without waiting for the server.
  abandon(reason) {
    try {
      this.#socket.close();
    } catch {
      // One that never opened need not be closed.
    }
    this.#end(1006, reason);
  }

  #end(code, reason) {
    if (this.left.aborted) return;
    this.#clock.clear(this.#timer);
    const lost = (sent) => new ConnectionLost(`The connection was lost (${code} ${reason}).`, { sent });
    const error = lost(false);
    Object.assign(error, { code, reason, reconnectAfterMs: this.#reconnectAfterMs });
    this.#left.abort(error);
    const refused = code === TOO_LONG ? longestOf(this.#waiting.values()) : null;
    refused?.reject(tooLong(refused.size, `the server closed the connection over it (${code})`));
    for (const waiting of this.#waiting.values()) waiting.reject(lost(true));
    for (const waiting of this.#unsent) waiting.reject(lost(false));
    this.#waiting.clear();
    this.#unsent = [];
    this.listeners.clear();
  }
}

// How long before its end a token is replaced, in seconds; or at nine tenths of its time.
const RENEW_SECONDS = 60;

// The token that getToken gives, called again before it ends, or when it is refused.
class Credentials {
  #getToken;
  #clock;
  #asking = null;

  #renewAt = null;

  token = null;

  constructor({ token = null, getToken = null, clock }) {
    this.token = token;
    this.#getToken = getToken;
    this.#clock = clock;
  }

  get canRenew() {
    return this.#getToken !== null;
  }

  // The seconds until it should be replaced; null where that is not known.
  get secondsLeft() {
    return this.#renewAt === null ? null : Math.max(0, (this.#renewAt - this.#clock.time()) / 1000);
  }

  async current() {
    if (this.canRenew && (this.token === null || this.secondsLeft === 0)) await this.renew();
    return this.token;
  }

  // Asks for another token; once, however many want it.
  async renew() {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
    });
    await this.#asking;
  }

  async #ask() {
    const given = await this.#getToken();
    const { token, expiresAt = null } = typeof given === 'string' ? { token: given } : given;
    this.replace(token, expiresAt);
  }

  // The token is over.
  expire() {
    if (this.canRenew) this.#renewAt = 0;
  }

  // expiresAt: a Date, what makes one, or null where it is not known.
  replace(token, expiresAt = null) {
    this.token = token;
    this.#renewAt = null;
    if (expiresAt === null) return;
    const end = new Date(expiresAt).getTime();
    const left = end - this.#clock.time();
    this.#renewAt = end - Math.min(RENEW_SECONDS * 1000, left / 10);
  }
}

// What may be sent: checked before it is encoded.


// The most levels that a server takes, by its default, envelope included.
const MAX_SENT_DEPTH = 64;

const SURROGATE = /\p{Surrogate}/u;

// Throws EncodingError for what JSON and MsgPack cannot both say as it is. JSON.stringify would write
// null or {} for much of it, and a TextEncoder another character. Members that are undefined are left
// out, as JSON does, and toJSON is asked.
// depth: of what it is in; a request's body is in an envelope.
function checkDocument(value, place = '$', depth = 1) {
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
function plain(value) {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value.toJSON === 'function') return plain(value.toJSON());
  const given = Object.entries(value).filter(([, member]) => member !== undefined);
  return Object.fromEntries(given.map(([name, member]) => [name, plain(member)]));
}

// The events that a client dispatches.

// A subscription begins again with the oldest message: the store of the server is another one by now.
// marker: the one that it does not know. error: what the server said.
class RestartEvent extends Event {
  constructor(queueName, marker, error) {
    super('restart');
    Object.assign(this, { queueName, marker, error });
  }
}

// What the client's state is now and was before, and why.
class StateEvent extends Event {
  constructor(state, previous, reason = null) {
    super('state');
    Object.assign(this, { state, previous, reason });
  }
}

// Which transport to use, and when to try again; without I/O.

// No 101, or no word after it, within that time: something on the way does not let it through.
const HANDSHAKE_SECONDS = 3;
// So many connections lost within that time: it is let through, but does not last.
const MAX_LOSSES = 3;
const LOSSES_SECONDS = 60;
// How often the WebSocket is tried again from REST.
const RETRY_SECONDS = 60;
// Reconnection: up to 0.1 s, 0.2 s, 0.4 s... 30 s, the time itself at random (full jitter).
const BACKOFF_SECONDS = 0.1;
const MAX_BACKOFF_SECONDS = 30;
// The least of those where connections keep dying and there is nothing to fall back to.
const LOSING_BACKOFF_SECONDS = 1;
// While somebody waits for a connection, no wait is longer than up to that.
const WANTED_BACKOFF_SECONDS = 2;

// Which transport is in use, and when to try the WebSocket next: a state machine without I/O.
//
//               opened                        lost 3 times in 60 s
// connecting ───────────► websocket ────────────────────────────► polling
//     │  ▲                    │                                    ▲  │
//     │  └────────────────────┘ lost                               │  │
//     └────────────────────────────────────────────────────────────┘  │ opened, tried every 60 s
//       refused, filtered, or lost 3 times in 60 s                    ▼ websocket
//
// Its user asks `waitSeconds` when to try next, calls `attempting` when it does, and then says what
// came of it. The Python client has the same machine; both run tests/client/fallback_vectors.json.
// transport: 'rest' is always polling, 'websocket' never. clock: { now } in seconds. random: gives
// numbers from 0 to 1.
class Fallback {
  #transport;
  #retrySeconds;
  #clock;
  #random;
  #backoff;
  #losses = [];
  #tryAt;
  #ifWantedAt = null;

  constructor({ transport, clock, random, retrySeconds = RETRY_SECONDS }) {
    this.#transport = transport;
    this.#retrySeconds = retrySeconds;
    this.#clock = clock;
    this.#random = random;
    this.#backoff = new Backoff(random);
    this.#tryAt = transport === 'rest' ? null : clock.now();
    this.state = transport === 'rest' ? 'polling' : 'connecting';
  }

  // For how long not to try the WebSocket yet; null while it is open or not to be tried.
  waitSeconds() {
    return this.#tryAt === null ? null : Math.max(this.#tryAt - this.#clock.now(), 0);
  }

  // Somebody waits for a connection: try sooner, unless the server said when. Whether that is sooner
  // than before.
  wanted() {
    if (this.#tryAt === null || this.#ifWantedAt === null) return false;
    const isSooner = this.#ifWantedAt < this.#tryAt;
    this.#tryAt = Math.min(this.#tryAt, this.#ifWantedAt);
    return isSooner;
  }

  // The WebSocket is being tried.
  attempting() {
    this.#tryAt = null;
    this.#ifWantedAt = null;
  }

  // It opened, and the server has spoken over it.
  opened() {
    if (this.state === 'closed') return;
    this.state = 'websocket';
    this.#backoff.reset();
  }

  // The handshake was answered, but not with 101.
  refused() {
    this.#fallBack();
  }

  // Nothing came within HANDSHAKE_SECONDS, though the server could be reached.
  filtered() {
    this.#fallBack();
  }

  // The server could not be reached at all, so neither over REST: try on.
  unreachable() {
    if (this.state !== 'closed') this.#tryAgain();
  }

  // The connection, or the attempt at one, ended. reconnectAfterMs: when to come back, where the
  // server said so before it closed; such an end does not count.
  lost(reconnectAfterMs = null) {
    if (this.state === 'closed') return;
    if (this.state === 'polling') {
      this.#tryIn(this.#retrySeconds);
      return;
    }
    this.state = 'connecting';
    if (reconnectAfterMs !== null) {
      this.#tryIn(reconnectAfterMs / 1000);
      return;
    }
    this.#losses = [...this.#losses, this.#clock.now()].slice(-MAX_LOSSES);
    if (this.#isLosing) this.#fallBack();
    else this.#tryAgain();
  }

  close() {
    this.state = 'closed';
    this.#tryAt = null;
  }

  #fallBack() {
    if (this.state === 'closed') return;
    if (this.#transport === 'auto') {
      this.state = 'polling';
      this.#losses = [];
      this.#backoff.reset();
    }
    this.#tryAgain();
  }

  // Whether so many connections were lost lately that the next is not likely to last.
  get #isLosing() {
    const { length } = this.#losses;
    return length === MAX_LOSSES && this.#clock.now() - this.#losses[0] <= LOSSES_SECONDS;
  }

  #tryAgain() {
    if (this.state === 'polling') {
      this.#tryIn(this.#retrySeconds);
      return;
    }
    this.#tryIn(this.#backoff.next(this.#isLosing ? LOSING_BACKOFF_SECONDS : 0));
    this.#ifWantedAt = this.#clock.now() + WANTED_BACKOFF_SECONDS * this.#random();
  }

  #tryIn(seconds) {
    this.#tryAt = this.#clock.now() + seconds;
  }
}

// How long to wait after one failure more: exponential, with full jitter.
class Backoff {
  #random;
  #ceiling = BACKOFF_SECONDS;

  constructor(random) {
    this.#random = random;
  }

  // For how long to wait now, in seconds. leastCeiling: of the longest that it may be.
  next(leastCeiling = 0) {
    const ceiling = Math.max(this.#ceiling, leastCeiling);
    this.#ceiling = Math.min(ceiling * 2, MAX_BACKOFF_SECONDS);
    return ceiling * this.#random();
  }

  // It went well: begin anew.
  reset() {
    this.#ceiling = BACKOFF_SECONDS;
  }
}

const MIN_PAUSE_SECONDS = 0.1;
const MAX_PAUSE_SECONDS = 2;
const MIN_WAIT_SECONDS = 1;
const MAX_WAIT_SECONDS = 20;

// How to ask a server for what is new, again and again.
//
// With long polling the server may wait for at most `longest` seconds at a time, and for less where
// something on the way cuts such requests short. Without it there is a pause after each
// answer that brings nothing, from MIN_PAUSE_SECONDS and twice as long each time.
class Pace {
  #pause = MIN_PAUSE_SECONDS;
  #longest;

  constructor(longest = MAX_WAIT_SECONDS) {
    this.#longest = longest;
  }

  // For how long the server is to wait for something; `maxWait` is the most it may.
  wait(maxWait) {
    return Math.min(maxWait, this.#longest);
  }

  // A request that was to wait ended without an answer after so long.
  cut(seconds) {
    this.#longest = Math.max(MIN_WAIT_SECONDS, Math.min(this.#longest, seconds / 2));
  }

  // An answer brought something.
  found() {
    this.#pause = MIN_PAUSE_SECONDS;
  }

  // For how long to pause after an answer that brought nothing, in seconds.
  pause() {
    const pause = this.#pause;
    this.#pause = Math.min(pause * 2, MAX_PAUSE_SECONDS);
    return pause;
  }
}

// Options of calls.


// Those that every call takes, beside its own.
const REQUEST_OPTIONS = ['timeout', 'signal', 'headers'];

// Throws for an option that is none of these. internal: others, which no user is told of.
function checkOptions(given, names, what = 'this', internal = []) {
  if (given === null || typeof given !== 'object') throw new ZaqarError(`The options of ${what} must be an object.`);
  for (const name of Object.keys(given)) {
    if (names.includes(name) || internal.includes(name)) continue;
    throw new ZaqarError(`There is no option '${name}' of ${what}; there are ${names.join(', ')}.`);
  }
}

// Messages, and claims on them.


// What becomes of a message, by the operations of consumers.
const ACK = 'message_ack';
const RELEASE = 'message_release';
const REJECT = 'message_reject';

// A message: id, body, ttl and age in seconds, claimId (null where nobody has it), checksum where
// the queue has them, marker (of a subscription), queueName, attributes (texts by name), group (the
// name of its group; null for none), attempt (which delivery it is, from 1; null where nobody has it),
// deadLetter (where a dead letter is from; null for others).
class Message {
  #channel;
  #consumer;

  constructor(channel, found, { marker = null, consumer = null } = {}) {
    this.#channel = channel;
    this.#consumer = consumer;
    this.id = found.id;
    this.body = found.body;
    this.ttl = found.ttl;
    this.age = found.age;
    this.claimId = found.claim_id ?? null;
    this.checksum = found.checksum;
    this.attributes = found.attributes ?? {};
    this.group = found.group ?? null;
    this.attempt = Number.isInteger(found.claim_count) ? found.claim_count + 1 : null;
    this.deadLetter = originOf(found.dead_letter);
    this.marker = marker;
    this.queueName = channel.name;
  }

  // Deletes it; a claimed one under its claim.
  async delete(options) {
    if (this.#consumer !== null) {
      await this.ack();
      return;
    }
    const asked = { message_id: this.id, claim_id: this.claimId ?? undefined };
    await this.#channel._request(this.#channel._action('message_delete'), asked, options);
  }

  // It is dealt with: deletes it. False where a consumer's lease was lost before: it comes again, to
  // this consumer or another.
  async ack() {
    if (this.#consumer !== null) return this.#consumer._settle(this, ACK);
    await this.delete();
    return true;
  }

  // Gives it back, to be delivered again after `delay` seconds or as the queue says. False where a
  // consumer's lease of it was lost before.
  async release(given = {}) {
    checkOptions(given, ['delay', ...REQUEST_OPTIONS], 'release()');
    const { delay, ...options } = given;
    return this.#giveUp(RELEASE, delay === undefined ? {} : { delay }, options);
  }

  // Moves it to the dead letter queue at once. False where a consumer's lease of it was lost before.
  async reject(reason, options = {}) {
    checkOptions(options, REQUEST_OPTIONS, 'reject()');
    return this.#giveUp(REJECT, reason === undefined ? {} : { reason }, options);
  }

  async #giveUp(action, given, options) {
    if (this.#consumer !== null) return this.#consumer._settle(this, action, given, options);
    if (this.claimId === null) {
      throw new Unsupported('Only a claimed message can be released or rejected.');
    }
    await this.#channel._settleOne(action, this, given, options);
    return true;
  }
}

function originOf(found) {
  if (!found) return null;
  const { queue, message_id: messageId, claim_count: claimCount, at, reason } = found;
  return { queue, messageId, claimCount, at, reason: reason ?? null };
}

// Messages that are this client's for a while. id: null where there were none.
class Claim {
  #queue;

  constructor(queue, { claim_id: id = null, messages = [] }, { ttl, grace } = {}) {
    this.#queue = queue;
    this.id = id;
    this.ttl = ttl;
    this.grace = grace;
    this.messages = messages.map((one) => new Message(queue, { ...one, claim_id: id }));
  }

  [Symbol.iterator]() {
    return this.messages[Symbol.iterator]();
  }

  // Its time begins anew.
  async renew({ ttl = this.ttl, grace = this.grace, ...options } = {}) {
    await this.#queue._request('claim_update', { claim_id: this.id, ttl, grace }, options);
  }

  // Gives back what was not deleted.
  async release(options) {
    if (this.id === null) return;
    await this.#queue._request('claim_delete', { claim_id: this.id }, options);
  }
}

// Received messages that wait for a slow reader.


const INBOX_MESSAGES = 1000;
const INBOX_BYTES = 4 * 1024 * 1024;

// What was received and has not been read yet. Bounded by those who fill it: they ask `isFull`, and
// wait for `room`, which is there when half has been read.
class Inbox {
  #entries = [];
  #readers = [];
  #bytes = 0;
  #room = null;
  #end = null;

  get isFull() {
    return this.#entries.length >= INBOX_MESSAGES || this.#bytes >= INBOX_BYTES;
  }

  get #isRoomy() {
    return this.#entries.length <= INBOX_MESSAGES / 2 && this.#bytes <= INBOX_BYTES / 2;
  }

  put(value, size = 0) {
    if (this.#end !== null) return;
    const reader = this.#readers.shift();
    if (reader) {
      reader.resolve({ value, done: false });
      return;
    }
    this.#entries.push({ value, size });
    this.#bytes += size;
  }

  // The next one, as iterators give it; nothing is taken where the signal comes first.
  async take(signal) {
    if (signal?.aborted) throw signal.reason;
    if (this.#entries.length) return { value: this.#shift(), done: false };
    if (this.#end !== null) return this.#finished();
    const reader = deferred();
    this.#readers.push(reader);
    try {
      return await abortable(reader.promise, signal);
    } catch (error) {
      this.#readers = this.#readers.filter((one) => one !== reader);
      throw error;
    }
  }

  #shift() {
    const { value, size } = this.#entries.shift();
    this.#bytes -= size;
    this.#tellRoom();
    return value;
  }

  #tellRoom() {
    if (this.#room && this.#isRoomy) {
      this.#room.resolve();
      this.#room = null;
    }
  }

  async room(signal) {
    if (this.#isRoomy) return;
    this.#room ??= deferred();
    await abortable(this.#room.promise, signal);
  }

  // Leaves out what is of no use any more.
  drop(isUseless) {
    this.#entries = this.#entries.filter(({ value }) => !isUseless(value));
    this.#bytes = this.#entries.reduce((sum, { size }) => sum + size, 0);
    this.#tellRoom();
  }

  // No more will come. What is there can still be read, and then the error, if there is one.
  end(error = null) {
    if (this.#end !== null) return;
    this.#end = { error };
    for (const reader of this.#readers.splice(0)) this.#settle(reader);
  }

  #settle(reader) {
    if (this.#end.error) reader.reject(this.#end.error);
    else reader.resolve({ value: undefined, done: true });
  }

  // The error is told once; iteration is over then.
  #finished() {
    const { error } = this.#end;
    this.#end = { error: null };
    if (error) throw error;
    return { value: undefined, done: true };
  }
}

// What subscriptions and consumers have in common.


// Whether the server cannot be reached, rather than not wanting us.
const isAway = (error) =>
  error instanceof ConnectionLost || error instanceof Timeout || error.status >= 500;

// What passes by itself, and is tried again.
const isPassing = (error) => isAway(error) || error instanceof TooManyRequests;

// Messages as they come, whatever the transport. What subclasses do on one transport is `_work`,
// which is begun again whenever that one is left.
class Stream {
  #inbox = new Inbox();
  #scope;
  #backoff;
  #finished;

  constructor(client, signal) {
    this._client = client;
    this.#backoff = new Backoff(client._random);
    this.#scope = new Scope(client._clock, { signals: [signal, client._closing] });
    this.#scope.signal.addEventListener('abort', () => this.#inbox.end(this.#reason()), {
      once: true,
    });
    if (this._signal.aborted) this.#inbox.end(this.#reason());
    this.#finished = this.#run();
  }

  get _signal() {
    return this.#scope.signal;
  }

  get _inbox() {
    return this.#inbox;
  }

  // Why it ended: closing it is no error.
  #reason() {
    const { reason } = this._signal;
    return reason === CLOSED ? null : reason;
  }

  async #run() {
    while (!this._signal.aborted) {
      let transport = null;
      try {
        transport = await this._client._ready(this._signal);
        await this._work(transport);
      } catch (error) {
        await this.#fail(error, transport);
      }
    }
  }

  async #fail(error, transport) {
    if (this._signal.aborted || transport?.left.aborted) return;
    if (!isPassing(error)) {
      this.#scope.abort(error);
      return;
    }
    // The client paces it then: it waits for the next connection.
    if (error instanceof OriginRefused) return;
    const pause = sleep(this._client._clock, this.#backoff.next(), this._signal);
    await pause.catch(() => {});
  }

  _progressed() {
    this.#backoff.reset();
  }

  // Asks by `ask`, which is given for how long the server may wait and gives how much came of it,
  // again and again for as long as this transport is in use. `mayAsk` says when.
  async _repeat(transport, mayAsk, ask) {
    const clock = this._client._clock;
    const pace = new Pace();
    while (!transport.left.aborted && !this._signal.aborted) {
      await mayAsk();
      const wait = pace.wait(transport.wait);
      const began = clock.now();
      try {
        if (await ask(wait)) pace.found();
        else if (!wait || clock.now() - began < wait / 2) {
          await this._unlessLeft(sleep(clock, pace.pause(), this._signal), transport);
        }
      } catch (error) {
        if (wait && error instanceof ConnectionLost) pace.cut(clock.now() - began);
        if (!isPassing(error) || transport.left.aborted) throw error;
        await this._unlessLeft(sleep(clock, this.#backoff.next(), this._signal), transport);
      }
    }
  }

  // The same promise, which fails when the transport is left or this has ended.
  _unlessLeft(promise, transport) {
    return abortable(abortable(promise, transport.left), this._signal);
  }

  // The next message: { value, done }. With a `timeout` in seconds, or a signal, nothing is lost
  // where that comes first.
  async next(options = {}) {
    checkOptions(options, ['timeout', 'signal'], 'next()');
    const { timeout = null, signal } = options;
    const scope = new Scope(this._client._clock, {
      signals: [signal],
      seconds: timeout,
      what: 'The wait for a message',
    });
    try {
      const { value, done } = await this.#inbox.take(scope.signal);
      if (!done) this._handedOut(value);
      return { value, done };
    } finally {
      scope.end();
    }
  }

  _handedOut() {}

  // Ends it; what was not read is read no more.
  async close() {
    this.#inbox.drop(() => true);
    this.#scope.abort(CLOSED);
    this.#inbox.end();
    await this.#finished;
  }

  // Leaving a loop closes it.
  async return(value) {
    await this.close();
    return { value, done: true };
  }

  [Symbol.asyncIterator]() {
    return this;
  }
}

// The code of the error for a marker that the store has not given, for it is another one by now.
const UNKNOWN_MARKER = 'unknown_marker';

const CLOSED = new ClientClosed('Closed by its user.');

// Filters: which messages a subscription is for, by their attributes. The server does the same where it
// pushes; this is for what is polled.

const MAX_CONDITIONS = 16;
const MAX_TEXTS = 100;
const MAX_NAME = 128;
const MAX_TEXT = 8192;
const NAME = /^[A-Za-z0-9_.-]+$/;
const FORMS = 'a text, a list of texts, {"prefix": TEXT}, {"exists": true} or {"exists": false}';

// The function that tells whether attributes meet a filter. Throws a TypeError for what is no filter.
function parseFilter(document, place = '$.options.filter') {
  if (!isObject(document)) {
    throw refusal(`A filter must be an object such as {"type": "order"}, not ${told(document)}`, place);
  }
  const wanted = Object.entries(document).filter(([, condition]) => condition !== undefined);
  if (wanted.length < 1 || wanted.length > MAX_CONDITIONS) {
    throw refusal(`A filter must name 1 to ${MAX_CONDITIONS} attributes, not ${wanted.length}`, place);
  }
  const conditions = wanted.map(([name, condition]) => {
    if (name.length > MAX_NAME || !NAME.test(name)) {
      const rule = `1 to ${MAX_NAME} letters, digits and characters of "_.-"`;
      const shown = name.slice(0, MAX_NAME);
      throw refusal(`The name of an attribute may have ${rule}, unlike '${shown}'`, place);
    }
    return [name, conditionOf(condition, `${place}.${name}`)];
  });
  return (attributes) =>
    conditions.every(([name, meets]) => meets(Object.hasOwn(attributes, name) ? attributes[name] : null));
}

// What tells whether an attribute, null where it is not there, meets a condition.
function conditionOf(wanted, place) {
  if (typeof wanted === 'string') return oneOf([text(wanted, place)]);
  if (Array.isArray(wanted)) {
    if (wanted.length < 1 || wanted.length > MAX_TEXTS) {
      throw refusal(`A list must have 1 to ${MAX_TEXTS} texts, not ${wanted.length}`, place);
    }
    return oneOf(wanted.map((one, index) => text(one, `${place}[${index}]`)));
  }
  const [[kind, given] = [], ...others] = isObject(wanted) ? Object.entries(wanted) : [];
  if (kind === 'prefix' && !others.length) {
    const prefix = text(given, `${place}.prefix`);
    return (value) => value !== null && value.startsWith(prefix);
  }
  if (kind === 'exists' && !others.length) {
    if (typeof given !== 'boolean') {
      throw refusal(`This must be true or false, not ${told(given)}`, `${place}.exists`);
    }
    return (value) => (value !== null) === given;
  }
  throw refusal(`A condition must be ${FORMS}`, place);
}

function oneOf(texts) {
  const wanted = new Set(texts);
  return (value) => wanted.has(value);
}

function text(given, place) {
  if (typeof given !== 'string') throw refusal(`This must be a text, not ${told(given)}`, place);
  if (given.length > MAX_TEXT) {
    throw refusal(`A text may have at most ${MAX_TEXT} characters, not ${given.length}`, place);
  }
  return given;
}

const isObject = (given) => typeof given === 'object' && given !== null && !Array.isArray(given);

const refusal = (reason, place) => new TypeError(`${reason} - at \`${place}\``);

// What a value is in JSON.
function told(given) {
  if (given === null || typeof given === 'boolean') return String(given);
  if (typeof given === 'number' || typeof given === 'bigint') return 'a number';
  if (Array.isArray(given)) return 'a list';
  return typeof given === 'string' ? 'a text' : 'an object';
}

// Messages as they are posted, once and in order.


const PAGE = 20;
// Upstream's driver for Redis cannot list claimed messages without a marker; in no store has a
// message one that comes before this.
const BEFORE_ALL = '0000000000000000';
// Some stores begin anew where a marker's message is gone: what was seen lately is left out.
const REMEMBERED = 2000;

// Every message of a queue or topic once and in order, pushed or polled.
//
// marker: of the last message that was handed out, from where another one could go on; null until
// it is known. ready: settled when it is known where it begins.
//
// The store of a server may be made anew, or restored from a backup: then it does not know the marker
// any more, and this begins again with the oldest message. `restarts` says how often it has, and the
// client dispatches a `restart` event.
class Subscription extends Stream {
  #channel;
  #filter;
  // What tells whether attributes meet the filter, for what is polled; null without one.
  #meets;
  #received;
  #seen = new Set();
  #ready = deferred();

  // Not private: what the base class starts at once may need them.
  constructor(channel, options = {}) {
    checkOptions(options, ['marker', 'filter', 'signal'], 'subscribe()');
    const { marker, filter, signal } = options;
    const meets = filter === undefined || filter === null ? null : parseFilter(filter, 'filter');
    super(channel._client, signal);
    this.#channel = channel;
    this.#filter = filter ?? undefined;
    this.#meets = meets;
    this.#received = marker ?? undefined;
    this.marker = marker ?? null;
    this.restarts = 0;
    this._signal.addEventListener('abort', () => this.#ready.reject(this._signal.reason), {
      once: true,
    });
    if (marker !== undefined && marker !== null) this.#ready.resolve();
  }

  get ready() {
    return this.#ready.promise;
  }

  async _work(transport) {
    try {
      await this.#follow(transport);
    } catch (error) {
      if (error.code !== UNKNOWN_MARKER || !this.#received) throw error;
      this.#beginAgain(error);
    }
  }

  // The ids of another store are others' by now.
  #beginAgain(error) {
    const lost = this.#received;
    this.#received = this.marker = '';
    this.#seen.clear();
    this.restarts += 1;
    this._client.dispatchEvent(new RestartEvent(this.#channel.name, lost, error));
  }

  async #follow(transport) {
    if (!transport.pushes) return this.#poll(transport);
    try {
      return await this.#listen(transport);
    } catch (error) {
      // This connection is subscribed already, by another one like this.
      if (error instanceof Conflict) return this.#poll(transport);
      throw error;
    }
  }

  #begin(marker) {
    if (this.#received === undefined && typeof marker === 'string') {
      this.#received = marker;
      this.marker ??= marker;
    }
    this.#ready.resolve();
    this._progressed();
  }

  async #listen(connection) {
    await this._inbox.room(this._signal);
    const full = deferred();
    let id = null;
    const accept = ({ body }) => {
      id = body.subscription_id;
      this.#begin(body.marker);
      if (this._signal.aborted) this.#unsubscribe(connection, id);
      else connection.listeners.set(id, (push, size) => this.#pushed(connection, push, size, full));
    };
    const asked = { ...this.#channel._named, marker: this.#received };
    if (this.#filter !== undefined) asked.options = { filter: this.#filter };
    const options = { signal: this._signal, accept };
    await connection.request(this.#channel._action('subscription_create'), asked, options);
    try {
      await this._unlessLeft(full.promise, connection);
    } finally {
      this.#unsubscribe(connection, id);
    }
  }

  // What comes meanwhile is not listened to: the queue still has it, and the marker says where.
  #unsubscribe(connection, id) {
    connection.listeners.delete(id);
    const asked = { ...this.#channel._named, subscription_id: id };
    connection
      .request(this.#channel._action('subscription_delete'), asked)
      .catch(ignoreEndOf(connection));
  }

  #pushed(connection, push, size, full) {
    if (push.push === 'paused') {
      this.#resume(connection, push.subscription_id).catch(full.reject);
      return;
    }
    if (push.push === 'ended') {
      settleEnd(push, full);
      return;
    }
    if (push.push === 'marker') {
      this.#stand(push.marker);
      return;
    }
    this.#take(push.message, push.marker, size);
    if (!this._inbox.isFull) return;
    connection.listeners.delete(push.subscription_id);
    full.resolve();
  }

  async #resume(connection, id) {
    await this._inbox.room(this._signal);
    await connection.request('subscription_resume', { subscription_id: id, marker: this.#received });
  }

  #take(message, marker, size) {
    if (this.#meets !== null && !this.#meets(message.attributes ?? {})) {
      this.#stand(marker);
      return;
    }
    this.#received = marker;
    this._progressed();
    if (this.#seen.has(message.id)) return;
    this.#seen.add(message.id);
    if (this.#seen.size > REMEMBERED) this.#seen.delete(this.#seen.values().next().value);
    this._inbox.put(new Message(this.#channel, message, { marker }), size);
  }

  _handedOut(message) {
    this.marker = message.marker;
  }

  #poll(transport) {
    const mayAsk = () => this._inbox.room(this._signal);
    return this._repeat(transport, mayAsk, async (wait) => {
      if (this.#received === undefined) this.#begin(await this.#newest(transport));
      const before = this.#received;
      const page = await this.#page(transport, wait);
      const isNew = page.messages.some(({ id }) => !this.#seen.has(id));
      // The marker of an empty page is the same place, as the store knows it again for certain.
      if (!page.messages.length && page.marker && before) this.#stand(page.marker);
      else this.#takePage(page);
      // A page that brings nothing new may be on the way to one that does, but not for ever.
      return isNew || (page.messages.length > 0 && this.#received !== before);
    });
  }

  #stand(marker) {
    if (this.marker === this.#received) this.marker = marker;
    this.#received = marker;
  }

  async #page(transport, wait) {
    if (this.#meets !== null && !transport.capabilities?.server) {
      throw new Unsupported('This server keeps no attributes of messages, which a filter needs.');
    }
    const asked = {
      ...this.#channel._named,
      marker: this.#received || BEFORE_ALL,
      limit: PAGE,
      echo: true,
      include_claimed: true,
      // A server of upstream's does not move a delayed message behind what was visible before it.
      include_delayed: transport.capabilities?.protocols.includes(COMPACT) ? undefined : true,
      // Who may wait is told where an empty page stands.
      wait: transport.capabilities?.max_wait ? wait : undefined,
    };
    const page = await this.#ask(transport, this.#channel._action('message_list'), asked, wait);
    this.#begin('');
    return page;
  }

  // Where "from now" is, for those who cannot be told.
  async #newest(transport) {
    const action = `${this.#channel._kind}_get_stats`;
    const { messages } = await this.#ask(transport, action, this.#channel._named);
    return messages.newest?.id ?? '';
  }

  async #ask(transport, action, asked, wait = 0) {
    const scope = new Scope(this._client._clock, {
      signals: [this._signal, transport.left],
      seconds: wait + this._client.timeout,
    });
    try {
      const { body } = await transport.request(action, asked, { signal: scope.signal });
      return body;
    } finally {
      scope.end();
    }
  }

  // Where the page's marker begins with its last message's id, each message's is its id with the same
  // end; else only a page has one, and a message in its midst stands where the page began.
  #takePage({ messages, marker }) {
    const last = messages.length - 1;
    const end = last >= 0 && marker?.startsWith(messages[last].id) ? marker.slice(messages[last].id.length) : null;
    messages.forEach((message, index) => {
      const before = this.#received ?? '';
      const own = end === null ? (index === last ? (marker ?? before) : before) : message.id + end;
      this.#take(message, own, 0);
    });
  }
}

// A request that only tidies up may die with its connection; what else fails is told.
const ignoreEndOf = (transport) => (error) => {
  if (!transport.left.aborted && !(error instanceof APIError)) throw error;
};

// What another token of the same project mends, or simply to ask again.
const MENDED = ['token_expired', 'user_changed', 'deleted', 'expired', UNKNOWN_MARKER];

function settleEnd(push, ended) {
  if (MENDED.includes(push.reason)) ended.resolve();
  else ended.reject(new AccessEnded(push));
}

// Messages to work on: each is leased to the consumer until it is settled.


const CLAIM_TTL = 300;
const CLAIM_GRACE = 60;
const MAX_CLAIMED = 20;
// How often it is looked whether the queue has ordered groups.
const LOOK_SECONDS = 60;
// What a server says to who deletes a message under a claim that is over.
const LOST_CLAIM = [BadRequest, Forbidden, NotFound];

// Messages to work on, each this one's own until it is acknowledged or released; at most `credit`
// at a time. Over REST by claims, which are renewed until all of theirs are settled.
class Consumer extends Stream {
  #queue;
  #credit;
  #lease;
  // Of each message what holds it: { connection, consumerId } or { claim }. Those that are unsettled.
  #holds = new WeakMap();
  #held = new Set();
  #settled = deferred();
  // The settlements that are being told to the server.
  #telling = new Set();
  // Whether the queue has ordered groups, and from when on that is to be asked again.
  #isOrdered = false;
  #isOrderedUntil = 0;

  constructor(queue, options = {}) {
    checkOptions(options, ['credit', 'ttl', 'grace', 'signal'], 'consume()');
    const { credit = 10, ttl, grace, signal } = options;
    super(queue._client, signal);
    this.#queue = queue;
    this.#credit = credit;
    this.#lease = { ttl, grace };
    const leave = () => {
      if (this._client._closing.aborted) for (const { claim } of this.#held) this._client._clock.clear(claim?.timer);
    };
    this._signal.addEventListener('abort', leave, { once: true });
  }

  // How many messages are unsettled.
  get unsettled() {
    return this.#held.size;
  }

  async _work(transport) {
    if (transport.pushes) await this.#listen(transport);
    else await this.#claim(transport);
  }

  async #listen(connection) {
    let consumerId = null;
    const ended = deferred();
    const accept = ({ body }) => {
      consumerId = body.consumer_id;
      connection.listeners.set(consumerId, (push, size) => {
        if (push.push !== 'ended') {
          this.#pushed(connection, push, size);
          return;
        }
        consumerId = null;
        this.#forget(connection, push.consumer_id);
        settleEnd(push, ended);
      });
    };
    const asked = { ...this.#queue._named, credit: this.#credit, ...this.#lease };
    const scope = new Scope(this._client._clock, { seconds: this._client.timeout });
    try {
      await connection.request('queue_consume', asked, { accept, signal: scope.signal });
    } finally {
      scope.end();
    }
    this._progressed();
    try {
      await this._unlessLeft(ended.promise, connection);
    } finally {
      if (consumerId !== null) await this.#stop(connection, consumerId);
    }
  }

  // What was its own is so no more: the server gives it to whoever is next.
  #forget(connection, consumerId) {
    connection.listeners.delete(consumerId);
    this._inbox.drop((message) => this.#holds.get(message).connection === connection);
    for (const held of this.#held) if (held.connection === connection) this.#held.delete(held);
  }

  async #stop(connection, consumerId) {
    this.#forget(connection, consumerId);
    // What has been called before is not to find that the consumer has ended.
    await Promise.allSettled(this.#telling);
    const stopped = connection.request('consumer_stop', { consumer_id: consumerId });
    await stopped.catch(ignoreEndOf(connection));
  }

  #pushed(connection, push, size) {
    const { message, consumer_id: consumerId } = push;
    this.#put(message, { connection, consumerId }, size);
  }

  #put(found, held, size = 0) {
    const message = new Message(this.#queue, found, { consumer: this });
    this.#holds.set(message, held);
    this.#held.add(held);
    this._inbox.put(message, size);
  }

  #claim(transport) {
    // Half of it at least: claims on one message after the other would be many requests.
    const hasCredit = async () => {
      while (this.#held.size > this.#credit / 2) {
        await this._unlessLeft(this.#settled.promise, transport);
      }
    };
    return this._repeat(transport, hasCredit, async (wait) => {
      if (transport.capabilities.server) await this._unlessLeft(this.#lookForOrder(transport), transport);
      // Of a group one claim at a time has messages: one of one message keeps their order.
      const limit = Math.min(this.#credit - this.#held.size, this.#isOrdered ? 1 : MAX_CLAIMED);
      const found = await this._unlessLeft(this.#claimSome(transport, limit, wait), transport);
      this._progressed();
      return found;
    });
  }

  // Know whether the queue has ordered groups; upstream's servers have none.
  async #lookForOrder(transport) {
    if (this._client._clock.now() < this.#isOrderedUntil) return;
    const scope = new Scope(this._client._clock, { seconds: this._client.timeout });
    try {
      const { body } = await transport.request('queue_get', this.#queue._named, { signal: scope.signal });
      this.#isOrdered = Boolean(body._ordered_groups);
    } catch (error) {
      if (isPassing(error) || !(error instanceof ZaqarError)) throw error;
      // Whoever may not see it keeps the order that there may be.
      this.#isOrdered = true;
    } finally {
      scope.end();
    }
    this.#isOrderedUntil = this._client._clock.now() + LOOK_SECONDS;
  }

  // How many were claimed. Not given up with the transport: what was claimed would be lost for the
  // time of the claim.
  async #claimSome(transport, limit, wait) {
    const ttl = this.#lease.ttl ?? CLAIM_TTL;
    const grace = this.#lease.grace ?? CLAIM_GRACE;
    const asked = { ...this.#queue._named, limit, ttl, grace, wait: wait || undefined };
    const scope = new Scope(this._client._clock, { seconds: wait + this._client.timeout });
    try {
      const { body } = await transport.request('claim_create', asked, { signal: scope.signal });
      const messages = body.messages ?? [];
      if (messages.length) this.#hold(body.claim_id, messages, { ttl, grace });
      return messages.length;
    } finally {
      scope.end();
    }
  }

  #hold(id, messages, lease) {
    const claim = { id, lease, open: new Set(messages.map((one) => one.id)), isReleased: false, isLost: false };
    if (this._signal.aborted) {
      this.#release(claim);
      return;
    }
    claim.timer = this.#keep(claim);
    for (const message of messages) this.#put(message, { claim });
  }

  #keep(claim) {
    const renew = async () => {
      try {
        await this.#queue._request('claim_update', { claim_id: claim.id, ...claim.lease });
      } catch (error) {
        if (error instanceof NotFound) claim.isLost = true;
        if (claim.isLost) return;
        if (!isPassing(error)) throw error;
      }
      if (claim.open.size && !this._signal.aborted) claim.timer = this.#keep(claim);
    };
    return this._client._clock.set(() => renew().catch(() => {}), claim.lease.ttl / 2);
  }

  // What cannot be given back is free when its claim expires.
  async #release(claim) {
    this._client._clock.clear(claim.timer);
    try {
      await this.#queue._request('claim_delete', { claim_id: claim.id });
    } catch (error) {
      if (!(error instanceof ZaqarError)) throw error;
    }
  }

  // Whether it was this one's still. given: `delay` or `reason`.
  async _settle(message, action, given = {}, options = {}) {
    const held = this.#settle(message);
    try {
      if (held.claim) return await this.#settleClaimed(message, held.claim, action, given, options);
      if (held.isOpen && (await this.#tell(action, message, held, given, options))) return true;
      // The claim may outlive the connection, where the server was killed.
      return await this.#settleAlone(message, action, given, options, false);
    } catch (error) {
      // A queue without a dead letter queue: the message can still be settled otherwise.
      if (error instanceof BadRequest) this.#takeBack(message, held);
      throw error;
    }
  }

  async #settleClaimed(message, claim, action, given, options) {
    const isOurs = await this.#settleAlone(message, action, given, options, !claim.isLost);
    if (action === RELEASE && !Object.keys(given).length) claim.isReleased = true;
    await this.#close(claim, message);
    return isOurs;
  }

  // Settles a message by its claim: whether that stands. A release without a delay waits for the end
  // of the claim, and is as good as `unasked`.
  async #settleAlone(message, action, given, options, unasked) {
    if (action === ACK) return this.#deleteClaimed(message);
    if (action === RELEASE && !Object.keys(given).length) return unasked;
    try {
      await this.#queue._settleOne(action, message, given, options);
      return true;
    } catch (error) {
      if (error instanceof Forbidden || error instanceof NotFound) return false;
      throw error;
    }
  }

  // Whether the claim on it stands.
  async #deleteClaimed(message) {
    const asked = { message_id: message.id, claim_id: message.claimId };
    try {
      await this.#queue._request('message_delete', asked);
      return true;
    } catch (error) {
      if (LOST_CLAIM.some((kind) => error instanceof kind)) return false;
      throw error;
    }
  }

  // What holds a message that is to be settled; `isOpen` where it does so still.
  #settle(message) {
    const held = this.#holds.get(message);
    if (held === undefined) throw new ZaqarError(`Message ${message.id} is settled already.`);
    this.#holds.delete(message);
    const isOpen = this.#held.delete(held);
    this.#settled.resolve();
    this.#settled = deferred();
    return { ...held, original: held, isOpen };
  }

  #takeBack(message, { original, isOpen }) {
    this.#holds.set(message, original);
    if (isOpen) this.#held.add(original);
  }

  // Whether the message was this one's still, and the connection lived to say so.
  async #tell(...settlement) {
    const told = this.#ask(...settlement);
    this.#telling.add(told);
    try {
      return await told;
    } finally {
      this.#telling.delete(told);
    }
  }

  async #ask(action, message, { connection, consumerId }, given, options) {
    const asked = { consumer_id: consumerId, message_ids: [message.id], ...given };
    const scope = new Scope(this._client._clock, {
      signals: [options.signal],
      seconds: options.timeout ?? this._client.timeout,
    });
    try {
      await connection.request(action, asked, { signal: scope.signal });
      return true;
    } catch (error) {
      if (error instanceof ConnectionLost || error instanceof NotFound) return false;
      throw error;
    } finally {
      scope.end();
    }
  }

  // Claims can only be given back whole: when the last message of one is settled.
  async #close(claim, message) {
    claim.open.delete(message.id);
    if (claim.open.size) return;
    this._client._clock.clear(claim.timer);
    if (claim.isReleased) await this.#release(claim);
  }

  // Ends it and gives back what is unsettled.
  async close() {
    await super.close();
    const claims = new Set([...this.#held].map((held) => held.claim).filter(Boolean));
    this.#held.clear();
    for (const claim of claims) await this.#release(claim);
  }
}

// The settings of queues and topics, by the names that `configure` takes.
//
// Written by `tox -e genoperations` from the declarations in zaqar_gevent/api.

const SETTINGS = {
  maxPostSize: { key: '_max_messages_post_size', forTopics: true },
  defaultTtl: { key: '_default_message_ttl', forTopics: true },
  defaultDelay: { key: '_default_message_delay', forTopics: true },
  deadLetterQueue: { key: '_dead_letter_queue', forTopics: false },
  deadLetterTtl: { key: '_dead_letter_queue_messages_ttl', forTopics: false },
  maxClaims: { key: '_max_claim_count', forTopics: false },
  encrypt: { key: '_enable_encrypt_messages', forTopics: false },
  retryDelay: { key: '_retry_delay', forTopics: false },
  orderedGroups: { key: '_ordered_groups', forTopics: false },
  fairGroups: { key: '_fair_groups', forTopics: false },
  traceContext: { key: '_trace_context', forTopics: false },
  retryPolicy: { key: '_retry_policy', forTopics: true },
  flavor: { key: '_flavor', forTopics: false },
};

// Redrives: dead letters that the server moves back.


const FIRST_PAUSE_SECONDS = 0.05;
const LONGEST_PAUSE_SECONDS = 2;

// A redrive of a queue, as it was when the server was asked last: { id, target, limit, rate, state,
// reason, moved, left, started, ended }.
class Redrive {
  #queue;

  constructor(queue, found) {
    this.#queue = queue;
    Object.assign(this, found);
  }

  get isOver() {
    return this.state !== 'running';
  }

  // Asks the server how far it is; itself.
  async refresh(options) {
    return Object.assign(this, await this.#queue._request('redrive_get', { redrive_id: this.id }, options));
  }

  // Ends it; what it has moved stays moved.
  async cancel(options) {
    await this.#queue._request('redrive_delete', { redrive_id: this.id }, options);
    await this.refresh(options);
  }

  // Waits until it is over; itself. It goes on without anybody who waits.
  async wait(given = {}) {
    checkOptions(given, REQUEST_OPTIONS, 'wait()');
    let pause = FIRST_PAUSE_SECONDS;
    while (!(await this.refresh(given)).isOver) {
      await sleep(this.#queue._client._clock, pause, given.signal);
      pause = Math.min(2 * pause, LONGEST_PAUSE_SECONDS);
    }
    return this;
  }
}

// Queues, topics, and the resources of operators.


const optionsOf = ({ timeout, signal }) => ({ timeout, signal });

// What queues and topics have in common.
class Channel {
  constructor(client, kind, { name, metadata }) {
    this._client = client;
    this._kind = kind;
    this._named = { [`${kind}_name`]: name };
    this.name = name;
    if (metadata !== undefined) this.metadata = metadata;
  }

  // The action of this kind of channel.
  _action(action) {
    return this._kind === 'topic' ? `topic_${action}` : action;
  }

  async _request(action, body, options) {
    return (await this._client.request(action, { ...this._named, ...body }, options)).body;
  }

  async #own(action, body, options) {
    return this._request(`${this._kind}_${action}`, body, options);
  }

  // Whether it is new. Throws Conflict where it has other values of the metadata, and is left so.
  async create(metadata, options) {
    const asked = { ...this._named, metadata };
    return (await this._client.request(`${this._kind}_create`, asked, options)).status === 201;
  }

  // Whether it exists; asking does not create it.
  async exists(options) {
    const pages = this._pages(`${this._kind}_list`, { name: this.name }, { ...options });
    for await (const page of pages) {
      if (page[`${this._kind}s`].some(({ name }) => name === this.name)) return true;
    }
    return false;
  }

  async getMetadata(options) {
    return this.#own('get', {}, options);
  }

  // changes: a JSON patch, or the metadata to set, where undefined takes one away. The result.
  async update(changes, options) {
    const patch = Array.isArray(changes) ? changes : patchOf(changes);
    return this.#own('update', { changes: patch }, options);
  }

  // Changes settings, by their names in SETTINGS; null takes one back to its default. What does not exist
  // is created. All metadata.
  async configure(settings, options) {
    const known = Object.entries(SETTINGS).filter(([, one]) => this._kind === 'queue' || one.forTopics);
    checkOptions(settings, known.map(([name]) => name), 'configure()');
    const named = Object.entries(settings).filter(([, value]) => value !== undefined);
    const values = named.map(([name, value]) => [SETTINGS[name].key, value]);
    const removes = values.some(([, value]) => value === null);
    const present = removes ? await this.getMetadata(options) : {};
    const wanted = values.filter(([key, value]) => value !== null || key in present);
    if (!wanted.length) return this.getMetadata(options);
    const changes = patchOf(Object.fromEntries(wanted.map(([key, value]) => [key, value ?? undefined])));
    try {
      return await this.update(changes, options);
    } catch (error) {
      if (!(error instanceof NotFound)) throw error;
    }
    try {
      // A new one has its settings from the start.
      const given = Object.fromEntries(values.filter(([, value]) => value !== null));
      if (await this.create(given, options)) return await this.getMetadata(options);
    } catch (error) {
      if (!(error instanceof Conflict)) throw error;
    }
    return this.update(changes, options);
  }

  async delete(options) {
    await this.#own('delete', {}, options);
    return null;
  }

  async stats(options) {
    return this.#own('get_stats', {}, options);
  }

  // Deletes what nobody has claimed. resourceTypes: 'messages', 'subscriptions', or both.
  async purge(resourceTypes = ['messages'], options = undefined) {
    await this.#own('purge', { resource_types: resourceTypes }, options);
  }

  // Posts a body, or a list of them, together; their ids. ttl and delay in seconds; deliverAt: a Date,
  // seconds since the epoch, or a text by RFC 3339. attributes: texts by name, of each message.
  // group: the name of the group of each. A further post with the same postId stores nothing, and returns
  // the ids of the first.
  async post(bodies, given = {}) {
    const names = ['ttl', 'delay', 'deliverAt', 'attributes', 'group', 'postId'];
    checkOptions(given, [...names, ...REQUEST_OPTIONS], 'post()');
    const { ttl, delay, deliverAt, attributes, group, postId, ...options } = given;
    const list = Array.isArray(bodies) ? bodies : [bodies];
    // As a member it would be left out.
    const missing = list.findIndex((body) => body === undefined);
    if (missing >= 0) throw new EncodingError(`undefined cannot be sent - at $.messages[${missing}].body`);
    const deliver_at = deliverAt instanceof Date ? deliverAt.toISOString() : deliverAt;
    const messages = list.map((body) => ({ body, ttl, delay, deliver_at, attributes, group }));
    const asked = { messages, post_id: postId };
    const { message_ids: ids } = await this._request(this._action('message_post'), asked, options);
    return ids;
  }

  // All messages, oldest first, by pages of `limit`.
  async *messages(given = {}) {
    const names = ['marker', 'limit', 'echo', 'includeClaimed', 'includeDelayed', 'timeout', 'signal'];
    checkOptions(given, names, 'messages()');
    const { marker, limit, echo = true, includeClaimed = false, includeDelayed = false } = given;
    const asked = {
      limit,
      echo,
      include_claimed: includeClaimed,
      include_delayed: includeDelayed,
    };
    const pages = this._pages(this._action('message_list'), { marker, ...asked }, given);
    for await (const page of pages) {
      for (const found of page.messages) yield new Message(this, found);
    }
  }

  async *_pages(action, asked, given) {
    let marker = asked.marker || undefined;
    for (;;) {
      const page = await this._request(action, { ...asked, marker }, optionsOf(given));
      const [found] = Object.values(page).filter(Array.isArray);
      if (!found.length) return;
      yield page;
      if (!page.marker || page.marker === marker) return;
      marker = page.marker;
    }
  }

  async get(id, options) {
    const { messages } = await this._request(this._action('message_get'), { message_id: id }, options);
    return new Message(this, messages);
  }

  // Those of the messages that are there still.
  async getMany(ids, options) {
    const asked = { message_ids: ids };
    const { messages } = await this._request(this._action('message_get_many'), asked, options);
    return messages.map((found) => new Message(this, found));
  }

  // Takes messages from the front, for good.
  async pop(count = 1, options) {
    const asked = { pop: count };
    const { messages } = await this._request(this._action('message_delete_many'), asked, options);
    return messages.map((found) => new Message(this, found));
  }

  // Releases or rejects one message of a claim.
  async _settleOne(action, message, given, options) {
    const entry = { message_id: message.id, claim_id: message.claimId, ...given };
    const { outcomes } = await this._request(`${action}_many`, { entries: [entry] }, options);
    const [{ status, ...said }] = outcomes;
    if (status >= 400) throw errorOf(status, said);
  }

  async deleteMessages(ids, options) {
    await this._request(this._action('message_delete_many'), { message_ids: ids }, options);
  }

  // Messages as they come. marker: of the last one that is known; '' for all from the first; none
  // for those posted from now on. signal: ends it.
  subscribe(options) {
    return new Subscription(this, options);
  }

  // Has messages sent to a URI (http, https, mailto...); the id of the subscription.
  async notify(uri, given = {}) {
    checkOptions(given, ['ttl', 'options', ...REQUEST_OPTIONS], 'notify()');
    const { ttl, options, ...more } = given;
    const asked = { subscriber: uri, ttl, options };
    const made = await this._request(this._action('subscription_create'), asked, more);
    return made.subscription_id;
  }

  // The subscriptions of URIs: { id, subscriber, source, ttl, age, options }.
  async *subscriptions(given = {}) {
    checkOptions(given, ['marker', 'limit', 'timeout', 'signal'], 'subscriptions()');
    const asked = { marker: given.marker, limit: given.limit };
    const pages = this._pages(this._action('subscription_list'), asked, given);
    for await (const page of pages) yield* page.subscriptions;
  }

  // A subscription of a URI, and how its deliveries go.
  async getSubscription(id, options) {
    return this._request(this._action('subscription_get'), { subscription_id: id }, options);
  }

  // Changes where a subscription leads, how many seconds it lives, or its options.
  async updateSubscription(id, given = {}) {
    checkOptions(given, ['subscriber', 'ttl', 'options', ...REQUEST_OPTIONS], 'updateSubscription()');
    const { subscriber, ttl, options, ...more } = given;
    const asked = { subscription_id: id, subscriber, ttl, options };
    await this._request(this._action('subscription_update'), asked, more);
  }

  async deleteSubscription(id, options) {
    await this._request(this._action('subscription_delete'), { subscription_id: id }, options);
  }
}

const pointer = (name) => `/metadata/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`;

const patchOf = (changes) =>
  Object.entries(changes).map(([name, value]) =>
    value === undefined
      ? { op: 'remove', path: pointer(name) }
      : { op: 'add', path: pointer(name), value },
  );

class Topic extends Channel {
  constructor(client, found) {
    super(client, 'topic', found);
  }
}

class Queue extends Channel {
  constructor(client, found) {
    super(client, 'queue', found);
  }

  // Makes the oldest messages this client's for `ttl` seconds; waits up to `wait` seconds for one.
  async claim(given = {}) {
    checkOptions(given, ['limit', 'ttl', 'grace', 'wait', ...REQUEST_OPTIONS], 'claim()');
    const { limit, ttl, grace, wait, ...options } = given;
    const asked = { limit, ttl, grace, wait };
    // Who does not wait for it any more does not keep it either.
    const accept = ({ body }) => {
      if (options.signal?.aborted && body.claim_id) this.#giveBack(body.claim_id);
    };
    const made = await this._request('claim_create', asked, { ...options, accept });
    return new Claim(this, made, { ttl, grace });
  }

  #giveBack(id) {
    this.releaseClaim(id).catch(() => {});
  }

  // Lets a claim live for `ttl` seconds from now.
  async renewClaim(id, given = {}) {
    checkOptions(given, ['ttl', 'grace', ...REQUEST_OPTIONS], 'renewClaim()');
    const { ttl, grace, ...options } = given;
    await this._request('claim_update', { claim_id: id, ttl, grace }, options);
  }

  // Gives a claim's messages back; one that does not exist is as good as released.
  async releaseClaim(id, options) {
    await this._request('claim_delete', { claim_id: id }, options);
  }

  // A pre-signed URL: what others send as headers to use this queue.
  async share(given = {}) {
    checkOptions(given, ['paths', 'methods', 'expires', ...REQUEST_OPTIONS], 'share()');
    const { paths, methods, expires, ...options } = given;
    return this._request('queue_share', { paths, methods, expires }, options);
  }

  // Has the server move dead letters back to the queues that they are from, or to `target`: at most
  // `limit` of them, and at most `rate` a second.
  async redrive(given = {}) {
    checkOptions(given, ['target', 'limit', 'rate', ...REQUEST_OPTIONS], 'redrive()');
    const { target, limit, rate, ...options } = given;
    const created = await this._request('redrive_create', { target, limit, rate }, options);
    return this.getRedrive(created.redrive_id, options);
  }

  async getRedrive(id, options) {
    return new Redrive(this, await this._request('redrive_get', { redrive_id: id }, options));
  }

  // The redrives of this queue, oldest first.
  async *redrives(given = {}) {
    checkOptions(given, ['marker', 'limit', 'timeout', 'signal'], 'redrives()');
    const asked = { marker: given.marker, limit: given.limit };
    for await (const page of this._pages('redrive_list', asked, given)) {
      for (const one of page.redrives) yield new Redrive(this, one);
    }
  }

  // Messages to work on, each to be settled by ack() or release(); `credit` of them at a time.
  consume(options) {
    return new Consumer(this, options);
  }
}

// Pools or flavors, for operators.
class Resources {
  #client;
  #kind;

  constructor(client, kind) {
    this.#client = client;
    this.#kind = kind;
  }

  async #ask(verb, name, body, options) {
    const asked = { [`${this.#kind}_name`]: name, ...body };
    return (await this.#client.request(`${this.#kind}_${verb}`, asked, options)).body;
  }

  async *list(given = {}) {
    checkOptions(given, ['limit', 'detailed', 'timeout', 'signal'], 'list()');
    const { limit, detailed, ...options } = given;
    const list = new Channel(this.#client, this.#kind, {});
    const pages = list._pages(`${this.#kind}_list`, { limit, detailed }, options);
    for await (const page of pages) yield* page[`${this.#kind}s`];
  }

  async get(name, given = {}) {
    checkOptions(given, ['detailed', ...REQUEST_OPTIONS], 'get()');
    const { detailed, ...options } = given;
    return this.#ask('get', name, { detailed }, options);
  }

  async create(name, members, options) {
    await this.#ask('create', name, members, options);
  }

  async update(name, members, options) {
    return this.#ask('update', name, members, options);
  }

  async delete(name, options) {
    await this.#ask('delete', name, {}, options);
  }
}

// Which WebSocket to use where there is no global one.


// Node has a WebSocket of its own from version 22 on.
const isNode = () => globalThis.process?.versions?.node !== undefined;
const NO_WEBSOCKET =
  'There is no WebSocket here. Use Node 22 or later, or install the package ws (npm install ws), or give the ' +
  "option WebSocket, or transport: 'rest'.";
// Not a literal in `import`, so bundlers do not look for the package.
const WS = 'ws';

// The WebSocket of the package ws, where that is installed.
async function loadWebSocket() {
  try {
    return (await import(/* @vite-ignore */ /* webpackIgnore: true */ WS)).default;
  } catch (cause) {
    throw new Unsupported(NO_WEBSOCKET, { cause });
  }
}

// The client: one object for one server.


// For how long before a handshake is given up REST is asked whether it is there.
const INQUIRY_SECONDS = 1;
// A page is told that its origin may be refused after that has looked so for this long.
const REFUSED_SECONDS = 3;
// It is told that there is no connection when none could be had for this long.
const OUTAGE_SECONDS = 3;
const TRANSPORTS = ['auto', 'websocket', 'rest'];
const CLIENT_OPTIONS = ['project', 'clientId', 'token', 'getToken', 'transport', 'encoding', 'timeout', 'headers',
  'WebSocket', 'fetch', 'msgpack', 'websocketUrl', 'retryInterval', 'clock', 'random'];

// Throws for what a server of upstream's would ignore in a post.
function checkForUpstream({ post_id: postId, messages }) {
  if (postId) {
    throw new Unsupported('This server does not recognize repeated posts by a postId.');
  }
  for (const message of Array.isArray(messages) ? messages : []) {
    const ignored = ['attributes', 'deliver_at', 'group'].find((name) => message?.[name] !== undefined);
    if (ignored) throw new Unsupported(`This server ignores ${ignored} of messages.`);
  }
}

// A client of the server at `url`. Options: project; clientId, a UUID, a random one by default;
// token or getToken(), which gives a token or { token, expiresAt }; transport, 'auto' by default,
// 'websocket' or 'rest'; encoding of the WebSocket, 'msgpack' by default or 'json'; timeout in
// seconds; headers, more of them for each request, as those of a pre-signed URL; WebSocket and fetch where there are no global ones, or others are wanted; msgpack, another
// codec: { encode, decode }; websocketUrl where it is not that of REST; retryInterval, how many seconds
// after each other the WebSocket is tried from REST; clock and random for tests.
class Client extends EventTarget {
  #options;
  #addresses;
  #codec;
  #credentials;
  #fallback;
  #transport = null;
  #arrival = deferred();
  #state = 'connecting';
  #attempt = null;
  #isAsking = false;
  #isReturning = false;
  #backoff;
  #problem = 'It has not been tried yet.';
  #timer = null;
  #pollTimer = null;
  #renewal = null;
  #refusal = null;
  // How many requests wait for a connection.
  #urgent = 0;
  #wasServed = false;
  // That the server keeps its answers from this page, and since when; null where it does not.
  #originRefused = null;
  #originRefusedAt = null;
  // When it is told that the server is away; null while it is there. At most once in an outage.
  #outage = null;
  #isCompact = true;
  #life = new AbortController();

  constructor(url, options = {}) {
    super();
    checkOptions(options, CLIENT_OPTIONS, 'a Client');
    const { transport = 'auto', encoding = 'msgpack', timeout = 30 } = options;
    if (!TRANSPORTS.includes(transport)) {
      throw new ZaqarError(`There is no transport '${transport}'; there are ${TRANSPORTS.join(', ')}.`);
    }
    this.#options = { fetch: (...asked) => globalThis.fetch(...asked), ...options, transport };
    this._clock = options.clock ?? systemClock;
    this._random = options.random ?? Math.random;
    this.#addresses = addressesOf(url, options.websocketUrl);
    checkProject(options);
    this.#codec = codecOf(encoding, options.msgpack);
    this.#credentials = new Credentials({ ...options, clock: this._clock });
    this.#fallback = new Fallback({
      transport,
      clock: this._clock,
      random: this._random,
      retrySeconds: options.retryInterval,
    });
    this.#backoff = new Backoff(this._random);
    this.timeout = timeout;
    this.encoding = encoding;
    this.project = options.project ?? null;
    this.clientId = options.clientId ?? uuid4(Math.random);
    this.pools = new Resources(this, 'pool');
    this.flavors = new Resources(this, 'flavor');
    if (transport !== 'rest' && this.#socketClass === undefined && !isNode()) throw new Unsupported(NO_WEBSOCKET);
    queueMicrotask(() => this.#follow());
  }

  // 'connecting', 'websocket', 'polling' (over REST), 'refused' (the server answers, and does not serve
  // this client: the event says why) or 'closed'.
  get state() {
    return this.#state;
  }

  // 'zaqar.v2', or upstream's 'default' envelope; null where REST is used.
  get protocol() {
    if (this.#state !== 'websocket') return null;
    return this.#isCompact ? COMPACT : 'default';
  }

  get _closing() {
    return this.#life.signal;
  }

  get #socketClass() {
    return this.#options.WebSocket ?? globalThis.WebSocket;
  }

  queue(name) {
    return new Queue(this, { name });
  }

  topic(name) {
    return new Topic(this, { name });
  }

  // The project's queues by name; with their metadata where `detailed`.
  queues(options) {
    return this.#channels('queue', Queue, options);
  }

  topics(options) {
    return this.#channels('topic', Topic, options);
  }

  async *#channels(kind, Kind, given = {}) {
    const names = ['marker', 'limit', 'detailed', 'name', 'metadata', 'timeout', 'signal'];
    checkOptions(given, names, `${kind}s()`);
    const { marker, limit, detailed, name, metadata, ...options } = given;
    const asked = { marker, limit, detailed, name, metadata };
    const pages = new Channel(this, kind, {})._pages(`${kind}_list`, asked, options);
    for await (const page of pages) for (const one of page[`${kind}s`]) yield new Kind(this, one);
  }

  // Any operation by its name: the body of its answer.
  async call(action, body, options) {
    return (await this.request(action, body, options)).body;
  }

  // What the server can do.
  async capabilities(options) {
    const scope = this.#scope(options);
    try {
      return (await this._ready(scope.signal, { isUrgent: true })).capabilities;
    } finally {
      scope.end();
    }
  }

  // True, or an error.
  async ping(options) {
    await this.request('ping_node', {}, options);
    return true;
  }

  async health(options) {
    return this.call('check_node_health', {}, options);
  }

  // What the project uses and may use: { used, allowed } by the name of the limit.
  async quotas(options) {
    return (await this.call('quota_get', {}, options)).quotas;
  }

  // Uses another token from now on, on the open connection as well.
  async authenticate(token, given = {}) {
    checkOptions(given, ['expiresAt', ...REQUEST_OPTIONS], 'authenticate()');
    const { expiresAt = null, ...options } = given;
    this.#credentials.replace(token, expiresAt);
    await this.#presentToken(options);
  }

  async close() {
    if (this.#state === 'closed') return;
    this.#life.abort(CLOSED);
    this.#fallback.close();
    this._clock.clear(this.#timer);
    for (const timer of [this.#pollTimer, this.#renewal, this.#outage]) this._clock.clear(timer);
    this.#attempt?.abort(CLOSED);
    const transport = this.#transport;
    this.#transport = null;
    if (transport instanceof Connection) transport.close();
    else transport?.leave();
    this.#arrival.reject(new ClientClosed('The client is closed.'));
    this.#become('closed', null);
  }

  // Any operation by its name: { status, body }. It is repeated where its connection dies and that
  // is safe; throws OutcomeUnknown where it is not.
  async request(action, body = {}, options = {}) {
    checkDocument(body);
    const scope = this.#scope(options, body.wait);
    const asked = { action, body, options, postId: null, sentAt: null, isRenewed: false };
    try {
      return await this.#persist(asked, scope.signal);
    } finally {
      scope.end();
    }
  }

  #scope(options = {}, wait = 0) {
    checkOptions(options, REQUEST_OPTIONS, 'a request', ['accept']);
    const { timeout = this.timeout, signal } = options;
    return new Scope(this._clock, { signals: [signal], seconds: timeout + (wait ?? 0) });
  }

  async #persist(asked, signal) {
    const pauses = new Backoff(this._random);
    for (;;) {
      if (this.#state === 'refused' && this.#originRefused !== null) throw this.#originRefused;
      const transport = await this._ready(signal, { isUrgent: true });
      const body = this.#identified(asked, transport.capabilities);
      const { headers, accept } = asked.options;
      try {
        return await transport.request(asked.action, body, { signal, headers, accept });
      } catch (error) {
        await this.#recover(error, asked, transport, signal);
      }
      // Else the connection that is waited for paces us.
      if (transport instanceof Rest) await sleep(this._clock, pauses.next(), signal);
    }
  }

  // A post by which the server can tell whether it has it already.
  #identified(asked, { idempotency_seconds: seconds, server }) {
    if (!isPost(asked.action)) return asked.body;
    if (!server) checkForUpstream(asked.body);
    if (!seconds) {
      if (asked.postId) throw new OutcomeUnknown('The messages may have been posted.');
      return asked.body;
    }
    asked.postId ??= asked.body.post_id ?? uuid7(this._clock.time());
    asked.sentAt ??= this._clock.now();
    return { ...asked.body, post_id: asked.postId };
  }

  // Returns where the request is to be made again.
  async #recover(error, asked, transport, signal) {
    if (error instanceof Unauthorized && this.#credentials.canRenew && !asked.isRenewed) {
      asked.isRenewed = true;
      await abortable(this.#credentials.renew(), signal);
      return;
    }
    if (!(error instanceof ConnectionLost)) throw error;
    if (error.sent && !this.#mayRepeat(asked, transport.capabilities)) {
      const message = `The connection was lost before ${asked.action} was answered.`;
      throw new OutcomeUnknown(message, { cause: error });
    }
  }

  #mayRepeat({ action, body, postId, sentAt }, { idempotency_seconds: seconds }) {
    if (isPost(action)) return postId !== null && this._clock.now() - sentAt < seconds;
    return isRepeatable(action, body);
  }

  // What requests go over, as soon as there is something. isUrgent: for a request, which is answered in
  // time or not at all; a subscription can wait, so that not every page hurries when a server is away.
  async _ready(signal, { isUrgent = false } = {}) {
    if (this.#life.signal.aborted) throw new ClientClosed('The client is closed.');
    if (this.#transport !== null) return this.#transport;
    if (this.#refusal !== null) {
      this.#refusal = null;
      this.#become('connecting');
      this.#follow();
    }
    this.#urgent += isUrgent;
    if (isUrgent) this.#follow();
    try {
      return await abortable(this.#arrival.promise, signal);
    } catch (error) {
      if (!(error instanceof Timeout)) throw error;
      throw new ConnectionLost(`${this.#noConnection} ${this.#problem}`, { cause: error });
    } finally {
      this.#urgent -= isUrgent;
    }
  }

  // Does what the fallback wants, as far as it is not being done.
  #follow() {
    this._clock.clear(this.#timer);
    if (this.#life.signal.aborted || this.#refusal !== null) return;
    if (this.#fallback.state === 'polling' && this.#transport === null) this.#startPolling();
    if (this.#urgent > 0) this.#fallback.wanted();
    const left = this.#fallback.waitSeconds();
    if (left !== null) this.#timer = this._clock.set(() => this.#connect(), left);
  }

  #become(state, reason = null) {
    const previous = this.#state;
    if (state === previous) return;
    this.#state = state;
    this.dispatchEvent(new StateEvent(state, previous, reason));
  }

  #adopt(transport) {
    const previous = this.#transport;
    this.#transport = transport;
    this.#wasServed = true;
    this.#originRefused = null;
    this.#endOutage();
    this.#backoff.reset();
    if (previous instanceof Rest) previous.leave();
    this.#arrival.resolve(transport);
    if (transport instanceof Rest) this.#become('polling', this.#problem);
    else this.#become('websocket');
  }

  // Nobody is served until somebody asks again.
  #refuse(error) {
    this.#refusal = error;
    this.#turnAway(error);
  }

  // Fails what waits for a transport.
  #turnAway(error) {
    const arrival = this.#arrival;
    this.#arrival = deferred();
    this.#endOutage();
    arrival.reject(error);
    this.#become('refused', error.message);
  }

  async #connect() {
    const attempt = new Scope(this._clock, {
      signals: [this.#life.signal],
      seconds: HANDSHAKE_SECONDS,
      what: 'The handshake',
    });
    this.#attempt = attempt;
    this.#fallback.attempting();
    const connection = this.#connection();
    const inquiry = this.#inquiry();
    try {
      await this.#open(connection, attempt.signal);
    } catch (error) {
      if (!this.#life.signal.aborted) await this.#failed(error, connection, inquiry);
    }
    inquiry.end();
    attempt.end();
    this.#attempt = null;
    this.#follow();
  }

  // What REST says, which is asked before a handshake is given up: then it can be used at once.
  #inquiry() {
    const rest = this.#rest();
    let asked = null;
    const ask = () => (asked ??= this.#learn(rest));
    const isWanted = this.#options.transport === 'auto' && this.#transport === null;
    const timer = isWanted ? this._clock.set(ask, HANDSHAKE_SECONDS - INQUIRY_SECONDS) : null;
    return { rest, ask, end: () => this._clock.clear(timer) };
  }

  #connection() {
    return new Connection({
      url: this.#addresses.socket,
      compact: this.#isCompact,
      codec: this.#codec,
      clock: this._clock,
      headers: () => this.#identity(),
    });
  }

  async #open(connection, signal) {
    try {
      const token = await abortable(this.#credentials.current(), signal);
      await connection.open(this.#socketClass ?? (await abortable(loadWebSocket(), signal)), signal);
      await this.#greet(connection, token, signal);
    } catch (error) {
      if (connection.wasOpen) connection.abandon('It was not greeted.');
      throw error;
    }
    if (connection.left.aborted) throw connection.left.reason;
    connection.left.addEventListener('abort', () => this.#lost(connection), { once: true });
    this.#fallback.opened();
    this.#adopt(connection);
    this.#planRenewal();
  }

  async #greet(connection, token, signal) {
    const headers = (value) => ({ ...this.#identity(), ...(value ? { 'X-Auth-Token': value } : {}) });
    try {
      await connection.greet(headers(token), signal);
    } catch (error) {
      if (!(error instanceof Unauthorized) || !this.#credentials.canRenew) throw error;
      await abortable(this.#credentials.renew(), signal);
      await connection.greet(headers(this.#credentials.token), signal);
    }
  }

  #identity() {
    const project = this.project === null ? {} : { 'X-Project-ID': this.project };
    return { 'Client-ID': this.clientId, ...project, ...this.#options.headers };
  }

  // What is wrong with the way to the server, which browsers do not say: REST tells.
  async #failed(error, connection, inquiry) {
    this.#problem = error.message;
    if (!(error instanceof Timeout || error instanceof ConnectionLost)) this.#deny(error);
    else if (connection.wasOpen && error instanceof ConnectionLost) {
      this.#noteOutage();
      this.#fallback.lost(connection.left.reason.reconnectAfterMs);
    }
    else if (this.#fallback.state === 'polling') this.#fallback.refused();
    else if (this.#options.transport === 'websocket') await this.#tryOther(error, inquiry);
    else await this.#consultRest(error, inquiry);
  }

  // The server can be reached, and does not want this client.
  #deny(error) {
    this.#fallback.unreachable();
    if (this.#transport === null) this.#refuse(error);
  }

  // A browser does not say that a server does not know the subprotocol it was asked for.
  async #tryOther(error, { ask }) {
    const denial = foreignOrigin(this.#addresses.rest) === null ? null : await ask();
    if (this.#life.signal.aborted) return;
    this.#noteOutage(denial);
    this.#noteOrigin(denial);
    if (error instanceof ConnectionLost) this.#isCompact = !this.#isCompact;
    this.#fallback.lost();
  }

  async #consultRest(error, { rest, ask }) {
    const denial = await ask();
    if (this.#life.signal.aborted) return;
    this.#noteOrigin(denial);
    // REST may say more than the handshake.
    if (denial?.cause?.cause) this.#problem = denial.message;
    if (denial !== null && !isAway(denial)) {
      this.#deny(denial);
    } else if (denial !== null || (this.#isReturning && error instanceof ConnectionLost)) {
      // A server that was away a moment ago may have come back between the two questions.
      this.#isReturning = denial !== null;
      this.#noteOutage(denial);
      this.#fallback.unreachable();
    } else {
      if (error instanceof Timeout) this.#fallback.filtered();
      else this.#fallback.refused();
      this.#poll(rest);
    }
  }

  // Asks what the server can do: null, or why that cannot be known.
  async #learn(rest) {
    const scope = this.#scope({ signal: this.#life.signal });
    try {
      await rest.learn(scope.signal);
      return null;
    } catch (error) {
      return (await this.#refusalOfOrigin(error)) ?? error;
    } finally {
      scope.end();
    }
  }

  // Browsers do not tell a page why it gets no answer. A request whose answer the page does not ask to
  // read (`no-cors`) is answered all the same where the server can be reached; so the answers are
  // what is kept from the page. Null where that is not so.
  async #refusalOfOrigin(error) {
    const { rest: url } = this.#addresses;
    const origin = foreignOrigin(url);
    if (origin === null || !(error instanceof ConnectionLost)) return null;
    const scope = new Scope(this._clock, { signals: [this.#life.signal], seconds: HANDSHAKE_SECONDS });
    const request = { mode: 'no-cors', cache: 'no-store', credentials: 'omit', signal: scope.signal };
    try {
      await this.#options.fetch(`${url}/v2/ping`, request);
      return new OriginRefused({ origin, url }, { cause: error });
    } catch {
      return null;
    } finally {
      scope.end();
    }
  }

  // A proxy whose server is away looks the same for a moment. So requests are told only after this has
  // lasted, and only if the server never served this page.
  #noteOrigin(denial) {
    if (!(denial instanceof OriginRefused)) {
      this.#originRefused = null;
      if (this.#state === 'refused') this.#become('connecting', denial?.message);
      return;
    }
    this.#problem = denial.message;
    if (this.#originRefused === null) this.#originRefusedAt = this._clock.now();
    this.#originRefused = denial;
    if (this.#wasServed || this._clock.now() - this.#originRefusedAt < REFUSED_SECONDS) return;
    if (this.#state !== 'refused') console.warn(`zaqar: ${denial.message}`);
    this.#turnAway(denial);
  }

  // Streams wait for a server that is away, for ever: somebody should know.
  #noteOutage(denial = null) {
    if (this.#outage !== null || this.#transport !== null) return;
    // That is told in its own words.
    if (denial instanceof OriginRefused && !this.#wasServed) return;
    const tell = () => {
      console.warn(`zaqar: ${this.#noConnection} ${this.#problem} It is tried again until the client is closed.`);
    };
    this.#outage = this._clock.set(tell, OUTAGE_SECONDS);
  }

  get #noConnection() {
    const where = this.#options.transport === 'websocket' ? this.#addresses.socket : this.#addresses.rest;
    return `There is no connection to ${where}.`;
  }

  #endOutage() {
    this._clock.clear(this.#outage);
    this.#outage = null;
  }

  #lost(connection) {
    if (connection !== this.#transport) return;
    const { code, reconnectAfterMs, message } = connection.left.reason;
    const isExpired = code === EXPIRED;
    if (isExpired) this.#credentials.expire();
    this.#problem = message;
    this.#isReturning = true;
    this.#transport = null;
    this.#arrival = deferred();
    this.#fallback.lost(isExpired ? (reconnectAfterMs ?? 0) : reconnectAfterMs);
    if (this.#life.signal.aborted) return;
    this.#become('connecting', message);
    this.#follow();
  }

  async #startPolling() {
    if (this.#isAsking) return;
    this.#isAsking = true;
    const rest = this.#rest();
    const denial = await this.#learn(rest);
    this.#isAsking = false;
    if (this.#life.signal.aborted || this.#transport !== null) return;
    if (denial === null) this.#poll(rest);
    else if (isAway(denial)) this.#startPollingLater(denial);
    else this.#refuse(denial);
  }

  #startPollingLater(denial) {
    this.#problem = denial.message;
    this.#noteOutage(denial);
    this.#noteOrigin(denial);
    this._clock.clear(this.#pollTimer);
    this.#pollTimer = this._clock.set(() => this.#follow(), this.#backoff.next());
  }

  #poll(rest) {
    this.#adopt(rest);
    const isUpstream = !rest.capabilities.protocols.includes(COMPACT);
    if (!isUpstream || !this.#isCompact || this.#options.transport === 'rest') return;
    // A browser refuses a server that does not know the subprotocol it asks for.
    this.#isCompact = false;
    queueMicrotask(() => this.#connect());
  }

  #rest() {
    return new Rest({
      base: this.#addresses.rest,
      fetch: this.#options.fetch,
      headers: async () => {
        const token = await this.#credentials.current();
        return { ...this.#identity(), ...(token ? { 'X-Auth-Token': token } : {}) };
      },
    });
  }

  // Replaces the token before it ends.
  #planRenewal() {
    this._clock.clear(this.#renewal);
    const left = this.#credentials.secondsLeft;
    if (left === null || !this.#credentials.canRenew || this.#state !== 'websocket') return;
    this.#renewal = this._clock.set(() => this.#renew(), Math.max(1, left));
  }

  async #renew() {
    try {
      await this.#credentials.renew();
      await this.#presentToken();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      // The token that is there may hold a while; then 4003 has it asked for anew.
    }
    this.#planRenewal();
  }

  async #presentToken(options = {}) {
    const transport = this.#transport;
    if (!(transport instanceof Connection)) return;
    const headers = { ...this.#identity(), 'X-Auth-Token': this.#credentials.token };
    const scope = this.#scope(options);
    try {
      await transport.request('authenticate', {}, { headers, signal: scope.signal });
    } finally {
      scope.end();
    }
    this.#planRenewal();
  }
}

function checkProject({ project, token, getToken, headers }) {
  if ([project, token, getToken].some((one) => one !== undefined && one !== null)) return;
  if (Object.keys(headers ?? {}).some((name) => name.toLowerCase() === 'x-project-id')) return;
  throw new ZaqarError("Whose queues? Give project: '...', or a token or getToken of a project.");
}

function codecOf(encoding, given) {
  if (encoding === 'msgpack' && !given) return msgpack;
  if (encoding === 'msgpack') return { ...given, encode: (document) => given.encode(plain(document)) };
  if (encoding !== 'json') throw new ZaqarError(`There is no encoding '${encoding}'.`);
  return { encode: toJSON, decode: msgpack.decode };
}

export { APIError, AccessEnded, BadRequest, BodyTooLarge, Claim, Client, ClientClosed, Conflict, ConnectionLost, Consumer, EncodingError, Forbidden, Message, NotAcceptable, NotFound, NotImplementedThere, NotZaqar, OriginRefused, OutcomeUnknown, Queue, Redrive, RestartEvent, ServiceUnavailable, StateEvent, Subscription, Timeout, TooManyRequests, Topic, Unauthorized, Unsupported, UnsupportedMediaType, ZaqarError, decode, encode, fromJSON, msgpack, systemClock, toJSON };
