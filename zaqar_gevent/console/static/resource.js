// A queue or a topic: the same operations by other names.

export const KINDS = {
  queues: { name: 'queue', title: 'Queues', one: 'Queue' },
  topics: { name: 'topic', title: 'Topics', one: 'Topic' },
};

const MOST_PAGES = 10;
const SHARED = ['message_', 'subscription_', 'claim_'];

/** The operation's name for a kind: `queue_list`, `topic_list`; `message_post`, `topic_message_post`. */
export function operation(kind, name) {
  if (SHARED.some((prefix) => name.startsWith(prefix))) {
    return kind.name === 'topic' ? `topic_${name}` : name;
  }
  return `${kind.name}_${name}`;
}

/** One queue or topic of a session. */
export class Resource {
  constructor(session, kind, name) {
    this.session = session;
    this.kind = kind;
    this.name = name;
  }

  /** Call an operation on it; resolves to the body of the answer, rejects with the client's errors. */
  call(name, parameters = {}) {
    const named = { [`${this.kind.name}_name`]: this.name, ...parameters };
    return this.session.call(operation(this.kind, name), named);
  }

  /** The client's own object for it, for what is more than one request. */
  get handle() {
    return this.session.client[this.kind.name](this.name);
  }

  /**
   * Whether it is among those that are listed: what is asked of one that is not is answered all the
   * same. Of very many with like names not all are looked at; then it may be there.
   */
  async exists() {
    let marker;
    for (let page = 0; page < MOST_PAGES; page += 1) {
      const asked = { name: this.name, ...(marker ? { marker } : {}) };
      const found = await this.session.call(operation(this.kind, 'list'), asked);
      const listed = found[`${this.kind.name}s`] ?? [];
      if (listed.some((one) => one.name === this.name)) {
        return true;
      }
      marker = found.marker;
      if (listed.length === 0 || !marker) {
        return false;
      }
    }
    return true;
  }

  async stats() {
    return (await this.call('get_stats')).messages;
  }
}

/** The address of a queue's or topic's page. */
export function pageOf(section, name, tab = '') {
  return `#/${section}/${encodeURIComponent(name)}${tab && `/${tab}`}`;
}
