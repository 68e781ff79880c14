// Where a server is, and whether it is of another origin than the page.

import { ZaqarError } from './errors.js';

const SCHEMES = ['http:', 'https:', 'ws:', 'wss:'];

// The URL of a server; in a browser it may be relative to the page.
function serverOf(given) {
  let url = null;
  try {
    if (given) url = new URL(given, globalThis.location?.href);
  } catch {
    // It is told below.
  }
  if (!SCHEMES.includes(url?.protocol)) {
    const shown = String(given).replace(/\/\/[^/?#]*@/, '//');
    throw new ZaqarError(`Not the URL of a server: '${shown}'. It begins with http, https, ws or wss.`);
  }
  return url;
}

// The addresses of a server: of REST, without a slash at the end, and of its WebSocket.
export function addressesOf(url, websocketUrl) {
  const base = serverOf(url);
  base.protocol = base.protocol.replace(/^ws/, 'http');
  // Neither is sent, and errors show the URL.
  base.username = base.password = '';
  const rest = base.href.replace(/[?#].*$/, '').replace(/(\/v2)?\/*$/, '');
  const socket = serverOf(websocketUrl ?? `${rest}/v2/ws`);
  socket.protocol = socket.protocol.replace(/^http/, 'ws');
  return { rest, socket: socket.href };
}

// The origin of the page that this runs in, where it is not that of `url`; null elsewhere.
export function foreignOrigin(url) {
  const origin = globalThis.location?.origin;
  return origin === undefined || origin === new URL(url).origin ? null : origin;
}
