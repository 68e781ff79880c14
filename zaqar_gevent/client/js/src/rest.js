// The server over REST.

import { fromREST } from './answers.js';
import { BadRequest, ConnectionLost, errorOf, NotFound, reasonIn, rootOf, UNSENT } from './errors.js';
import { fromJSON, toJSON } from './json.js';
import { fill, isEmptyList, operationOf } from './requests.js';

export const UPSTREAM = { max_wait: 0, idempotency_seconds: 0, max_in_flight: 64, protocols: [] };
// Asks for what upstream's API does not know, such as attributes.
const EXTENSIONS = { 'OpenStack-API-Version': 'messaging 2.1' };
// Browsers open six connections to a server; requests need some that nobody waits on.
const MAX_LONG_POLLS = 3;

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
    if (status === 404 && isEmptyList(action)) return { status: 200, body: { messages: [] } };
    if (status >= 400) throw errorOf(status, document);
    return { status, body: fromREST(action, document) };
  }

  async #exchange(target, request, signal) {
    try {
      const response = await this.#fetch(this.#base + target, request);
      return { status: response.status, text: await response.text() };
    } catch (cause) {
      if (signal?.aborted) throw signal.reason;
      const root = cause?.cause ? rootOf(cause) : {};
      const sent = !UNSENT.test(root.code ?? '');
      const message = `The server cannot be reached over REST${reasonIn(root)}.`;
      throw new ConnectionLost(message, { sent, cause });
    }
  }
}

// A body that is not JSON is an intermediary's, and says nothing to us.
function parse(text) {
  if (text === '') return null;
  try {
    return fromJSON(text);
  } catch {
    return null;
  }
}
