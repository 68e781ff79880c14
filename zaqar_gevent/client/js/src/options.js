// Options of calls.

import { ZaqarError } from './errors.js';

// Those that every call takes, beside its own.
export const REQUEST_OPTIONS = ['timeout', 'signal', 'headers'];

// Throws for an option that is none of these. internal: others, which no user is told of.
export function checkOptions(given, names, what = 'this', internal = []) {
  if (given === null || typeof given !== 'object') throw new ZaqarError(`The options of ${what} must be an object.`);
  for (const name of Object.keys(given)) {
    if (names.includes(name) || internal.includes(name)) continue;
    throw new ZaqarError(`There is no option '${name}' of ${what}; there are ${names.join(', ')}.`);
  }
}
