// A form that posts a message.

import { alertPlace, element, setText } from '../elements.js';
import { problem } from '../format.js';
import { jsonField, numberField } from '../inputs.js';
import { notify } from '../notices.js';

const EXAMPLE = '{"sku": 42}';

/** The form; what was typed stays, so that it can be posted again. */
export function postForm(resource) {
  const body = jsonField('Body', { value: EXAMPLE, rows: 5, hint: 'JSON. Ctrl+Enter posts it.' });
  const ttl = numberField('TTL, s', { min: 1, hint: 'Empty: the queue’s own, or an hour.' });
  const delay = numberField('Delay, s', { min: 0 });
  const failure = alertPlace();
  const send = element('button', { type: 'submit', class: 'button primary' }, 'Post');
  const form = element(
    'form',
    { class: 'panel post', 'aria-labelledby': 'post-title', novalidate: true, onsubmit: post },
    element('h2', { id: 'post-title' }, 'Post a message'),
    body.row,
    element('div', { class: 'pair' }, ttl.row, delay.row),
    failure,
    element('div', { class: 'form-end' }, send),
  );
  body.input.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });

  async function post(event) {
    event.preventDefault();
    if (send.disabled) {
      return;
    }
    setText(failure, '');
    send.disabled = true;
    try {
      await postMessage(resource, { body: body.read(), ttl: ttl.read(), delay: delay.read() });
      notify('Posted.');
    } catch (error) {
      if (error.complain) {
        error.complain(error.message);
      } else {
        resource.session.consider(error);
        setText(failure, problem(error));
      }
    } finally {
      send.disabled = false;
    }
  }

  return form;
}

function postMessage(resource, { body, ttl, delay }) {
  const options = {};
  if (ttl !== undefined) {
    options.ttl = ttl;
  }
  if (delay !== undefined) {
    options.delay = delay;
  }
  // A list alone would be taken for several bodies.
  return resource.handle.post([body], options);
}
