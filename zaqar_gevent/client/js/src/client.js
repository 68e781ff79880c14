// The client: one object for one server.

import { addressesOf, foreignOrigin } from './addresses.js';
import { abortable, deferred, Scope, sleep, systemClock } from './clock.js';
import { COMPACT, Connection, EXPIRED } from './connection.js';
import { Credentials } from './credentials.js';
import { checkDocument, plain } from './documents.js';
import { ClientClosed, ConnectionLost, OriginRefused, OutcomeUnknown, Timeout, Unauthorized, Unsupported, ZaqarError } from './errors.js';
import { StateEvent } from './events.js';
import { Backoff, Fallback, HANDSHAKE_SECONDS } from './fallback.js';
import { uuid4, uuid7 } from './identity.js';
import { toJSON } from './json.js';
import { msgpack } from './msgpack.js';
import { checkOptions, REQUEST_OPTIONS } from './options.js';
import { Channel, Queue, Resources, Topic } from './queues.js';
import { Rest } from './rest.js';
import { isPost, isRepeatable } from './requests.js';
import { CLOSED, isAway } from './stream.js';
import { isNode, loadWebSocket, NO_WEBSOCKET } from './websocket.js';

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
export class Client extends EventTarget {
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
