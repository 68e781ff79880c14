// What goes wrong, by kind.

// ZaqarError
// ├── APIError                 the server's: status, code, title, description
// │   ├── BadRequest              400
// │   ├── Unauthorized            401
// │   ├── Forbidden               403
// │   ├── NotFound                404
// │   ├── NotAcceptable           406
// │   ├── Conflict                409
// │   ├── BodyTooLarge            413
// │   ├── UnsupportedMediaType    415
// │   ├── TooManyRequests         429
// │   ├── NotImplementedThere     501
// │   └── ServiceUnavailable      503
// ├── ConnectionLost           the server cannot be reached; nothing was done, or nothing that matters
// │   └── OriginRefused           it answers, but its answers are kept from this page
// ├── NotZaqar                 what answers at the URL is something else than a Zaqar
// ├── Timeout                  no answer in time; what was asked may yet be done, or have been
// ├── OutcomeUnknown           the connection died before the answer; it may have been done or not
// ├── AccessEnded              what a subscription or consumer was made with is not valid any more
// ├── ClientClosed             the client has been closed
// ├── Unsupported              there is nothing to do it with
// └── EncodingError            what cannot be encoded, or is not MsgPack

export class ZaqarError extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = new.target.name;
  }
}

export class APIError extends ZaqarError {
  constructor({ status, code, title, description }) {
    super(`${status} ${code}: ${description || title}`);
    Object.assign(this, { status, code, title, description });
  }
}

export class BadRequest extends APIError {}
export class Unauthorized extends APIError {}
export class Forbidden extends APIError {}
export class NotFound extends APIError {}
export class NotAcceptable extends APIError {}
export class Conflict extends APIError {}
export class BodyTooLarge extends APIError {}
export class UnsupportedMediaType extends APIError {}
export class TooManyRequests extends APIError {}
export class NotImplementedThere extends APIError {}
export class ServiceUnavailable extends APIError {}

export class ConnectionLost extends ZaqarError {
  // sent: whether the server may have got the request.
  constructor(message, { sent = false, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.sent = sent;
  }
}

// The server answers, but the browser keeps its answers from this page, most often since the server
// does not allow the page's origin. The client tries on.
export class OriginRefused extends ConnectionLost {
  // origin: the page's. url: the server's.
  constructor({ origin, url }, options) {
    super(
      `The server at ${url} answers, but not to this page: it may not allow the page's origin. Start the server ` +
        `with --allowed-origin ${origin}, or add ${origin} to allowed_origin in [cors]. Its log says what it refused.`,
      options,
    );
    this.origin = origin;
  }
}

// What answers at the URL is something else than a Zaqar, such as another web server.
export class NotZaqar extends ZaqarError {}
export class Timeout extends ZaqarError {}
export class OutcomeUnknown extends ZaqarError {}
export class ClientClosed extends ZaqarError {}

// The server has ended a subscription or consumer, which cannot be made anew as it was. reason, for
// programs: project_changed, signature_expired.
export class AccessEnded extends ZaqarError {
  constructor({ reason, description }) {
    super(description || reason);
    this.reason = reason;
  }
}

export class Unsupported extends ZaqarError {}
export class EncodingError extends ZaqarError {}

// What a certificate is refused for, or a server not found by name: nothing was sent then.
export const UNSENT = /^(ECONNREFUSED|ENOTFOUND|EAI_|CERT_|CRL_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|ERR_TLS_|ERR_SSL_)/;

// What is at the bottom of an error, as Node says; of a browser, nothing is ever to be learnt.
export function rootOf(error) {
  let root = error;
  while (root?.cause) root = root.cause;
  return root?.errors?.length ? root.errors[0] : root;
}

// The same for people: ': ' and the reason, or nothing.
export function reasonIn({ message = '', code = '' } = {}) {
  const reason = message && code && !message.includes(code) ? `${message} (${code})` : message || code;
  return reason ? `: ${reason}` : '';
}

const ERROR_OF_STATUS = {
  400: [BadRequest, 'bad_request'],
  401: [Unauthorized, 'unauthorized'],
  403: [Forbidden, 'forbidden'],
  404: [NotFound, 'not_found'],
  406: [NotAcceptable, 'not_acceptable'],
  409: [Conflict, 'conflict'],
  413: [BodyTooLarge, 'body_too_large'],
  415: [UnsupportedMediaType, 'unsupported_media_type'],
  429: [TooManyRequests, 'too_many_requests'],
  501: [NotImplementedThere, 'not_implemented'],
  503: [ServiceUnavailable, 'service_unavailable'],
};

// The error that an answer tells of, in whichever of the forms that servers have for it.
export function errorOf(status, body) {
  const said = body && typeof body === 'object' ? body : { description: body };
  const [kind, usual] = ERROR_OF_STATUS[status] ?? [APIError, 'error'];
  const title = textOf(said.title ?? said.exception);
  const description = textOf(said.description ?? said.error);
  return new kind({ status, code: said.code ?? usual, title, description });
}

const textOf = (said) => (typeof said === 'string' ? said : JSON.stringify(said ?? ''));
