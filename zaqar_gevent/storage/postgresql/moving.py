"""Moving a queue out of a database, or into one; see `storage.moves`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import psycopg
from psycopg.rows import tuple_row

from zaqar_gevent import retry_delays
from zaqar_gevent.storage.core.pages import (
    encode_attributes,
    encode_body,
    encode_object,
    find_known_as,
)
from zaqar_gevent.storage.errors import StoreUnavailable
from zaqar_gevent.storage.moves import (
    Arrival,
    Head,
    Mark,
    MarkState,
    MovedMessage,
    MoveRefused,
    NumberedSubscription,
    Range,
    RankedIds,
    Receipt,
    decode_arrival,
    decode_mark,
)
from zaqar_gevent.storage.postgresql import copying, schema
from zaqar_gevent.storage.postgresql.addresses import Address
from zaqar_gevent.storage.postgresql.claims import encode_retry
from zaqar_gevent.storage.records import (
    QueueRecord,
    SubscriptionRecord,
)

_END_SECONDS = 5.0
"""How long transactions are waited for that began before a queue was closed."""

_FETCH = 500
_GAP = 2**20
"""Numbers that others may take while a span of them is being reserved."""

_BATCH = 65536
_ATTRIBUTES = 10
"""Where the attributes are in a row that describes a message."""

_SPOOL = 'SELECT id, mark FROM {schema}.spools WHERE project = %s AND name = %s'
_NOW = 'SELECT extract(epoch FROM clock_timestamp())::float8'

_RUNNING_REDRIVES = """SELECT 1 FROM {schema}.redrives WHERE next_at IS NOT NULL
    AND (project = %s AND queue = %s OR project = %s AND target = %s)"""

_COUNT = """SELECT (SELECT count(*) FROM {schema}.messages WHERE spool = %(spool)s)
    + (SELECT count(*) FROM {schema}.delayed WHERE spool = %(spool)s)"""

_VISIBLE_HEADS = """SELECT m.position, coalesce(m.number, m.position), m.expires, m.claim_count,
        m.retry_at, coalesce(c.parent, c.token), c.expires
    FROM {schema}.messages m LEFT JOIN {schema}.claims c
        ON c.token = m.claim AND c.expires > %(now)s AND c.waits IS NULL
    WHERE m.spool = %(spool)s AND m.expires > %(now)s ORDER BY m.position"""

_DELAYED_HEADS = """SELECT d.number FROM {schema}.delayed d
    WHERE d.spool = %(spool)s AND d.expires > %(now)s ORDER BY d.due, d.number"""

_VISIBLE = """SELECT m.position, coalesce(m.number, m.position), m.body, m.encoding, m.ttl,
        m.created, m.expires, 0::float8, m.client, m.checksum, m.claim_count, m.attributes,
        nullif(m.message_group, ''), m.dead_letter,
        CASE WHEN m.retry_at > %(now)s THEN m.retry_at ELSE 0 END,
        coalesce(c.parent, c.token), c.ttl, c.expires, NULL::text
    FROM {schema}.messages m LEFT JOIN {schema}.claims c
        ON c.token = m.claim AND c.expires > %(now)s AND c.waits IS NULL
    WHERE m.spool = %(spool)s AND m.position = ANY (%(numbers)s) ORDER BY m.position"""

_DELAYED = """SELECT NULL::bigint, d.number, d.body, d.encoding, d.ttl, d.created, d.expires, d.due,
        d.client, d.checksum, 0, d.attributes, d.message_group, NULL::text, 0::float8, NULL::uuid,
        NULL::int, NULL::float8, d.passed
    FROM {schema}.delayed d
    WHERE d.spool = %(spool)s AND d.number = ANY (%(numbers)s) ORDER BY d.due, d.number"""

_RECEIPTS = """SELECT id, first, expires FROM {schema}.receipts
    WHERE spool = %(spool)s AND expires > %(now)s"""

_SUBSCRIPTIONS = """SELECT id, subscriber, ttl, expires, confirmed, options
    FROM {schema}.subscriptions
    WHERE project = %s AND source = %s AND expires > %s ORDER BY id"""

_OTHERS = """SELECT pid, xact_start FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
        AND usename = current_user"""

_WRITE_VISIBLE = """INSERT INTO {schema}.messages
    (spool, position, number, created, expires, claim, client, ttl, claim_count, encoding, returned,
        checksum, attributes, message_group, dead_letter, retry_at, body)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""

_WRITE_DELAYED = """INSERT INTO {schema}.delayed
    (number, spool, due, created, expires, client, ttl, encoding, checksum, attributes,
        message_group, passed, body)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""

# Leases that were renewed or ended while their messages were copied are left without any.
_END_LEASES = (
    """DELETE FROM {schema}.claims c
        WHERE c.spool = %(spool)s AND (c.parent IS NOT NULL OR c.waits IS NOT NULL)
            AND NOT EXISTS (SELECT 1 FROM {schema}.messages m WHERE m.claim = c.token)""",
    """UPDATE {schema}.claims c SET expires = p.expires, ttl = p.ttl
        FROM (SELECT DISTINCT ON (parent) parent, expires, ttl FROM {schema}.claims
            WHERE spool = %(spool)s AND parent IS NOT NULL ORDER BY parent, expires DESC) p
        WHERE c.token = p.parent
            AND NOT EXISTS (SELECT 1 FROM {schema}.messages m WHERE m.claim = c.token)""",
    """DELETE FROM {schema}.claims c WHERE c.spool = %(spool)s AND c.parent IS NULL
        AND NOT EXISTS (SELECT 1 FROM {schema}.messages m WHERE m.claim = c.token)
        AND NOT EXISTS (SELECT 1 FROM {schema}.claims p WHERE p.parent = c.token)""",
)

_WRITE_RECEIPT = """INSERT INTO {schema}.receipts (spool, id, first, expires)
    VALUES (%s, %s, %s, %s) ON CONFLICT (spool, id) DO NOTHING"""

_WRITE_SUBSCRIPTION = """INSERT INTO {schema}.subscriptions
    (id, project, source, subscriber, ttl, created, expires, confirmed, options)
    OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"""

_REMOVE = """WITH gone AS (
        DELETE FROM {schema}.messages WHERE spool = %(spool)s AND position = ANY (
            %(numbers)s || ARRAY(SELECT position FROM {schema}.messages
                WHERE number = ANY (%(numbers)s) AND spool = %(spool)s))
        RETURNING claim)
    INSERT INTO {schema}.changes (spool, total, held)
    SELECT %(spool)s, -count(*), -count(claim) FROM gone"""


class _Place:
    """A queue in a database, by a connection of its own."""

    def __init__(self, address: Address, queue: QueueRecord) -> None:
        self._address = address
        self._queue = queue
        self._scope = (queue.project, queue.name)
        self._connection = connect(address)

    def get_mark(self) -> Mark | None:
        rows = self._execute(_SPOOL, self._scope)
        if not rows or rows[0][1] is None:
            return None
        mark = decode_mark(rows[0][1])
        return mark if mark.is_in_effect(self._get_time()) else None

    def close(self) -> None:
        self._connection.close()

    def _get_time(self) -> float:
        return float(self._execute(_NOW)[0][0])

    def _statement(self, text: str) -> Any:
        return schema.compose(text, self._address.schema)

    def _execute(self, text: str, parameters: Any = ()) -> list[Any]:
        with self._translated():
            cursor = self._connection.execute(self._statement(text), parameters)
            return cursor.fetchall() if cursor.description else []

    def _execute_many(self, text: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            with self._translated(), self._connection.cursor() as cursor:
                cursor.executemany(self._statement(text), rows)

    @contextmanager
    def _transaction(self) -> Iterator[tuple[int | None, Mark | None]]:
        """A transaction with the lock of the queue; its spool and mark."""
        with self._translated(), self._connection.transaction():
            name = f'lock_{schema.digest()}'
            self._execute(f'SELECT {{schema}}.{name}(%s, %s)', self._scope)
            rows = self._execute(f'{_SPOOL} FOR UPDATE', self._scope)
            if not rows:
                yield None, None
                return
            spool, mark = rows[0]
            yield spool, None if mark is None else decode_mark(mark)

    def _make_spool(self) -> int:
        [(spool,)] = self._execute(
            'INSERT INTO {schema}.spools (project, name) VALUES (%s, %s) RETURNING id', self._scope
        )
        return int(spool)

    def _unmap(self, spool: int | None) -> None:
        """Part the queue from its messages, which are removed little by little."""
        if spool is not None:
            self._execute('DELETE FROM {schema}.spools WHERE id = %s', (spool,))
            self._execute('INSERT INTO {schema}.doomed_spools (id) VALUES (%s)', (spool,))
        self._execute(
            'DELETE FROM {schema}.subscriptions WHERE project = %s AND source = %s', self._scope
        )

    def _set_mark(self, spool: int | None, mark: Mark | None) -> None:
        self._execute(
            'UPDATE {schema}.spools SET mark = %s WHERE id = %s', (mark and mark.encode(), spool)
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise unavailable(self._address, error) from None


class Origin(_Place):
    """See `moves.Origin`."""

    room = 2**40

    @property
    def ranked(self) -> RankedIds | None:
        rows = self._execute(
            'SELECT arrival FROM {schema}.spools WHERE project = %s AND name = %s', self._scope
        )
        return decode_arrival(rows[0][0]).ranked if rows and rows[0][0] else None

    def get_last_numbers(self) -> tuple[int, int]:
        [(batches, subscriptions)] = self._execute(
            'SELECT (SELECT last_value FROM {schema}.batches), '
            '(SELECT last_value FROM {schema}.subscriptions_id_seq)'
        )
        return batches * _BATCH + _BATCH - 1, subscriptions

    def snapshot(self) -> Snapshot:
        return Snapshot(self._address, self._queue)

    def close_queue(self, mark: Mark) -> None:
        with self._transaction() as (spool, found):
            now = self._get_time()
            if (
                found is not None
                and found.is_in_effect(now)
                and found.state in (MarkState.CLOSING, MarkState.MOVED)
            ):
                raise MoveRefused('another migration of this queue is at work')
            closed = self._make_spool() if spool is None else spool
            # Its own clock counts.
            until = now + mark.until - mark.since
            self._set_mark(closed, msgspec.structs.replace(mark, until=until))
        try:
            self._wait_for_others()
            if self._execute(_RUNNING_REDRIVES, (*self._scope, *self._scope)):
                raise MoveRefused('a redrive of dead letters out of it, or into it, is not over')
        except BaseException:
            self.reopen(mark.move)
            raise

    def reopen(self, move: str) -> None:
        with self._transaction() as (spool, mark):
            if mark is not None and (mark.state, mark.move) == (MarkState.CLOSING, move):
                self._set_mark(spool, None)

    def commit(self, mark: Mark) -> bool:
        with self._transaction() as (spool, found):
            if found is None or (found.state, found.move) != (MarkState.CLOSING, mark.move):
                return False
            if not found.is_in_effect(self._get_time()):
                return False
            self._set_mark(spool, mark)
            return True

    def leave(self, mark: Mark) -> None:
        with self._transaction() as (spool, found):
            if found is None or (found.state, found.move) != (MarkState.MOVED, mark.move):
                return
            self._unmap(spool)
            self._set_mark(self._make_spool(), mark)

    def _wait_for_others(self) -> None:
        """Until the transactions are over that may not have seen that the queue is closed."""
        others = set(self._execute(_OTHERS))
        deadline = time.monotonic() + _END_SECONDS
        while others:
            others &= set(self._execute(_OTHERS))
            if others and time.monotonic() > deadline:
                told = ', '.join(str(pid) for pid, _ in sorted(others))
                raise MoveRefused(
                    f'transactions of the same user do not end in PostgreSQL (of the processes '
                    f'{told}, see pg_stat_activity). They may write to the queue'
                )
            time.sleep(0.002)


class Destination(_Place):
    """See `moves.Destination`."""

    _arrival: Arrival
    _move = ''

    def prepare(
        self, queue: QueueRecord, mark: Mark, last: tuple[int, int], ranked: RankedIds | None
    ) -> Arrival:
        with self._transaction() as (spool, _):
            self._unmap(spool)
            arriving = self._make_spool()
            # No epoch begins meanwhile: the numbers are of the one that there is.
            self._execute('LOCK TABLE {schema}.epochs IN SHARE ROW EXCLUSIVE MODE')
            messages = Range(last[0], self._reserve('batches', last[0], _BATCH))
            subscriptions = Range(last[1], self._reserve('subscriptions_id_seq', last[1], 1))
            [(epoch,)] = self._execute(
                'SELECT name FROM {schema}.epochs ORDER BY first DESC LIMIT 1'
            )
            self._arrival = Arrival(messages, subscriptions, epoch, ranked=ranked)
            self._set_mark(arriving, mark)
            self._set_arrival(arriving)
        self._move = mark.move
        return self._arrival

    def write(self, messages: Sequence[MovedMessage]) -> None:
        inward = self._arrival.messages.inward
        with self._arriving() as spool:
            visible, delayed = [], []
            retry = encode_retry(retry_delays.of(self._queue.metadata))
            leases = copying.Leases(spool, retry, self._find_leases)
            now = self._get_time()
            for one in messages:
                body = bytes(encode_body(one.record.body))
                if one.position is None:
                    delayed.append(_delayed_row(spool, inward(one.number), one, body))
                    continue
                place = inward(one.position)
                number = None if one.position == one.number else inward(one.number)
                lease = leases.get(one.record, now)
                visible.append(_visible_row(spool, place, number, one, lease, body))
            self._execute_many(copying.WRITE_LEASE, leases.new)
            self._execute_many(_WRITE_VISIBLE, visible)
            self._execute_many(_WRITE_DELAYED, delayed)
            held = sum(one.record.claim is not None for one in messages)
            self._execute(
                'INSERT INTO {schema}.changes (spool, total, held) VALUES (%s, %s, %s)',
                (spool, len(messages), held),
            )

    def remove(self, numbers: Sequence[int]) -> None:
        own = [self._arrival.messages.inward(number) for number in numbers]
        with self._arriving() as spool:
            self._execute(_REMOVE, {'spool': spool, 'numbers': own})

    def write_receipts(self, receipts: Sequence[Receipt]) -> None:
        inward = self._arrival.messages.inward
        with self._arriving() as spool:
            self._execute_many(
                _WRITE_RECEIPT,
                [
                    (spool, uuid.UUID(one.digest), inward(one.first), one.expires)
                    for one in receipts
                ],
            )

    def write_subscriptions(self, subscriptions: Sequence[NumberedSubscription]) -> None:
        inward = self._arrival.subscriptions.inward
        with self._arriving() as spool:
            named = {number: one.id for number, one in subscriptions if one.id}
            if named:
                self._arrival = msgspec.structs.replace(self._arrival, subscription_ids=named)
                self._set_arrival(spool)
            self._execute_many(
                _WRITE_SUBSCRIPTION,
                [
                    (
                        *(inward(number), one.project, one.source, one.subscriber, one.ttl),
                        *(one.expires - one.ttl, one.expires, one.is_confirmed),
                        msgspec.json.encode(one.options).decode(),
                    )
                    for number, one in subscriptions
                ],
            )

    def finish(self) -> None:
        with self._arriving() as spool:
            for statement in _END_LEASES:
                self._execute(statement, {'spool': spool})
            # Some may have been due, or have ended, before they came.
            self._execute(f'SELECT {{schema}}.reset_floors_{schema.digest()}()')

    def open(self, move: str) -> None:
        with self._transaction() as (spool, mark):
            if mark is not None and (mark.state, mark.move) == (MarkState.ARRIVING, move):
                self._set_mark(spool, None)

    def discard(self) -> None:
        with self._arriving() as spool:
            self._unmap(spool)

    def _find_leases(self, spool: int, claim: uuid.UUID) -> dict[float, uuid.UUID]:
        """The leases of a claim by their ends."""
        rows = self._execute(copying.FIND_LEASE, (spool, claim, claim))
        return {expires: token for token, expires in rows}

    @contextmanager
    def _arriving(self) -> Iterator[int]:
        with self._transaction() as (spool, mark):
            if mark is None or (mark.state, mark.move) != (MarkState.ARRIVING, self._move):
                raise MoveRefused('another migration of this queue has begun')
            assert spool is not None
            yield spool

    def _set_arrival(self, spool: int) -> None:
        self._execute(
            'UPDATE {schema}.spools SET arrival = %s WHERE id = %s',
            (self._arrival.encode(), spool),
        )

    def _reserve(self, sequence: str, count: int, unit: int) -> int:
        """Take so many numbers, which nobody else gets; what is added to those of elsewhere."""
        self._execute(
            'SELECT pg_advisory_xact_lock(hashtext(%s))', (f'{self._address.schema} {sequence}',)
        )
        [(last,)] = self._execute(f'SELECT last_value FROM {{schema}}.{sequence}')
        first = last + _GAP
        self._execute(
            'SELECT setval(%s::regclass, %s)',
            (f'{schema.quote(self._address.schema)}.{sequence}', first + count // unit + 2),
        )
        return int(first * unit)


class Snapshot(_Place):
    """See `moves.Snapshot`."""

    def __init__(self, address: Address, queue: QueueRecord) -> None:
        super().__init__(address, queue)
        self._now = self._get_time()
        self._execute('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
        rows = self._execute(
            'SELECT id, arrival FROM {schema}.spools WHERE project = %s AND name = %s', self._scope
        )
        spool, arrival = rows[0] if rows else (None, None)
        self._parameters = {'spool': spool, 'now': self._now}
        self._arrival = None if arrival is None else decode_arrival(arrival)

    def count(self) -> int:
        return int(self._execute(_COUNT, self._parameters)[0][0])

    def heads(self, *, delayed: bool) -> Iterator[Head]:
        for position, number, *state in self._fetch(_VISIBLE_HEADS):
            yield Head(self._outward(number), position, hash(tuple(state)))
        if delayed:
            for (number,) in self._fetch(_DELAYED_HEADS):
                # Told from the visible ones by its sign.
                yield Head(self._outward(number), -number, 0)

    def read(self, heads: Sequence[Head]) -> list[MovedMessage]:
        visible = [head.own for head in heads if head.own >= 0]
        delayed = [-head.own for head in heads if head.own < 0]
        found: list[MovedMessage] = []
        for statement, numbers in ((_VISIBLE, visible), (_DELAYED, delayed)):
            if numbers:
                parameters = {**self._parameters, 'numbers': numbers}
                with self._translated():
                    rows = self._connection.execute(
                        self._statement(statement), parameters, binary=True
                    ).fetchall()
                found += map(self._present, rows)
        return found

    def receipts(self) -> Iterator[Receipt]:
        for known, first, expires in self._execute(_RECEIPTS, self._parameters):
            yield Receipt(known.hex, self._outward(first), expires)

    def subscriptions(self) -> Iterator[NumberedSubscription]:
        for row in self._execute(_SUBSCRIPTIONS, (*self._scope, self._now)):
            own, subscriber, ttl, expires, confirmed, options = row
            number, known_as = own, ''
            if self._arrival is not None:
                number = self._arrival.subscriptions.outward(own)
                if self._arrival.subscriptions.has(own):
                    known_as = self._arrival.subscription_ids.get(number, '')
            yield NumberedSubscription(
                number,
                SubscriptionRecord(
                    *(known_as, *self._scope, subscriber, ttl, expires),
                    confirmed,
                    msgspec.json.decode(options),
                ),
            )

    def _fetch(self, statement: str) -> Iterator[tuple[Any, ...]]:
        with (
            self._translated(),
            self._connection.cursor('heads', row_factory=tuple_row) as cursor,
        ):
            cursor.itersize = _FETCH
            cursor.execute(self._statement(statement), self._parameters)
            yield from cursor

    def _present(self, row: tuple[Any, ...]) -> MovedMessage:
        position, *described, passed = row
        place = None if position is None else self._outward(position)
        record = copying.read_message(tuple(described))
        number = self._outward(described[0])
        known_as = None
        if self._arrival is not None and self._arrival.messages.has(described[0]):
            known_as = find_known_as(described[_ATTRIBUTES])
        return MovedMessage(number, place, record, passed, known_as)

    def _outward(self, own: int) -> int:
        return own if self._arrival is None else self._arrival.messages.outward(own)


def connect(address: Address) -> Any:
    """A connection; raises `StoreUnavailable`."""
    reasons = []
    for parameters in address.attempts():
        given = {'application_name': 'zaqar_gevent', 'target_session_attrs': 'read-write'}
        try:
            return psycopg.connect(autocommit=True, **{**given, **parameters})
        except psycopg.Error as error:
            reasons.append(' '.join(str(error).split()))
    raise StoreUnavailable(address.store, '; '.join(reasons))


def unavailable(address: Address, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(address.store, ' '.join(str(error).split()))


def _visible_row(
    spool: int,
    place: int,
    number: int | None,
    moved: MovedMessage,
    lease: uuid.UUID | None,
    body: bytes,
) -> tuple[Any, ...]:
    one = moved.record
    return (
        *(spool, place, number, one.created, one.expires),
        lease,
        one.client and uuid.UUID(one.client),
        *(one.ttl, one.claim_count, int(one.body.encoding)),
        bool(one.claim_count or lease),
        one.checksum,
        encode_attributes(one.extras.get('attributes'), moved.known_as),
        one.extras.get('group'),
        encode_object(one.extras.get('dead_letter')),
        one.retry_at if lease and one.claim is None else None,
        body,
    )


def _delayed_row(spool: int, number: int, moved: MovedMessage, body: bytes) -> tuple[Any, ...]:
    one = moved.record
    return (
        *(number, spool, one.due, one.created, one.expires),
        one.client and uuid.UUID(one.client),
        *(one.ttl, int(one.body.encoding), one.checksum),
        encode_attributes(one.extras.get('attributes'), moved.known_as),
        one.extras.get('group'),
        moved.passed,
        body,
    )
