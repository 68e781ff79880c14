// Who is connected, and how. The token is kept in memory alone, all else where the browser keeps things.

import { Client } from './zaqar.js';

const KEY = 'zaqar-console';
export const ENCODINGS = { msgpack: 'MsgPack', json: 'JSON' };
export const TRANSPORTS = { auto: 'Automatic', websocket: 'WebSocket only', rest: 'Polling only' };
const CHOICES = { encoding: ENCODINGS, transport: TRANSPORTS };
const SERVER = new URL('..', document.baseURI).href.replace(/\/$/, '');

/**
 * The console's one client, and what it is made from.
 *
 * isCounting: whether lists count each message, for as long as the page lasts.
 *
 * Events: `client` when there is another client, `state` when its connection has changed,
 * `refused` when the server wants a token, or another one.
 */
export class Session extends EventTarget {
  constructor() {
    super();
    this.token = '';
    this.settings = { ...defaults(), ...stored() };
    this.client = null;
    this.refusal = null;
    this.isCounting = false;
  }

  /** Connect anew, by `settings` where they are given; what was not stored does not outlive the page. */
  open(settings = {}, token = this.token) {
    this.client?.close();
    this.settings = { ...this.settings, ...settings };
    this.token = token;
    this.refusal = null;
    store(this.settings);
    const { project, clientId, transport, encoding } = this.settings;
    this.client = new Client(SERVER, {
      project,
      clientId,
      transport,
      encoding,
      ...(token ? { token } : {}),
    });
    const client = this.client;
    client.addEventListener('state', () => {
      if (client === this.client) {
        this.dispatchEvent(new Event('state'));
      }
    });
    this.dispatchEvent(new Event('client'));
    this.dispatchEvent(new Event('state'));
  }

  /** Call an operation; resolves to the body of its answer. */
  async call(action, parameters = {}) {
    if (this.refusal) {
      throw this.refusal;
    }
    try {
      return await this.client.call(action, parameters, this.#options());
    } catch (error) {
      this.consider(error);
      throw error;
    }
  }

  /** Roles are believed where the server asks nobody who one is; elsewhere they are ignored. */
  #options() {
    const { roles } = this.settings;
    return roles && !this.token ? { headers: { 'X-Roles': roles } } : {};
  }

  /**
   * Take note of an error that is about who one is. Nothing more is asked for then, until another
   * token is given: a page that asks every second would be a nuisance to those who check tokens.
   */
  consider(error) {
    if (isAboutToken(error) && this.refusal === null) {
      this.refusal = error;
      this.dispatchEvent(new Event('state'));
      this.dispatchEvent(new Event('refused'));
    }
  }
}

/** Whether the server wants a token; a token that may not do something is another matter. */
function isAboutToken(error) {
  const text = `${error.title ?? ''} ${error.description ?? ''} ${error.message ?? ''}`;
  return error.status === 401 || (error.status === 403 && /not authentified/i.test(text));
}

/** A new id for a client: a UUID, also where the page is not from a secure origin. */
export function newClientId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

function defaults() {
  return {
    project: 'demo',
    clientId: newClientId(),
    roles: '',
    transport: 'auto',
    encoding: 'msgpack',
  };
}

function isPossible(name, value) {
  return typeof value === 'string' && (!(name in CHOICES) || Object.hasOwn(CHOICES[name], value));
}

function stored() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? '{}');
    const known = Object.keys(defaults()).filter((name) => isPossible(name, found?.[name]));
    return Object.fromEntries(known.map((name) => [name, found[name]]));
  } catch {
    // Storage may be forbidden, or hold what somebody else has written: then it is as if empty.
    return {};
  }
}

function store(settings) {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // As above.
  }
}
