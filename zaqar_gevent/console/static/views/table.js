// A list of things that are created, changed and deleted in dialogs: subscriptions, pools, flavors.

import { confirm } from '../dialogs.js';
import { button, element, replace } from '../elements.js';
import { problem } from '../format.js';
import { notify } from '../notices.js';
import { Pages } from '../pages.js';
import { Pager } from './pager.js';

/**
 * A table with its pages.
 *
 * columns: `[label, function of an item that gives its cell, class]`. fetch: as `Pages` wants it.
 * nothing: what to say of an empty list. actions: gives `[label, function of
 * an item]` pairs for an item; they are read out with `nameOf` it.
 */
export class Table {
  constructor({ label, columns, fetch, nothing, actions, nameOf, signal }) {
    Object.assign(this, { columns, nothing, actions, nameOf, signal });
    this.pages = new Pages(fetch);
    this.body = element('tbody');
    this.note = element('div', { class: 'empty', role: 'status' }, element('p', {}, 'Loading…'));
    this.table = element(
      'table',
      { class: 'rows', hidden: true },
      element('caption', { class: 'sr' }, label),
      element(
        'thead',
        {},
        element(
          'tr',
          {},
          columns.map(([name, , kind]) => element('th', { scope: 'col', class: kind }, name)),
          element('th', { scope: 'col' }, element('span', { class: 'sr' }, 'Actions')),
        ),
      ),
      this.body,
    );
    this.pager = new Pager((way) => this.#turn(way));
    this.node = element('section', { class: 'panel' }, this.table, this.note, this.pager.node);
  }

  #turn(way) {
    this.pages[way]();
    return this.load();
  }

  async load() {
    try {
      const items = await this.pages.load();
      if (!this.signal.aborted) {
        this.#show(items);
      }
    } catch (error) {
      if (!this.signal.aborted) {
        this.#say(problem(error), button('Try again', () => this.load(), 'small'));
      }
    }
  }

  #say(text, ...more) {
    this.table.hidden = true;
    this.note.hidden = false;
    replace(this.note, element('p', {}, text), more);
  }

  #show(items) {
    this.pager.show(this.pages, `Page ${this.pages.number}`);
    if (items.length === 0) {
      this.#say(this.nothing);
      return;
    }
    this.note.hidden = true;
    this.table.hidden = false;
    replace(
      this.body,
      items.map((item) => this.#row(item)),
    );
  }

  #row(item) {
    const cells = this.columns.map(([label, cell, kind], index) => {
      const attributes = { class: kind, 'data-label': label };
      return index === 0
        ? element('th', { scope: 'row', ...attributes }, cell(item))
        : element('td', attributes, cell(item));
    });
    const actions = this.actions(item).map(([label, act]) => {
      const made = button(label, () => act(item), 'small');
      made.setAttribute('aria-label', `${label} ${this.nameOf(item)}`);
      return made;
    });
    return element('tr', {}, cells, element('td', { class: 'row-actions' }, actions));
  }

  /** Ask whether to delete something, and do it. */
  async remove({ title, text, submit = 'Delete', act }) {
    const isDone = await confirm({ title, text, submit, act });
    if (isDone) {
      notify('Deleted.');
      await this.load();
    }
  }
}
