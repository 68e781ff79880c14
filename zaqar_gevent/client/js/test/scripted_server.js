// A server that does what a test says, in place of WebSocket and fetch.

import { SteppedClock, settle } from './clocks.js';
import { Client, decode, fromJSON } from '../zaqar.js';

export const CAPABILITIES = {
  server: 'scripted',
  protocols: ['zaqar.v2'],
  max_in_flight: 64,
  max_wait: 20,
  idempotency_seconds: 300,
};

// answer: gives { status, body } for a request over the WebSocket, or nothing where it is not
// answered. rest: the same for one over REST, or { status, text } for what is not JSON; throws where
// the server cannot be reached.
// handshake: 'accept', 'refuse', 'swallow', or 'default' (which knows no subprotocol).
export class ScriptedServer {
  handshake = 'accept';
  capabilities = CAPABILITIES;
  sockets = [];
  requests = [];
  restRequests = [];

  constructor({ answer = () => undefined, rest = () => ({ status: 200, body: {} }) } = {}) {
    this.answer = answer;
    this.rest = rest;
    const server = this;
    this.WebSocket = class extends Socket {
      constructor(url, subprotocols) {
        super(server, url, subprotocols);
      }
    };
    this.fetch = async (url, request) => this.#fetched(new URL(url), request);
  }

  // The newest connection.
  get socket() {
    return this.sockets.at(-1);
  }

  // What was asked for over the WebSocket.
  asked(action) {
    return this.requests.filter((one) => one.action === action);
  }

  async #fetched({ pathname, search, searchParams }, { method, headers, body, signal }) {
    const request = { method, path: pathname, search, query: searchParams, headers };
    request.body = body === undefined ? undefined : fromJSON(body);
    this.restRequests.push(request);
    const own = pathname === '/v2/capabilities' && this.capabilities;
    const answer = await this.rest(request);
    if (answer === undefined) await new Promise((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason));
    });
    const { status, body: said, text } = own ? { status: 200, body: this.capabilities } : answer;
    return { status, text: async () => text ?? (said === null ? '' : JSON.stringify(said)) };
  }
}

class Socket {
  constructor(server, url, subprotocols = []) {
    Object.assign(this, { server, url, subprotocols, isOpen: false, isClosed: false });
    server.sockets.push(this);
    setImmediate(() => this.#shake(server.handshake));
  }

  #shake(how) {
    const isDefault = this.subprotocols.length === 0;
    if (how === 'swallow' || this.isClosed) return;
    if (how === 'refuse' || (how === 'default' && !isDefault)) {
      this.end(1006, '');
      return;
    }
    this.isOpen = true;
    this.onopen();
  }

  async send(payload) {
    const document = typeof payload === 'string' ? fromJSON(payload) : decode(payload);
    this.server.requests.push({ ...document, socket: this });
    const greeted = document.action === 'hello' ? { status: 200, body: this.server.capabilities } : null;
    const answer = (await this.server.answer(document, this)) || greeted;
    if (answer) this.receive({ id: document.id, ...answer });
  }

  // The client receives this.
  receive(document) {
    if (!this.isClosed) this.onmessage({ data: JSON.stringify(document) });
  }

  // The connection ends.
  end(code = 1006, reason = '') {
    if (this.isClosed) return;
    this.isClosed = true;
    this.onclose({ code, reason });
  }

  close(code = 1005) {
    setImmediate(() => this.end(code));
  }
}

// A client of it whose clock is stepped, and what its state has been.
export function clientOf(server, options = {}) {
  const clock = new SteppedClock();
  const { WebSocket, fetch } = server;
  const shared = { project: 'demo', encoding: 'json', clock, random: () => 0.5, WebSocket, fetch };
  const client = new Client('http://scripted.test:8888', { ...shared, ...options });
  const states = [];
  client.addEventListener('state', ({ state }) => states.push(state));
  return { client, clock, states, settle };
}
