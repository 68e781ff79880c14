// Messages, and claims on them.

import { Unsupported } from './errors.js';
import { checkOptions, REQUEST_OPTIONS } from './options.js';

// What becomes of a message, by the operations of consumers.
export const ACK = 'message_ack';
export const RELEASE = 'message_release';
export const REJECT = 'message_reject';

// A message: id, body, ttl and age in seconds, claimId (null where nobody has it), checksum where
// the queue has them, marker (of a subscription), queueName, attributes (texts by name), group (the
// name of its group; null for none), attempt (which delivery it is, from 1; null where nobody has it),
// deadLetter (where a dead letter is from; null for others).
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
    this.attributes = found.attributes ?? {};
    this.group = found.group ?? null;
    this.attempt = Number.isInteger(found.claim_count) ? found.claim_count + 1 : null;
    this.deadLetter = originOf(found.dead_letter);
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
    if (this.#consumer !== null) return this.#consumer._settle(this, ACK);
    await this.delete();
    return true;
  }

  // Gives it back, to be delivered again after `delay` seconds or as the queue says. False where a
  // consumer's lease of it was lost before.
  async release(given = {}) {
    checkOptions(given, ['delay', ...REQUEST_OPTIONS], 'release()');
    const { delay, ...options } = given;
    return this.#giveUp(RELEASE, delay === undefined ? {} : { delay }, options);
  }

  // Moves it to the dead letter queue at once. False where a consumer's lease of it was lost before.
  async reject(reason, options = {}) {
    checkOptions(options, REQUEST_OPTIONS, 'reject()');
    return this.#giveUp(REJECT, reason === undefined ? {} : { reason }, options);
  }

  async #giveUp(action, given, options) {
    if (this.#consumer !== null) return this.#consumer._settle(this, action, given, options);
    if (this.claimId === null) {
      throw new Unsupported('Only a claimed message can be released or rejected.');
    }
    await this.#channel._settleOne(action, this, given, options);
    return true;
  }
}

function originOf(found) {
  if (!found) return null;
  const { queue, message_id: messageId, claim_count: claimCount, at, reason } = found;
  return { queue, messageId, claimCount, at, reason: reason ?? null };
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
