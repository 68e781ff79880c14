// The queues of a project, or its topics, with how fast messages come and go.

import { Arrivals } from '../arrivals.js';
import { ask } from '../dialogs.js';
import { button, element, replace, setText } from '../elements.js';
import { count, problem, rate } from '../format.js';
import { jsonField, textField } from '../inputs.js';
import { notify } from '../notices.js';
import { Pages } from '../pages.js';
import { keepLooking } from '../polling.js';
import { Rates } from '../rates.js';
import { KINDS, Resource, operation, pageOf } from '../resource.js';
import { sparkline } from '../sparkline.js';
import { Pager } from './pager.js';

const LOOK_SECONDS = 2;
const TYPING_SECONDS = 0.25;
const SPARK = [96, 20];

/** The view of a section, `queues` or `topics`. */
export function showList(session, signal, section) {
  const list = new List(session, signal, section);
  return { title: KINDS[section].title, node: list.node, start: () => list.start() };
}

class List {
  constructor(session, signal, section) {
    this.session = session;
    this.signal = signal;
    this.section = section;
    this.kind = KINDS[section];
    this.filter = '';
    this.rows = [];
    this.rates = new Map();
    this.arrivals = new Arrivals();
    signal.addEventListener('abort', () => this.arrivals.stop());
    this.#build();
    this.#renew();
  }

  #build() {
    const { title, name } = this.kind;
    this.total = element('span', { class: 'count' });
    this.body = element('tbody');
    this.note = element('div', { class: 'empty', role: 'status' }, 'Loading…');
    this.table = element(
      'table',
      { class: 'rows queues', hidden: true },
      element('caption', { class: 'sr' }, `${title} and their messages`),
      element(
        'thead',
        {},
        element(
          'tr',
          {},
          element('th', { scope: 'col' }, 'Name'),
          element('th', { scope: 'col', class: 'number' }, 'Free'),
          name === 'queue' && element('th', { scope: 'col', class: 'number wide-only' }, 'Claimed'),
          element('th', { scope: 'col', class: 'number' }, 'In /s'),
          element('th', { scope: 'col', class: 'number' }, 'Out /s'),
          element('th', { scope: 'col', class: 'wide-only' }, 'Two minutes'),
        ),
      ),
      this.body,
    );
    this.pager = new Pager((way) => this.#turn(way));
    this.node = element(
      'div',
      {},
      element(
        'div',
        { class: 'head' },
        element('h1', {}, title, ' ', this.total),
        element(
          'div',
          { class: 'head-end' },
          this.#filterInput(),
          button(`New ${name}`, () => this.#create(), 'primary'),
        ),
      ),
      element('section', { class: 'panel' }, this.table, this.note),
      this.pager.node,
      this.#foot(),
    );
  }

  #foot() {
    this.footnote = element('p');
    this.counting = button('', () => this.#setCounting(!this.session.isCounting), 'small');
    this.foot = element('div', { class: 'foot', hidden: true }, this.footnote, this.counting);
    this.#sayCounting();
    return this.foot;
  }

  #sayCounting() {
    const { isCounting } = this.session;
    setText(this.counting, isCounting ? 'Stop counting' : 'Count each message');
    setText(
      this.footnote,
      isCounting
        ? 'Each message that is posted to these is sent here and counted.'
        : 'Rates are the least that can have happened between two looks at the counts.',
    );
  }

  #setCounting(isCounting) {
    this.session.isCounting = isCounting;
    this.#sayCounting();
    this.#follow();
  }

  #follow() {
    this.arrivals.follow(this.session.isCounting ? this.rows.map((row) => row.resource) : []);
  }

  #filterInput() {
    let typing = null;
    const input = element('input', {
      type: 'search',
      placeholder: 'Filter by name',
      'aria-label': `Filter ${this.section} by name`,
      spellcheck: 'false',
      autocomplete: 'off',
      oninput: () => {
        clearTimeout(typing);
        typing = setTimeout(() => {
          this.filter = input.value.trim();
          this.#renew();
          this.load();
        }, TYPING_SECONDS * 1000);
      },
    });
    return input;
  }

  start() {
    this.load();
    keepLooking(LOOK_SECONDS, this.signal, () => this.#look());
  }

  #renew() {
    this.pages = new Pages((marker) => this.#fetch(marker));
  }

  async #fetch(marker) {
    const found = await this.session.call(operation(this.kind, 'list'), {
      ...(marker ? { marker } : {}),
      ...(this.filter ? { name: this.filter } : {}),
      // Topics cannot be counted, and neither can what a filter finds.
      ...(this.kind.name === 'queue' && !this.filter && !marker ? { with_count: true } : {}),
    });
    return { items: found[this.section] ?? [], marker: found.marker, count: found.count };
  }

  #turn(way) {
    this.pages[way]();
    return this.load();
  }

  async load() {
    const { pages } = this;
    try {
      const items = await pages.load();
      if (this.signal.aborted || pages !== this.pages) {
        return;
      }
      this.#show(items.map((item) => item.name));
    } catch (error) {
      if (!this.signal.aborted) {
        const again = button('Try again', () => this.load(), 'small');
        this.#say(problem(error), this.session.refusal ? null : again);
      }
    }
  }

  #say(text, ...more) {
    this.table.hidden = true;
    this.pager.hide();
    this.foot.hidden = true;
    this.note.hidden = false;
    replace(this.note, element('p', {}, text), more);
  }

  #show(names) {
    const { pages } = this;
    setText(this.total, pages.count !== null && !this.filter ? count(pages.count) : '');
    if (names.length === 0) {
      this.rows = [];
      this.#follow();
      this.#sayNothingIsThere();
      return;
    }
    this.note.hidden = true;
    this.table.hidden = false;
    this.foot.hidden = false;
    this.rows = names.map((name) => this.#row(name));
    replace(
      this.body,
      this.rows.map((row) => row.node),
    );
    this.pager.show(pages, `Page ${pages.number}: ${names[0]} to ${names.at(-1)}`);
    this.#follow();
    this.#look();
  }

  #sayNothingIsThere() {
    const { name } = this.kind;
    if (this.filter) {
      this.#say(`No ${name} has “${this.filter}” in its name.`);
      return;
    }
    const make = button(`Create the first ${name}`, () => this.#create(), 'primary');
    this.#say(`The project “${this.session.settings.project}” has no ${this.section} yet.`, make);
  }

  #row(name) {
    const cells = {};
    const number = (member, kind = '') => {
      cells[member] = element('td', { class: `number ${kind}`.trim() }, '–');
      return cells[member];
    };
    const picture = sparkline(...SPARK);
    if (!this.rates.has(name)) {
      this.rates.set(name, new Rates());
    }
    const node = element(
      'tr',
      {},
      element(
        'th',
        { scope: 'row' },
        element('a', { href: pageOf(this.section, name), class: 'name' }, name),
      ),
      number('free'),
      this.kind.name === 'queue' && number('claimed', 'wide-only'),
      number('in'),
      number('out'),
      element('td', { class: 'wide-only' }, picture.node),
    );
    return { name, node, cells, picture, resource: new Resource(this.session, this.kind, name) };
  }

  /** Count the messages of what is on the page; what is not is not asked for. */
  async #look() {
    const { rows } = this;
    const looks = await Promise.allSettled(rows.map((row) => row.resource.stats()));
    if (this.signal.aborted || rows !== this.rows) {
      return;
    }
    const at = performance.now() / 1000;
    for (const [index, look] of looks.entries()) {
      if (look.status === 'fulfilled') {
        this.#update(rows[index], look.value, at);
      }
    }
  }

  #update({ name, cells, picture }, stats, at) {
    const rates = this.rates.get(name);
    rates.add(at, stats, this.arrivals.of(name));
    const current = rates.current();
    setText(cells.free, count(stats.free));
    if (cells.claimed) {
      setText(cells.claimed, count(stats.claimed));
    }
    for (const way of ['in', 'out']) {
      setText(cells[way], rate(current?.[way]));
      cells[way].classList.toggle('busy', Boolean(current?.[way]));
    }
    picture.draw(rates.history());
  }

  async #create() {
    const { name: kind } = this.kind;
    const name = textField('Name', {
      required: true,
      maxlength: 64,
      class: 'code',
      hint: 'Letters, digits, hyphens, underscores and dots, at most 64.',
    });
    const metadata = jsonField('Metadata', {
      rows: 4,
      hint: 'An object, or nothing. For example {"_default_message_ttl": 600}.',
      emptyIs: {},
    });
    let created = '';
    const isDone = await ask({
      title: `New ${kind}`,
      submit: 'Create',
      content: [name.row, metadata.row],
      act: async () => {
        created = name.read();
        const resource = new Resource(this.session, this.kind, created);
        await resource.call('create', { metadata: metadata.readObject() });
      },
    });
    if (isDone) {
      notify(`The ${kind} “${created}” is there.`);
      location.hash = pageOf(this.section, created);
    }
  }
}
