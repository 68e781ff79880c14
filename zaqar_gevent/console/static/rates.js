// How fast messages come and go, by what two looks at a queue's counts differ in.

const WINDOW_SECONDS = 10;
const KEPT = 60;

/**
 * The rates of one queue.
 *
 * Counts show how much a queue grew or shrank between two looks, not what came and went meanwhile: the
 * rates are the least that can have happened. Where arrivals are counted one by one, they are exact.
 */
export class Rates {
  constructor() {
    this.looks = [];
  }

  /**
   * Take a look at a queue.
   *
   * at: seconds on any clock. stats: `{total, newest}` as the server counts. arrived: how many messages
   * have come since counting began, or null where nobody counts.
   */
  add(at, stats, arrived = null) {
    const newest = stats.newest?.id ?? stats.newest?.href ?? null;
    const look = { at, total: stats.total ?? 0, newest, arrived, in: 0, out: 0 };
    if (this.looks.length > 0 && at - this.looks.at(-1).at > WINDOW_SECONDS) {
      // Nobody looked for a while: what happened meanwhile says nothing of now.
      this.looks = [];
    }
    const last = this.looks.at(-1);
    if (last) {
      const growth = look.total - last.total;
      look.in = arrivals(last, look, growth);
      // Negative where a message was counted before it was heard of: the next look makes up for it.
      look.out = look.in - growth;
    }
    this.looks.push(look);
    if (this.looks.length > KEPT) {
      this.looks.shift();
    }
  }

  /** `{in, out}` in messages a second over the last ten seconds; null until there are two looks. */
  current() {
    return this.#over(WINDOW_SECONDS, this.looks.length - 1);
  }

  /** The same for each look, over shorter times; for a picture. */
  history() {
    const found = this.looks.map((_, index) => this.#over(WINDOW_SECONDS / 2, index));
    return found.filter((rates) => rates !== null);
  }

  #over(seconds, index) {
    const end = this.looks[index];
    const first = this.looks.findIndex((look) => end.at - look.at <= seconds);
    if (!end || first === index) {
      return null;
    }
    const within = this.looks.slice(first + 1, index + 1);
    const length = end.at - this.looks[first].at;
    const sum = (member) => within.reduce((total, look) => total + look[member], 0);
    return { in: Math.max(0, sum('in')) / length, out: Math.max(0, sum('out')) / length };
  }
}

function arrivals(last, look, growth) {
  if (look.arrived !== null && last.arrived !== null && look.arrived >= last.arrived) {
    return look.arrived - last.arrived;
  }
  // Another newest message of a queue that is no shorter has come meanwhile.
  const another = look.newest !== null && look.newest !== last.newest && growth >= 0;
  // What was counted, if anything, was counted since the last look: the counting began after it.
  return Math.max(growth, another ? 1 : 0, look.arrived ?? 0);
}
