"""Removal of what has expired, and of what deleted queues have left behind.

Readers and writers never see such rows; removing them is only housekeeping, done in small steps
between the transactions of the writing thread. What is damaged is passed over.
"""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from oslo_utils import timeutils

from zaqar_gevent.storage.sqlite.outage import StoreDamaged, is_damage

INTERVAL = 2.0
"""Seconds between looks for something to remove."""

STEP = 500
"""Rows of a kind that one transaction removes at most."""

CLAIMS_STEP = 50
"""Expired claims that one transaction releases at most, each with all its messages."""

FORGET_SECONDS = 600.0
"""After this time what could not be removed is tried again."""

MAX_DAMAGED = 5000
"""Damaged messages that are passed over; beyond them, messages are not removed any more."""

_DUE = """SELECT EXISTS (SELECT 1 FROM messages WHERE expires <= ?1)
    OR EXISTS (SELECT 1 FROM claims WHERE expires <= ?1)
    OR EXISTS (SELECT 1 FROM subscriptions WHERE expires <= ?1)
    OR EXISTS (SELECT 1 FROM receipts WHERE expires <= ?1)
    OR EXISTS (SELECT 1 FROM doomed_spools)"""

_MESSAGES = """DELETE FROM messages WHERE id IN (
    SELECT id FROM messages INDEXED BY messages_expiry WHERE expires <= ? LIMIT ?)"""

_EXPIRED = """SELECT id, spool FROM messages INDEXED BY messages_expiry
    WHERE expires <= ? AND id NOT IN (SELECT value FROM json_each(?))
    ORDER BY expires {order} LIMIT ?"""

_MESSAGES_BY_ID = 'DELETE FROM messages WHERE id IN (SELECT value FROM json_each(?))'

_NAME = 'SELECT project, name FROM spools WHERE id = ?'

_SUBSCRIPTIONS = """DELETE FROM subscriptions WHERE id IN (
    SELECT id FROM subscriptions WHERE expires <= ? LIMIT ?)"""

_RECEIPTS = """DELETE FROM receipts WHERE (spool, post_id) IN (
    SELECT spool, post_id FROM receipts INDEXED BY receipts_expiry WHERE expires <= ? LIMIT ?)"""

_DOOMED_MESSAGES = (
    """DELETE FROM messages WHERE id IN (
        SELECT id FROM messages INDEXED BY messages_free
        WHERE spool = ? AND claim IS NULL LIMIT ?)""",
    """DELETE FROM messages WHERE id IN (
        SELECT id FROM messages INDEXED BY messages_held_in_order
        WHERE spool = ? AND claim IS NOT NULL LIMIT ?)""",
    'DELETE FROM claims WHERE id IN (SELECT id FROM claims WHERE spool = ? LIMIT ?)',
)


class Damages:
    """What cannot be removed because it is damaged, found out as it is tried.

    ids, claims, doomed: the messages, claims and doomed spools to be passed over. kinds: tables of
        which nothing is removed any more. report: told of each, with the spool if that is known.
    """

    def __init__(self, report: Callable[[sqlite3.Error, int | None], None] | None = None) -> None:
        self.ids: set[int] = set()
        self.claims: set[int] = set()
        self.doomed: set[int] = set()
        self.kinds: set[str] = set()
        self._report = report

    def __bool__(self) -> bool:
        return bool(self.ids or self.claims or self.doomed or self.kinds)

    def note(self, where: set[Any], what: Any, error: sqlite3.Error, spool: int | None) -> None:
        """Remember one of them, and tell of it."""
        where.add(what)
        if self._report is not None:
            self._report(error, spool)


class Schedule:
    """When the writing thread collects: at intervals, and again at once while there is more.

    path: of the file. report: told of what is damaged.
    """

    def __init__(self, path: str, report: Callable[[StoreDamaged], None]) -> None:
        self._path = path
        self._report = report
        self._due = time.monotonic() + INTERVAL
        self._damages = Damages()
        self._forget_at = 0.0

    def run(self, get_connection: Callable[[], sqlite3.Connection]) -> float:
        """Take a step if it is time; seconds until the next one."""
        if time.monotonic() >= self._due:
            cursor = get_connection().cursor()
            if self._collect(cursor, timeutils.utcnow_ts(microsecond=True)):
                self._due = time.monotonic()
                return 0.0
            self.postpone()
        return max(0.0, self._due - time.monotonic())

    def postpone(self) -> float:
        """Look again after the interval."""
        self._due = time.monotonic() + INTERVAL
        return INTERVAL

    def _collect(self, cursor: sqlite3.Cursor, now: float) -> bool:
        """Take a step; whether there may be more to remove."""
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + FORGET_SECONDS
            self._damages = Damages(functools.partial(self._tell, cursor))
        # Looked at first: all the processes of a file do this, and few find anything.
        if not self._damages and not is_due(cursor, now):
            return False
        cursor.execute('BEGIN IMMEDIATE')
        has_more = collect(cursor, now, self._damages)
        cursor.execute('COMMIT')
        return has_more

    def _tell(self, cursor: sqlite3.Cursor, error: sqlite3.Error, spool: int | None) -> None:
        try:
            row = cursor.connection.execute(_NAME, (spool,)).fetchone()
        except sqlite3.Error:
            row = None
        self._report(StoreDamaged(self._path, f'{error} (found in removing what has expired)', row))


def is_due(cursor: sqlite3.Cursor, now: float) -> bool:
    """Whether there is anything to remove; also where that cannot be read."""
    try:
        return bool(cursor.execute(_DUE, (now,)).fetchone()[0])
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return True


def collect(cursor: sqlite3.Cursor, now: float, damages: Damages | None = None) -> bool:
    """Remove a step of each kind, and what is damaged of it not; whether there is more.

    damages: what is passed over, and what turns out to be damaged.
    """
    damages = Damages() if damages is None else damages
    before = cursor.connection.total_changes
    for kind, (step, careful_step) in _STEPS.items():
        if kind in damages.kinds:
            continue
        error = None if damages else _attempt(cursor, step, cursor, now)
        if damages or error is not None:
            error = _attempt(cursor, careful_step, cursor, now, damages)
        if error is not None:
            damages.note(damages.kinds, kind, error, None)
    if damages:
        return cursor.connection.total_changes > before
    return is_due(cursor, now)


def _attempt(
    cursor: sqlite3.Cursor, work: Callable[..., Any], *arguments: Any
) -> sqlite3.DatabaseError | None:
    """Do `work(*arguments)`, or undo it where it comes upon damage; the error then."""
    cursor.execute('SAVEPOINT attempt')
    try:
        work(*arguments)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        cursor.execute('ROLLBACK TO attempt')
        cursor.execute('RELEASE attempt')
        return error
    cursor.execute('RELEASE attempt')
    return None


def _remove_messages(cursor: sqlite3.Cursor, now: float) -> None:
    cursor.execute(_MESSAGES, (now, STEP))


def _remove_messages_carefully(cursor: sqlite3.Cursor, now: float, damages: Damages) -> None:
    """Those that can be found from either end, and of them those that can be removed."""
    for limit in (STEP, STEP // 16, 1):
        for order in ('ASC', 'DESC'):
            passed_over = _as_array(damages.ids)
            try:
                rows = cursor.execute(
                    _EXPIRED.format(order=order), (now, passed_over, limit)
                ).fetchall()
            except sqlite3.DatabaseError as error:
                if not is_damage(error) or (limit, order) == (1, 'DESC'):
                    raise
                continue
            _remove_sound(cursor, rows, damages)
            return


def _remove_sound(
    cursor: sqlite3.Cursor, rows: Sequence[tuple[int, int]], damages: Damages
) -> None:
    """Remove those of the messages that can be; half after half, since most can."""
    if not rows:
        return
    ids = _as_array(row[0] for row in rows)
    error = _attempt(cursor, cursor.execute, _MESSAGES_BY_ID, (ids,))
    if error is None:
        return
    if len(rows) == 1:
        damages.note(damages.ids, rows[0][0], error, rows[0][1])
        if len(damages.ids) > MAX_DAMAGED:
            raise error
        return
    middle = len(rows) // 2
    _remove_sound(cursor, rows[:middle], damages)
    _remove_sound(cursor, rows[middle:], damages)


def _remove_subscriptions(cursor: sqlite3.Cursor, now: float, *unused: Damages) -> None:
    cursor.execute(_SUBSCRIPTIONS, (now, STEP))


def _remove_receipts(cursor: sqlite3.Cursor, now: float, *unused: Damages) -> None:
    cursor.execute(_RECEIPTS, (now, STEP))


def release_expired_claims(cursor: sqlite3.Cursor, now: float, spool: int | None = None) -> bool:
    """Make the messages of some expired claims free again; whether there may be more."""
    if spool is None:
        cursor.execute('SELECT id FROM claims WHERE expires <= ? LIMIT ?', (now, CLAIMS_STEP))
    else:
        cursor.execute(
            'SELECT id FROM claims WHERE spool = ? AND expires <= ? LIMIT ?',
            (spool, now, CLAIMS_STEP),
        )
    rows = cursor.fetchall()
    for (claim,) in rows:
        _release(cursor, claim)
    return len(rows) == CLAIMS_STEP


def _release_carefully(cursor: sqlite3.Cursor, now: float, damages: Damages) -> None:
    rows = cursor.execute(
        """SELECT id, spool FROM claims WHERE expires <= ?
            AND id NOT IN (SELECT value FROM json_each(?)) LIMIT ?""",
        (now, _as_array(damages.claims), CLAIMS_STEP),
    ).fetchall()
    for claim, spool in rows:
        error = _attempt(cursor, _release, cursor, claim)
        if error is not None:
            damages.note(damages.claims, claim, error, spool)


def _release(cursor: sqlite3.Cursor, claim: int) -> None:
    cursor.execute('UPDATE messages SET claim = NULL WHERE claim = ?', (claim,))
    cursor.execute('DELETE FROM claims WHERE id = ?', (claim,))


def _purge_doomed_spool(cursor: sqlite3.Cursor, now: float) -> None:
    row = cursor.execute('SELECT id FROM doomed_spools LIMIT 1').fetchone()
    if row is not None:
        _purge(cursor, row[0])


def _purge_carefully(cursor: sqlite3.Cursor, now: float, damages: Damages) -> None:
    row = cursor.execute(
        'SELECT id FROM doomed_spools WHERE id NOT IN (SELECT value FROM json_each(?)) LIMIT 1',
        (_as_array(damages.doomed),),
    ).fetchone()
    if row is not None:
        error = _attempt(cursor, _purge, cursor, row[0])
        if error is not None:
            damages.note(damages.doomed, row[0], error, None)


def _purge(cursor: sqlite3.Cursor, spool: int) -> None:
    for statement in _DOOMED_MESSAGES:
        cursor.execute(statement, (spool, STEP))
        if cursor.rowcount:
            return
    cursor.execute('DELETE FROM doomed_spools WHERE id = ?', (spool,))


def _as_array(numbers: Iterable[int]) -> str:
    return msgspec.json.encode(list(numbers)).decode()


_STEPS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    'claims': (release_expired_claims, _release_carefully),
    'messages': (_remove_messages, _remove_messages_carefully),
    'subscriptions': (_remove_subscriptions, _remove_subscriptions),
    'receipts': (_remove_receipts, _remove_receipts),
    'doomed spools': (_purge_doomed_spool, _purge_carefully),
}
"""How each kind is removed; and how, once something is damaged."""
