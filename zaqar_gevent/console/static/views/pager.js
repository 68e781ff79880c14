// Where one is in a list of many pages, and the buttons to turn them.

import { button, element, setText } from '../elements.js';

/** turn: called with `previous` or `next`. */
export class Pager {
  constructor(turn) {
    this.previous = button('Previous', () => turn('previous'), 'small');
    this.next = button('Next', () => turn('next'), 'small');
    this.where = element('span', { class: 'where', role: 'status' });
    this.node = element(
      'nav',
      { class: 'pager', 'aria-label': 'Pages', hidden: true },
      this.previous,
      this.where,
      this.next,
    );
  }

  hide() {
    this.node.hidden = true;
  }

  /** Show where `pages` are, unless there is one only. */
  show(pages, where) {
    this.node.hidden = !pages.hasPrevious && !pages.hasNext;
    this.previous.disabled = !pages.hasPrevious;
    this.next.disabled = !pages.hasNext;
    setText(this.where, where);
  }
}
