// The metadata of a queue: seen, and edited as one JSON document.

import { alertPlace, button, element, setText } from '../elements.js';
import { full, problem } from '../format.js';
import { jsonField } from '../inputs.js';
import { notify } from '../notices.js';
import { toJSON } from '../zaqar.js';

export function showMetadata(resource, signal) {
  const view = new Metadata(resource, signal);
  return { node: view.node, start: () => view.load() };
}

class Metadata {
  constructor(resource, signal) {
    this.resource = resource;
    this.signal = signal;
    this.known = null;
    this.field = jsonField('Metadata', {
      rows: 16,
      hint: "What begins with an underscore is the server's to understand. Save sends only what was changed.",
    });
    this.failure = alertPlace();
    this.save = element('button', { type: 'submit', class: 'button primary' }, 'Save');
    this.save.disabled = true;
    this.node = element(
      'form',
      { class: 'panel padded', novalidate: true, onsubmit: (event) => this.#save(event) },
      this.field.row,
      this.failure,
      element('div', { class: 'form-end' }, button('Reload', () => this.load()), this.save),
    );
  }

  async load() {
    try {
      this.#show(await this.resource.call('get'));
      setText(this.failure, '');
    } catch (error) {
      this.#fail(error);
    }
  }

  #show(metadata) {
    if (!this.signal.aborted) {
      this.known = metadata;
      this.field.input.value = full(metadata);
      this.save.disabled = false;
    }
  }

  #fail(error) {
    if (!this.signal.aborted) {
      setText(this.failure, problem(error));
    }
  }

  async #save(event) {
    event.preventDefault();
    setText(this.failure, '');
    try {
      const changes = differences(this.known, this.field.readObject());
      if (changes.length === 0) {
        notify('Nothing was changed.');
        return;
      }
      this.#show(await this.resource.call('update', { changes }));
      notify('Saved.');
    } catch (error) {
      if (error.complain) {
        error.complain(error.message);
      } else {
        this.#fail(error);
      }
    }
  }
}

/** The JSON patch (RFC 6902) that makes `after` of `before`, a step for each member. */
export function differences(before, after) {
  const changes = [];
  for (const name of Object.keys(before)) {
    if (!Object.hasOwn(after, name)) {
      changes.push({ op: 'remove', path: pathOf(name) });
    } else if (toJSON(before[name]) !== toJSON(after[name])) {
      changes.push({ op: 'replace', path: pathOf(name), value: after[name] });
    }
  }
  for (const name of Object.keys(after)) {
    if (!Object.hasOwn(before, name)) {
      changes.push({ op: 'add', path: pathOf(name), value: after[name] });
    }
  }
  return changes;
}

function pathOf(name) {
  return `/metadata/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`;
}
