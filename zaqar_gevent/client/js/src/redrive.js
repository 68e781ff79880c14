// Redrives: dead letters that the server moves back.

import { sleep } from './clock.js';
import { checkOptions, REQUEST_OPTIONS } from './options.js';

const FIRST_PAUSE_SECONDS = 0.05;
const LONGEST_PAUSE_SECONDS = 2;

// A redrive of a queue, as it was when the server was asked last: { id, target, limit, rate, state,
// reason, moved, left, started, ended }.
export class Redrive {
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
