"""Delayed messages, which take their places in the queue when they are due.

A message that is due gets the next number as its position, so that it comes after all that was
visible before: whoever follows the queue by a marker misses none. It is done in small steps, and
queues take turns, so that none waits long for what another has delayed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import NamedTuple

import msgspec
from oslo_utils import timeutils

from zaqar_gevent.storage.errors import StoreDamaged
from zaqar_gevent.storage.sqlite import groups, steps, tallies
from zaqar_gevent.storage.sqlite.documents import alone
from zaqar_gevent.storage.sqlite.outage import damaged, is_damage
from zaqar_gevent.storage.sqlite.transaction import (
    DueMessage,
    DueQueue,
    Transaction,
    open_transaction,
)

STEP = 100
"""Messages that one transaction makes visible at most, up to `steps.BYTES`."""

MAX_STEP_BYTES = 1024 * 1024
"""Bytes of messages after which a step ends early, where subscribers are to be told of them."""

LOOK_SECONDS = 2.0
"""Seconds between looks for what other processes have delayed."""

DAMAGE_SECONDS = 600.0
"""For how long a spool is passed over whose delayed messages are damaged."""

_NOTE = """INSERT INTO delays (spool, due) VALUES (?, ?)
    ON CONFLICT (spool) DO UPDATE SET due = excluded.due WHERE excluded.due < due"""

_NEXT = 'SELECT min(due) FROM delays WHERE spool NOT IN (SELECT value FROM json_each(?))'

_SPOOLS_DUE = """SELECT spool FROM delays INDEXED BY delays_due
    WHERE due <= ? AND spool NOT IN (SELECT value FROM json_each(?)) ORDER BY due LIMIT ?"""

IS_DUE = 'EXISTS (SELECT 1 FROM delays WHERE spool = {spool} AND due <= :now)'
"""SQL for whether a spool may have messages that are due; to be formatted with the spool."""

_DUE = f"""SELECT id, delayed_until, placed, {steps.SIZE} FROM messages INDEXED BY messages_due
    WHERE spool = ? AND delayed_until > 0 AND delayed_until <= ?
    ORDER BY delayed_until, id LIMIT ?"""
_MESSAGES_DUE = steps.first(
    _DUE, 'delayed_until, id', '?', 'json_group_array(id), ifnull(sum(size), 0), count(placed)'
)

_NEXT_OF_SPOOL = """SELECT min(delayed_until) FROM messages INDEXED BY messages_due
    WHERE spool = ? AND delayed_until > 0"""

_NAME = """SELECT project, name, EXISTS (
        SELECT 1 FROM subscriptions u
        WHERE u.project = s.project AND u.source = s.name AND u.expires > ?)
    FROM spools s WHERE id = ?"""

_DELIVERIES = f"""SELECT {alone('NULL')}, m.delayed_until - m.created, m.passed,
        m.expires > :now
    FROM json_each(:ids) j CROSS JOIN messages m ON m.id = j.value ORDER BY j.key"""

_SEEN = """SELECT json_group_array(id) FROM messages
    WHERE id IN (SELECT value FROM json_each(?)) AND placed IS NOT NULL"""

_SHOW_AGAIN = """UPDATE messages SET delayed_until = 0
    WHERE id IN (SELECT value FROM json_each(?))"""

_PLACE = """UPDATE messages SET delayed_until = 0, placed = :last + 1 + j.key
    FROM json_each(:ids) j WHERE messages.id = j.value"""


def note(cursor: Transaction, spool: int, due: float) -> None:
    """A message of a spool has been delayed until `due`, in seconds since the epoch."""
    cursor.execute(_NOTE, (spool, due))
    if cursor.next_due is None or due < cursor.next_due:
        cursor.next_due = due


class Placed(NamedTuple):
    """Messages made visible: how many, whether more of their spool are due, bytes of bodies."""

    number: int
    has_more: bool
    size: int


def place_of_spool(cursor: Transaction, spool: int, now: float) -> Placed:
    """Make some of the messages of a spool visible that are due."""
    return _place(cursor, spool, now)


def place(cursor: Transaction, now: float, without: Iterable[int] = (), most: int = STEP) -> None:
    """Make some of the messages visible that are due.

    without: spools that are passed over. most: spools that have a turn.
    """
    left, left_bytes = STEP, steps.BYTES
    rows = cursor.execute(_SPOOLS_DUE, (now, _encode(without), most)).fetchall()
    for (spool,) in rows:
        if left <= 0 or left_bytes <= 0:
            break
        placed = _place(cursor, spool, now, left, left_bytes)
        left -= placed.number
        left_bytes -= placed.size


def _place(
    cursor: Transaction, spool: int, now: float, limit: int = STEP, most: int = steps.BYTES
) -> Placed:
    """Make messages visible, in the order in which they are due."""
    document, size, seen = cursor.execute(_MESSAGES_DUE, (spool, now, limit, most)).fetchone()
    ids: list[int] = msgspec.json.decode(document)
    again = _show_again(cursor, spool, document) if seen else set()
    ids = [number for number in ids if number not in again]
    if ids or again:
        name = cursor.execute(_NAME, (now, spool)).fetchone()
        if name is not None:
            project, queue, has_subscriptions = name
            due_messages: list[DueMessage] = []
            if has_subscriptions and ids:
                ids, due_messages = _read(cursor, ids, now)
            cursor.due.append(DueQueue(project, queue, due_messages))
    if ids:
        last = _take_numbers(cursor, len(ids))
        cursor.execute(_PLACE, {'ids': _encode(ids), 'last': last})
        tallies.update(cursor, last + len(ids), len(ids))
    following = cursor.execute(_NEXT_OF_SPOOL, (spool,)).fetchone()[0]
    if following is None:
        cursor.execute('DELETE FROM delays WHERE spool = ?', (spool,))
    else:
        # With more that are due, it is the turn of the other spools first.
        cursor.execute('UPDATE delays SET due = ? WHERE spool = ?', (max(following, now), spool))
    return Placed(len(ids) + len(again), following is not None and following <= now, size)


def _show_again(cursor: sqlite3.Cursor, spool: int, document: str) -> set[int]:
    """Make those of the messages visible that have a position: they waited for a retry."""
    again = cursor.execute(_SEEN, (document,)).fetchone()[0]
    cursor.execute(_SHOW_AGAIN, (again,))
    groups.freed(cursor, spool, again)
    return {*msgspec.json.decode(again)}


def _read(cursor: Transaction, ids: list[int], now: float) -> tuple[list[int], list[DueMessage]]:
    """As many of the messages as are not too long together; those to tell of have not expired."""
    due_messages = []
    count = size = 0
    for document, delay, passed, is_alive in cursor.execute(
        _DELIVERIES, {'ids': _encode(ids), 'now': now}
    ):
        count += 1
        if is_alive:
            due_messages.append(DueMessage(document, delay, passed))
            size += len(document)
        if size >= MAX_STEP_BYTES:
            break
    return ids[:count], due_messages


def _take_numbers(cursor: sqlite3.Cursor, count: int) -> int:
    """Take `count` numbers of the sequence of ids; the last one that was given before."""
    cursor.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'messages'", (count,))
    row = cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
    return int(row[0]) - count


def _encode(numbers: Iterable[int]) -> str:
    return msgspec.json.encode([*numbers]).decode()


class DelaySchedule:
    """When the writing thread makes messages visible.

    Where nobody is told of them in this process, that is left to others, or to lists and claims.

    path: of the file. report: told of what is damaged. announce: told of what has become visible.
    has_listeners: whether that is told to anybody.
    """

    def __init__(
        self,
        path: str,
        report: Callable[[StoreDamaged], None],
        announce: Callable[[list[DueQueue]], None],
        has_listeners: Callable[[], bool],
    ) -> None:
        self._path = path
        self._report = report
        self._announce = announce
        self._has_listeners = has_listeners
        self._next: float | None = None
        self._look_at = time.monotonic()
        self._damaged: dict[int, float] = {}
        self._spools = STEP

    def delayed(self, due: float | None) -> None:
        """A message has been delayed until `due`, in seconds since the epoch."""
        if due is not None and (self._next is None or due < self._next):
            self._next = due

    @property
    def seconds(self) -> float:
        """Seconds until the next step; none or less where it is time for one."""
        return self._get_wait() if self._has_listeners() else LOOK_SECONDS

    def run(
        self, get_connection: Callable[[], sqlite3.Connection], close: Callable[[], None]
    ) -> float:
        """Take a step if it is time; seconds until the next one.

        close: closes the connection, which must not be used any more after damage was met.
        """
        if not self._has_listeners():
            return LOOK_SECONDS
        if self._get_wait() <= 0:
            now = timeutils.utcnow_ts(microsecond=True)
            try:
                # One that an error's traceback held would hold the transaction too.
                with closing(open_transaction(get_connection())) as cursor:
                    self._step(cursor, now)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                close()
                self._pass_over(get_connection(), now, error)
        return max(0.0, self._get_wait())

    def postpone(self) -> float:
        """Look again after a while."""
        self._next = None
        self._look_at = time.monotonic() + LOOK_SECONDS
        return LOOK_SECONDS

    def _get_wait(self) -> float:
        wait = self._look_at - time.monotonic()
        if self._next is None:
            return wait
        now: float = timeutils.utcnow_ts(microsecond=True)
        return min(wait, self._next - now)

    def _step(self, cursor: Transaction, now: float) -> None:
        damaged = self._get_damaged()
        # Looked at first: all the processes of a file do this, and one of them is first.
        self._next = cursor.execute(_NEXT, (_encode(damaged),)).fetchone()[0]
        self._look_at = time.monotonic() + LOOK_SECONDS
        if self._next is None or self._next > now:
            return
        cursor.execute('BEGIN IMMEDIATE')
        place(cursor, now, damaged, self._spools)
        self._next = cursor.execute(_NEXT, (_encode(damaged),)).fetchone()[0]
        cursor.execute('COMMIT')
        self._announce(cursor.due)

    def _pass_over(
        self, connection: sqlite3.Connection, now: float, error: sqlite3.DatabaseError
    ) -> None:
        """One of the spools is damaged: give each a turn of its own until it is found."""
        if self._spools > 1:
            self._spools = 1
            return
        self._spools = STEP
        row = connection.execute(_SPOOLS_DUE, (now, _encode(self._get_damaged()), 1)).fetchone()
        if row is None:
            return
        self._damaged[row[0]] = time.monotonic() + DAMAGE_SECONDS
        queue = connection.execute(_NAME, (now, row[0])).fetchone()
        reason = f'{error} (found in delayed messages)'
        self._report(damaged(self._path, reason, queue and queue[:2]))

    def _get_damaged(self) -> list[int]:
        now = time.monotonic()
        self._damaged = {spool: end for spool, end in self._damaged.items() if end > now}
        return [*self._damaged]
