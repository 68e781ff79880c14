"""Reading all that a database holds, and writing what another store held."""

from __future__ import annotations

import _socket
import hashlib
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import psycopg
from oslo_utils import timeutils
from psycopg.rows import tuple_row

from zaqar_gevent import retry_delays
from zaqar_gevent.bodies import Encoding
from zaqar_gevent.storage.core.pages import (
    decode_attributes,
    decode_body,
    encode_body,
    encode_id,
    encode_object,
)
from zaqar_gevent.storage.errors import StoreUnavailable, UnsuitableStore
from zaqar_gevent.storage.postgresql import addresses, schema
from zaqar_gevent.storage.postgresql.claims import encode_retry
from zaqar_gevent.storage.postgresql.wire import wait_in_thread
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

KIND = 'postgresql'

SCHEMA = 'zaqar'
"""The schema that is copied where the URI does not name one by `schema=NAME`."""

_FETCH = 50
"""Messages that are fetched at a time."""

_COUNT = """SELECT (SELECT count(*) FROM {schema}.messages WHERE spool = s.id AND expires > %(now)s)
        + (SELECT count(*) FROM {schema}.delayed WHERE spool = s.id AND expires > %(now)s)
    FROM {schema}.spools s WHERE s.project = %(project)s AND s.name = %(queue)s"""

_VISIBLE = """SELECT coalesce(m.number, m.position), m.body, m.encoding, m.ttl, m.created,
        m.expires, 0::float8, m.client, m.checksum, m.claim_count, m.attributes,
        nullif(m.message_group, ''), m.dead_letter,
        CASE WHEN m.retry_at > %(now)s THEN m.retry_at ELSE 0 END,
        coalesce(c.parent, c.token), c.ttl, c.expires
    FROM {schema}.messages m LEFT JOIN {schema}.claims c
        ON c.token = m.claim AND c.expires > %(now)s AND c.waits IS NULL
    WHERE m.expires > %(now)s AND m.spool = (
        SELECT id FROM {schema}.spools WHERE project = %(project)s AND name = %(queue)s)
    ORDER BY m.position"""

_DELAYED = """SELECT d.number, d.body, d.encoding, d.ttl, d.created, d.expires, d.due, d.client,
        d.checksum, 0, d.attributes, d.message_group, NULL, 0::float8,
        NULL::uuid, NULL::int, NULL::float8
    FROM {schema}.delayed d WHERE d.expires > %(now)s AND d.spool = (
        SELECT id FROM {schema}.spools WHERE project = %(project)s AND name = %(queue)s)
    ORDER BY d.due, d.number"""

_SUBSCRIPTIONS = """SELECT id, subscriber, ttl, expires, confirmed, options
    FROM {schema}.subscriptions
    WHERE project = %(project)s AND source = %(queue)s AND expires > %(now)s ORDER BY id"""

_WRITE_SUBSCRIPTION = """INSERT INTO {schema}.subscriptions
    (project, source, subscriber, ttl, created, expires, confirmed, options)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (project, source, md5(subscriber)) DO UPDATE SET ttl = excluded.ttl,
        created = excluded.created, expires = excluded.expires, confirmed = excluded.confirmed,
        options = excluded.options"""

_KNOWN = """SELECT id FROM {schema}.receipts
    WHERE spool = %s AND id = ANY (%s) AND expires > %s"""

FIND_LEASE = """SELECT token, expires FROM {schema}.claims
    WHERE spool = %s AND (token = %s OR parent = %s)"""

WRITE_LEASE = """INSERT INTO {schema}.claims (token, spool, expires, ttl, parent, retry, waits)
    VALUES (%s, %s, %s, %s, %s, %s, %s)"""

_WRITE_VISIBLE = """INSERT INTO {schema}.messages
    (spool, position, created, expires, claim, client, ttl, claim_count, encoding, returned,
        checksum, attributes, message_group, dead_letter, retry_at, body)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""

_WRITE_DELAYED = """INSERT INTO {schema}.delayed
    (number, spool, due, created, expires, client, ttl, encoding, checksum, attributes,
        message_group, body)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""

_WRITE_RECEIPT = """INSERT INTO {schema}.receipts (spool, id, first, expires)
    VALUES (%s, %s, %s, %s)
    ON CONFLICT (spool, id) DO UPDATE SET first = excluded.first, expires = excluded.expires"""


class _Store:
    """A database; raises `StoreUnavailable` or `UnsuitableStore`."""

    kind = KIND
    # Ids are places in this database, which other messages may have.
    can_keep_ids = False

    def __init__(self, uri: str) -> None:
        self._address = addresses.parse(*_split(uri))
        checker = schema.Checker(self._address, wait_in_thread, _socket.getaddrinfo)
        try:
            self._prepare(checker)
        finally:
            checker.close()
        self._connection: Any = self._connect()

    @property
    def identity(self) -> object:
        """The run of the server's processes, the database, and the schema."""
        [row] = self._execute(
            "SELECT pg_postmaster_start_time()::text, current_setting('port'), current_database()"
        )
        return (*row, self._address.schema)

    def close(self) -> None:
        self._connection.close()

    def _prepare(self, checker: schema.Checker) -> None:
        raise NotImplementedError

    def _connect(self) -> Any:
        reasons = []
        for parameters in self._address.attempts():
            try:
                return psycopg.connect(autocommit=True, **parameters)
            except psycopg.Error as error:
                reasons.append(' '.join(str(error).split()))
        raise StoreUnavailable(self._address.store, '; '.join(reasons))

    def _statement(self, text: str) -> Any:
        return schema.compose(text, self._address.schema)

    def _execute(self, statement: str, parameters: Any = ()) -> list[Any]:
        try:
            cursor = self._connection.execute(self._statement(statement), parameters)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(self._address.store, ' '.join(str(error).split()))


class Reader(_Store):
    """A database as it is now, whatever is written to it meanwhile. Nothing in it is changed."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._now: float = timeutils.utcnow_ts(microsecond=True)
        self._execute('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')

    def read_queues(self) -> Iterator[QueueRecord]:
        rows = self._execute(
            'SELECT kind, project, name, metadata FROM {schema}.queues ORDER BY project, name, kind'
        )
        for kind, project, name, metadata in rows:
            yield QueueRecord(kind, project, name, msgspec.json.decode(metadata))

    def count_messages(self, queue: QueueRecord) -> int:
        rows = self._execute(_COUNT, self._parameters(queue))
        return int(rows[0][0]) if rows else 0

    def read_messages(self, queue: QueueRecord) -> Iterator[MessageRecord]:
        for statement in (_VISIBLE, _DELAYED):
            # A cursor of the server's: the messages need not fit into memory.
            with self._connection.cursor('messages', row_factory=tuple_row) as cursor:
                cursor.itersize = _FETCH
                try:
                    cursor.execute(self._statement(statement), self._parameters(queue), binary=True)
                    yield from map(read_message, cursor)
                except psycopg.Error as error:
                    raise self._unavailable(error) from None

    def read_subscriptions(self, queue: QueueRecord) -> Iterator[SubscriptionRecord]:
        for row in self._execute(_SUBSCRIPTIONS, self._parameters(queue)):
            number, subscriber, ttl, expires, is_confirmed, options = row
            yield SubscriptionRecord(
                *(encode_id(number), queue.project, queue.name, subscriber, ttl, expires),
                is_confirmed,
                msgspec.json.decode(options),
            )

    def read_pools(self) -> Iterator[PoolRecord]:
        rows = self._execute(
            'SELECT name, uri, weight, flavor, options FROM {schema}.pools ORDER BY name'
        )
        for name, uri, weight, flavor, options in rows:
            yield PoolRecord(name, uri, weight, flavor, msgspec.json.decode(options))

    def read_flavors(self) -> Iterator[FlavorRecord]:
        for project, name, document in self._execute(
            'SELECT project, name, capabilities FROM {schema}.flavors'
        ):
            yield FlavorRecord(project, name, msgspec.json.decode(document))

    def read_places(self) -> Iterator[PlaceRecord]:
        yield from map(
            PlaceRecord._make,
            self._execute('SELECT project, queue, pool FROM {schema}.catalogue'),
        )

    def _prepare(self, checker: schema.Checker) -> None:
        state = checker.look()
        if state.version != len(schema.MIGRATIONS):
            raise UnsuitableStore(
                self._address.store, f'{schema.describe(state)}. Run: zaqar-gevent db migrate'
            )

    def _parameters(self, queue: QueueRecord) -> dict[str, Any]:
        return {'project': queue.project, 'queue': queue.name, 'now': self._now}


def read_message(row: tuple[Any, ...]) -> MessageRecord:
    """A message of which `row` has the number, body and so on, up to the end of its lease."""
    number, body, encoding, ttl, created, expires, due, client, checksum, count, *more = row
    attributes, group, dead_letter, retry_at, token, claim_ttl, claim_expires = more
    extras = {
        'attributes': attributes and decode_attributes(attributes)[0],
        'group': group,
        'dead_letter': dead_letter and msgspec.json.decode(dead_letter),
    }
    return MessageRecord(
        encode_id(number),
        decode_body(Encoding(encoding), memoryview(body)),
        *(ttl, created, expires, due),
        str(client) if client else None,
        checksum,
        count,
        ClaimRecord(token.hex, claim_ttl, claim_expires) if token else None,
        {name: value for name, value in extras.items() if value},
        retry_at,
    )


class Writer(_Store):
    """A database, whose tables are made if there are none; servers may use it meanwhile."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        # As a server does at start: without an epoch, positions make no markers.
        self._execute(f'SELECT * FROM {{schema}}.begin_epoch_{schema.digest()}()')

    def refuses(self, queue: QueueRecord) -> str | None:
        return None

    def write_queue(self, queue: QueueRecord) -> None:
        self._execute(
            'INSERT INTO {schema}.queues (project, kind, name, metadata) VALUES (%s, %s, %s, %s) '
            'ON CONFLICT (project, kind, name) DO UPDATE SET metadata = excluded.metadata',
            (queue.project, queue.kind, queue.name, _encode(queue.metadata)),
        )

    def write_messages(
        self, queue: QueueRecord, messages: Sequence[MessageRecord], *, keep_ids: bool
    ) -> int:
        try:
            with self._connection.transaction():
                return self._write_messages(queue, messages)
        except psycopg.Error as error:
            raise self._unavailable(error) from None

    def write_subscription(self, subscription: SubscriptionRecord, *, keep_ids: bool) -> None:
        one = subscription
        self._execute(
            _WRITE_SUBSCRIPTION,
            (
                *(one.project, one.source, one.subscriber, one.ttl, one.expires - one.ttl),
                *(one.expires, one.is_confirmed, _encode(one.options)),
            ),
        )

    def write_pool(self, pool: PoolRecord) -> None:
        self._execute(
            'INSERT INTO {schema}.pools (name, uri, weight, flavor, options) '
            'VALUES (%s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET uri = excluded.uri, '
            'weight = excluded.weight, flavor = excluded.flavor, options = excluded.options',
            (*pool[:4], _encode(pool.options)),
        )

    def write_flavor(self, flavor: FlavorRecord) -> None:
        self._execute(
            'INSERT INTO {schema}.flavors (project, name, capabilities) VALUES (%s, %s, %s) '
            'ON CONFLICT (project, name) DO UPDATE SET capabilities = excluded.capabilities',
            (*flavor[:2], _encode(flavor.capabilities)),
        )

    def write_place(self, place: PlaceRecord) -> None:
        self._execute(
            'INSERT INTO {schema}.catalogue (project, queue, pool) VALUES (%s, %s, %s) '
            'ON CONFLICT (project, queue) DO UPDATE SET pool = excluded.pool',
            tuple(place),
        )

    def _prepare(self, checker: schema.Checker) -> None:
        if not checker.look().is_current:
            checker.migrate()

    def _write_messages(self, queue: QueueRecord, messages: Sequence[MessageRecord]) -> int:
        """Insert the messages that have no receipt yet; how many."""
        name = queue.project, queue.name
        self._call('lock', 'text, text', *name)
        spool = self._call('spool', 'text, text', *name)
        if spool is None:
            spool = self._call('make_spool', 'text, text', *name)
        now = timeutils.utcnow_ts(microsecond=True)
        keys = {_digest(one.id): one for one in messages}
        for (known,) in self._execute(_KNOWN, (spool, list(keys), now)):
            del keys[known]
        if not keys:
            return 0
        [(batch,)] = self._execute(f'SELECT {{schema}}.next_base_{schema.digest()}() + 1')
        visible, delayed, receipts = [], [], []
        leases = Leases(spool, encode_retry(retry_delays.of(queue.metadata)), self._find_leases)
        for place, (key, one) in enumerate(keys.items(), batch):
            receipts.append((spool, key, place, now + REMEMBER_SECONDS))
            stored = bytes(encode_body(one.body)), int(one.body.encoding)
            if one.due > now:
                delayed.append(_delayed_row(spool, place, one, *stored))
            else:
                visible.append(_visible_row(spool, place, one, leases.get(one, now), *stored))
        self._execute_many(WRITE_LEASE, leases.new)
        self._execute_many(_WRITE_VISIBLE, visible)
        self._execute_many(_WRITE_DELAYED, delayed)
        self._execute_many(_WRITE_RECEIPT, receipts)
        held = sum(one.claim is not None for one in keys.values())
        self._execute(
            'INSERT INTO {schema}.changes (spool, total, held) VALUES (%s, %s, %s)',
            (spool, len(keys), held),
        )
        return len(keys)

    def _find_leases(self, spool: int, claim: uuid.UUID) -> dict[float, uuid.UUID]:
        """The leases of a claim by their ends."""
        rows = self._execute(FIND_LEASE, (spool, claim, claim))
        return {expires: token for token, expires in rows}

    def _call(self, function: str, types: str, *arguments: Any) -> Any:
        """The value of a function of `functions.sql`."""
        places = ', '.join(f'%s::{one}' for one in types.split(', '))
        name = f'{function}_{schema.digest()}'
        return self._execute(f'SELECT {{schema}}.{name}({places})', arguments)[0][0]

    def _execute_many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            with self._connection.cursor() as cursor:
                cursor.executemany(self._statement(statement), rows)


class Leases:
    """The leases of the messages of a batch, each with a row of `claims`.

    retry: the delay of retries of the queue, as a parameter. find: gives those that are there
    by the spool and the claim. new: the rows of the others.
    """

    def __init__(
        self,
        spool: int,
        retry: str | None,
        find: Callable[[int, uuid.UUID], dict[float, uuid.UUID]],
    ) -> None:
        self._spool = spool
        self._retry = retry
        self._find = find
        self._known: dict[uuid.UUID, dict[float, uuid.UUID]] = {}
        self._waits: dict[float, uuid.UUID] = {}
        self.new: list[tuple[Any, ...]] = []

    def get(self, one: MessageRecord, now: float) -> uuid.UUID | None:
        """The lease of a message, or what it waits for; None if it is free."""
        if one.claim is not None:
            return self._get_lease(uuid.UUID(one.claim.id), one.claim)
        if one.retry_at <= now:
            return None
        token = self._waits.get(one.retry_at)
        if token is None:
            token = self._waits[one.retry_at] = uuid.uuid4()
            self.new.append((token, self._spool, one.retry_at, 0, None, None, True))
        return token

    def _get_lease(self, claim: uuid.UUID, record: ClaimRecord) -> uuid.UUID:
        known = self._known.get(claim)
        if known is None:
            known = self._known[claim] = self._find(self._spool, claim)
        token = known.get(record.expires)
        if token is None:
            # Single messages may have leases of their own.
            token, parent = (uuid.uuid4(), claim) if known else (claim, None)
            known[record.expires] = token
            row = token, self._spool, record.expires, record.ttl, parent, self._retry, None
            self.new.append(row)
        return token


def _visible_row(
    spool: int,
    place: int,
    one: MessageRecord,
    lease: uuid.UUID | None,
    body: bytes,
    encoding: int,
) -> tuple[Any, ...]:
    return (
        *(spool, place, one.created, one.expires),
        lease,
        one.client and uuid.UUID(one.client),
        *(one.ttl, one.claim_count, encoding, bool(one.claim_count or lease)),
        one.checksum,
        encode_object(one.extras.get('attributes')),
        one.extras.get('group'),
        encode_object(one.extras.get('dead_letter')),
        one.retry_at if lease and one.claim is None else None,
        body,
    )


def _delayed_row(
    spool: int, place: int, one: MessageRecord, body: bytes, encoding: int
) -> tuple[Any, ...]:
    return (
        *(place, spool, one.due, one.created, one.expires),
        one.client and uuid.UUID(one.client),
        *(one.ttl, encoding, one.checksum),
        encode_object(one.extras.get('attributes')),
        one.extras.get('group'),
        body,
    )


def _encode(document: Any) -> str:
    return msgspec.json.encode(document).decode()


def _digest(message_id: str) -> uuid.UUID:
    """The receipt of a message of another store."""
    digest = hashlib.blake2b(f'copy:{message_id}'.encode(), digest_size=16)
    return uuid.UUID(bytes=digest.digest())


def _split(uri: str) -> tuple[str, str]:
    """libpq's URI, and the name of the schema, which is none of its options."""
    split = urllib.parse.urlsplit(uri)
    options = urllib.parse.parse_qsl(split.query, keep_blank_values=True)
    names = [value for key, value in options if key == 'schema']
    kept = urllib.parse.urlencode([one for one in options if one[0] != 'schema'])
    return split._replace(query=kept).geturl(), names[-1] if names else SCHEMA
