"""Reading all that a file holds, and writing what another store held."""

from __future__ import annotations

import os
import sqlite3
import urllib.parse
import uuid
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from oslo_utils import timeutils

from zaqar_gevent import retry_delays
from zaqar_gevent.bodies import Encoding
from zaqar_gevent.storage.core.pages import (
    decode_attributes,
    decode_body,
    encode_body,
    encode_id,
    encode_object,
)
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
from zaqar_gevent.storage.sqlite import (
    delays,
    leases,
    long_bodies,
    options,
    posting,
    receipts,
    schema,
    spools,
    tallies,
)
from zaqar_gevent.storage.sqlite.database import open_database
from zaqar_gevent.storage.sqlite.outage import unavailable
from zaqar_gevent.storage.sqlite.transaction import Transaction

KIND = 'sqlite'

VISIBLE = ' UNION ALL '.join(
    f"""SELECT id, position FROM messages INDEXED BY {index}
    WHERE spool = :spool AND expires > :now AND {condition}"""
    for index, condition in (
        ('messages_free', 'claim IS NULL AND delayed_until = 0'),
        ('messages_held_in_order', 'claim IS NOT NULL'),
        # Those that wait for their retry keep their places.
        ('messages_delayed', 'delayed_until > 0 AND placed IS NOT NULL'),
    )
)

DELAYED = """SELECT id FROM messages INDEXED BY messages_due
    WHERE spool = :spool AND delayed_until > 0 AND placed IS NULL AND expires > :now
    ORDER BY delayed_until, id"""

READ = f"""SELECT m.id, {long_bodies.BODY}, m.encrypted, m.ttl, m.created, m.expires,
        m.delayed_until, m.placed, m.client, m.checksum, m.claim_count, m.attributes,
        nullif(m.message_group, ''), m.dead_letter, c.token, c.ttl, c.expires
    FROM json_each(:ids) j CROSS JOIN messages m ON m.id = j.value
    LEFT JOIN claims c ON c.id = m.claim AND c.expires > :now ORDER BY j.key"""

_STEP = 20
"""Messages that are read at a time."""

COUNT = f"""SELECT (SELECT count(*) FROM ({VISIBLE})) + (
    SELECT count(*) FROM messages INDEXED BY messages_due
    WHERE spool = :spool AND delayed_until > 0 AND placed IS NULL AND expires > :now)"""

SUBSCRIPTIONS = """SELECT id, subscriber, ttl, expires, confirmed, options FROM subscriptions
    WHERE project = ? AND source = ? AND expires > ? ORDER BY id"""

_ADD_EXTRAS = 'UPDATE messages SET attributes = ?, message_group = ?, dead_letter = ? WHERE id = ?'

# Not `OR REPLACE`: what that deletes is not counted.
_ADD_QUEUE = """INSERT INTO queues (project, kind, name, metadata) VALUES (?, ?, ?, ?)
    ON CONFLICT (project, kind, name) DO UPDATE SET metadata = excluded.metadata"""

_ADD_SUBSCRIPTION = """INSERT INTO subscriptions
    (project, source, subscriber, ttl, created, expires, confirmed, options)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (project, source, subscriber) DO UPDATE SET ttl = excluded.ttl,
        created = excluded.created, expires = excluded.expires, confirmed = excluded.confirmed,
        options = excluded.options"""


class Reader:
    """A file as it is now, whatever is written to it meanwhile.

    The file is not changed, so it must have the present format. Raises `StoreUnavailable`.
    """

    kind = KIND

    def __init__(self, uri: str) -> None:
        path = self._path = _parse(uri)
        name = f'file:{urllib.parse.quote(path)}?mode=ro'
        try:
            self._connection = sqlite3.connect(name, uri=True, isolation_level=None)
            version = schema.check_version(self._connection)
        except (sqlite3.Error, schema.UnknownFormat) as error:
            raise unavailable(path, str(error)) from error
        if version != len(schema.MIGRATIONS):
            raise unavailable(
                path,
                f'it has the format version {version}, and only {len(schema.MIGRATIONS)} can be '
                'copied. A server of this version that is started with the file brings it there',
            )
        # The transaction shows the file as it is now.
        self._connection.execute('BEGIN')
        self._connection.execute('SELECT 1 FROM spools LIMIT 1').fetchone()
        self._now: float = timeutils.utcnow_ts(microsecond=True)

    @property
    def identity(self) -> object:
        return _identify(self._path)

    def read_queues(self) -> Iterator[QueueRecord]:
        rows = self._connection.execute(
            'SELECT kind, project, name, metadata FROM queues ORDER BY project, name, kind'
        )
        for kind, project, name, metadata in rows:
            yield QueueRecord(kind, project, name, msgspec.json.decode(metadata))

    def count_messages(self, queue: QueueRecord) -> int:
        row = self._connection.execute(COUNT, self._parameters(queue)).fetchone()
        return int(row[0])

    def read_messages(self, queue: QueueRecord) -> Iterator[MessageRecord]:
        parameters = self._parameters(queue)
        for statement in (f'SELECT id FROM ({VISIBLE}) ORDER BY position', DELAYED):
            ids = array('q', (row[0] for row in self._connection.execute(statement, parameters)))
            for start in range(0, len(ids), _STEP):
                document = msgspec.json.encode(ids[start : start + _STEP].tolist()).decode()
                for row in self._connection.execute(READ, {**parameters, 'ids': document}):
                    yield read_message(row)

    def read_subscriptions(self, queue: QueueRecord) -> Iterator[SubscriptionRecord]:
        rows = self._connection.execute(SUBSCRIPTIONS, (queue.project, queue.name, self._now))
        for number, subscriber, ttl, expires, confirmed, document in rows:
            yield SubscriptionRecord(
                encode_id(number),
                queue.project,
                queue.name,
                subscriber,
                ttl,
                expires,
                bool(confirmed),
                msgspec.json.decode(document),
            )

    def read_pools(self) -> Iterator[PoolRecord]:
        rows = self._connection.execute(
            'SELECT name, uri, weight, flavor, options FROM pools ORDER BY name'
        )
        for name, uri, weight, flavor, document in rows:
            yield PoolRecord(name, uri, weight, flavor, msgspec.json.decode(document))

    def read_flavors(self) -> Iterator[FlavorRecord]:
        rows = self._connection.execute('SELECT project, name, capabilities FROM flavors')
        for project, name, capabilities in rows:
            yield FlavorRecord(project, name, msgspec.json.decode(capabilities))

    def read_places(self) -> Iterator[PlaceRecord]:
        yield from map(
            PlaceRecord._make,
            self._connection.execute('SELECT project, queue, pool FROM catalogue'),
        )

    def close(self) -> None:
        self._connection.close()

    def _parameters(self, queue: QueueRecord) -> dict[str, Any]:
        row = self._connection.execute(
            'SELECT id FROM spools WHERE project = ? AND name = ?', (queue.project, queue.name)
        ).fetchone()
        return {'spool': row and row[0], 'now': self._now}


def read_message(row: tuple[Any, ...]) -> MessageRecord:
    number, body, encoding, ttl, created, expires, hidden_until, placed, *more = row
    client, checksum, count, attributes, group, dead_letter, *claim = more
    data = body.encode() if isinstance(body, str) else body
    token, claim_ttl, claim_expires = claim
    return MessageRecord(
        encode_id(number),
        decode_body(Encoding(encoding), memoryview(data)),
        ttl,
        created,
        expires,
        hidden_until if placed is None else 0.0,
        str(uuid.UUID(bytes=client)) if client else None,
        checksum,
        count,
        ClaimRecord(token, claim_ttl, claim_expires) if token else None,
        {
            name: value
            for name, value in (
                ('attributes', attributes and decode_attributes(attributes)[0]),
                ('group', group),
                ('dead_letter', dead_letter and msgspec.json.decode(dead_letter)),
            )
            if value
        },
        0.0 if placed is None else hidden_until,
    )


class Writer:
    """A file that is made if there is none; a server may use it meanwhile.

    Raises `StoreUnavailable`.
    """

    kind = KIND
    # Ids are places in this file, which other messages may have.
    can_keep_ids = False

    def __init__(self, uri: str) -> None:
        self._path = _parse(uri)
        self._handle = open_database(self._path)
        self._database = self._handle.store

    @property
    def identity(self) -> object:
        return _identify(self._path)

    def refuses(self, queue: QueueRecord) -> str | None:
        return None

    def write_queue(self, queue: QueueRecord) -> None:
        metadata = msgspec.json.encode(queue.metadata).decode()
        self._database.write(_write_queue, queue, metadata)

    def write_messages(
        self, queue: QueueRecord, messages: Sequence[MessageRecord], *, keep_ids: bool
    ) -> int:
        number: int = self._database.write(_write_messages, queue, messages)
        return number

    def write_subscription(self, subscription: SubscriptionRecord, *, keep_ids: bool) -> None:
        self._database.write(_write_subscription, subscription)

    def write_pool(self, pool: PoolRecord) -> None:
        document = msgspec.json.encode(pool.options).decode()
        self._database.write(_write, 'pools', (*pool[:4], document))

    def write_flavor(self, flavor: FlavorRecord) -> None:
        capabilities = msgspec.json.encode(flavor.capabilities).decode()
        self._database.write(_write, 'flavors', (*flavor[:2], capabilities))

    def write_place(self, place: PlaceRecord) -> None:
        self._database.write(_write, 'catalogue', tuple(place))

    def close(self) -> None:
        self._handle.close()


def _parse(uri: str) -> str:
    path = options.find_path(uri)
    if path is None:
        raise unavailable(uri, 'it must be sqlite:////absolute/path or sqlite:///relative/path')
    return path


def _identify(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _write(cursor: sqlite3.Cursor, table: str, values: tuple[Any, ...]) -> None:
    places = ', '.join('?' * len(values))
    cursor.execute(f'INSERT OR REPLACE INTO {table} VALUES ({places})', values)


def _write_queue(cursor: sqlite3.Cursor, queue: QueueRecord, metadata: str) -> None:
    cursor.execute(_ADD_QUEUE, (queue.project, queue.kind, queue.name, metadata))


def _write_subscription(cursor: sqlite3.Cursor, one: SubscriptionRecord) -> None:
    document = msgspec.json.encode(one.options).decode()
    cursor.execute(
        _ADD_SUBSCRIPTION,
        (
            *(one.project, one.source, one.subscriber, one.ttl, one.expires - one.ttl),
            *(one.expires, one.is_confirmed, document),
        ),
    )


def _write_messages(
    cursor: Transaction, queue: QueueRecord, messages: Sequence[MessageRecord]
) -> int:
    """Insert the messages that have no receipt yet; how many."""
    spool = spools.get(cursor, queue.project, queue.name)
    if spool is None:
        spool = spools.make(cursor, queue.project, queue.name)
    delay = retry_delays.of(queue.metadata)
    retry = None if delay is None else msgspec.json.encode(delay).decode()
    keys: dict[receipts.Key, MessageRecord] = {(spool, f'copy:{one.id}'): one for one in messages}
    for known in receipts.find(cursor, keys):
        del keys[known]
    if not keys:
        return 0
    rows = [(spool, *row_of(one)) for one in keys.values()]
    last = posting.insert(cursor, rows)
    first = last - len(rows) + 1
    until = timeutils.utcnow_ts() + REMEMBER_SECONDS
    receipts.keep(
        cursor, ((key, (number, number), until) for number, key in enumerate(keys, first))
    )
    for number, one in enumerate(keys.values(), first):
        if one.claim_count or one.claim:
            claim = one.claim and get_claim(cursor, spool, one.claim, retry)
            cursor.execute(
                'UPDATE messages SET claim_count = ?, claim = ? WHERE id = ?',
                (one.claim_count, claim, number),
            )
            if one.claim:
                tallies.claimed(cursor, spool, [(1, one.claim.expires)])
        if one.extras:
            cursor.execute(_ADD_EXTRAS, (*_extras(one), number))
        if one.retry_at:
            cursor.execute('UPDATE messages SET placed = id WHERE id = ?', (number,))
        if one.due or one.retry_at:
            delays.note(cursor, spool, one.due or one.retry_at)
    tallies.update(cursor, last, len(rows))
    return len(rows)


def _extras(one: MessageRecord) -> tuple[str | None, str | None, str | None]:
    extras = one.extras
    return (
        encode_object(extras.get('attributes')),
        extras.get('group'),
        encode_object(extras.get('dead_letter')),
    )


def row_of(one: MessageRecord) -> posting.Row:
    client = uuid.UUID(one.client).bytes if one.client else None
    return (
        *(one.ttl, one.created, one.expires, one.due or one.retry_at, client, one.checksum),
        *(encode_body(one.body), one.body.encoding),
    )


def get_claim(cursor: sqlite3.Cursor, spool: int, claim: ClaimRecord, retry: str | None) -> int:
    """The row of a claim, which is made for its first message."""
    return leases.find_or_add(cursor, spool, claim.id, claim.ttl, claim.expires, retry)
