"""Making messages free that a claim has held: at once, or after the delay of their retry.

A message that waits for its retry keeps its position: its `placed` is set.
"""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from zaqar_gevent import retry_delays
from zaqar_gevent.storage.sqlite import delays, groups, tallies
from zaqar_gevent.storage.sqlite.transaction import Transaction

_READ = """SELECT id, claim_count, expires FROM messages
    WHERE id IN (SELECT value FROM json_each(?))"""
_HELD = """SELECT json_group_array(id) FROM messages INDEXED BY messages_held WHERE claim = ?"""
_FREE = 'UPDATE messages SET claim = NULL WHERE id IN (SELECT value FROM json_each(?))'
# One that expires before holds up its group until then, and no longer.
_HIDE = """UPDATE messages SET claim = NULL, placed = ifnull(placed, id),
        delayed_until = min(?, expires)
    WHERE id IN (SELECT value FROM json_each(?))"""


LEASE_COLUMNS = 'id, spool, expires, retry'


class HeldLease(NamedTuple):
    """A row of `claims`, see `LEASE_COLUMNS`; `retry` may be null."""

    number: int
    spool: int
    expires: float
    retry: str | None


def free_all(
    cursor: Transaction, lease: HeldLease, ended_at: float, now: float, delay: float | None = None
) -> None:
    """End a lease, with all its messages.

    ended_at: from when on the delay of the queue counts. delay: instead of that of the queue, in
        seconds from `now` on.
    """
    messages = _messages_of(cursor, lease) if delay or lease.retry else None
    # The counts are those of the messages that refer to the claim when it is deleted.
    cursor.execute('DELETE FROM claims WHERE id = ?', (lease.number,))
    if messages is None or delay == 0:
        _free_at_once(cursor, lease, cursor.execute(_HELD, (lease.number,)).fetchone()[0])
    else:
        _free(cursor, lease, messages, ended_at, now, delay)


def free(
    cursor: Transaction,
    lease: HeldLease,
    ids: str,
    ended_at: float,
    now: float,
    delay: float | None = None,
) -> None:
    """Make some messages of a lease free, and leave it the others; `ids` is a JSON array."""
    messages = cursor.execute(_READ, (ids,)).fetchall()
    tallies.released(cursor, lease.number, len(messages))
    _free(cursor, lease, messages, ended_at, now, delay)


def _free_at_once(cursor: sqlite3.Cursor, lease: HeldLease, ids: str) -> None:
    cursor.execute(_FREE, (ids,))
    groups.freed(cursor, lease.spool, ids)


def _messages_of(cursor: sqlite3.Cursor, lease: HeldLease) -> list[tuple[int, int, float]]:
    return cursor.execute(
        'SELECT id, claim_count, expires FROM messages INDEXED BY messages_held WHERE claim = ?',
        (lease.number,),
    ).fetchall()


def _free(
    cursor: Transaction,
    lease: HeldLease,
    messages: Iterable[tuple[int, int, float]],
    ended_at: float,
    now: float,
    delay: float | None,
) -> None:
    retry = retry_delays.read(lease.retry) if lease.retry else None
    by_time: defaultdict[float, list[int]] = defaultdict(list)
    next_due = math.inf
    for number, claims, expires in messages:
        due = ended_at + (retry.after(claims) if retry else 0)
        if delay is not None:
            due = now + delay
        by_time[due if due > now else 0.0].append(number)
        if due > now:
            next_due = min(next_due, due, expires)
    for due, numbers in by_time.items():
        ids = msgspec.json.encode(numbers).decode()
        if due:
            cursor.execute(_HIDE, (due, ids))
        else:
            _free_at_once(cursor, lease, ids)
    if next_due < math.inf:
        delays.note(cursor, lease.spool, next_due)
