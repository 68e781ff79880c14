// What a live tail shows: the latest messages, and how many there have been.

/**
 * The latest messages of a tail.
 *
 * Any number may come; `most` are kept. What has come since the last `take` is handed out in one go, so
 * that a page is changed once a frame however fast they come.
 */
export class Backlog {
  constructor(most) {
    this.most = most;
    this.received = 0;
    this.fresh = [];
  }

  add(message) {
    this.received += 1;
    this.fresh.push(message);
    if (this.fresh.length > 2 * this.most) {
      this.fresh = this.fresh.slice(-this.most);
    }
  }

  /** The messages that are new, oldest first, of which there are at most `most`. */
  take() {
    const taken = this.fresh.slice(-this.most);
    this.fresh = [];
    return taken;
  }
}
