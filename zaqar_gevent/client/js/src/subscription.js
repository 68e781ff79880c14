// Messages as they are posted, once and in order.

import { RestartEvent } from './events.js';
import { deferred, Scope } from './clock.js';
import { COMPACT } from './connection.js';
import { AccessEnded, APIError, Conflict, Unsupported } from './errors.js';
import { parseFilter } from './filters.js';
import { checkOptions } from './options.js';
import { Message } from './message.js';
import { Stream, UNKNOWN_MARKER } from './stream.js';

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
export class Subscription extends Stream {
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
export const ignoreEndOf = (transport) => (error) => {
  if (!transport.left.aborted && !(error instanceof APIError)) throw error;
};

// What another token of the same project mends, or simply to ask again.
const MENDED = ['token_expired', 'user_changed', 'deleted', 'expired', UNKNOWN_MARKER];

export function settleEnd(push, ended) {
  if (MENDED.includes(push.reason)) ended.resolve();
  else ended.reject(new AccessEnded(push));
}
