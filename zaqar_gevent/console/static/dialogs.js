// Dialogs: the browser's own, which hold the focus and give it back.

import { alertPlace, button, element, setText } from './elements.js';
import { problem } from './format.js';

let dialogs = 0;

/**
 * Ask for something in a dialog.
 *
 * title: its heading. content: nodes. submit: what its main button says. act: called when it is
 * pressed; the dialog closes when its promise is fulfilled and shows what it rejects with. An error
 * with a `complain` function says by that which field is at fault. danger: whether something is lost
 * by it; then the focus starts at Cancel.
 *
 * Resolves to true when it was done, to false when it was cancelled.
 */
export function ask({ title, content, submit, act, danger = false, wide = false }) {
  dialogs += 1;
  const id = `dialog-${dialogs}`;
  const before = document.activeElement;
  const failure = alertPlace();
  const done = element(
    'button',
    { type: 'submit', class: danger ? 'button danger' : 'button primary' },
    submit,
  );
  const cancel = button('Cancel', () => dialog.close());
  if (danger) {
    cancel.setAttribute('autofocus', '');
  }
  const form = element(
    'form',
    { novalidate: true, onsubmit: send },
    element('h2', { id }, title),
    element('div', { class: 'dialog-body' }, content, failure),
    element('div', { class: 'dialog-end' }, cancel, done),
  );
  const dialog = element('dialog', { 'aria-labelledby': id, class: wide ? 'wide' : null }, form);
  let succeeded = false;

  async function send(event) {
    event.preventDefault();
    if (done.disabled) {
      return;
    }
    setText(failure, '');
    done.disabled = true;
    try {
      await act();
      succeeded = true;
      dialog.close();
    } catch (error) {
      if (error.complain) {
        error.complain(error.message);
      } else {
        setText(failure, problem(error));
      }
    } finally {
      done.disabled = false;
    }
  }

  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      const back = before?.isConnected ? before : document.getElementById('main');
      back.focus({ preventScroll: true });
      resolve(succeeded);
    });
  });
}

/** Ask whether something is really to be done. */
export function confirm({ title, text, submit, act }) {
  const content = element('p', {}, text);
  return ask({ title, content, submit, act, danger: true });
}

/** What is wrong with a field, for `ask` to show there. */
export class FieldError extends Error {
  constructor(field, message) {
    super(message);
    this.complain = field.complain;
  }
}
