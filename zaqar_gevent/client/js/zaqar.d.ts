// Types of zaqar.js. Times are in seconds.

// What is not exported stays so.
export {};

export class ZaqarError extends Error {}

/** What the server refused. */
export class APIError extends ZaqarError {
  constructor(said: { status: number; code: string; title: string; description: string });
  readonly status: number;
  /** Stable, and meant for programs. */
  readonly code: string;
  readonly title: string;
  readonly description: string;
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

/** The server cannot be reached. */
export class ConnectionLost extends ZaqarError {
  constructor(message: string, options?: { sent?: boolean; cause?: unknown });
  /** Whether the server may have got the request. */
  readonly sent: boolean;
}

/** The server answers, but not to this page: it may not allow the page's origin. */
export class OriginRefused extends ConnectionLost {
  constructor(said: { origin: string; url: string }, options?: { cause?: unknown });
  /** The page's, as the server's option `--allowed-origin` takes it. */
  readonly origin: string;
}

/** What answers at the URL is something else than a Zaqar, such as another web server. */
export class NotZaqar extends ZaqarError {}
/** No answer in time; what was asked may yet be done, or have been. */
export class Timeout extends ZaqarError {}
/** The connection died under a request that cannot be repeated safely. */
export class OutcomeUnknown extends ZaqarError {}
export class AccessEnded extends ZaqarError {
  readonly reason: string;
}
export class ClientClosed extends ZaqarError {}
export class Unsupported extends ZaqarError {}
/** What cannot be encoded, or is not MsgPack. */
export class EncodingError extends ZaqarError {}

/** What a message's body can be. Integers beyond 2^53 - 1 are bigints. */
export type Json = null | boolean | number | bigint | string | Json[] | { [name: string]: Json };
/** What can be posted: members that are undefined are left out. */
export type Postable =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly Postable[]
  | { readonly [name: string]: Postable | undefined }
  | { toJSON(): unknown };

export interface Codec {
  encode(document: unknown): Uint8Array;
  decode(bytes: Uint8Array): unknown;
}

export function encode(document: unknown): Uint8Array;
export function decode(bytes: Uint8Array | ArrayBuffer): unknown;
export const msgpack: Codec;
export function toJSON(document: unknown): string;
export function fromJSON(text: string): unknown;
export interface Clock {
  /** Seconds that never go back. */
  now(): number;
  /** Milliseconds since 1970. */
  time(): number;
  set(callback: () => void, seconds: number): unknown;
  clear(timer: unknown): void;
}

export const systemClock: Clock;

export type Transport = 'auto' | 'websocket' | 'rest';
/**
 * 'polling' is REST. 'refused': the server answers, but does not serve this client; the `state` event
 * says why.
 */
export type State = 'connecting' | 'websocket' | 'polling' | 'refused' | 'closed';

export interface RequestOptions {
  /** In seconds; that of the client by default. */
  timeout?: number;
  signal?: AbortSignal;
  /** More headers, of this request alone. */
  headers?: Record<string, string>;
}

export type Token = string | { token: string; expiresAt?: Date | string | number | null };

export interface ClientOptions {
  project?: string;
  /** A UUID; a random one by default. */
  clientId?: string;
  token?: string;
  /** Gives a token; asked again before it expires, and when it is refused. */
  getToken?: () => Token | Promise<Token>;
  /** 'auto' by default: the WebSocket, or REST while that does not get through. */
  transport?: Transport;
  /** Of the WebSocket, 'msgpack' by default; REST is JSON. */
  encoding?: 'msgpack' | 'json';
  /** Of each request, in seconds; 30 by default. */
  timeout?: number;
  /** More headers, as those of a pre-signed URL. */
  headers?: Record<string, string>;
  /** A class like the browsers' WebSocket. In Node before 22 that of the package `ws` is used, if installed. */
  WebSocket?: new (url: string, protocols?: string[]) => object;
  fetch?: (url: string, request: object) => Promise<{ status: number; text(): Promise<string> }>;
  /** Another codec of MsgPack, as @msgpack/msgpack. */
  msgpack?: { encode(document: unknown): Uint8Array; decode(bytes: Uint8Array): unknown };
  /** Where the WebSocket is, if not at /v2/ws of the server. */
  websocketUrl?: string;
  /** How often the WebSocket is tried again from REST, in seconds; 60 by default. */
  retryInterval?: number;
  clock?: Clock;
  random?: () => number;
}

export interface Capabilities {
  server?: string;
  protocols: string[];
  max_in_flight: number;
  max_message_size?: number;
  ping_interval?: number;
  idle_timeout?: number;
  /** The longest a request may wait for messages, in seconds; 0 without long polling. */
  max_wait: number;
  /** For how long a post that is repeated is known by its post_id; 0 where it is not. */
  idempotency_seconds: number;
}

export class StateEvent extends Event {
  constructor(state: State, previous: State, reason?: string | null);
  readonly state: State;
  readonly previous: State;
  readonly reason: string | null;
}

/** A subscription begins again with the oldest message: the server's store is another one by now. */
export class RestartEvent extends Event {
  constructor(queueName: string, marker: string, error: APIError);
  readonly queueName: string;
  /** The one that the store does not know. */
  readonly marker: string;
  readonly error: APIError;
}

export interface Answer {
  status: number;
  body: any;
}

/** The events of a client, by their types. */
export interface ClientEvents {
  state: StateEvent;
  restart: RestartEvent;
}

/** A listener of any event, as an EventTarget takes it. */
export type Listener = ((event: Event) => void) | { handleEvent(event: Event): void } | null;

export interface ListenerOptions {
  capture?: boolean;
  once?: boolean;
  passive?: boolean;
  signal?: AbortSignal;
}

export class Client extends EventTarget {
  constructor(url: string | URL, options?: ClientOptions);
  readonly state: State;
  /** 'zaqar.v2', or upstream's 'default'; null while REST is used. */
  readonly protocol: 'zaqar.v2' | 'default' | null;
  readonly encoding: 'msgpack' | 'json';
  readonly project: string | null;
  readonly clientId: string;
  readonly timeout: number;
  readonly pools: Resources;
  readonly flavors: Resources;

  addEventListener<Type extends keyof ClientEvents>(
    type: Type,
    listener: (this: Client, event: ClientEvents[Type]) => void,
    options?: boolean | ListenerOptions,
  ): void;
  addEventListener(type: keyof ClientEvents, listener: Listener, options?: boolean | ListenerOptions): void;
  removeEventListener<Type extends keyof ClientEvents>(
    type: Type,
    listener: (this: Client, event: ClientEvents[Type]) => void,
    options?: boolean | ListenerOptions,
  ): void;
  removeEventListener(
    type: keyof ClientEvents,
    listener: Listener,
    options?: boolean | ListenerOptions,
  ): void;

  queue(name: string): Queue;
  topic(name: string): Topic;
  queues(options?: ListOptions): AsyncGenerator<Queue, void, undefined>;
  topics(options?: ListOptions): AsyncGenerator<Topic, void, undefined>;
  /** Any operation by its name; the body of its answer. */
  call(action: string, body?: object, options?: RequestOptions): Promise<any>;
  request(action: string, body?: object, options?: RequestOptions): Promise<Answer>;
  capabilities(options?: RequestOptions): Promise<Capabilities>;
  ping(options?: RequestOptions): Promise<true>;
  health(options?: RequestOptions): Promise<any>;
  /** What the project uses and may use, by the name of the limit. */
  quotas(options?: RequestOptions): Promise<Record<string, Quota>>;
  /** Uses another token from now on, on the open connection as well. */
  authenticate(
    token: string,
    options?: RequestOptions & { expiresAt?: Date | string | number | null },
  ): Promise<void>;
  close(): Promise<void>;
}

/** Null for what is not counted for the project, or not limited. */
export interface Quota {
  used: number | null;
  allowed: number | null;
}

export interface PageOptions extends RequestOptions {
  marker?: string;
  /** How many a page has. */
  limit?: number;
}

export interface ListOptions extends PageOptions {
  detailed?: boolean;
  /** Only names that contain this. */
  name?: string;
  /** Only those with this metadata. */
  metadata?: Record<string, Json>;
}

export interface MessagesOptions extends PageOptions {
  /** Also what this client posted itself; true by default. */
  echo?: boolean;
  includeClaimed?: boolean;
  includeDelayed?: boolean;
}

export interface EndOfQueue {
  id: string;
  age: number;
  created: string;
}

export interface Stats {
  messages: {
    claimed: number;
    free: number;
    total: number;
    oldest?: EndOfQueue;
    newest?: EndOfQueue;
  };
}

export interface UriSubscription {
  id: string;
  subscriber: string;
  source: string;
  ttl: number;
  age: number;
  options: Record<string, any>;
  confirmed?: boolean;
  /** How its deliveries go, where it was asked for by its id. */
  delivery?: Record<string, any>;
}

export interface Change {
  op: 'add' | 'replace' | 'remove';
  path: string;
  value?: unknown;
}

export interface PostOptions extends RequestOptions {
  /** How long the messages are kept, in seconds; as the queue says by default. */
  ttl?: number;
  /** How long the messages reach nobody, in seconds. */
  delay?: number;
  /** Instead of a delay: a Date, seconds since the epoch, or a text by RFC 3339. */
  deliverAt?: Date | number | string;
  /** Texts by name, which come back with each message. */
  attributes?: Record<string, string>;
  /** The name of the group of the messages, 1 to 128 characters. */
  group?: string;
  postId?: string;
}

/** Settings of queues, which docs/settings.md describes. Topics have some of them. */
export interface QueueSettings {
  maxPostSize?: number | null;
  defaultTtl?: number | null;
  defaultDelay?: number | null;
  deadLetterQueue?: string | null;
  deadLetterTtl?: number | null;
  maxClaims?: number | null;
  encrypt?: boolean | null;
  retryDelay?: { initial?: number; factor?: number; max?: number } | null;
  orderedGroups?: boolean | null;
  fairGroups?: boolean | null;
  traceContext?: boolean | null;
  retryPolicy?: Record<string, number | string | boolean | null> | null;
  flavor?: string | null;
}

declare class Channel {
  readonly name: string;
  /** Where it was listed in detail. */
  readonly metadata?: Record<string, any>;
  /** Whether it is new. Throws Conflict where it has other values of the metadata, and is left so. */
  create(metadata?: Record<string, any>, options?: RequestOptions): Promise<boolean>;
  /** Whether it exists; asking does not create it. */
  exists(options?: RequestOptions): Promise<boolean>;
  getMetadata(options?: RequestOptions): Promise<Record<string, any>>;
  /** A JSON patch, or what to set; undefined takes a member away. */
  update(
    changes: readonly Change[] | Record<string, any>,
    options?: RequestOptions,
  ): Promise<Record<string, any>>;
  /** Changes settings, whether it exists or not; null takes one back to its default. All metadata. */
  configure(settings: QueueSettings, options?: RequestOptions): Promise<Record<string, any>>;
  delete(options?: RequestOptions): Promise<null>;
  stats(options?: RequestOptions): Promise<Stats>;
  /** Deletes what nobody has claimed: by default the messages, and not the subscriptions. */
  purge(resourceTypes?: ('messages' | 'subscriptions')[], options?: RequestOptions): Promise<void>;
  /**
   * Posts a body, or several together; their ids. A further post with the same postId stores nothing,
   * and returns the ids of the first.
   */
  post(
    bodies: Postable | readonly Postable[],
    options?: PostOptions,
  ): Promise<string[]>;
  messages(options?: MessagesOptions): AsyncGenerator<Message, void, undefined>;
  get(id: string, options?: RequestOptions): Promise<Message>;
  getMany(ids: readonly string[], options?: RequestOptions): Promise<Message[]>;
  /** Takes messages from the front, for good. */
  pop(count?: number, options?: RequestOptions): Promise<Message[]>;
  deleteMessages(ids: readonly string[], options?: RequestOptions): Promise<void>;
  subscribe(options?: SubscribeOptions): Subscription;
  /** Has messages sent to a URI; the id of the subscription. */
  notify(
    uri: string,
    options?: RequestOptions & { ttl?: number; options?: Record<string, any> },
  ): Promise<string>;
  subscriptions(options?: PageOptions): AsyncGenerator<UriSubscription, void, undefined>;
  /** A subscription of a URI, and how its deliveries go. */
  getSubscription(id: string, options?: RequestOptions): Promise<UriSubscription>;
  /** Changes where a subscription leads, how many seconds it lives, or its options. */
  updateSubscription(
    id: string,
    changes: RequestOptions & { subscriber?: string; ttl?: number; options?: Record<string, any> },
  ): Promise<void>;
  deleteSubscription(id: string, options?: RequestOptions): Promise<void>;
}

export class Topic extends Channel {
  constructor(client: Client, found: { name: string; metadata?: Record<string, any> });
}

export interface ClaimOptions extends RequestOptions {
  limit?: number;
  ttl?: number;
  grace?: number;
  /** For how long to wait for a message. */
  wait?: number;
}

export interface SignedUrl {
  signature: string;
  expires: string;
  methods: string[];
  paths: string[];
  project: string | null;
}

export class Queue extends Channel {
  constructor(client: Client, found: { name: string; metadata?: Record<string, any> });
  claim(options?: ClaimOptions): Promise<Claim>;
  /** Lets a claim live for `ttl` seconds from now. */
  renewClaim(id: string, options?: RequestOptions & { ttl?: number; grace?: number }): Promise<void>;
  /** Gives a claim's messages back; one that does not exist is as good as released. */
  releaseClaim(id: string, options?: RequestOptions): Promise<void>;
  share(
    options?: RequestOptions & {
      paths?: ('messages' | 'claims' | 'subscriptions')[];
      methods?: string[];
      expires?: string;
    },
  ): Promise<SignedUrl>;
  consume(options?: ConsumeOptions): Consumer;
  /** Has the server move dead letters back to the queues that they are from, or to `target`. */
  redrive(
    options?: RequestOptions & { target?: string; limit?: number; rate?: number },
  ): Promise<Redrive>;
  getRedrive(id: string, options?: RequestOptions): Promise<Redrive>;
  /** The redrives of this queue, oldest first. */
  redrives(
    options?: RequestOptions & { marker?: string; limit?: number },
  ): AsyncGenerator<Redrive, void, undefined>;
}

/** A redrive of a queue, as it was when the server was asked last. */
export class Redrive {
  constructor(queue: Queue, found: Record<string, any>);
  readonly id: string;
  /** Where the messages go; null for the queue that each is from. */
  readonly target: string | null;
  readonly limit: number | null;
  /** Messages a second at most. */
  readonly rate: number | null;
  readonly state: 'running' | 'finished' | 'cancelled' | 'stopped';
  /** Why it has stopped. */
  readonly reason: string | null;
  readonly moved: number;
  /** Messages that stay, since they do not say where they are from. */
  readonly left: number;
  readonly started: string;
  readonly ended: string | null;
  get isOver(): boolean;
  refresh(options?: RequestOptions): Promise<this>;
  /** Ends it; what it has moved stays moved. */
  cancel(options?: RequestOptions): Promise<void>;
  /** Waits until it is over. It goes on without anybody who waits. */
  wait(options?: RequestOptions): Promise<this>;
}

/** Where a dead letter is from. */
export interface DeadLetterOrigin {
  readonly queue: string;
  readonly messageId: string;
  /** How often it was claimed there. */
  readonly claimCount: number;
  /** When it was moved, in ISO 8601. */
  readonly at: string;
  /** What the worker said who rejected it. */
  readonly reason: string | null;
}

export class Message {
  private constructor();
  readonly id: string;
  readonly body: any;
  readonly ttl: number;
  readonly age: number;
  readonly claimId: string | null;
  readonly checksum?: string;
  /** Of a subscription: from where another could go on. */
  readonly marker: string | null;
  readonly queueName: string;
  /** Texts by name that it was posted with. */
  readonly attributes: Record<string, string>;
  /** The name of its group; null for none. */
  readonly group: string | null;
  /** Which delivery it is, from 1; null where nobody has claimed it. */
  readonly attempt: number | null;
  readonly deadLetter: DeadLetterOrigin | null;
  delete(options?: RequestOptions): Promise<void>;
  /** Dealt with; false where a consumer's lease was lost before. */
  ack(): Promise<boolean>;
  /** Given back, after a delay in seconds or as the queue says; false where a lease was lost before. */
  release(options?: RequestOptions & { delay?: number }): Promise<boolean>;
  /** Moved to the dead letter queue at once; false where a consumer's lease was lost before. */
  reject(reason?: string, options?: RequestOptions): Promise<boolean>;
}

export class Claim {
  private constructor();
  /** Null where there were no messages. */
  readonly id: string | null;
  readonly messages: Message[];
  [Symbol.iterator](): Iterator<Message>;
  renew(options?: RequestOptions & { ttl?: number; grace?: number }): Promise<void>;
  release(options?: RequestOptions): Promise<void>;
}

export interface NextOptions {
  timeout?: number | null;
  signal?: AbortSignal;
}

declare class Stream implements AsyncIterableIterator<Message> {
  next(options?: NextOptions): Promise<IteratorResult<Message, undefined>>;
  return(): Promise<IteratorResult<Message, undefined>>;
  [Symbol.asyncIterator](): this;
  close(): Promise<void>;
}

/** What an attribute must be: a text, one of some, with a prefix, there at all, or not there. */
export type Condition = string | readonly string[] | { prefix: string } | { exists: boolean };

export interface SubscribeOptions {
  /** Only messages whose attributes meet all conditions. */
  filter?: Readonly<Record<string, Condition>> | null;
  /** After which message; '' for all from the first; none for those posted from now on. */
  marker?: string | null;
  /** Ends it. */
  signal?: AbortSignal;
}

export class Subscription extends Stream {
  private constructor();
  /** Of the last message that was handed out; null until it is known. */
  readonly marker: string | null;
  /** Settled when it is known where it begins. */
  readonly ready: Promise<void>;
  /** How often it has begun again with the oldest message, as the store was another one. */
  readonly restarts: number;
}

export interface ConsumeOptions {
  /** How many messages may be unsettled at a time; 10 by default. */
  credit?: number;
  ttl?: number;
  grace?: number;
  signal?: AbortSignal;
}

export class Consumer extends Stream {
  private constructor();
  readonly unsettled: number;
}

declare class Resources {
  list(
    options?: RequestOptions & { limit?: number; detailed?: boolean },
  ): AsyncGenerator<any, void, undefined>;
  get(name: string, options?: RequestOptions & { detailed?: boolean }): Promise<any>;
  create(name: string, members: Record<string, any>, options?: RequestOptions): Promise<void>;
  update(name: string, members: Record<string, any>, options?: RequestOptions): Promise<any>;
  delete(name: string, options?: RequestOptions): Promise<void>;
}
