// A client for Zaqar that keeps a WebSocket open and falls back to REST.
//
// It runs in browsers and in Node 18 and later, and depends on nothing. This is the public interface;
// `zaqar.js` is built from it (`npm run build`), with its types beside it in `zaqar.d.ts`.

export { Client } from './client.js';
export { systemClock } from './clock.js';
export { Consumer } from './consumer.js';
export {
  APIError, AccessEnded, BadRequest, BodyTooLarge, ClientClosed, Conflict, ConnectionLost, EncodingError, Forbidden,
  NotAcceptable, NotFound, NotImplementedThere, NotZaqar, OriginRefused, OutcomeUnknown, ServiceUnavailable,
  Timeout, TooManyRequests, Unauthorized, Unsupported, UnsupportedMediaType, ZaqarError,
} from './errors.js';
export { RestartEvent, StateEvent } from './events.js';
export { fromJSON, toJSON } from './json.js';
export { Claim, Message } from './message.js';
export { decode, encode, msgpack } from './msgpack.js';
export { Queue, Topic } from './queues.js';
export { Redrive } from './redrive.js';
export { Subscription } from './subscription.js';
