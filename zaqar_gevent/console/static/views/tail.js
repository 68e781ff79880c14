// The live tail of a queue: its messages as they are posted, by push or by polling.

import { Backlog } from '../backlog.js';
import { alertPlace, button, choice, element, replace, setText } from '../elements.js';
import { count, problem } from '../format.js';
import { notify } from '../notices.js';
import { messageEntry, serveArrows, setTabStop } from './message.js';

const SHOWN = 200;
const DRAW_SECONDS = 0.125;
const STARTS = [
  ['now', 'From now on'],
  ['start', 'From the start'],
];

export class Tail {
  constructor(resource, signal) {
    this.resource = resource;
    this.signal = signal;
    this.backlog = new Backlog(SHOWN);
    this.entries = [];
    this.isPaused = false;
    this.isFromStart = false;
    this.isRunning = false;
    this.subscription = null;
    this.drawn = 0;
    this.#build();
  }

  /** How many messages have come since it began, or null where they are not all new ones. */
  counted() {
    return this.isRunning && !this.isFromStart ? this.backlog.received : null;
  }

  #build() {
    this.live = element('span', { class: 'live' }, 'Connecting…');
    this.number = element('span', { class: 'tail-number' });
    this.failure = alertPlace();
    this.pause = button('Pause', () => this.#setPaused(!this.#isHeld()), 'small');
    this.from = choice(STARTS, 'now');
    this.from.setAttribute('aria-label', 'Where to begin');
    this.from.addEventListener('change', () => this.#restart());
    this.list = element('ol', { class: 'messages', 'aria-label': 'Messages, newest first' });
    serveArrows(this.list);
    this.list.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') {
        this.#setPaused(false);
      }
    });
    this.empty = element('div', { class: 'empty' }, element('p', {}, 'Waiting for messages.'));
    this.node = element(
      'section',
      { class: 'panel tail', 'aria-labelledby': 'tail-title' },
      element(
        'div',
        { class: 'panel-head' },
        element('h2', { id: 'tail-title' }, 'Live tail'),
        this.live,
        this.number,
        element(
          'div',
          { class: 'panel-end' },
          this.from,
          this.pause,
          button('Clear', () => this.#clear(), 'small'),
        ),
      ),
      this.failure,
      this.empty,
      this.list,
    );
  }

  start() {
    this.signal.addEventListener('abort', () => this.subscription?.close());
    this.#run();
    const draw = (now) => {
      if (this.signal.aborted) {
        return;
      }
      if (now - this.drawn >= DRAW_SECONDS * 1000) {
        this.drawn = now;
        this.#draw();
      }
      requestAnimationFrame(draw);
    };
    requestAnimationFrame(draw);
  }

  #restart() {
    this.isFromStart = this.from.value === 'start';
    this.isRunning = false;
    this.#clear();
    this.subscription?.close();
    this.#run();
  }

  async #run() {
    const options = this.isFromStart ? { marker: '' } : {};
    let subscription = null;
    try {
      subscription = this.resource.handle.subscribe(options);
      this.subscription = subscription;
      setText(this.failure, '');
      await subscription.ready;
      if (subscription !== this.subscription) {
        return;
      }
      this.isRunning = true;
      for await (const message of subscription) {
        if (this.signal.aborted || subscription !== this.subscription) {
          break;
        }
        this.backlog.add(message);
      }
    } catch (error) {
      this.#fail(error, subscription);
    }
  }

  #fail(error, subscription) {
    if (this.signal.aborted || subscription !== this.subscription) {
      return;
    }
    this.isRunning = false;
    this.resource.session.consider(error);
    replace(this.failure, problem(error), ' ', button('Try again', () => this.#restart(), 'small'));
  }

  #setPaused(isPaused) {
    this.isPaused = isPaused;
    if (!isPaused) {
      this.entries.filter((entry) => entry.isOpen()).forEach((entry) => entry.close());
      this.pause.focus();
    }
  }

  #clear() {
    this.backlog = new Backlog(SHOWN);
    this.entries = [];
    replace(this.list);
    this.empty.hidden = false;
  }

  /** Whether the list stands still: it is paused, or somebody is at a message, by keys or reading. */
  #isHeld() {
    return (
      this.isPaused ||
      this.list.querySelector(':focus-visible') !== null ||
      this.entries.some((entry) => entry.isOpen())
    );
  }

  #draw() {
    const isHeld = this.#isHeld();
    const { fresh, received } = this.backlog;
    this.#say(isHeld, fresh.length);
    if (isHeld || fresh.length === 0) {
      return;
    }
    const added = this.backlog.take().map((message) => this.#entry(message));
    added.reverse();
    this.list.prepend(...added.map((entry) => entry.node));
    this.entries = [...added, ...this.entries];
    for (const entry of this.entries.splice(SHOWN)) {
      entry.node.remove();
    }
    this.empty.hidden = true;
    setTabStop(this.list, this.entries[0].line);
    setText(this.number, numbers(received, this.entries.length));
  }

  #say(isHeld, waiting) {
    const word = isHeld ? 'Held' : 'Live';
    const state = this.isRunning ? word : this.#idle();
    this.live.dataset.state = state.toLowerCase();
    setText(this.pause, isHeld ? 'Resume' : 'Pause');
    setText(this.live, isHeld && waiting ? `${state}, ${moreThan(waiting)} more` : state);
  }

  #idle() {
    return this.failure.hasChildNodes() ? 'Stopped' : 'Connecting…';
  }

  #entry(message) {
    const entry = messageEntry(message, [['Delete', () => this.#remove(message, entry)]]);
    entry.line.tabIndex = -1;
    return entry;
  }

  async #remove(message, entry) {
    try {
      await this.resource.call('message_delete', { message_id: message.id });
      this.entries = this.entries.filter((other) => other !== entry);
      entry.node.remove();
      setTabStop(this.list, this.entries[0]?.line);
      (this.entries[0]?.line ?? this.pause).focus();
      notify('Deleted.');
    } catch (error) {
      notify(problem(error), 'bad');
    }
  }
}

function moreThan(waiting) {
  return waiting > SHOWN ? `${SHOWN} or` : count(waiting);
}

function numbers(received, shown) {
  const all = `${count(received)} received`;
  return received > shown ? `${all}, the latest ${count(shown)} shown` : all;
}
