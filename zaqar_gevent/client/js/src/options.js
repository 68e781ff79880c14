// Options of calls.

import { ZaqarError } from './errors.js';

// Throws for an option that is none of these.
export function checkOptions(given, names, what = 'this') {
  if (given === null || typeof given !== 'object') throw new ZaqarError(`The options of ${what} must be an object.`);
  for (const name of Object.keys(given)) {
    if (names.includes(name)) continue;
    throw new ZaqarError(`There is no option '${name}' of ${what}; there are ${names.join(', ')}.`);
  }
}
