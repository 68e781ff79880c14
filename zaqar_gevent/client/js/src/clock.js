// Time, and what ends with it: scopes, promises and pauses.

import { Timeout } from './errors.js';

// Seconds that never go back, and timers; another one may be given for tests.
export const systemClock = {
  now: () => performance.now() / 1000,
  // What the time is, in milliseconds since 1970.
  time: () => Date.now(),
  // Calls back after so many seconds; what `clear` takes.
  set: (callback, seconds) => setTimeout(callback, Math.min(seconds * 1000, 0x7fffffff)),
  clear: (timer) => clearTimeout(timer),
};

// A signal with an end: aborted when others are, after some seconds, or by hand.
export class Scope {
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
export function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  made.promise.catch(() => {});
  return made;
}

// The same promise, which fails with the signal's reason when that comes first.
export function abortable(promise, signal) {
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

export async function sleep(clock, seconds, signal) {
  const { promise, resolve } = deferred();
  const timer = clock.set(resolve, seconds);
  try {
    await abortable(promise, signal);
  } finally {
    clock.clear(timer);
  }
}
