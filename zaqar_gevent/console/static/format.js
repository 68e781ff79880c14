// How things are written: numbers, times and bodies.

import { toJSON } from './zaqar.js';

const WHOLE = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const TENTH = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const UNITS = [
  [86400, 'd'],
  [3600, 'h'],
  [60, 'min'],
];

export function count(number) {
  return number === undefined || number === null ? '–' : WHOLE.format(number);
}

/** A rate in messages a second: `0`, `3.2`, `1,204`. */
export function rate(number) {
  if (number === null || number === undefined) {
    return '–';
  }
  if (number === 0) {
    return '0';
  }
  return number < 100 ? TENTH.format(number) : WHOLE.format(number);
}

/** Seconds in their largest unit, with one more where it tells something: `45 s`, `2 h 5 min`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) {
    return '–';
  }
  const whole = Math.max(0, Math.round(seconds));
  for (const [index, [size, unit]] of UNITS.entries()) {
    if (whole >= size) {
      const rest = Math.floor((whole % size) / (UNITS[index + 1]?.[0] ?? 1));
      const smaller = UNITS[index + 1]?.[1] ?? 's';
      return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${smaller}` : ''}`;
    }
  }
  return `${whole} s`;
}

/** The time of day, in the reader's zone: `14:03:07`. */
export function clockTime(date) {
  const two = (number) => String(number).padStart(2, '0');
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':');
}

/** A body on one line, of at most `most` characters. */
export function brief(body, most = 240) {
  const text = typeof body === 'string' ? body : toJSON(body);
  // A line is a line: what would break or reorder it is shown as a space.
  const line = text.slice(0, most + 1).replace(/[\s\u2028\u2029\u202a-\u202e\u2066-\u2069]+/g, ' ');
  return text.length > most ? `${line.slice(0, most)}…` : line;
}

/** A body in full, as indented JSON; integers of 64 bits as they are. */
export function full(body, indent = '') {
  if (body === null || typeof body !== 'object') {
    return toJSON(body);
  }
  const deeper = `${indent}  `;
  const isList = Array.isArray(body);
  const members = isList
    ? body.map((value) => full(value, deeper))
    : Object.entries(body).map(([name, value]) => `${toJSON(name)}: ${full(value, deeper)}`);
  const [open, close] = isList ? '[]' : '{}';
  if (members.length === 0) {
    return open + close;
  }
  return `${open}\n${deeper}${members.join(`,\n${deeper}`)}\n${indent}${close}`;
}

/** An error in one sentence or two, for a person. */
export function problem(error) {
  const parts = [error.title, error.description ?? error.message].filter(Boolean);
  const text = parts.join(': ') || String(error);
  return error.status ? `${text} (${error.status})` : text;
}
