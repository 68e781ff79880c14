// What is read from fields: numbers and JSON, or an error that says where.

import { FieldError } from './dialogs.js';
import { element, field } from './elements.js';
import { fromJSON } from './zaqar.js';

/** A field for a whole number; empty for none. */
export function numberField(label, { min, max, value = '', hint = '' }) {
  const input = element('input', { type: 'number', min, max, step: 1, value, inputmode: 'numeric' });
  const made = field(label, input, hint);
  return {
    ...made,
    read() {
      made.complain('');
      if (input.validity.badInput) {
        throw new FieldError(made, 'A whole number is wanted.');
      }
      if (input.value === '') {
        return undefined;
      }
      const number = Number(input.value);
      if (!Number.isInteger(number) || number < min || (max !== undefined && number > max)) {
        const range = max === undefined ? `${min} or more` : `${min} to ${max}`;
        throw new FieldError(made, `A whole number, ${range}, is wanted.`);
      }
      return number;
    },
  };
}

/** A field for JSON. */
export function jsonField(label, { value = '', rows = 8, hint = '', emptyIs = undefined }) {
  const input = element('textarea', {
    class: 'code',
    rows,
    spellcheck: 'false',
    autocomplete: 'off',
    autocapitalize: 'off',
  });
  input.value = value;
  const made = field(label, input, hint);
  return {
    ...made,
    read() {
      made.complain('');
      if (input.value.trim() === '' && emptyIs !== undefined) {
        return emptyIs;
      }
      try {
        return fromJSON(input.value);
      } catch (error) {
        throw new FieldError(made, `This is not JSON: ${error.message}`);
      }
    },
    /** The same, of which only an object will do. */
    readObject() {
      const document = this.read();
      if (document === null || typeof document !== 'object' || Array.isArray(document)) {
        throw new FieldError(made, 'An object is wanted: {"name": value}.');
      }
      return document;
    },
  };
}

/** A field for a text. */
export function textField(label, { value = '', hint = '', required = false, ...attributes }) {
  const input = element('input', {
    type: 'text',
    spellcheck: 'false',
    autocomplete: 'off',
    autocapitalize: 'off',
    ...attributes,
  });
  input.value = value;
  const made = field(label, input, hint);
  return {
    ...made,
    read() {
      made.complain('');
      if (required && input.value.trim() === '') {
        throw new FieldError(made, 'This is needed.');
      }
      return input.value.trim();
    },
  };
}
