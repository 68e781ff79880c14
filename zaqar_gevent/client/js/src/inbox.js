// Received messages that wait for a slow reader.

import { abortable, deferred } from './clock.js';

const INBOX_MESSAGES = 1000;
const INBOX_BYTES = 4 * 1024 * 1024;

// What was received and has not been read yet. Bounded by those who fill it: they ask `isFull`, and
// wait for `room`, which is there when half has been read.
export class Inbox {
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
