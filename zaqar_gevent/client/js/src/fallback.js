// Which transport to use, and when to try again; without I/O.

// No 101, or no word after it, within that time: something on the way does not let it through.
export const HANDSHAKE_SECONDS = 3;
// So many connections lost within that time: it is let through, but does not last.
export const MAX_LOSSES = 3;
export const LOSSES_SECONDS = 60;
// How often the WebSocket is tried again from REST.
export const RETRY_SECONDS = 60;
// Reconnection: up to 0.1 s, 0.2 s, 0.4 s... 30 s, the time itself at random (full jitter).
export const BACKOFF_SECONDS = 0.1;
export const MAX_BACKOFF_SECONDS = 30;
// The least of those where connections keep dying and there is nothing to fall back to.
export const LOSING_BACKOFF_SECONDS = 1;
// While somebody waits for a connection, no wait is longer than up to that.
export const WANTED_BACKOFF_SECONDS = 2;

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
export class Fallback {
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
export class Backoff {
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

export const MIN_PAUSE_SECONDS = 0.1;
export const MAX_PAUSE_SECONDS = 2;
export const MIN_WAIT_SECONDS = 1;
export const MAX_WAIT_SECONDS = 20;

// How to ask a server for what is new, again and again.
//
// With long polling the server may wait for at most `longest` seconds at a time, and for less where
// something on the way cuts such requests short. Without it there is a pause after each
// answer that brings nothing, from MIN_PAUSE_SECONDS and twice as long each time.
export class Pace {
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
