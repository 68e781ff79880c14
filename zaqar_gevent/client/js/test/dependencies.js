// What the tests need and the client does not: from node_modules beside the package, or beneath the
// directory that NODE_DEPENDENCIES names.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const place = process.env.NODE_DEPENDENCIES;
const { resolve } = createRequire(place ? join(place, 'of-tests.js') : import.meta.url);

export const load = (name) => import(pathToFileURL(resolve(name)));

// Node's own WebSocket, where it has one.
export const WebSocket = globalThis.WebSocket ?? (await load('ws')).default;
