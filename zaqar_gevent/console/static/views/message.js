// One message: a line, and all of it below when it is opened.

import { button, element } from '../elements.js';
import { brief, clockTime, duration, full } from '../format.js';

/**
 * The entry of a message: `{node, line, isOpen(), close()}`.
 *
 * actions: `[label, function]` pairs for the opened message.
 */
export function messageEntry(message, actions = []) {
  const came = new Date(Date.now() - (message.age ?? 0) * 1000);
  const detail = element('div', { class: 'message-detail', hidden: true });
  const line = element(
    'button',
    { type: 'button', class: 'message-line', 'aria-expanded': 'false', onclick: toggle },
    element('time', { datetime: came.toISOString() }, clockTime(came)),
    element('span', { class: 'message-body' }, brief(message.body)),
    element('span', { class: 'message-ttl' }, duration(message.ttl)),
  );
  const node = element('li', { class: 'message' }, line, detail);

  function toggle() {
    const opens = detail.hidden;
    if (opens && !detail.hasChildNodes()) {
      detail.append(facts(message, came), element('pre', { tabindex: 0 }, full(message.body)));
      if (actions.length > 0) {
        detail.append(
          element(
            'div',
            { class: 'message-actions' },
            actions.map(([label, act]) => button(label, act, 'small')),
          ),
        );
      }
    }
    detail.hidden = !opens;
    line.setAttribute('aria-expanded', String(opens));
  }

  function close() {
    detail.hidden = true;
    line.setAttribute('aria-expanded', 'false');
  }

  return { node, line, close, isOpen: () => !detail.hidden };
}

function facts(message, came) {
  const pairs = [
    ['Id', message.id],
    ['Posted', came.toLocaleString()],
    ['TTL', duration(message.ttl)],
    ['Claim', message.claim_id ?? message.claimId],
    ['Checksum', message.checksum],
  ];
  return element(
    'dl',
    { class: 'facts' },
    pairs
      .filter(([, value]) => value !== undefined && value !== null)
      .map(([label, value]) => element('div', {}, element('dt', {}, label), element('dd', {}, value))),
  );
}

/** Move the focus between the lines of a list by the arrow keys, Home and End; one is in tab order. */
export function serveArrows(list) {
  list.addEventListener('keydown', (event) => {
    const lines = [...list.querySelectorAll('.message-line')];
    const at = lines.indexOf(document.activeElement);
    const moves = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: lines.length - 1 };
    if (at < 0 || !Object.hasOwn(moves, event.key)) {
      return;
    }
    event.preventDefault();
    const to = lines[Math.max(0, Math.min(lines.length - 1, moves[event.key]))];
    setTabStop(list, to);
    to.focus();
  });
  list.addEventListener('focusin', (event) => {
    if (event.target.classList.contains('message-line')) {
      setTabStop(list, event.target);
    }
  });
}

/** Make one line the list's place in the tab order. */
export function setTabStop(list, line) {
  for (const other of list.querySelectorAll('.message-line[tabindex="0"]')) {
    other.tabIndex = -1;
  }
  if (line) {
    line.tabIndex = 0;
  }
}
