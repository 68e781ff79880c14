// Queues, topics, and the resources of operators.

import { Consumer } from './consumer.js';
import { Conflict, EncodingError, errorOf, NotFound } from './errors.js';
import { Claim, Message } from './message.js';
import { checkOptions, REQUEST_OPTIONS } from './options.js';
import { SETTINGS } from './queue_settings.js';
import { Redrive } from './redrive.js';
import { Subscription } from './subscription.js';

const optionsOf = ({ timeout, signal }) => ({ timeout, signal });

// What queues and topics have in common.
export class Channel {
  constructor(client, kind, { name, metadata }) {
    this._client = client;
    this._kind = kind;
    this._named = { [`${kind}_name`]: name };
    this.name = name;
    if (metadata !== undefined) this.metadata = metadata;
  }

  // The action of this kind of channel.
  _action(action) {
    return this._kind === 'topic' ? `topic_${action}` : action;
  }

  async _request(action, body, options) {
    return (await this._client.request(action, { ...this._named, ...body }, options)).body;
  }

  async #own(action, body, options) {
    return this._request(`${this._kind}_${action}`, body, options);
  }

  // Whether it is new. Throws Conflict where it has other values of the metadata, and is left so.
  async create(metadata, options) {
    const asked = { ...this._named, metadata };
    return (await this._client.request(`${this._kind}_create`, asked, options)).status === 201;
  }

  // Whether it exists; asking does not create it.
  async exists(options) {
    const pages = this._pages(`${this._kind}_list`, { name: this.name }, { ...options });
    for await (const page of pages) {
      if (page[`${this._kind}s`].some(({ name }) => name === this.name)) return true;
    }
    return false;
  }

  async getMetadata(options) {
    return this.#own('get', {}, options);
  }

  // changes: a JSON patch, or the metadata to set, where undefined takes one away. The result.
  async update(changes, options) {
    const patch = Array.isArray(changes) ? changes : patchOf(changes);
    return this.#own('update', { changes: patch }, options);
  }

  // Changes settings, by their names in SETTINGS; null takes one back to its default. What does not exist
  // is created. All metadata.
  async configure(settings, options) {
    const known = Object.entries(SETTINGS).filter(([, one]) => this._kind === 'queue' || one.forTopics);
    checkOptions(settings, known.map(([name]) => name), 'configure()');
    const named = Object.entries(settings).filter(([, value]) => value !== undefined);
    const values = named.map(([name, value]) => [SETTINGS[name].key, value]);
    const removes = values.some(([, value]) => value === null);
    const present = removes ? await this.getMetadata(options) : {};
    const wanted = values.filter(([key, value]) => value !== null || key in present);
    if (!wanted.length) return this.getMetadata(options);
    const changes = patchOf(Object.fromEntries(wanted.map(([key, value]) => [key, value ?? undefined])));
    try {
      return await this.update(changes, options);
    } catch (error) {
      if (!(error instanceof NotFound)) throw error;
    }
    try {
      // A new one has its settings from the start.
      const given = Object.fromEntries(values.filter(([, value]) => value !== null));
      if (await this.create(given, options)) return await this.getMetadata(options);
    } catch (error) {
      if (!(error instanceof Conflict)) throw error;
    }
    return this.update(changes, options);
  }

  async delete(options) {
    await this.#own('delete', {}, options);
    return null;
  }

  async stats(options) {
    return this.#own('get_stats', {}, options);
  }

  // Deletes what nobody has claimed. resourceTypes: 'messages', 'subscriptions', or both.
  async purge(resourceTypes = ['messages'], options = undefined) {
    await this.#own('purge', { resource_types: resourceTypes }, options);
  }

  // Posts a body, or a list of them, together; their ids. ttl and delay in seconds; deliverAt: a Date,
  // seconds since the epoch, or a text by RFC 3339. attributes: texts by name, of each message.
  // group: the name of the group of each. A further post with the same postId stores nothing, and returns
  // the ids of the first.
  async post(bodies, given = {}) {
    const names = ['ttl', 'delay', 'deliverAt', 'attributes', 'group', 'postId'];
    checkOptions(given, [...names, ...REQUEST_OPTIONS], 'post()');
    const { ttl, delay, deliverAt, attributes, group, postId, ...options } = given;
    const list = Array.isArray(bodies) ? bodies : [bodies];
    // As a member it would be left out.
    const missing = list.findIndex((body) => body === undefined);
    if (missing >= 0) throw new EncodingError(`undefined cannot be sent - at $.messages[${missing}].body`);
    const deliver_at = deliverAt instanceof Date ? deliverAt.toISOString() : deliverAt;
    const messages = list.map((body) => ({ body, ttl, delay, deliver_at, attributes, group }));
    const asked = { messages, post_id: postId };
    const { message_ids: ids } = await this._request(this._action('message_post'), asked, options);
    return ids;
  }

  // All messages, oldest first, by pages of `limit`.
  async *messages(given = {}) {
    const names = ['marker', 'limit', 'echo', 'includeClaimed', 'includeDelayed', 'timeout', 'signal'];
    checkOptions(given, names, 'messages()');
    const { marker, limit, echo = true, includeClaimed = false, includeDelayed = false } = given;
    const asked = {
      limit,
      echo,
      include_claimed: includeClaimed,
      include_delayed: includeDelayed,
    };
    const pages = this._pages(this._action('message_list'), { marker, ...asked }, given);
    for await (const page of pages) {
      for (const found of page.messages) yield new Message(this, found);
    }
  }

  async *_pages(action, asked, given) {
    let marker = asked.marker || undefined;
    for (;;) {
      const page = await this._request(action, { ...asked, marker }, optionsOf(given));
      const [found] = Object.values(page).filter(Array.isArray);
      if (!found.length) return;
      yield page;
      if (!page.marker || page.marker === marker) return;
      marker = page.marker;
    }
  }

  async get(id, options) {
    const { messages } = await this._request(this._action('message_get'), { message_id: id }, options);
    return new Message(this, messages);
  }

  // Those of the messages that are there still.
  async getMany(ids, options) {
    const asked = { message_ids: ids };
    const { messages } = await this._request(this._action('message_get_many'), asked, options);
    return messages.map((found) => new Message(this, found));
  }

  // Takes messages from the front, for good.
  async pop(count = 1, options) {
    const asked = { pop: count };
    const { messages } = await this._request(this._action('message_delete_many'), asked, options);
    return messages.map((found) => new Message(this, found));
  }

  // Releases or rejects one message of a claim.
  async _settleOne(action, message, given, options) {
    const entry = { message_id: message.id, claim_id: message.claimId, ...given };
    const { outcomes } = await this._request(`${action}_many`, { entries: [entry] }, options);
    const [{ status, ...said }] = outcomes;
    if (status >= 400) throw errorOf(status, said);
  }

  async deleteMessages(ids, options) {
    await this._request(this._action('message_delete_many'), { message_ids: ids }, options);
  }

  // Messages as they come. marker: of the last one that is known; '' for all from the first; none
  // for those posted from now on. signal: ends it.
  subscribe(options) {
    return new Subscription(this, options);
  }

  // Has messages sent to a URI (http, https, mailto...); the id of the subscription.
  async notify(uri, given = {}) {
    checkOptions(given, ['ttl', 'options', ...REQUEST_OPTIONS], 'notify()');
    const { ttl, options, ...more } = given;
    const asked = { subscriber: uri, ttl, options };
    const made = await this._request(this._action('subscription_create'), asked, more);
    return made.subscription_id;
  }

  // The subscriptions of URIs: { id, subscriber, source, ttl, age, options }.
  async *subscriptions(given = {}) {
    checkOptions(given, ['marker', 'limit', 'timeout', 'signal'], 'subscriptions()');
    const asked = { marker: given.marker, limit: given.limit };
    const pages = this._pages(this._action('subscription_list'), asked, given);
    for await (const page of pages) yield* page.subscriptions;
  }

  // A subscription of a URI, and how its deliveries go.
  async getSubscription(id, options) {
    return this._request(this._action('subscription_get'), { subscription_id: id }, options);
  }

  // Changes where a subscription leads, how many seconds it lives, or its options.
  async updateSubscription(id, given = {}) {
    checkOptions(given, ['subscriber', 'ttl', 'options', ...REQUEST_OPTIONS], 'updateSubscription()');
    const { subscriber, ttl, options, ...more } = given;
    const asked = { subscription_id: id, subscriber, ttl, options };
    await this._request(this._action('subscription_update'), asked, more);
  }

  async deleteSubscription(id, options) {
    await this._request(this._action('subscription_delete'), { subscription_id: id }, options);
  }
}

const pointer = (name) => `/metadata/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`;

const patchOf = (changes) =>
  Object.entries(changes).map(([name, value]) =>
    value === undefined
      ? { op: 'remove', path: pointer(name) }
      : { op: 'add', path: pointer(name), value },
  );

export class Topic extends Channel {
  constructor(client, found) {
    super(client, 'topic', found);
  }
}

export class Queue extends Channel {
  constructor(client, found) {
    super(client, 'queue', found);
  }

  // Makes the oldest messages this client's for `ttl` seconds; waits up to `wait` seconds for one.
  async claim(given = {}) {
    checkOptions(given, ['limit', 'ttl', 'grace', 'wait', ...REQUEST_OPTIONS], 'claim()');
    const { limit, ttl, grace, wait, ...options } = given;
    const asked = { limit, ttl, grace, wait };
    // Who does not wait for it any more does not keep it either.
    const accept = ({ body }) => {
      if (options.signal?.aborted && body.claim_id) this.#giveBack(body.claim_id);
    };
    const made = await this._request('claim_create', asked, { ...options, accept });
    return new Claim(this, made, { ttl, grace });
  }

  #giveBack(id) {
    this.releaseClaim(id).catch(() => {});
  }

  // Lets a claim live for `ttl` seconds from now.
  async renewClaim(id, given = {}) {
    checkOptions(given, ['ttl', 'grace', ...REQUEST_OPTIONS], 'renewClaim()');
    const { ttl, grace, ...options } = given;
    await this._request('claim_update', { claim_id: id, ttl, grace }, options);
  }

  // Gives a claim's messages back; one that does not exist is as good as released.
  async releaseClaim(id, options) {
    await this._request('claim_delete', { claim_id: id }, options);
  }

  // A pre-signed URL: what others send as headers to use this queue.
  async share(given = {}) {
    checkOptions(given, ['paths', 'methods', 'expires', ...REQUEST_OPTIONS], 'share()');
    const { paths, methods, expires, ...options } = given;
    return this._request('queue_share', { paths, methods, expires }, options);
  }

  // Has the server move dead letters back to the queues that they are from, or to `target`: at most
  // `limit` of them, and at most `rate` a second.
  async redrive(given = {}) {
    checkOptions(given, ['target', 'limit', 'rate', ...REQUEST_OPTIONS], 'redrive()');
    const { target, limit, rate, ...options } = given;
    const created = await this._request('redrive_create', { target, limit, rate }, options);
    return this.getRedrive(created.redrive_id, options);
  }

  async getRedrive(id, options) {
    return new Redrive(this, await this._request('redrive_get', { redrive_id: id }, options));
  }

  // The redrives of this queue, oldest first.
  async *redrives(given = {}) {
    checkOptions(given, ['marker', 'limit', 'timeout', 'signal'], 'redrives()');
    const asked = { marker: given.marker, limit: given.limit };
    for await (const page of this._pages('redrive_list', asked, given)) {
      for (const one of page.redrives) yield new Redrive(this, one);
    }
  }

  // Messages to work on, each to be settled by ack() or release(); `credit` of them at a time.
  consume(options) {
    return new Consumer(this, options);
  }
}

// Pools or flavors, for operators.
export class Resources {
  #client;
  #kind;

  constructor(client, kind) {
    this.#client = client;
    this.#kind = kind;
  }

  async #ask(verb, name, body, options) {
    const asked = { [`${this.#kind}_name`]: name, ...body };
    return (await this.#client.request(`${this.#kind}_${verb}`, asked, options)).body;
  }

  async *list(given = {}) {
    checkOptions(given, ['limit', 'detailed', 'timeout', 'signal'], 'list()');
    const { limit, detailed, ...options } = given;
    const list = new Channel(this.#client, this.#kind, {});
    const pages = list._pages(`${this.#kind}_list`, { limit, detailed }, options);
    for await (const page of pages) yield* page[`${this.#kind}s`];
  }

  async get(name, given = {}) {
    checkOptions(given, ['detailed', ...REQUEST_OPTIONS], 'get()');
    const { detailed, ...options } = given;
    return this.#ask('get', name, { detailed }, options);
  }

  async create(name, members, options) {
    await this.#ask('create', name, members, options);
  }

  async update(name, members, options) {
    return this.#ask('update', name, members, options);
  }

  async delete(name, options) {
    await this.#ask('delete', name, {}, options);
  }
}
