// Which WebSocket to use where there is no global one.

import { Unsupported } from './errors.js';

// Node has a WebSocket of its own from version 22 on.
export const isNode = () => globalThis.process?.versions?.node !== undefined;
export const NO_WEBSOCKET =
  'There is no WebSocket here. Use Node 22 or later, or install the package ws (npm install ws), or give the ' +
  "option WebSocket, or transport: 'rest'.";
// Not a literal in `import`, so bundlers do not look for the package.
const WS = 'ws';

// The WebSocket of the package ws, where that is installed.
export async function loadWebSocket() {
  try {
    return (await import(/* @vite-ignore */ /* webpackIgnore: true */ WS)).default;
  } catch (cause) {
    throw new Unsupported(NO_WEBSOCKET, { cause });
  }
}
