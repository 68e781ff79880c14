"""The server's metrics, for Prometheus.

A leaf that everything may import. PERF: what happens for every message is added up in plain
numbers, and `flush` moves the sums into the metrics; one increment of a metric takes a lock, and a
file with several processes.

All of this is for the thread that serves requests. Under gevent the locks of the metrics belong to
its hub, so a native thread must not touch them: it may only append to `COMMIT_SIZES`.
"""

from __future__ import annotations

import collections
import functools
import os
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, ProcessCollector
from prometheus_client import Histogram as StandardHistogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

Refusal = Literal[
    'handshake', 'host', 'origin', 'capacity', 'address', 'unauthenticated', 'authentication'
]

Channel = Literal['webhook', 'task']
DeliveryResult = Literal['delivered', 'failed', 'refused']
UndeliveredReason = Literal['backlog', 'memory', 'expired', 'refused', 'given_up', 'ended']

# The codes that count by themselves; a peer may choose any of 3000 to 4999.
CLOSE_CODES = frozenset({*range(1000, 1016), 4003, 4008})

_SECONDS = (0.00025, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_CALLS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

_REGISTRY = CollectorRegistry()
ProcessCollector(registry=_REGISTRY)
GCCollector(registry=_REGISTRY)


class Histogram(StandardHistogram):
    """A histogram that takes many observations at once."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """Add observations that were counted elsewhere.

        counts: how many there were in each bucket, the last one without an upper bound included.
        total: the sum of their values.
        """
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


_REQUESTS_TOTAL = Counter(
    'zaqar_requests_total',
    'Requests answered.',
    ['operation', 'transport', 'status'],
    registry=_REGISTRY,
)
_REQUEST_SECONDS = Histogram(
    'zaqar_request_duration_seconds',
    'Time from a request to its answer, in seconds.',
    ['operation', 'transport'],
    buckets=_SECONDS,
    registry=_REGISTRY,
)
_CONNECTIONS = Gauge(
    'zaqar_websocket_connections',
    'WebSocket connections that are open, by the encoding of their latest message.',
    ['engine', 'protocol', 'encoding'],
    multiprocess_mode='livesum',
    registry=_REGISTRY,
)
_FRAMES = Counter(
    'zaqar_websocket_frames_total',
    'Messages over WebSocket; one that came in several frames is one.',
    ['direction', 'encoding'],
    registry=_REGISTRY,
)
_BYTES = Counter(
    'zaqar_websocket_bytes_total',
    'Their bytes, uncompressed and without the heads of frames.',
    ['direction', 'encoding'],
    registry=_REGISTRY,
)
_CLOSES = Counter(
    'zaqar_websocket_closes_total',
    'WebSocket connections that have ended, by close code.',
    ['code'],
    registry=_REGISTRY,
)
_REFUSALS = Counter(
    'zaqar_websocket_refusals_total',
    'Upgrades to WebSocket that were refused.',
    ['reason'],
    registry=_REGISTRY,
)
_PUSHES = Counter(
    'zaqar_pushes_total',
    'What WebSocket clients were sent without having asked.',
    ['kind'],
    registry=_REGISTRY,
)
_OUTBOX_BYTES = Gauge(
    'zaqar_websocket_outbox_bytes',
    'Bytes that wait to be sent to WebSocket clients.',
    multiprocess_mode='livesum',
    registry=_REGISTRY,
)
_OUTBOX_MESSAGES = Gauge(
    'zaqar_websocket_outbox_messages',
    'Messages that wait to be sent to WebSocket clients.',
    multiprocess_mode='livesum',
    registry=_REGISTRY,
)
_COMMIT_SIZE = Histogram(
    'zaqar_store_commit_size',
    'Calls that the embedded store committed in one transaction.',
    buckets=_CALLS,
    registry=_REGISTRY,
)
_DELIVERIES = Counter(
    'zaqar_notification_tries_total',
    'Tries to tell a subscriber over HTTP (webhook) or by mail (task).',
    ['channel', 'result'],
    registry=_REGISTRY,
)
_DELIVERY_SECONDS = Histogram(
    'zaqar_notification_duration_seconds',
    'How long one try took, in seconds.',
    ['channel'],
    buckets=_SECONDS,
    registry=_REGISTRY,
)
_UNDELIVERED = Counter(
    'zaqar_notifications_dropped_total',
    'Notifications that were not delivered and are not tried any more.',
    ['channel', 'reason'],
    registry=_REGISTRY,
)
_DELIVERIES_RUNNING = Gauge(
    'zaqar_notifications_running',
    'Notifications that are on their way.',
    ['channel'],
    multiprocess_mode='livesum',
    registry=_REGISTRY,
)
_DELIVERIES_WAITING = Gauge(
    'zaqar_notifications_waiting',
    'Notifications that wait to be sent, for the first time or again.',
    ['channel'],
    multiprocess_mode='livesum',
    registry=_REGISTRY,
)
_DELIVERIES_BYTES = Gauge(
    'zaqar_notifications_waiting_bytes',
    'Bytes that are kept for them.',
    ['channel'],
    multiprocess_mode='livesum',
    registry=_REGISTRY,
)
_WEBHOOK_CONNECTIONS = Gauge(
    'zaqar_webhook_idle_connections',
    'Connections to webhooks that are kept for the next notification.',
    multiprocess_mode='livesum',
    registry=_REGISTRY,
)

_connections_of: Callable[..., Gauge] = functools.cache(_CONNECTIONS.labels)
_pushes_of: Callable[..., Counter] = functools.cache(_PUSHES.labels)
_refusals = {reason: _REFUSALS.labels(reason) for reason in get_args(Refusal)}


class _Timed:
    """Counts and durations that are not in the metrics yet.

    total: counts it. durations: has how long each took, with the bounds `_SECONDS`.
    """

    __slots__ = ('_counts', '_durations', '_seconds', '_total')

    def __init__(self, total: Counter, durations: Histogram) -> None:
        self._total = total
        self._durations = durations
        self._clear()

    def _clear(self) -> None:
        self._counts = [0] * (len(_SECONDS) + 1)
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        """It happened once more, and took so long."""
        self._counts[bisect_left(_SECONDS, seconds)] += 1
        self._seconds += seconds

    def flush(self) -> None:
        """Move the sums into the metrics."""
        count = sum(self._counts)
        if count:
            self._total.inc(count)
            self._durations.add(self._counts, self._seconds)
            self._clear()


class _KnownRequests(dict[tuple[str, str, int], _Timed]):
    """By operation, transport and status."""

    def __missing__(self, key: tuple[str, str, int]) -> _Timed:
        operation, transport, status = key
        requests = self[key] = _Timed(
            _REQUESTS_TOTAL.labels(operation, transport, status),
            _REQUEST_SECONDS.labels(operation, transport),
        )
        return requests


_requests = _KnownRequests()


def observe_request(operation: str, transport: str, status: int, seconds: float) -> None:
    """Count one request that was answered.

    operation: its name in the registry or that of a WebSocket's own action, `unknown` for an action
        that does not exist or cannot be read, `none` for a path without one. Never what a client
        sent: each name is a series of its own, kept for ever; the registry bounds their number.
    transport: rest, websocket-json, websocket-msgpack, zaqar.v2-json or zaqar.v2-msgpack.
    status: as REST has it.
    seconds: how long it took.
    """
    _requests[operation, transport, status].add(seconds)


class ConnectionKind(NamedTuple):
    """The state that a WebSocket connection is counted under.

    engine: the name of its frame engine.
    protocol: default or zaqar.v2.
    encoding: that of its latest message, json or msgpack; none before the first.
    """

    engine: str
    protocol: str
    encoding: str = 'none'


def move_connection(before: ConnectionKind | None, after: ConnectionKind | None) -> None:
    """Count a connection under `after` and no longer under `before`.

    None is for not being open: there is no `before` when it opens and no `after` when it ends.
    """
    if before is not None:
        _MOVED[before] -= 1
    if after is not None:
        _MOVED[after] += 1


# By kind, how many more connections are open than the metric says.
_MOVED: collections.Counter[ConnectionKind] = collections.Counter()


class Traffic:
    """Messages of one direction and encoding that are in no metric yet."""

    __slots__ = ('_bytes_total', '_frames_total', 'bytes', 'frames')

    def __init__(self, direction: str, encoding: str) -> None:
        self._frames_total = _FRAMES.labels(direction, encoding)
        self._bytes_total = _BYTES.labels(direction, encoding)
        self.frames = self.bytes = 0

    def add(self, size: int) -> None:
        """Count a message of `size` bytes."""
        self.frames += 1
        self.bytes += size

    def flush(self) -> None:
        """Move the sums into the metrics."""
        if self.frames:
            self._frames_total.inc(self.frames)
            self._bytes_total.inc(self.bytes)
            self.frames = self.bytes = 0


# By whether a message is binary: `RECEIVED[message.binary].add(len(message.payload))`.
RECEIVED = (Traffic('in', 'json'), Traffic('in', 'msgpack'))
SENT = (Traffic('out', 'json'), Traffic('out', 'msgpack'))


# Pushes by kind, and ends of connections by code, that are in no metric yet.
_PUSHED: collections.Counter[str] = collections.Counter()
_CLOSED: collections.Counter[int | str] = collections.Counter()


def count_close(code: int) -> None:
    """Count a WebSocket connection that was closed with `code`; one not in CLOSE_CODES as other."""
    _CLOSED[code if code in CLOSE_CODES else 'other'] += 1


def count_refusal(reason: Refusal) -> None:
    """Count an upgrade to WebSocket that was refused."""
    _refusals[reason].inc()


def count_messages(count: int, size: int, *, binary: bool) -> None:
    """Count messages of queues that a client was sent without having asked, `size` bytes in all."""
    _PUSHED['message'] += count
    sent = SENT[binary]
    sent.frames += count
    sent.bytes += size


def count_push(kind: str) -> None:
    """Count what a client was sent without having asked.

    kind: one of the protocol's own few names, never what a client sent.
    """
    _PUSHED[kind] += 1


def set_outbox_depth(size: int, messages: int) -> None:
    """How much waits to be sent to all WebSocket clients of this process, in bytes and messages."""
    _OUTBOX_BYTES.set(size)
    _OUTBOX_MESSAGES.set(messages)


_tries: dict[tuple[Channel, DeliveryResult], _Timed] = {}


def observe_delivery(channel: Channel, result: DeliveryResult, seconds: float) -> None:
    """Count one try to tell a subscriber."""
    tries = _tries.get((channel, result))
    if tries is None:
        tries = _tries[channel, result] = _Timed(
            _DELIVERIES.labels(channel, result), _DELIVERY_SECONDS.labels(channel)
        )
    tries.add(seconds)


def count_undelivered(channel: Channel, reason: UndeliveredReason, count: int) -> None:
    """Count notifications that are not tried any more."""
    _UNDELIVERED.labels(channel, reason).inc(count)


def set_delivery_depth(channel: Channel, running: int, waiting: int, size: int) -> None:
    """How many notifications of this process are on their way, how many wait, and in how many
    bytes.
    """
    _DELIVERIES_RUNNING.labels(channel).set(running)
    _DELIVERIES_WAITING.labels(channel).set(waiting)
    _DELIVERIES_BYTES.labels(channel).set(size)


def set_webhook_connections(idle: int) -> None:
    """How many connections to webhooks this process keeps."""
    _WEBHOOK_CONNECTIONS.set(idle)


# How many calls each transaction of the embedded store had. Appended to by native threads; where
# nobody flushes, the oldest are forgotten.
COMMIT_SIZES: collections.deque[int] = collections.deque(maxlen=65_536)


def flush() -> None:
    """Move what has been added up into the metrics; to be called twice a second."""
    for requests in _requests.values():
        requests.flush()
    for traffic in (*RECEIVED, *SENT):
        traffic.flush()
    for tries in list(_tries.values()):
        tries.flush()
    for kind, count in _PUSHED.items():
        _pushes_of(kind).inc(count)
    _PUSHED.clear()
    for code, count in _CLOSED.items():
        _CLOSES.labels(code).inc(count)
    _CLOSED.clear()
    for moved, count in _MOVED.items():
        _connections_of(*moved).inc(count)
    _MOVED.clear()
    _flush_commits()


def _flush_commits() -> None:
    counts = [0] * (len(_CALLS) + 1)
    total = 0
    while COMMIT_SIZES:
        size = COMMIT_SIZES.popleft()
        counts[bisect_left(_CALLS, size)] += 1
        total += size
    if total:
        _COMMIT_SIZE.add(counts, total)


def expose(accept: str) -> tuple[str, bytes]:
    """The metrics as Prometheus reads them: the content type and the text.

    accept: the Accept header of whoever asks, which may choose OpenMetrics.

    With PROMETHEUS_MULTIPROC_DIR in the environment they are the sums over all processes, without
    those of the process itself (memory, processor time, garbage).
    """
    flush()
    encode, content_type = _choose_encoder(accept)
    return content_type, encode(_collected())


def _choose_encoder(accept: str) -> tuple[Callable[[Any], bytes], str]:
    try:
        return choose_encoder(accept)
    except TypeError:
        # It compares a version that is no number with numbers.
        return choose_encoder('')


def _collected() -> CollectorRegistry:
    if 'PROMETHEUS_MULTIPROC_DIR' not in os.environ:
        return _REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry
