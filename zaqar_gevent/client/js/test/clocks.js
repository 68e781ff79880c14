// A clock that stands still until it is told to go on.

export class SteppedClock {
  #now = 1000;
  #timers = new Set();

  now = () => this.#now;
  time = () => this.#now * 1000;

  set = (callback, seconds) => {
    const timer = { callback, at: this.#now + seconds };
    this.#timers.add(timer);
    return timer;
  };

  clear = (timer) => {
    this.#timers.delete(timer);
  };

  // In how many seconds each timer is due.
  get pending() {
    return [...this.#timers].map(({ at }) => at - this.#now).sort((one, other) => one - other);
  }

  // Goes on, timer by timer, and lets what hangs on each come to rest.
  async step(seconds) {
    const until = this.#now + seconds;
    await settle();
    for (;;) {
      const due = [...this.#timers].filter(({ at }) => at <= until);
      if (!due.length) break;
      const next = due.reduce((one, other) => (other.at < one.at ? other : one));
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.callback();
      await settle();
    }
    this.#now = until;
  }
}

// Lets every promise that can be settled be settled.
export async function settle() {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

// What a promise came to, of one that is not waited for.
export function outcomeOf(promise) {
  const outcome = { value: undefined, error: undefined };
  promise.then(
    (value) => Object.assign(outcome, { value }),
    (error) => Object.assign(outcome, { error }),
  );
  return outcome;
}
