"""The options of the transport, `[drivers:transport:gevent]`, and what they amount to."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg

from zaqar_gevent.proxies import KINDS, X_FORWARDED
from zaqar_gevent.storage.features import StoreFeatures
from zaqar_gevent.websocket.engines import ENGINES, Compression, FrameLimits
from zaqar_gevent.websocket.limits import Limits

GROUP = 'drivers:transport:gevent'

RECEIVED_BYTES = 128 * 1024 * 1024
"""How much may be received and not yet handled by default."""

_ENVELOPE_BYTES = 64 * 1024
_WEBSOCKET_SHARE = 0.9

_FRAMES = [
    cfg.StrOpt(
        'websocket_engine',
        default='websockets',
        choices=list(ENGINES.items()),
        help='What reads and writes WebSocket frames.',
    ),
    cfg.BoolOpt(
        'compression',
        default=False,
        help='Whether clients may negotiate permessage-deflate (RFC 7692). It saves bytes and '
        'costs processor time and memory for each connection that uses it. Only with the engine '
        'websockets.',
    ),
    cfg.IntOpt(
        'compression_level',
        default=3,
        min=1,
        max=9,
        help='How hard to compress, from 1 (fast) to 9 (small).',
    ),
    cfg.IntOpt(
        'compression_window_bits',
        default=12,
        min=9,
        max=15,
        help='The window of the compression in each direction, as a power of two in bytes. A '
        'larger one compresses better and takes more memory for each connection.',
    ),
    cfg.IntOpt(
        'max_message_size',
        min=1024,
        help='The longest WebSocket message a client may send, in bytes, envelope included and '
        'uncompressed; a longer one closes the connection with code 1009. By default [transport] '
        f'max_messages_post_size and {_ENVELOPE_BYTES} bytes for the envelope.',
    ),
    cfg.IntOpt(
        'max_frame_size',
        min=1024,
        help='The longest payload of one frame, in bytes; a longer one closes the connection with '
        'code 1009. By default max_message_size.',
    ),
    cfg.IntOpt(
        'max_fragments',
        default=1024,
        min=1,
        help='The most frames a message may be sent in; more close the connection with code 1009.',
    ),
]

_REQUESTS = [
    cfg.IntOpt(
        'max_depth',
        default=64,
        min=8,
        max=256,
        help='The most levels that a document may be nested in, over REST and WebSocket; a deeper '
        'one is answered with 400.',
    ),
    cfg.IntOpt(
        'max_schedule_ahead',
        default=14 * 24 * 3600,
        min=0,
        help='How far ahead a message may be scheduled by deliver_at, in seconds. It is apart from '
        '[transport] max_message_delay, the limit of delay.',
    ),
    cfg.IntOpt(
        'max_attributes',
        default=32,
        min=0,
        help='The most attributes that a message may have; more are answered with 400.',
    ),
    cfg.IntOpt(
        'max_attributes_size',
        default=8192,
        min=0,
        max=65536,
        help='The most that the names and values of the attributes of a message may have together, '
        'in bytes.',
    ),
    cfg.IntOpt(
        'max_in_flight',
        default=64,
        min=1,
        help='The most requests of one connection that are served at the same time, in the '
        'protocol zaqar.v2. Further ones are not read until one has been answered.',
    ),
    cfg.IntOpt(
        'max_requests_per_second',
        default=0,
        min=0,
        help='The most requests of one WebSocket connection that are begun within a second. '
        'Further ones are not read until their time has come. 0 for no limit.',
    ),
    cfg.IntOpt(
        'outbox_bytes',
        default=1024 * 1024,
        min=1024,
        help='How much may wait to be sent to one WebSocket client, in bytes. While more waits, '
        'none of its requests is begun.',
    ),
    cfg.IntOpt(
        'outbox_messages',
        default=1000,
        min=1,
        help='The same, in messages.',
    ),
]

_CONNECTIONS = [
    cfg.IntOpt(
        'max_connections',
        default=10_000,
        min=2,
        help='The most connections the server takes at a time, of REST and WebSocket together. '
        'A further one takes the place of the REST connection that has been idle longest, of the '
        'client address with most of those; where none is idle it waits to be accepted. Under '
        'gunicorn its worker_connections are what counts.',
    ),
    cfg.IntOpt(
        'max_websockets',
        min=0,
        help='The most of them that may be WebSockets, so that the rest is left to REST; an '
        'upgrade past it is answered with 503. By default, and at most, nine tenths. Under '
        "gevent-websocket's own worker class, which does not tell its worker_connections, nine "
        'tenths of max_connections.',
    ),
    cfg.IntOpt(
        'max_websockets_per_address',
        default=1000,
        min=1,
        help='The most WebSockets of one client address; an upgrade past it is answered with 503. '
        'Behind a proxy, set [oslo_middleware] enable_proxy_headers_parsing, or all clients are '
        'one address.',
    ),
    cfg.IntOpt(
        'max_unauthenticated_websockets',
        default=500,
        min=1,
        help='The most WebSockets of clients that have not authenticated yet, where auth_strategy '
        'asks for it, and a fifth of that of one client address; an upgrade past it is answered '
        'with 503. Clients that send their token with the handshake are not counted.',
    ),
    cfg.FloatOpt(
        'header_timeout',
        default=5.0,
        min=0.1,
        help='How long a client may take to send the head of a request, in seconds.',
    ),
    cfg.FloatOpt(
        'body_timeout',
        default=60.0,
        min=0.1,
        help='How long a client may take to send the body of a request, in seconds.',
    ),
    cfg.FloatOpt(
        'keepalive_timeout',
        default=75.0,
        min=0.1,
        help='How long a connection is kept for the next REST request, in seconds.',
    ),
    cfg.FloatOpt(
        'write_timeout',
        default=30.0,
        min=0.1,
        help='How long a client, of REST or WebSocket, may take nothing of what it was answered '
        'or pushed before its connection is ended, in seconds.',
    ),
    cfg.IntOpt(
        'max_unsent_bytes',
        default=128 * 1024 * 1024,
        min=1024 * 1024,
        help='How many bytes of answers and pushes may wait to be written, for all clients of a '
        'process together. Past it, requests whose answers may be long wait up to 10 s and are '
        'then answered with 503, and clients that have taken nothing for a second lose their '
        'connections.',
    ),
    cfg.IntOpt(
        'max_received_bytes',
        default=RECEIVED_BYTES,
        min=1024 * 1024,
        help='How many bytes of long requests (16 KiB and more) may be received and not yet '
        'answered, for all clients of a process together; those of one client address take at most '
        'half. Past it, further ones are not read on for up to 10 s, and are then answered with '
        '503, or their WebSocket is closed with 1013. While they wait, a client that has sent '
        'nothing for a second, or needs more than 10 s for a request, is ended with 408, or 1013. '
        'Each of max_connections may hold 16 KiB besides.',
    ),
    cfg.IntOpt(
        'max_head_bytes',
        default=32 * 1024,
        min=1024,
        max=1024 * 1024,
        help='How long the head of an HTTP request may be, in bytes: request line and header '
        'fields. A longer one is answered with 431, a request line of more than 8190 bytes with '
        '414.',
    ),
    cfg.IntOpt(
        'max_head_fields',
        default=100,
        min=10,
        max=256,
        help='How many header fields an HTTP request may have; more are answered with 431.',
    ),
    cfg.FloatOpt(
        'graceful_timeout',
        default=10.0,
        min=0,
        help='How long the zaqar-gevent command waits for clients when it is stopped, in seconds. '
        'Under gunicorn its own graceful_timeout is what counts.',
    ),
]

_SHARES = [
    cfg.IntOpt(
        'max_consumers_per_connection',
        default=256,
        min=1,
        help='The most consumers (queue_consume) of one WebSocket connection. One more is answered '
        'with 429.',
    ),
    cfg.IntOpt(
        'max_consumers_per_project',
        default=2000,
        min=1,
        help='The most consumers of one project in one process. One more is answered with 429.',
    ),
    cfg.IntOpt(
        'max_subscriptions_per_connection',
        default=1000,
        min=1,
        help='The most subscriptions of one WebSocket connection to its own pushes. One more is '
        'answered with 429.',
    ),
    cfg.IntOpt(
        'max_subscriptions_per_project',
        default=20_000,
        min=1,
        help='The most subscriptions of connections of one project in one process. One more is '
        'answered with 429.',
    ),
    cfg.IntOpt(
        'max_subscriptions_per_queue',
        default=10_000,
        min=1,
        help='The most subscriptions of one queue, of connections, webhooks and mail addresses '
        'together. One more is answered with 429. Each post reads and tells all of them.',
    ),
    cfg.IntOpt(
        'max_subscription_options_size',
        default=16 * 1024,
        min=1024,
        help='The largest options of one subscription, in bytes of JSON. Larger ones are answered '
        'with 400; those that are stored already still work.',
    ),
    cfg.IntOpt(
        'max_waits_per_project',
        default=1000,
        min=1,
        help='The most requests of one project that wait for messages (the argument wait of lists '
        'and claims) in one process at a time, of REST and WebSocket together. One more that would '
        'have to wait is answered with 429.',
    ),
    cfg.IntOpt(
        'max_redrives_per_queue',
        default=10,
        min=1,
        help='The most redrives (moves of dead letters back) of one queue that run at a time. One '
        'more is answered with 429.',
    ),
    cfg.IntOpt(
        'max_redrives_per_project',
        default=100,
        min=1,
        help='The most redrives of one project that run at a time. One more is answered with 429.',
    ),
    cfg.IntOpt(
        'redrive_retention',
        default=7 * 24 * 3600,
        min=60,
        help='How long a redrive that is over can still be asked about, in seconds. Of each queue, '
        'at most 100 are remembered.',
    ),
    cfg.FloatOpt(
        'scan_timeout',
        default=10.0,
        min=0.1,
        help='How long reading from the store may take for one request, in seconds: a page of '
        'queues, messages or subscriptions, statistics, and whatever else takes longer the more is '
        'stored. A request that takes longer is answered with 503.',
    ),
]

_ORIGIN = [
    cfg.ListOpt(
        'allowed_hosts',
        default=[],
        help='Names that the server answers to while auth_strategy is empty, beside its IP '
        "addresses, localhost and the machine's own name; a request for any other host is refused "
        'with 403. This keeps web pages whose names resolve to this server (DNS rebinding) from '
        'using it. Behind a proxy, list the names that clients use. * allows every host.',
    ),
    cfg.StrOpt(
        'proxy_headers',
        default=X_FORWARDED,
        choices=list(KINDS),
        help='Which headers the proxy in front of the server sets, where [oslo_middleware] '
        'enable_proxy_headers_parsing is on. The other kind is ignored, since clients can send it. '
        'Of a header with several elements the last one counts.',
    ),
]

_KEEPALIVE = [
    cfg.FloatOpt(
        'ping_interval',
        default=25.0,
        min=0,
        help='After how much silence a WebSocket client is sent a ping, in seconds. 0 for never.',
    ),
    cfg.FloatOpt(
        'ping_timeout',
        default=8.0,
        min=0.1,
        help='How long it may stay silent after that before the connection is ended, in seconds.',
    ),
    cfg.FloatOpt(
        'idle_timeout',
        default=0.0,
        min=0,
        help='After how long without a request a WebSocket connection is closed, in seconds, '
        'whatever pings it answers. 0 for never.',
    ),
    cfg.FloatOpt(
        'authentication_timeout',
        default=60.0,
        min=0.1,
        help='How long a WebSocket client has to authenticate where auth_strategy asks for it, in '
        'seconds. One that takes longer is closed with code 1008.',
    ),
    cfg.FloatOpt(
        'token_check_interval',
        default=300.0,
        min=0.0,
        help='How often Keystone is asked again about the tokens of open WebSockets, in seconds. A '
        'connection whose token has been revoked is closed with code 4003; other roles count from '
        'then on. Keystone is asked at most as often as [keystone_authtoken] token_cache_time '
        'allows. 0 for never.',
    ),
    cfg.FloatOpt(
        'close_timeout',
        default=5.0,
        min=0.1,
        help='How long a WebSocket client has to answer a close, in seconds.',
    ),
]

_CACHES = [
    cfg.FloatOpt(
        'metadata_cache_seconds',
        min=0,
        help="For how long a queue's metadata is remembered, in seconds. Changes made by the same "
        'process are seen at once, those of others after this time. 0 reads it for every request. '
        'By default 1 with the embedded store, which refuses a post to a queue that another '
        'process has deleted meanwhile, and 0 with all others, some of which would take it.',
    ),
    cfg.FloatOpt(
        'subscription_cache_seconds',
        default=1.0,
        min=0,
        help='For how long the subscriptions of a queue are remembered for telling the '
        'subscribers, in seconds. Changes made by the same process count at once, those of others '
        'after this time.',
    ),
]

_NOTIFICATIONS = [
    cfg.ListOpt(
        'webhook_denied_networks',
        default=[],
        help='Networks, in CIDR notation, that no webhook may go to, beside those that are always '
        'denied: link-local, metadata service, multicast and reserved addresses, and with '
        'authentication loopback. Private networks are allowed unless they are here. Of several '
        'networks that hold an address, the one with the longest prefix decides.',
    ),
    cfg.ListOpt(
        'webhook_allowed_networks',
        default=[],
        help='Networks, in CIDR notation, that webhooks may go to although a network that holds '
        'them is denied. To allow one that is always denied, name it or a part of it.',
    ),
    cfg.IntOpt(
        'webhook_redirects',
        default=0,
        min=0,
        max=10,
        help='The most redirects that a webhook may answer with; each place is checked as the '
        'first one is. By default a redirect is a failure.',
    ),
    cfg.FloatOpt(
        'webhook_timeout',
        default=10.0,
        min=0.1,
        help='How long a webhook may take to answer, in seconds, with looking up its name and '
        'connecting to it.',
    ),
    cfg.FloatOpt(
        'webhook_connect_timeout',
        default=3.0,
        min=0.1,
        help='How long connecting to one address of a webhook may take, in seconds.',
    ),
    cfg.StrOpt(
        'webhook_ca_file',
        help='The file with the certificates of the authorities that webhooks over https are '
        'checked by. By default what REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE in the environment name, '
        "or else Mozilla's.",
    ),
    cfg.IntOpt(
        'webhook_concurrency',
        default=512,
        min=2,
        help='The most webhooks that are told at a time. A half is for those that answered the '
        'last time within a second, so they never wait for the others.',
    ),
    cfg.IntOpt(
        'webhook_project_concurrency',
        default=128,
        min=2,
        help='The same of one project. Of one subscription it is one, which keeps the order.',
    ),
    cfg.IntOpt(
        'webhook_backlog',
        default=1000,
        min=1,
        help='The most notifications that wait for one subscription. Past it the oldest is '
        'dropped; the message itself stays in its queue.',
    ),
    cfg.IntOpt(
        'webhook_backlog_bytes',
        default=64 * 1024 * 1024,
        min=1024 * 1024,
        help='The most bytes that wait for all subscriptions of a process. Past it the oldest of '
        'the project with most are dropped.',
    ),
    cfg.FloatOpt(
        'mail_timeout',
        default=30.0,
        min=1,
        help='How long sending one mail may take, in seconds. At most [notification] '
        'max_notifier_workers are sent at a time.',
    ),
]

_OBSERVATION = [
    cfg.BoolOpt(
        'metrics',
        default=True,
        help='Whether there are metrics for Prometheus at /metrics. They hold numbers only, no '
        'names of projects or queues, and are for everybody who reaches the port.',
    ),
    cfg.PortOpt(
        'metrics_port',
        default=0,
        help='The port of a listener for the metrics alone. 0 for none: then they are on the port '
        'of the API.',
    ),
    cfg.HostAddressOpt(
        'metrics_bind',
        default='127.0.0.1',
        help='The address of that listener.',
    ),
    cfg.StrOpt(
        'access_log',
        default='',
        help='The file that gets one line of JSON for each request, without bodies and tokens; - '
        'for standard error. By default there is none.',
    ),
]

_CONSOLE = [
    cfg.BoolOpt(
        'console',
        default=True,
        help='Whether there is a web console at /console. Its files are for everybody who reaches '
        'the port; what it shows, it asks the API for, with the rights of whoever uses it.',
    ),
]

ALL_OPTS: list[cfg.Opt] = [
    *_FRAMES,
    *_REQUESTS,
    *_CONNECTIONS,
    *_SHARES,
    *_ORIGIN,
    *_KEEPALIVE,
    *_CACHES,
    *_NOTIFICATIONS,
    *_OBSERVATION,
    *_CONSOLE,
]


def max_message_bytes(conf: cfg.ConfigOpts) -> int:
    """The longest WebSocket message a client may send, in bytes."""
    chosen: int | None = conf[GROUP].max_message_size
    return chosen or conf.transport.max_messages_post_size + _ENVELOPE_BYTES


def frame_limits(conf: cfg.ConfigOpts) -> FrameLimits:
    """The limits on frames and messages of a WebSocket client."""
    section = conf[GROUP]
    message_bytes = max_message_bytes(conf)
    frame_bytes = min(section.max_frame_size or message_bytes, message_bytes)
    return FrameLimits(message_bytes, frame_bytes, section.max_fragments)


def compression(conf: cfg.ConfigOpts) -> Compression | None:
    """How messages may be compressed, if they may."""
    section = conf[GROUP]
    if not section.compression:
        return None
    return Compression(section.compression_level, section.compression_window_bits)


def connection_limits(conf: cfg.ConfigOpts) -> Limits:
    """The limits of each WebSocket connection."""
    section: Any = conf[GROUP]
    return Limits(**{name: section[name] for name in Limits._fields})


def max_websockets(conf: cfg.ConfigOpts, connections: int) -> int:
    """How many of a server's `connections` may be WebSockets."""
    most = int(connections * _WEBSOCKET_SHARE)
    chosen: int | None = conf[GROUP].max_websockets
    return most if chosen is None else min(chosen, most)


def metadata_seconds(conf: cfg.ConfigOpts, features: StoreFeatures) -> float:
    """For how long a queue's metadata is remembered."""
    chosen: float | None = conf[GROUP].metadata_cache_seconds
    if chosen is not None:
        return chosen
    return 1.0 if features.checks_queues else 0.0
