// How many messages are posted to each of some queues, counted one by one.

/**
 * Counts what is posted, by being sent it: a subscription for each queue or topic, while it is followed.
 */
export class Arrivals {
  constructor() {
    this.counted = new Map();
  }

  /** Follow these resources, and no others. */
  follow(resources) {
    const wanted = new Map(resources.map((resource) => [resource.name, resource]));
    for (const [name, { subscription }] of this.counted) {
      if (!wanted.has(name)) {
        this.counted.delete(name);
        subscription.close();
      }
    }
    for (const [name, resource] of wanted) {
      if (!this.counted.has(name)) {
        this.#count(name, resource);
      }
    }
  }

  stop() {
    this.follow([]);
  }

  /** How many have come since it is followed; null where nobody counts. */
  of(name) {
    return this.counted.get(name)?.count ?? null;
  }

  async #count(name, resource) {
    const subscription = resource.handle.subscribe();
    const counted = { subscription, count: null };
    this.counted.set(name, counted);
    try {
      await subscription.ready;
      counted.count = 0;
      while (!(await subscription.next()).done) {
        counted.count += 1;
      }
    } catch (error) {
      // One that cannot be subscribed to, or not any more, is not counted; its stats are shown still.
      counted.count = null;
      resource.session.consider(error);
    }
  }
}
