// One WebSocket, from its handshake to its end.

import { abortable, deferred } from './clock.js';
import { ConnectionLost, errorOf, reasonIn, rootOf } from './errors.js';
import { fromJSON } from './json.js';
import { utf8Encoder } from './msgpack.js';
import { UPSTREAM } from './rest.js';

export const COMPACT = 'zaqar.v2';
// Without a word for this long, the server is asked; without an answer, the connection is dead.
export const KEEPALIVE_SECONDS = 20;
export const KEEPALIVE_TIMEOUT_SECONDS = 10;
export const EXPIRED = 4003;
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
export class Connection {
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
