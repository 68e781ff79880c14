// What subscriptions and consumers have in common.

import { abortable, Scope, sleep } from './clock.js';
import { ClientClosed, ConnectionLost, OriginRefused, Timeout, TooManyRequests } from './errors.js';
import { Backoff, Pace } from './fallback.js';
import { Inbox } from './inbox.js';
import { checkOptions } from './options.js';

// Whether the server cannot be reached, rather than not wanting us.
export const isAway = (error) =>
  error instanceof ConnectionLost || error instanceof Timeout || error.status >= 500;

// What passes by itself, and is tried again.
export const isPassing = (error) => isAway(error) || error instanceof TooManyRequests;

// Messages as they come, whatever the transport. What subclasses do on one transport is `_work`,
// which is begun again whenever that one is left.
export class Stream {
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
export const UNKNOWN_MARKER = 'unknown_marker';

export const CLOSED = new ClientClosed('Closed by its user.');
