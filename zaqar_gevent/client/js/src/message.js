// Messages, and claims on them.

import { Unsupported } from './errors.js';

// A message: id, body, ttl and age in seconds, claimId (null where nobody has it), checksum where
// the queue has them, marker (of a subscription), queueName.
export class Message {
  #channel;
  #consumer;

  constructor(channel, found, { marker = null, consumer = null } = {}) {
    this.#channel = channel;
    this.#consumer = consumer;
    this.id = found.id;
    this.body = found.body;
    this.ttl = found.ttl;
    this.age = found.age;
    this.claimId = found.claim_id ?? null;
    this.checksum = found.checksum;
    this.marker = marker;
    this.queueName = channel.name;
  }

  // Deletes it; a claimed one under its claim.
  async delete(options) {
    if (this.#consumer !== null) {
      await this.ack();
      return;
    }
    const asked = { message_id: this.id, claim_id: this.claimId ?? undefined };
    await this.#channel._request(this.#channel._action('message_delete'), asked, options);
  }

  // It is dealt with: deletes it. False where a consumer's lease was lost before: it comes again, to
  // this consumer or another.
  async ack() {
    if (this.#consumer !== null) return this.#consumer._settle(this, true);
    await this.delete();
    return true;
  }

  // Gives it back; only of a consumer's messages. False where its lease was lost before.
  async release() {
    if (this.#consumer === null) throw new Unsupported('Only a message of a consumer is given back.');
    return this.#consumer._settle(this, false);
  }
}

// Messages that are this client's for a while. id: null where there were none.
export class Claim {
  #queue;

  constructor(queue, { claim_id: id = null, messages = [] }, { ttl, grace } = {}) {
    this.#queue = queue;
    this.id = id;
    this.ttl = ttl;
    this.grace = grace;
    this.messages = messages.map((one) => new Message(queue, { ...one, claim_id: id }));
  }

  [Symbol.iterator]() {
    return this.messages[Symbol.iterator]();
  }

  // Its time begins anew.
  async renew({ ttl = this.ttl, grace = this.grace, ...options } = {}) {
    await this.#queue._request('claim_update', { claim_id: this.id, ttl, grace }, options);
  }

  // Gives back what was not deleted.
  async release(options) {
    if (this.id === null) return;
    await this.#queue._request('claim_delete', { claim_id: this.id }, options);
  }
}
