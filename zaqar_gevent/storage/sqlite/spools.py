"""The spools that hold the messages of queues, and the queue controllers of the data driver.

The rows that say which queues exist may be in another store: with pools they always are. When they
are in the same file, a queue and its messages go in one transaction.
"""

from __future__ import annotations

import math
import sqlite3
from typing import TYPE_CHECKING, Any

import msgspec
from oslo_utils import timeutils
from zaqar.storage import base, errors

from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.core.pages import encode_id
from zaqar_gevent.storage.moves import Mark, QueueMoved, decode_mark
from zaqar_gevent.storage.sqlite import epochs, tallies
from zaqar_gevent.storage.sqlite.documents import SPOOL

if TYPE_CHECKING:
    from zaqar_gevent.storage.sqlite.driver import DataDriver

_RESOLVE = """SELECT json_group_array(json_array(s.id, EXISTS (
        SELECT 1 FROM queues q WHERE q.project = j.project
        AND q.kind IN ('queue', 'topic') AND q.name = j.name)))
    FROM (SELECT key, json_extract(value, '$[0]') AS project, json_extract(value, '$[1]') AS name
          FROM json_each(?) ORDER BY key) j
    LEFT JOIN spools s ON s.project = j.project AND s.name = j.name"""

_RESOLVE_ONE = """SELECT (SELECT id FROM spools WHERE project = ?1 AND name = ?2), EXISTS (
    SELECT 1 FROM queues WHERE project = ?1 AND kind IN ('queue', 'topic') AND name = ?2)"""

_EDGE = """SELECT id FROM (
    SELECT id, position FROM messages INDEXED BY messages_free
    WHERE spool = {spool} AND claim IS NULL AND delayed_until = 0 AND expires > :now
    UNION ALL
    SELECT id, position FROM ({delayed})
    UNION ALL
    SELECT id, position FROM messages INDEXED BY messages_held_in_order
    WHERE spool = {spool} AND claim IS NOT NULL AND expires > :now
    ORDER BY position {order} LIMIT 1)"""
_DELAYED = """SELECT id, position, placed, delayed_until
    FROM messages INDEXED BY messages_delayed
    WHERE spool = {spool} AND delayed_until > 0 AND expires > :now"""
_EDGES = {
    order: _EDGE.format(spool=SPOOL, order=order, delayed=_DELAYED.format(spool=SPOOL))
    for order in ('ASC', 'DESC')
}

_WAITING_STEP = 1000
"""Delayed messages that `stats` looks at for some that were visible once, from either end."""

_WAITING = f"""SELECT id, position FROM (
        {_DELAYED} ORDER BY position {{order}} LIMIT {_WAITING_STEP})
    WHERE placed IS NOT NULL OR delayed_until <= :now"""
_VISIBLE_EDGES = {
    order: _EDGE.format(spool=SPOOL, order=order, delayed=_WAITING.format(spool=SPOOL, order=order))
    for order in ('ASC', 'DESC')
}

# Visible messages only: the position of a delayed one is still to be given.
_END = f"""SELECT position, {epochs.OF_ID.format(id='position')} FROM (
    SELECT position FROM messages INDEXED BY messages_free
    WHERE spool = {SPOOL} AND claim IS NULL AND delayed_until = 0 AND expires > :now
    UNION ALL
    SELECT position FROM messages INDEXED BY messages_held_in_order
    WHERE spool = {SPOOL} AND claim IS NOT NULL AND expires > :now
    ORDER BY position DESC LIMIT 1)"""

_STATS = f"""SELECT total, claimed, oldest, (SELECT created FROM messages WHERE id = oldest),
        newest, (SELECT created FROM messages WHERE id = newest)
    FROM (SELECT ({_VISIBLE_EDGES['ASC']}) AS oldest, ({_VISIBLE_EDGES['DESC']}) AS newest)
    LEFT JOIN
        ({tallies.COUNTS})"""

_MARK = 'SELECT mark FROM spools WHERE project = ? AND name = ? AND mark IS NOT NULL'


def resolve(cursor: sqlite3.Cursor, names: list[tuple[str, str]]) -> list[tuple[int | None, bool]]:
    """The spool of each (project, queue), if there is one, and whether this file has the queue."""
    if len(names) == 1:
        # PERF: less than half of the time, and many transactions have the posts of one queue only.
        spool, exists = cursor.execute(_RESOLVE_ONE, names[0]).fetchone()
        return [(spool, bool(exists))]
    document = msgspec.json.encode(names).decode()
    row = cursor.execute(_RESOLVE, (document,)).fetchone()
    return [(spool, bool(exists)) for spool, exists in msgspec.json.decode(row[0])]


def get(cursor: sqlite3.Cursor, project: str, queue: str) -> int | None:
    """The spool of a queue, if it has one."""
    row = cursor.execute(
        'SELECT id FROM spools WHERE project = ? AND name = ?', (project, queue)
    ).fetchone()
    return None if row is None else int(row[0])


def find_mark(cursor: sqlite3.Cursor | sqlite3.Connection, project: str, name: str) -> Mark | None:
    """The mark that a queue is not used from this file now; None if there is none."""
    row = cursor.execute(_MARK, (project, name)).fetchone()
    if row is None:
        return None
    mark = decode_mark(row[0])
    return mark if mark.is_in_effect(timeutils.utcnow_ts(microsecond=True)) else None


def check(cursor: sqlite3.Cursor | sqlite3.Connection, project: str, name: str) -> None:
    """Raise `QueueMoved` if a queue is not used from this file now."""
    mark = find_mark(cursor, project, name)
    if mark is not None:
        raise QueueMoved(project, name, mark)


def make(cursor: sqlite3.Cursor, project: str, queue: str) -> int:
    """A new spool for a queue that has none."""
    cursor.execute('INSERT INTO spools (project, name) VALUES (?, ?)', (project, queue))
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def unmap(cursor: sqlite3.Cursor, project: str, queue: str) -> None:
    """Part a queue from its messages, at once; the collector removes them little by little."""
    spool = get(cursor, project, queue)
    if spool is not None:
        cursor.execute('DELETE FROM spools WHERE id = ?', (spool,))
        cursor.execute('DELETE FROM delays WHERE spool = ?', (spool,))
        cursor.execute('UPDATE groupings SET spool = NULL WHERE spool = ?', (spool,))
        cursor.execute('INSERT INTO doomed_spools (id) VALUES (?)', (spool,))


def count(connection: sqlite3.Connection, project: str, queue: str, now: float) -> dict[str, Any]:
    """The `stats` of the messages of a queue; see `tallies` for the counts."""
    parameters = {'project': project, 'queue': queue, 'now': now, 'second': math.floor(now)}
    total, claimed, *edges = connection.execute(_STATS, parameters).fetchone()
    total, claimed = total or 0, claimed or 0
    stats: dict[str, Any] = {'claimed': claimed, 'free': total - claimed, 'total': total}
    for name, number, created in (('oldest', *edges[:2]), ('newest', *edges[2:])):
        if number is not None:
            stats[name] = own_drivers.describe_edge(encode_id(number), created, now)
    return stats


def get_edge(
    connection: sqlite3.Connection, project: str, queue: str, now: float, sort: int
) -> int | None:
    """The id of the oldest message of a queue, or with `sort=-1` of the newest, if any."""
    parameters = {'project': project, 'queue': queue, 'now': now}
    row = connection.execute(_EDGES['ASC' if sort == 1 else 'DESC'], parameters).fetchone()
    return None if row is None else int(row[0])


def get_end(
    connection: sqlite3.Connection, project: str, queue: str, now: float
) -> tuple[int, str] | None:
    """The position of the last message of a queue that is visible, and its epoch."""
    parameters = {'project': project, 'queue': queue, 'now': now}
    row: tuple[int, str] | None = connection.execute(_END, parameters).fetchone()
    return row


class _Spooled(own_drivers.SpooledNames):
    def __init__(self, driver: DataDriver, names: Any) -> None:
        super().__init__(driver, names)
        self._database = driver.database

    def _delete(self, name: str, project: str | None = None) -> None:
        if self.driver.keeps_names:  # type: ignore[attr-defined]
            self._database.write(_delete, project or '', self._names.kind, name)
        else:
            # In this order: a post that comes in between sees that the queue is gone.
            self._names.delete(name, project=project)
            self._database.write(unmap, project or '', name)

    def _stats(self, name: str, project: str | None = None) -> dict[str, Any]:
        now = timeutils.utcnow_ts(microsecond=True)
        found: dict[str, Any] = self._database.read(count, project or '', name, now)
        self._check_counted(name, project, found['total'])
        return {'messages': found}


def _delete(cursor: sqlite3.Cursor, project: str, kind: str, name: str) -> None:
    cursor.execute(
        'DELETE FROM queues WHERE project = ? AND kind = ? AND name = ?', (project, kind, name)
    )
    other = cursor.execute(
        'SELECT 1 FROM queues WHERE project = ? AND name = ? AND kind != ?', (project, name, kind)
    ).fetchone()
    # A queue and a topic of one name share their messages.
    if other is None:
        unmap(cursor, project, name)


class QueueController(_Spooled, base.Queue):
    """Queues with their messages: `delete` and `stats` are complete."""

    _missing = errors.QueueDoesNotExist


class TopicController(_Spooled, base.Topic):
    """Topics, like queues."""

    _missing = errors.TopicDoesNotExist
