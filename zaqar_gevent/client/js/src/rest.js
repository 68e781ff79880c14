// The server over REST.

import { fromREST } from './answers.js';
import { BadRequest, ConnectionLost, errorOf, NotFound, NotZaqar, reasonIn, rootOf, UNSENT } from './errors.js';
import { describeForeign, isForeign } from './foreign.js';
import { fromJSON, toJSON } from './json.js';
import { fill, isEmptyList, operationOf } from './requests.js';

export const UPSTREAM = { max_wait: 0, idempotency_seconds: 0, max_in_flight: 64, protocols: [] };
// Asks for what upstream's API does not know, such as attributes.
const EXTENSIONS = { 'OpenStack-API-Version': 'messaging 2.1' };
// Browsers open six connections to a server; requests need some that nobody waits on.
const MAX_LONG_POLLS = 3;
// What Node says of a connection that the server has ended, and of what is no HTTP.
const CUT = /^(ECONNRESET|EPIPE|UND_ERR_SOCKET)$/;
const NO_HTTP = /^HPE_/;

// The server over REST, for one period of polling. `left` is aborted at its end.
export class Rest {
  #base;
  #fetch;
  #headers;
  #left = new AbortController();
  #polls = 0;

  pushes = false;
  capabilities = UPSTREAM;

  // headers: gives those of the next request.
  constructor({ base, fetch, headers }) {
    this.#base = base;
    this.#fetch = fetch;
    this.#headers = headers;
  }

  get left() {
    return this.#left.signal;
  }

  leave() {
    this.#left.abort(new ConnectionLost('Polling has ended.'));
  }

  // Asks what the server can do; upstream's server does not say.
  async learn(signal) {
    try {
      const { body } = await this.request('get_capabilities', {}, { signal });
      this.capabilities = { ...UPSTREAM, ...body };
    } catch (error) {
      if (!(error instanceof NotFound || error instanceof BadRequest)) throw error;
    }
    return this.capabilities;
  }

  // The seconds that a request may wait for a message; 0 where enough do so already.
  get wait() {
    return this.#polls < MAX_LONG_POLLS ? (this.capabilities.max_wait ?? 0) : 0;
  }

  async request(action, body, { signal, headers, accept } = {}) {
    const operation = operationOf(action);
    if (!operation?.path) throw this.#unknown(action);
    if (body.wait) this.#polls += 1;
    try {
      const answer = await this.#ask(action, operation, body, headers, signal);
      accept?.(answer);
      return answer;
    } finally {
      if (body.wait) this.#polls -= 1;
    }
  }

  // A page of another origin may not send this header to every server of upstream's.
  #extensions() {
    return this.capabilities.server ? EXTENSIONS : {};
  }

  #unknown(action) {
    const description = `REST has no action ${action}.`;
    const title = 'Invalid API request';
    return new BadRequest({ status: 400, code: 'unknown_action', title, description });
  }

  async #ask(action, operation, given, own, signal) {
    const { target, body } = fill(operation, given);
    const headers = { Accept: 'application/json', ...this.#extensions(), ...(await this.#headers()), ...own };
    const request = { method: operation.method, headers, signal, cache: 'no-store' };
    if (body !== undefined) {
      headers['Content-Type'] = operation.mediaType ?? 'application/json';
      request.body = toJSON(body);
    }
    if (action === 'get_home_doc') headers.Accept = 'application/json-home';
    const { status, text } = await this.#exchange(target, request, signal);
    const document = parse(text);
    if (document === undefined && isForeign(status)) throw this.#foreign(status, text);
    if (status === 404 && isEmptyList(action)) return { status: 200, body: { messages: [] } };
    if (status >= 400) throw errorOf(status, document);
    try {
      return { status, body: fromREST(action, document) };
    } catch (cause) {
      throw this.#foreign(status, text, cause);
    }
  }

  // The error of an answer that no Zaqar gives. One that says a status of an error keeps it, as there
  // are gateways that put pages of their own in place of errors.
  #foreign(status, text, cause) {
    const told = describeForeign(this.#base, status, text);
    return status >= 400 ? errorOf(status, told) : new NotZaqar(`${told}.`, { cause });
  }

  async #exchange(target, request, signal) {
    try {
      const response = await this.#fetch(this.#base + target, request);
      return { status: response.status, text: await response.text() };
    } catch (cause) {
      if (signal?.aborted) throw signal.reason;
      const root = cause?.cause ? rootOf(cause) : {};
      const sent = !UNSENT.test(root.code ?? '');
      if (NO_HTTP.test(root.code ?? '')) {
        throw new NotZaqar(`The server at ${this.#base} is no Zaqar: it does not answer in HTTP.`, { cause });
      }
      const message = CUT.test(root.code ?? '')
        ? `The server at ${this.#base} ended the connection without an answer${reasonIn(root)}. ` +
          'If it goes on so, it may be no Zaqar.'
        : `${this.#base} cannot be reached over REST${reasonIn(root)}.`;
      throw new ConnectionLost(message, { sent, cause });
    }
  }
}

// Undefined for what is not JSON: an intermediary's page, or another server's.
function parse(text) {
  if (text === '') return null;
  try {
    return fromJSON(text);
  } catch {
    return undefined;
  }
}
