// Messages to work on: each is leased to the consumer until it is settled.

import { deferred, Scope } from './clock.js';
import { BadRequest, ConnectionLost, Forbidden, NotFound, ZaqarError } from './errors.js';
import { checkOptions } from './options.js';
import { ACK, Message, RELEASE } from './message.js';
import { isPassing, Stream } from './stream.js';
import { ignoreEndOf, settleEnd } from './subscription.js';

const CLAIM_TTL = 300;
const CLAIM_GRACE = 60;
const MAX_CLAIMED = 20;
// How often it is looked whether the queue has ordered groups.
const LOOK_SECONDS = 60;
// What a server says to who deletes a message under a claim that is over.
const LOST_CLAIM = [BadRequest, Forbidden, NotFound];

// Messages to work on, each this one's own until it is acknowledged or released; at most `credit`
// at a time. Over REST by claims, which are renewed until all of theirs are settled.
export class Consumer extends Stream {
  #queue;
  #credit;
  #lease;
  // Of each message what holds it: { connection, consumerId } or { claim }. Those that are unsettled.
  #holds = new WeakMap();
  #held = new Set();
  #settled = deferred();
  // The settlements that are being told to the server.
  #telling = new Set();
  // Whether the queue has ordered groups, and from when on that is to be asked again.
  #isOrdered = false;
  #isOrderedUntil = 0;

  constructor(queue, options = {}) {
    checkOptions(options, ['credit', 'ttl', 'grace', 'signal'], 'consume()');
    const { credit = 10, ttl, grace, signal } = options;
    super(queue._client, signal);
    this.#queue = queue;
    this.#credit = credit;
    this.#lease = { ttl, grace };
    const leave = () => {
      if (this._client._closing.aborted) for (const { claim } of this.#held) this._client._clock.clear(claim?.timer);
    };
    this._signal.addEventListener('abort', leave, { once: true });
  }

  // How many messages are unsettled.
  get unsettled() {
    return this.#held.size;
  }

  async _work(transport) {
    if (transport.pushes) await this.#listen(transport);
    else await this.#claim(transport);
  }

  async #listen(connection) {
    let consumerId = null;
    const ended = deferred();
    const accept = ({ body }) => {
      consumerId = body.consumer_id;
      connection.listeners.set(consumerId, (push, size) => {
        if (push.push !== 'ended') {
          this.#pushed(connection, push, size);
          return;
        }
        consumerId = null;
        this.#forget(connection, push.consumer_id);
        settleEnd(push, ended);
      });
    };
    const asked = { ...this.#queue._named, credit: this.#credit, ...this.#lease };
    const scope = new Scope(this._client._clock, { seconds: this._client.timeout });
    try {
      await connection.request('queue_consume', asked, { accept, signal: scope.signal });
    } finally {
      scope.end();
    }
    this._progressed();
    try {
      await this._unlessLeft(ended.promise, connection);
    } finally {
      if (consumerId !== null) await this.#stop(connection, consumerId);
    }
  }

  // What was its own is so no more: the server gives it to whoever is next.
  #forget(connection, consumerId) {
    connection.listeners.delete(consumerId);
    this._inbox.drop((message) => this.#holds.get(message).connection === connection);
    for (const held of this.#held) if (held.connection === connection) this.#held.delete(held);
  }

  async #stop(connection, consumerId) {
    this.#forget(connection, consumerId);
    // What has been called before is not to find that the consumer has ended.
    await Promise.allSettled(this.#telling);
    const stopped = connection.request('consumer_stop', { consumer_id: consumerId });
    await stopped.catch(ignoreEndOf(connection));
  }

  #pushed(connection, push, size) {
    const { message, consumer_id: consumerId } = push;
    this.#put(message, { connection, consumerId }, size);
  }

  #put(found, held, size = 0) {
    const message = new Message(this.#queue, found, { consumer: this });
    this.#holds.set(message, held);
    this.#held.add(held);
    this._inbox.put(message, size);
  }

  #claim(transport) {
    // Half of it at least: claims on one message after the other would be many requests.
    const hasCredit = async () => {
      while (this.#held.size > this.#credit / 2) {
        await this._unlessLeft(this.#settled.promise, transport);
      }
    };
    return this._repeat(transport, hasCredit, async (wait) => {
      if (transport.capabilities.server) await this._unlessLeft(this.#lookForOrder(transport), transport);
      // Of a group one claim at a time has messages: one of one message keeps their order.
      const limit = Math.min(this.#credit - this.#held.size, this.#isOrdered ? 1 : MAX_CLAIMED);
      const found = await this._unlessLeft(this.#claimSome(transport, limit, wait), transport);
      this._progressed();
      return found;
    });
  }

  // Know whether the queue has ordered groups; upstream's servers have none.
  async #lookForOrder(transport) {
    if (this._client._clock.now() < this.#isOrderedUntil) return;
    const scope = new Scope(this._client._clock, { seconds: this._client.timeout });
    try {
      const { body } = await transport.request('queue_get', this.#queue._named, { signal: scope.signal });
      this.#isOrdered = Boolean(body._ordered_groups);
    } catch (error) {
      if (isPassing(error) || !(error instanceof ZaqarError)) throw error;
      // Whoever may not see it keeps the order that there may be.
      this.#isOrdered = true;
    } finally {
      scope.end();
    }
    this.#isOrderedUntil = this._client._clock.now() + LOOK_SECONDS;
  }

  // How many were claimed. Not given up with the transport: what was claimed would be lost for the
  // time of the claim.
  async #claimSome(transport, limit, wait) {
    const ttl = this.#lease.ttl ?? CLAIM_TTL;
    const grace = this.#lease.grace ?? CLAIM_GRACE;
    const asked = { ...this.#queue._named, limit, ttl, grace, wait: wait || undefined };
    const scope = new Scope(this._client._clock, { seconds: wait + this._client.timeout });
    try {
      const { body } = await transport.request('claim_create', asked, { signal: scope.signal });
      const messages = body.messages ?? [];
      if (messages.length) this.#hold(body.claim_id, messages, { ttl, grace });
      return messages.length;
    } finally {
      scope.end();
    }
  }

  #hold(id, messages, lease) {
    const claim = { id, lease, open: new Set(messages.map((one) => one.id)), isReleased: false, isLost: false };
    if (this._signal.aborted) {
      this.#release(claim);
      return;
    }
    claim.timer = this.#keep(claim);
    for (const message of messages) this.#put(message, { claim });
  }

  #keep(claim) {
    const renew = async () => {
      try {
        await this.#queue._request('claim_update', { claim_id: claim.id, ...claim.lease });
      } catch (error) {
        if (error instanceof NotFound) claim.isLost = true;
        if (claim.isLost) return;
        if (!isPassing(error)) throw error;
      }
      if (claim.open.size && !this._signal.aborted) claim.timer = this.#keep(claim);
    };
    return this._client._clock.set(() => renew().catch(() => {}), claim.lease.ttl / 2);
  }

  // What cannot be given back is free when its claim expires.
  async #release(claim) {
    this._client._clock.clear(claim.timer);
    try {
      await this.#queue._request('claim_delete', { claim_id: claim.id });
    } catch (error) {
      if (!(error instanceof ZaqarError)) throw error;
    }
  }

  // Whether it was this one's still. given: `delay` or `reason`.
  async _settle(message, action, given = {}, options = {}) {
    const held = this.#settle(message);
    try {
      if (held.claim) return await this.#settleClaimed(message, held.claim, action, given, options);
      if (held.isOpen && (await this.#tell(action, message, held, given, options))) return true;
      // The claim may outlive the connection, where the server was killed.
      return await this.#settleAlone(message, action, given, options, false);
    } catch (error) {
      // A queue without a dead letter queue: the message can still be settled otherwise.
      if (error instanceof BadRequest) this.#takeBack(message, held);
      throw error;
    }
  }

  async #settleClaimed(message, claim, action, given, options) {
    const isOurs = await this.#settleAlone(message, action, given, options, !claim.isLost);
    if (action === RELEASE && !Object.keys(given).length) claim.isReleased = true;
    await this.#close(claim, message);
    return isOurs;
  }

  // Settles a message by its claim: whether that stands. A release without a delay waits for the end
  // of the claim, and is as good as `unasked`.
  async #settleAlone(message, action, given, options, unasked) {
    if (action === ACK) return this.#deleteClaimed(message);
    if (action === RELEASE && !Object.keys(given).length) return unasked;
    try {
      await this.#queue._settleOne(action, message, given, options);
      return true;
    } catch (error) {
      if (error instanceof Forbidden || error instanceof NotFound) return false;
      throw error;
    }
  }

  // Whether the claim on it stands.
  async #deleteClaimed(message) {
    const asked = { message_id: message.id, claim_id: message.claimId };
    try {
      await this.#queue._request('message_delete', asked);
      return true;
    } catch (error) {
      if (LOST_CLAIM.some((kind) => error instanceof kind)) return false;
      throw error;
    }
  }

  // What holds a message that is to be settled; `isOpen` where it does so still.
  #settle(message) {
    const held = this.#holds.get(message);
    if (held === undefined) throw new ZaqarError(`Message ${message.id} is settled already.`);
    this.#holds.delete(message);
    const isOpen = this.#held.delete(held);
    this.#settled.resolve();
    this.#settled = deferred();
    return { ...held, original: held, isOpen };
  }

  #takeBack(message, { original, isOpen }) {
    this.#holds.set(message, original);
    if (isOpen) this.#held.add(original);
  }

  // Whether the message was this one's still, and the connection lived to say so.
  async #tell(...settlement) {
    const told = this.#ask(...settlement);
    this.#telling.add(told);
    try {
      return await told;
    } finally {
      this.#telling.delete(told);
    }
  }

  async #ask(action, message, { connection, consumerId }, given, options) {
    const asked = { consumer_id: consumerId, message_ids: [message.id], ...given };
    const scope = new Scope(this._client._clock, {
      signals: [options.signal],
      seconds: options.timeout ?? this._client.timeout,
    });
    try {
      await connection.request(action, asked, { signal: scope.signal });
      return true;
    } catch (error) {
      if (error instanceof ConnectionLost || error instanceof NotFound) return false;
      throw error;
    } finally {
      scope.end();
    }
  }

  // Claims can only be given back whole: when the last message of one is settled.
  async #close(claim, message) {
    claim.open.delete(message.id);
    if (claim.open.size) return;
    this._client._clock.clear(claim.timer);
    if (claim.isReleased) await this.#release(claim);
  }

  // Ends it and gives back what is unsettled.
  async close() {
    await super.close();
    const claims = new Set([...this.#held].map((held) => held.claim).filter(Boolean));
    this.#held.clear();
    for (const claim of claims) await this.#release(claim);
  }
}
