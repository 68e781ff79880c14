// Short news at the edge of the page, read out politely and gone by themselves.

import { element } from './elements.js';

const SECONDS = 5;
const MOST = 4;

export function notify(text, kind = '') {
  const place = document.getElementById('notices');
  const notice = element('p', { class: `notice ${kind}`.trim() }, text);
  place.append(notice);
  while (place.childElementCount > MOST) {
    place.firstElementChild.remove();
  }
  setTimeout(() => notice.remove(), SECONDS * 1000);
}
