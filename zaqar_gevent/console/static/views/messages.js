// The messages of a queue as they come, and a form to post one.

import { element } from '../elements.js';
import { postForm } from './post.js';
import { Tail } from './tail.js';

export function showMessages(resource, signal, { counts }) {
  const tail = new Tail(resource, signal);
  counts.arrived = () => tail.counted();
  return {
    node: element('div', { class: 'columns' }, tail.node, postForm(resource)),
    start: () => tail.start(),
  };
}
