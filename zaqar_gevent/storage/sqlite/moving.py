"""Moving a queue out of a file, or into one; see `storage.moves`."""

from __future__ import annotations

import sqlite3
import urllib.parse
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from oslo_utils import timeutils

from zaqar_gevent import retry_delays
from zaqar_gevent.storage.core.arguments import find_queue
from zaqar_gevent.storage.core.completions import Call
from zaqar_gevent.storage.core.pages import encode_attributes, encode_object, find_known_as
from zaqar_gevent.storage.moves import (
    Arrival,
    Head,
    Mark,
    MarkState,
    MovedMessage,
    MoveRefused,
    NumberedSubscription,
    QueueMoved,
    Range,
    RankedIds,
    Receipt,
    decode_arrival,
    decode_mark,
    digest,
)
from zaqar_gevent.storage.records import QueueRecord, SubscriptionRecord
from zaqar_gevent.storage.sqlite import (
    copying,
    delays,
    deleting,
    leases,
    posting,
    removal,
    spools,
    tallies,
)
from zaqar_gevent.storage.sqlite.database import open_database
from zaqar_gevent.storage.sqlite.transaction import Transaction

_STORED_MARK = 'SELECT mark FROM spools WHERE project = ? AND name = ? AND mark IS NOT NULL'
_SET_MARK = 'UPDATE spools SET mark = ? WHERE id = ?'
_ARRIVAL = 'SELECT arrival FROM spools WHERE project = ? AND name = ?'

_HEADS = f"""SELECT m.id, m.expires, m.claim_count, m.delayed_until, c.token, c.expires
    FROM ({copying.VISIBLE}) v CROSS JOIN messages m ON m.id = v.id
    LEFT JOIN claims c ON c.id = m.claim AND c.expires > :now ORDER BY v.position"""

_PASSED = 'SELECT id, passed FROM messages WHERE id IN (SELECT value FROM json_each(?))'

_CARRIED = 'moved:'
"""The prefix of a receipt that came with its queue; the digest of its id follows."""

_COPIED = 'copy:'

_ATTRIBUTES = 11
"""Where the attributes are in a row of `copying.READ`."""

_RECEIPTS = 'SELECT post_id, first, expires FROM receipts WHERE spool = ? AND expires > ?'

_COLUMNS = (
    'spool, ttl, created, expires, delayed_until, client, checksum, body, encrypted, '
    'id, placed, passed, claim, claim_count, attributes, message_group, dead_letter'
)

# Not `OR REPLACE`: what that deletes is not counted.
_DROP_SUBSCRIPTION = """DELETE FROM subscriptions
    WHERE id = ? OR project = ? AND source = ? AND subscriber = ?"""
_ADD_SUBSCRIPTION = """INSERT INTO subscriptions
    (id, project, source, subscriber, ttl, created, expires, confirmed, options)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""

_EPOCH = 'SELECT name FROM epochs WHERE first <= ? ORDER BY first DESC LIMIT 1'

_FIRST_DELAYED = """SELECT min(delayed_until) FROM messages INDEXED BY messages_due
    WHERE spool = ? AND delayed_until > 0"""

_DROP_EMPTY_CLAIMS = f'DELETE FROM claims WHERE spool = ? AND {leases.HOLDS_NOTHING}'


def part(cursor: Transaction, calls: list[Call]) -> list[Call]:
    """Refuse the calls whose queues are marked; the others."""
    marks: dict[tuple[str, str], Mark | None] = {}
    allowed = []
    for call in calls:
        queue = find_queue(call.work, call.arguments)
        if queue is None:
            allowed.append(call)
            continue
        if queue not in marks:
            marks[queue] = spools.find_mark(cursor, *queue)
        mark = marks[queue]
        if mark is None:
            allowed.append(call)
        else:
            call.error = QueueMoved(*queue, mark)
    return allowed


def find_arrival(connection: sqlite3.Connection, project: str, name: str) -> Arrival | None:
    """How what clients know of a queue that came from another pool is known here."""
    row = connection.execute(_ARRIVAL, (project, name)).fetchone()
    return None if row is None or row[0] is None else decode_arrival(row[0])


def find_receipt(connection: sqlite3.Connection, project: str, name: str, made: str) -> int | None:
    """The number, as clients know it, of the first message of a post before the queue moved."""
    row = connection.execute(
        """SELECT first FROM receipts WHERE post_id = ? AND expires > ?
            AND spool = (SELECT id FROM spools WHERE project = ? AND name = ?)""",
        (f'{_CARRIED}{made}', timeutils.utcnow_ts(microsecond=True), project, name),
    ).fetchone()
    return None if row is None else int(row[0])


def open_arrived(cursor: Transaction, project: str, name: str, move: str) -> None:
    """Let a queue be used here that has come by this move."""
    spool = spools.get(cursor, project, name)
    row = cursor.execute(_STORED_MARK, (project, name)).fetchone()
    if spool is None or row is None or decode_mark(row[0]).move != move:
        return
    cursor.execute(_SET_MARK, (None, spool))
    due = cursor.execute(_FIRST_DELAYED, (spool,)).fetchone()[0]
    if due is not None:
        delays.note(cursor, spool, due)


def forget(cursor: Transaction, project: str, name: str) -> None:
    """Take the mark of a queue away that had left, and has been made here anew."""
    row = cursor.execute(_STORED_MARK, (project, name)).fetchone()
    if row is not None and decode_mark(row[0]).state is MarkState.LEFT:
        cursor.execute(
            'UPDATE spools SET mark = NULL WHERE project = ? AND name = ?', (project, name)
        )


class _Place:
    """A queue in a file."""

    def __init__(self, path: str, queue: QueueRecord) -> None:
        self._path = path
        self._queue = queue
        self._scope = (queue.project, queue.name)
        self._handle = open_database(path)
        self._database = self._handle.store

    def get_mark(self) -> Mark | None:
        return self._database.read(spools.find_mark, *self._scope)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._handle.close()


class Origin(_Place):
    """See `moves.Origin`."""

    room = 2**32

    @property
    def ranked(self) -> RankedIds | None:
        arrival: Arrival | None = self._database.read(find_arrival, *self._scope)
        return None if arrival is None else arrival.ranked

    def get_last_numbers(self) -> tuple[int, int]:
        last: tuple[int, int] = self._database.read(_get_last_numbers)
        return last

    def snapshot(self) -> Snapshot:
        return Snapshot(self._path, self._queue)

    def close_queue(self, mark: Mark) -> None:
        # Writers take turns: what had been begun before is committed.
        self._database.write(_close, *self._scope, mark)

    def reopen(self, move: str) -> None:
        self._database.write(_reopen, *self._scope, move)

    def commit(self, mark: Mark) -> bool:
        return bool(self._database.write(_commit, *self._scope, mark))

    def leave(self, mark: Mark) -> None:
        self._database.write(_leave, *self._scope, mark)


class Destination(_Place):
    """See `moves.Destination`."""

    _arrival: Arrival
    _move = ''

    def prepare(
        self, queue: QueueRecord, mark: Mark, last: tuple[int, int], ranked: RankedIds | None
    ) -> Arrival:
        self._arrival = self._database.write(_prepare, *self._scope, mark, last, ranked)
        self._move = mark.move
        return self._arrival

    def write(self, messages: Sequence[MovedMessage]) -> None:
        retry = retry_delays.of(self._queue.metadata)
        document = None if retry is None else msgspec.json.encode(retry).decode()
        self._write(_write, messages, self._arrival, document)

    def remove(self, numbers: Sequence[int]) -> None:
        own = [self._arrival.messages.inward(number) for number in numbers]
        self._write(_remove, msgspec.json.encode(own).decode())

    def write_receipts(self, receipts: Sequence[Receipt]) -> None:
        self._write(_write_receipts, receipts)

    def write_subscriptions(self, subscriptions: Sequence[NumberedSubscription]) -> None:
        self._write(_write_subscriptions, subscriptions, self._arrival)

    def discard(self) -> None:
        self._write(_discard, *self._scope)

    def _write(self, work: Callable[..., None], *arguments: Any) -> None:
        self._database.write(_write_arriving, *self._scope, self._move, work, arguments)

    def finish(self) -> None:
        self._write(_drop_empty_claims)

    def open(self, move: str) -> None:
        self._database.write(open_arrived, *self._scope, move)


class Snapshot:
    """See `moves.Snapshot`."""

    def __init__(self, path: str, queue: QueueRecord) -> None:
        self._queue = queue
        name = f'file:{urllib.parse.quote(path)}?mode=ro'
        self._connection = sqlite3.connect(name, uri=True, isolation_level=None)
        self._connection.execute('BEGIN')
        row = self._connection.execute(
            'SELECT id FROM spools WHERE project = ? AND name = ?', (queue.project, queue.name)
        ).fetchone()
        self._now = timeutils.utcnow_ts(microsecond=True)
        self._parameters = {'spool': row and row[0], 'now': self._now}
        self._arrival = find_arrival(self._connection, queue.project, queue.name)

    def count(self) -> int:
        return int(self._connection.execute(copying.COUNT, self._parameters).fetchone()[0])

    def heads(self, *, delayed: bool) -> Iterator[Head]:
        for own, *state in self._connection.execute(_HEADS, self._parameters):
            yield Head(self._outward(own), own, hash(tuple(state)))
        if delayed:
            ids = array(
                'q', (row[0] for row in self._connection.execute(copying.DELAYED, self._parameters))
            )
            for own in ids:
                yield Head(self._outward(own), own, 0)

    def read(self, heads: Sequence[Head]) -> list[MovedMessage]:
        ids = msgspec.json.encode([head.own for head in heads]).decode()
        passed = dict(self._connection.execute(_PASSED, (ids,)).fetchall())
        found = []
        for row in self._connection.execute(copying.READ, {**self._parameters, 'ids': ids}):
            record = copying.read_message(row)
            own, placed = row[0], row[7]
            position = None
            if not record.due:
                position = self._outward(own if placed is None else placed)
            number = self._outward(own)
            known_as = None
            if self._arrival is not None and self._arrival.messages.has(own):
                known_as = find_known_as(row[_ATTRIBUTES])
            found.append(MovedMessage(number, position, record, passed.get(own), known_as))
        return found

    def receipts(self) -> Iterator[Receipt]:
        rows = self._connection.execute(_RECEIPTS, (self._parameters['spool'], self._now))
        for post_id, first, expires in rows:
            if post_id.startswith(_CARRIED):
                yield Receipt(post_id.removeprefix(_CARRIED), first, expires)
            elif not post_id.startswith(_COPIED):
                yield Receipt(digest(post_id), self._outward(first), expires)

    def subscriptions(self) -> Iterator[NumberedSubscription]:
        queue = self._queue
        rows = self._connection.execute(
            copying.SUBSCRIPTIONS, (queue.project, queue.name, self._now)
        )
        for own, subscriber, ttl, expires, confirmed, document in rows:
            number, known_as = own, ''
            if self._arrival is not None:
                number = self._arrival.subscriptions.outward(own)
                if self._arrival.subscriptions.has(own):
                    known_as = self._arrival.subscription_ids.get(number, '')
            options = msgspec.json.decode(document)
            yield NumberedSubscription(
                number,
                SubscriptionRecord(
                    *(known_as, queue.project, queue.name, subscriber, ttl, expires),
                    bool(confirmed),
                    options,
                ),
            )

    def close(self) -> None:
        self._connection.close()

    def _outward(self, own: int) -> int:
        return own if self._arrival is None else self._arrival.messages.outward(own)


def _get_last_numbers(connection: sqlite3.Connection) -> tuple[int, int]:
    row = connection.execute(
        "SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'subscriptions'"
    ).fetchone()
    return removal.get_last_id(connection), int(row[0])


def _close(cursor: Transaction, project: str, name: str, mark: Mark) -> None:
    found = spools.find_mark(cursor, project, name)
    if found is not None and found.state in (MarkState.CLOSING, MarkState.MOVED):
        raise MoveRefused('another migration of this queue is at work')
    redrive = cursor.execute(
        """SELECT 1 FROM redrives WHERE next_at IS NOT NULL
            AND (project = ? AND queue = ? OR project = ? AND target = ?)""",
        (project, name, project, name),
    ).fetchone()
    if redrive is not None:
        raise MoveRefused('a redrive of dead letters out of it, or into it, is not over')
    spool = spools.get(cursor, project, name)
    if spool is None:
        spool = spools.make(cursor, project, name)
    cursor.execute(_SET_MARK, (mark.encode(), spool))
    # Nothing becomes visible meanwhile.
    cursor.execute('UPDATE delays SET due = max(due, ?) WHERE spool = ?', (mark.until, spool))


def _reopen(cursor: Transaction, project: str, name: str, move: str) -> None:
    row = cursor.execute(_STORED_MARK, (project, name)).fetchone()
    if row is None:
        return
    mark = decode_mark(row[0])
    if mark.move == move and mark.state is MarkState.CLOSING:
        spool = spools.get(cursor, project, name)
        cursor.execute(_SET_MARK, (None, spool))
        cursor.execute('UPDATE delays SET due = 0 WHERE spool = ?', (spool,))


def _commit(cursor: Transaction, project: str, name: str, mark: Mark) -> bool:
    found = spools.find_mark(cursor, project, name)
    if found is None or found.move != mark.move or found.state is not MarkState.CLOSING:
        return False
    spool = spools.get(cursor, project, name)
    cursor.execute(_SET_MARK, (mark.encode(), spool))
    cursor.execute('DELETE FROM delays WHERE spool = ?', (spool,))
    return True


def _leave(cursor: Transaction, project: str, name: str, mark: Mark) -> None:
    found = spools.find_mark(cursor, project, name)
    if found is None or found.move != mark.move or found.state is not MarkState.MOVED:
        return
    spools.unmap(cursor, project, name)
    cursor.execute('DELETE FROM subscriptions WHERE project = ? AND source = ?', (project, name))
    cursor.execute(_SET_MARK, (mark.encode(), spools.make(cursor, project, name)))


def _prepare(
    cursor: Transaction,
    project: str,
    name: str,
    mark: Mark,
    last: tuple[int, int],
    ranked: RankedIds | None,
) -> Arrival:
    spools.unmap(cursor, project, name)
    cursor.execute('DELETE FROM subscriptions WHERE project = ? AND source = ?', (project, name))
    spool = spools.make(cursor, project, name)
    # A span of numbers for those of the other store, as many as may be needed.
    room = max(last[0], tallies.STEP)
    shift = _reserve(cursor, 'messages', room)
    tallies.update(cursor, shift + room, room)
    subscription_shift = _reserve(cursor, 'subscriptions', last[1])
    epoch = cursor.execute(_EPOCH, (shift + 1,)).fetchone()[0]
    arrival = Arrival(Range(room, shift), Range(last[1], subscription_shift), epoch, ranked=ranked)
    cursor.execute(
        'UPDATE spools SET mark = ?, arrival = ? WHERE id = ?',
        (mark.encode(), arrival.encode(), spool),
    )
    return arrival


def _reserve(cursor: Transaction, table: str, count: int) -> int:
    """Take numbers of a table's sequence; the last one that was given before."""
    row = cursor.execute('SELECT seq FROM sqlite_sequence WHERE name = ?', (table,)).fetchone()
    if row is None:
        cursor.execute('INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)', (table, count))
        return 0
    cursor.execute(
        'UPDATE sqlite_sequence SET seq = ? WHERE name = ?', (int(row[0]) + count, table)
    )
    return int(row[0])


def _write_arriving(
    cursor: Transaction,
    project: str,
    name: str,
    move: str,
    work: Callable[..., None],
    arguments: Sequence[Any],
) -> None:
    """`work(cursor, spool, *arguments)` for the queue that arrives by this move."""
    mark = spools.find_mark(cursor, project, name)
    if mark is None or (mark.state, mark.move) != (MarkState.ARRIVING, move):
        raise MoveRefused('another migration of this queue has begun')
    work(cursor, spools.get(cursor, project, name), *arguments)


def _write(
    cursor: Transaction,
    spool: int,
    messages: Sequence[MovedMessage],
    arrival: Arrival,
    retry: str | None,
) -> None:
    inward = arrival.messages.inward
    rows = []
    held = []
    for one in messages:
        record = one.record
        claim = None
        if record.claim is not None:
            claim = copying.get_claim(cursor, spool, record.claim, retry)
            held.append(record.claim.expires)
        own = inward(one.number)
        placed = None
        # One that waits for its retry has a place, which is told by this column.
        if one.position is not None and (one.position != one.number or record.retry_at):
            placed = inward(one.position)
        rows.append(
            (
                *(spool, *copying.row_of(record), own, placed, one.passed, claim),
                record.claim_count,
                encode_attributes(record.extras.get('attributes'), one.known_as),
                record.extras.get('group'),
                encode_object(record.extras.get('dead_letter')),
            )
        )
    posting.insert(cursor, rows, _COLUMNS)
    for row in rows:
        tallies.restored(cursor, row[9])
    tallies.claimed(cursor, spool, [(1, expires) for expires in held])


def _drop_empty_claims(cursor: Transaction, spool: int) -> None:
    """Remove what is left of claims that were renewed or ended while they were copied."""
    cursor.execute(_DROP_EMPTY_CLAIMS, (spool,))


def _discard(cursor: Transaction, spool: int, project: str, name: str) -> None:
    spools.unmap(cursor, project, name)
    cursor.execute('DELETE FROM subscriptions WHERE project = ? AND source = ?', (project, name))


def _remove(cursor: Transaction, spool: int, ids: str) -> None:
    query = 'SELECT id FROM messages WHERE id IN (SELECT value FROM json_each(?)) AND spool = ?'
    deleting.delete_found(cursor, query, (ids, spool))


def _write_receipts(cursor: Transaction, spool: int, receipts: Sequence[Receipt]) -> None:
    cursor.executemany(
        'INSERT OR REPLACE INTO receipts (spool, post_id, first, last, expires) '
        'VALUES (?, ?, ?, ?, ?)',
        [(spool, f'{_CARRIED}{one.digest}', one.first, one.first, one.expires) for one in receipts],
    )


def _write_subscriptions(
    cursor: Transaction, spool: int, subscriptions: Sequence[NumberedSubscription], arrival: Arrival
) -> None:
    named = {number: one.id for number, one in subscriptions if one.id}
    if named:
        named_arrival = msgspec.structs.replace(arrival, subscription_ids=named)
        cursor.execute(
            'UPDATE spools SET arrival = ? WHERE id = ?', (named_arrival.encode(), spool)
        )
    for number, one in subscriptions:
        key = (arrival.subscriptions.inward(number), one.project, one.source, one.subscriber)
        cursor.execute(_DROP_SUBSCRIPTION, key)
        cursor.execute(
            _ADD_SUBSCRIPTION,
            (
                *key,
                *(one.ttl, one.expires - one.ttl, one.expires, one.is_confirmed),
                msgspec.json.encode(one.options).decode(),
            ),
        )
