"""Reading all that a server holds, upstream's data included; writing what another store held."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from oslo_utils import timeutils
from zaqar.transport.validation import ValidationFailed

from zaqar_gevent import retry_delays
from zaqar_gevent.bodies import body_of
from zaqar_gevent.retry_delays import RetryDelay
from zaqar_gevent.storage.core.links import PATIENCE_SECONDS
from zaqar_gevent.storage.names import NameRules
from zaqar_gevent.storage.records import (
    REMEMBER_SECONDS,
    ClaimRecord,
    FlavorRecord,
    MessageRecord,
    PlaceRecord,
    PoolRecord,
    QueueRecord,
    SubscriptionRecord,
)
from zaqar_gevent.storage.redis import addresses, bodies, keys, messages
from zaqar_gevent.storage.redis.queues import STEP_BYTES
from zaqar_gevent.storage.redis.records import Records
from zaqar_gevent.storage.redis.servers import RedisServer, load, open_server

KIND = 'redis'

_READ = load('copy_read')
_WRITE = load('record', 'copy_write')
_LIST = load('queue_list')
_SUBSCRIPTIONS = load('subscriptions')
_SUBSCRIBE = load('subscribe')
_CREATE = load('queue_create')
_UPDATE = load('queue_update')

_STEP = 100
_SCANNED = 1000


class _Store:
    """A server; raises `StoreUnavailable` or `UnsuitableStore`."""

    kind = KIND
    can_keep_ids = True

    def __init__(self, uri: str) -> None:
        self._handle = open_server(addresses.parse(uri), PATIENCE_SECONDS)
        self._server = self._handle.store
        try:
            self._server.check()
        except BaseException:
            self._handle.close()
            raise
        self._pools = Records(self._server, 'pool', ('pl', 'u', 'w', 'f', 'o'))
        self._flavors = Records(self._server, 'flavor', ('f', 'c'))
        self._places = Records(self._server, 'place', ('p_q', 'p_p'))

    @property
    def identity(self) -> object:
        """The run of the server's process, and the number of the database."""
        told = self._server.ask('INFO', 'server').decode()
        lines = dict(line.split(':', 1) for line in told.splitlines() if ':' in line)
        return lines['run_id'], self._server.address.database

    def close(self) -> None:
        self._handle.close()


class Reader(_Store):
    """A server, which may change while it is read."""

    def read_queues(self) -> Iterator[QueueRecord]:
        for kind, suffix, behind in (
            ('queue', keys.queues(''), ''),
            ('topic', keys.topics(''), keys.TOPIC),
        ):
            for project in sorted(self._find_projects(suffix)):
                scope = keys.queue('', project)
                after = '-'
                is_end = 0
                while not is_end:
                    found, is_end = self._server.run(
                        _LIST, (f'{project}{suffix}',), after, _STEP, behind, STEP_BYTES
                    )
                    for member, metadata in found:
                        if metadata is not None:
                            name = member.decode().removeprefix(scope)
                            yield QueueRecord(kind, project, name, bodies.unpack(metadata))
                        after = f'({member.decode()}'

    def count_messages(self, queue: QueueRecord) -> int:
        key = keys.messages(queue.name, queue.project)
        return sum(int(self._server.ask('ZCARD', one)) for one in (key, key + keys.DELAYED))

    def read_messages(self, queue: QueueRecord) -> Iterator[MessageRecord]:
        key = keys.messages(queue.name, queue.project)
        yield from self._read_messages(key)
        yield from self._read_messages(key + keys.DELAYED)

    def read_subscriptions(self, queue: QueueRecord) -> Iterator[SubscriptionRecord]:
        return read_subscriptions(self._server, queue)

    def read_pools(self) -> Iterator[PoolRecord]:
        for name, uri, weight, flavor, options in self._pools.list(''):
            yield PoolRecord(
                name.decode(),
                uri.decode(),
                int(weight),
                flavor.decode() if flavor else None,
                bodies.unpack(options),
            )

    def read_flavors(self) -> Iterator[FlavorRecord]:
        for project in self._flavors.scopes():
            for name, capabilities in self._flavors.list(project):
                yield FlavorRecord(project, name.decode(), bodies.unpack(capabilities))

    def read_places(self) -> Iterator[PlaceRecord]:
        for project in self._places.scopes():
            for queue, pool in self._places.list(project):
                yield PlaceRecord(project, queue.decode(), pool.decode())

    def _read_messages(self, key: str) -> Iterator[MessageRecord]:
        after: Any = '-inf'
        while after:
            now = timeutils.utcnow_ts()
            found, after = self._server.run(_READ, (key,), now, after, _STEP)
            for one in found:
                yield read_message(one, now, is_delayed=key.endswith(keys.DELAYED))

    def _find_projects(self, suffix: str) -> set[str]:
        found = set()
        cursor = b'0'
        while True:
            cursor, some = self._server.ask(
                'SCAN', cursor, 'MATCH', f'*{suffix}', 'COUNT', _SCANNED
            )
            found |= {key.decode().removesuffix(suffix) for key in some}
            if cursor == b'0':
                return found


def read_subscriptions(server: RedisServer, queue: QueueRecord) -> Iterator[SubscriptionRecord]:
    """The subscriptions of a queue, whether it is used from here or not."""
    key = keys.subscriptions(queue.name, queue.project)
    after: Any = '-'
    while after is not None:
        found, after = server.run(_SUBSCRIPTIONS, (key,), after, 2**31, '', '1')
        for number, (source, subscriber, ttl, expires, options, confirmed) in found:
            yield SubscriptionRecord(
                number.decode(),
                queue.project,
                source.decode(),
                subscriber.decode(),
                int(ttl),
                float(expires),
                confirmed is None or bool(int(confirmed)),
                bodies.unpack(options),
            )


def read_message(
    one: list[Any], now: int, *, is_delayed: bool, keeps_due: bool = False
) -> MessageRecord:
    """A message as `copy_read` of the scripts tells it.

    keeps_due: a delayed one has its `due` even if that is over: it has no place yet.
    """
    number, score, claim_ttl, parts = one
    fields: dict[bytes, bytes] = dict(zip(parts[::2], parts[1::2], strict=True))
    spelling = fields.get(b's')
    due = retry_at = 0.0
    hidden_until = float(score if is_delayed else fields.get(b'd') or 0)
    if is_delayed or not int(fields.get(b'c.c') or 0):
        # Upstream keeps delayed messages among the others, and whole seconds.
        due = hidden_until
    elif not claim_ttl:
        retry_at = hidden_until
    claim = None
    if claim_ttl:
        claim = ClaimRecord(fields[b'c'].decode(), int(claim_ttl), float(fields[b'c.e']))
    return MessageRecord(
        number.decode(),
        bodies.read_spelling(spelling) if spelling else body_of(bodies.unpack(fields[b'b'])),
        int(fields[b't']),
        float(fields[b'cr']),
        float(fields[b'e']),
        due if due > now or (keeps_due and is_delayed) else 0.0,
        fields[b'u'].decode() if fields.get(b'u') else None,
        fields[b'cs'].decode() if fields.get(b'cs') else None,
        int(fields.get(b'c.c') or 0),
        claim,
        bodies.unpack(fields[b'x']) if b'x' in fields else {},
        retry_at if retry_at > now else 0.0,
    )


def describe(record: MessageRecord, retry: RetryDelay | None) -> tuple[Any, ...]:
    """A message as `write_record` of the scripts reads it, from its TTL on.

    retry: of its queue; a message that is held now waits so long when its lease ends.
    """
    claim = record.claim or ClaimRecord('', 0, 0.0)
    retry_at = record.retry_at
    if retry is not None and record.claim is not None:
        retry_at = record.claim.expires + retry.after(record.claim_count)
    return (
        record.ttl,
        int(record.created),
        int(record.expires),
        repr(record.due) if record.due else 0,
        record.client or messages.NOBODY,
        *bodies.store(record.body),
        record.checksum or '',
        record.claim_count,
        claim.id,
        claim.ttl,
        int(claim.expires),
        bodies.pack(dict(record.extras)) if record.extras else b'',
        math.ceil(retry_at),
    )


class Writer(_Store):
    """A server that other servers of Zaqar, upstream's included, may use meanwhile."""

    def refuses(self, queue: QueueRecord) -> str | None:
        rules = NameRules(lambda driver: driver == KIND)
        try:
            rules.check_project(queue.project)
            rules.check_queue(queue.name, queue.project)
        except ValidationFailed as error:
            return str(error)
        return None

    def write_queue(self, queue: QueueRecord) -> None:
        name, project = queue.name, queue.project
        is_topic = queue.kind == 'topic'
        key = keys.queue(name, project) + (keys.TOPIC if is_topic else '')
        names = keys.topics(project) if is_topic else keys.queues(project)
        metadata = bodies.pack(queue.metadata)
        self._server.run(
            _CREATE,
            (names, key, keys.INDEX),
            keys.queue(name, project),
            metadata,
            timeutils.utcnow_ts(),
            keys.messages(name, project),
        )
        self._server.run(_UPDATE, (key,), metadata)

    def write_messages(
        self, queue: QueueRecord, messages_: Sequence[MessageRecord], *, keep_ids: bool
    ) -> int:
        name, project = queue.name, queue.project
        key = keys.messages(name, project)
        arguments: list[Any] = []
        retry = retry_delays.of(queue.metadata)
        for one in messages_:
            arguments += (one.id, *describe(one, retry))
        number: int = self._server.run(
            _WRITE,
            (
                key,
                keys.rank_counter(name, project),
                keys.claims(name, project),
                keys.copied(name, project),
            ),
            timeutils.utcnow_ts(),
            '' if keep_ids else messages.new_ids(key),
            REMEMBER_SECONDS,
            *arguments,
        )
        return number

    def write_subscription(self, subscription: SubscriptionRecord, *, keep_ids: bool) -> None:
        put_subscription(self._server, subscription, keep_id=keep_ids)

    def write_pool(self, pool: PoolRecord) -> None:
        fields = {'pl': pool.name, 'u': pool.uri, 'w': pool.weight, 'f': pool.flavor or ''}
        self._pools.put('', pool.name, {**fields, 'o': bodies.pack(pool.options)})

    def write_flavor(self, flavor: FlavorRecord) -> None:
        fields = {'f': flavor.name, 'c': bodies.pack(flavor.capabilities)}
        self._flavors.put(flavor.project, flavor.name, fields)

    def write_place(self, place: PlaceRecord) -> None:
        self._places.put(place.project, place.queue, {'p_q': place.queue, 'p_p': place.pool})


def put_subscription(
    server: RedisServer,
    subscription: SubscriptionRecord,
    *,
    keep_id: bool,
    is_arriving: bool = False,
) -> None:
    """Write a subscription, in place of one of the same subscriber.

    is_arriving: whether its queue is not used from here yet.
    keep_id: whether it keeps its id, where there is none yet; otherwise it gets a new one.
    """
    key = keys.subscriptions(subscription.source, subscription.project)
    known: Any = []
    after: Any = '-'
    while after is not None and not known:
        known, after = server.run(
            _SUBSCRIPTIONS, (key,), after, 1, subscription.subscriber, '1' if is_arriving else ''
        )
    number = subscription.id if keep_id else str(uuid.uuid4())
    if known:
        number = known[0][0].decode()
    fields = {
        'id': number,
        's': subscription.source,
        'u': subscription.subscriber,
        't': subscription.ttl,
        'e': int(subscription.expires),
        'o': bodies.pack(subscription.options),
        'p': subscription.project,
        'c': int(subscription.is_confirmed),
    }
    left = max(1, int(subscription.expires) - timeutils.utcnow_ts())
    server.run(
        _SUBSCRIBE,
        (key, number),
        ('' if known else '1') + ('a' if is_arriving else ''),
        number,
        subscription.subscriber,
        left,
        *(part for field in fields.items() for part in field),
    )
