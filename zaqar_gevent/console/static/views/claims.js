// Claiming messages, and settling them: delete what is done, release what is not.

import { alertPlace, button, element, replace, setText } from '../elements.js';
import { duration, problem } from '../format.js';
import { numberField } from '../inputs.js';
import { remembered } from '../memory.js';
import { notify } from '../notices.js';
import { keepLooking } from '../polling.js';
import { messageEntry, serveArrows, setTabStop } from './message.js';

const SECOND = 1;

export function showClaims(resource, signal) {
  const make = () => new Claims(resource);
  const claims = remembered(resource.session.client, `claims of ${resource.name}`, make);
  return { node: claims.node, start: () => claims.start(signal) };
}

class Claims {
  constructor(resource) {
    this.resource = resource;
    this.held = [];
    this.#build();
  }

  #build() {
    this.limit = numberField('Messages', { min: 1, max: 20, value: 10 });
    this.ttl = numberField('Claim TTL, s', { min: 1, value: 60 });
    this.grace = numberField('Grace, s', { min: 1, value: 60 });
    this.failure = alertPlace();
    this.claim = element('button', { type: 'submit', class: 'button primary' }, 'Claim');
    this.list = element('div', { class: 'claims' });
    this.empty = element(
      'div',
      { class: 'panel empty' },
      element('p', {}, 'No claim is held here. Claim some messages to work on them.'),
    );
    this.node = element(
      'div',
      {},
      element(
        'form',
        { class: 'panel line-form', novalidate: true, onsubmit: (event) => this.#create(event) },
        this.limit.row,
        this.ttl.row,
        this.grace.row,
        this.claim,
        this.failure,
      ),
      this.list,
      this.empty,
    );
  }

  start(signal) {
    keepLooking(SECOND, signal, async () => {
      for (const held of this.held) {
        held.tick();
      }
    });
  }

  async #create(event) {
    event.preventDefault();
    if (this.claim.disabled) {
      return;
    }
    setText(this.failure, '');
    this.claim.disabled = true;
    try {
      const wanted = { limit: this.limit.read(), ttl: this.ttl.read(), grace: this.grace.read() };
      const created = await this.resource.call('claim_create', wanted);
      if (!created?.claim_id || created.messages.length === 0) {
        setText(this.failure, 'There is nothing to claim.');
        return;
      }
      this.#hold(created, wanted.ttl);
    } catch (error) {
      this.#complain(error);
    } finally {
      this.claim.disabled = false;
    }
  }

  #complain(error) {
    if (error.complain) {
      error.complain(error.message);
    } else {
      setText(this.failure, problem(error));
    }
  }

  #hold(created, ttl) {
    const held = new HeldClaim(this.resource, created, ttl, () => {
      this.held = this.held.filter((other) => other !== held);
      held.node.remove();
      this.empty.hidden = this.held.length > 0;
      this.claim.focus();
    });
    this.held.unshift(held);
    this.list.prepend(held.node);
    this.empty.hidden = true;
  }
}

class HeldClaim {
  constructor(resource, created, ttl, end) {
    this.resource = resource;
    this.id = created.claim_id;
    this.ttl = ttl;
    this.end = end;
    this.messages = created.messages;
    this.entries = new Map();
    this.#restart(ttl);
    this.#build();
    this.tick();
  }

  #restart(ttl) {
    this.expires = performance.now() / 1000 + ttl;
  }

  #build() {
    this.title = element('h2', {});
    this.left = element('span', { class: 'left' });
    this.failure = alertPlace();
    this.list = element('ol', { class: 'messages', 'aria-label': 'Claimed messages' });
    serveArrows(this.list);
    for (const message of this.messages) {
      const entry = messageEntry(message);
      const done = button('Delete', () => this.#settle([message]), 'small');
      done.setAttribute('aria-label', `Delete message ${message.id}`);
      entry.node.classList.add('with-action');
      entry.node.append(done);
      entry.line.tabIndex = -1;
      this.entries.set(message.id, entry);
      this.list.append(entry.node);
    }
    this.node = element(
      'section',
      { class: 'panel claim', 'aria-label': `Claim ${this.id}` },
      element(
        'div',
        { class: 'panel-head' },
        this.title,
        element('code', {}, this.id),
        this.left,
        element(
          'div',
          { class: 'panel-end' },
          button('Renew', () => this.#renew(), 'small'),
          button('Release', () => this.#release(), 'small'),
          button('Delete all', () => this.#settle(this.messages), 'small danger-outline'),
        ),
      ),
      this.failure,
      this.list,
    );
    this.#count();
  }

  #count() {
    const { length } = this.messages;
    setText(this.title, `${length} ${length === 1 ? 'message' : 'messages'}`);
    setTabStop(this.list, this.entries.get(this.messages[0]?.id)?.line);
  }

  tick() {
    const seconds = this.expires - performance.now() / 1000;
    const isOver = seconds <= 0;
    this.node.classList.toggle('expired', isOver);
    setText(this.left, isOver ? 'expired: others may have them' : `${duration(seconds)} left`);
  }

  async #settle(messages) {
    await this.#attempt(async () => {
      await this.resource.call('message_delete_many', {
        message_ids: messages.map((message) => message.id),
        claim_ids: [this.id],
      });
      const gone = new Set(messages);
      this.messages = this.messages.filter((message) => !gone.has(message));
      for (const message of gone) {
        this.entries.get(message.id).node.remove();
        this.entries.delete(message.id);
      }
      this.#count();
      notify(gone.size === 1 ? 'Deleted.' : `Deleted ${gone.size} messages.`);
      if (this.messages.length === 0) {
        await this.resource.call('claim_delete', { claim_id: this.id });
        this.end();
      } else {
        this.entries.get(this.messages[0].id).line.focus();
      }
    });
  }

  #renew() {
    return this.#attempt(async () => {
      await this.resource.call('claim_update', { claim_id: this.id, ttl: this.ttl });
      this.#restart(this.ttl);
      this.tick();
      notify('Renewed.');
    });
  }

  #release() {
    return this.#attempt(async () => {
      await this.resource.call('claim_delete', { claim_id: this.id });
      notify('Released.');
      this.end();
    });
  }

  async #attempt(act) {
    replace(this.failure);
    try {
      await act();
    } catch (error) {
      setText(this.failure, problem(error));
    }
  }
}
