// Filters: which messages a subscription is for, by their attributes. The server does the same where it
// pushes; this is for what is polled.

const MAX_CONDITIONS = 16;
const MAX_TEXTS = 100;
const MAX_NAME = 128;
const MAX_TEXT = 8192;
const NAME = /^[A-Za-z0-9_.-]+$/;
const FORMS = 'a text, a list of texts, {"prefix": TEXT}, {"exists": true} or {"exists": false}';

// The function that tells whether attributes meet a filter. Throws a TypeError for what is no filter.
export function parseFilter(document, place = '$.options.filter') {
  if (!isObject(document)) {
    throw refusal(`A filter must be an object such as {"type": "order"}, not ${told(document)}`, place);
  }
  const wanted = Object.entries(document).filter(([, condition]) => condition !== undefined);
  if (wanted.length < 1 || wanted.length > MAX_CONDITIONS) {
    throw refusal(`A filter must name 1 to ${MAX_CONDITIONS} attributes, not ${wanted.length}`, place);
  }
  const conditions = wanted.map(([name, condition]) => {
    if (name.length > MAX_NAME || !NAME.test(name)) {
      const rule = `1 to ${MAX_NAME} letters, digits and characters of "_.-"`;
      const shown = name.slice(0, MAX_NAME);
      throw refusal(`The name of an attribute may have ${rule}, unlike '${shown}'`, place);
    }
    return [name, conditionOf(condition, `${place}.${name}`)];
  });
  return (attributes) =>
    conditions.every(([name, meets]) => meets(Object.hasOwn(attributes, name) ? attributes[name] : null));
}

// What tells whether an attribute, null where it is not there, meets a condition.
function conditionOf(wanted, place) {
  if (typeof wanted === 'string') return oneOf([text(wanted, place)]);
  if (Array.isArray(wanted)) {
    if (wanted.length < 1 || wanted.length > MAX_TEXTS) {
      throw refusal(`A list must have 1 to ${MAX_TEXTS} texts, not ${wanted.length}`, place);
    }
    return oneOf(wanted.map((one, index) => text(one, `${place}[${index}]`)));
  }
  const [[kind, given] = [], ...others] = isObject(wanted) ? Object.entries(wanted) : [];
  if (kind === 'prefix' && !others.length) {
    const prefix = text(given, `${place}.prefix`);
    return (value) => value !== null && value.startsWith(prefix);
  }
  if (kind === 'exists' && !others.length) {
    if (typeof given !== 'boolean') {
      throw refusal(`This must be true or false, not ${told(given)}`, `${place}.exists`);
    }
    return (value) => (value !== null) === given;
  }
  throw refusal(`A condition must be ${FORMS}`, place);
}

function oneOf(texts) {
  const wanted = new Set(texts);
  return (value) => wanted.has(value);
}

function text(given, place) {
  if (typeof given !== 'string') throw refusal(`This must be a text, not ${told(given)}`, place);
  if (given.length > MAX_TEXT) {
    throw refusal(`A text may have at most ${MAX_TEXT} characters, not ${given.length}`, place);
  }
  return given;
}

const isObject = (given) => typeof given === 'object' && given !== null && !Array.isArray(given);

const refusal = (reason, place) => new TypeError(`${reason} - at \`${place}\``);

// What a value is in JSON.
function told(given) {
  if (given === null || typeof given === 'boolean') return String(given);
  if (typeof given === 'number' || typeof given === 'bigint') return 'a number';
  if (Array.isArray(given)) return 'a list';
  return typeof given === 'string' ? 'a text' : 'an object';
}
