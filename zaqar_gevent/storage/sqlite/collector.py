"""Removal of what has expired, and of what deleted queues have left behind.

Readers and writers never see such rows; removing them is only housekeeping, done in small steps
between the transactions of the writing thread.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from oslo_utils import timeutils

INTERVAL = 2.0
"""Seconds between looks for something to remove."""

STEP = 500
"""Rows of a kind that one transaction removes at most."""

CLAIMS_STEP = 50
"""Expired claims that one transaction releases at most, each with all its messages."""

_DUE = """SELECT EXISTS (SELECT 1 FROM messages WHERE expires <= ?1)
    OR EXISTS (SELECT 1 FROM claims WHERE expires <= ?1)
    OR EXISTS (SELECT 1 FROM subscriptions WHERE expires <= ?1)
    OR EXISTS (SELECT 1 FROM receipts WHERE expires <= ?1)
    OR EXISTS (SELECT 1 FROM doomed_spools)"""

_MESSAGES = """DELETE FROM messages WHERE id IN (
    SELECT id FROM messages INDEXED BY messages_expiry WHERE expires <= ? LIMIT ?)"""

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


class Schedule:
    """When the writing thread collects: at intervals, and again at once while there is more."""

    def __init__(self) -> None:
        self._due = time.monotonic() + INTERVAL

    def run(self, get_connection: Callable[[], sqlite3.Connection]) -> float:
        """Take a step if it is time; seconds until the next one."""
        if time.monotonic() >= self._due:
            cursor = get_connection().cursor()
            now = timeutils.utcnow_ts(microsecond=True)
            # Looked at first: all the processes of a file do this, and few find anything.
            if is_due(cursor, now):
                cursor.execute('BEGIN IMMEDIATE')
                collect(cursor, now)
                cursor.execute('COMMIT')
                self._due = time.monotonic()
                return 0.0
            self.postpone()
        return max(0.0, self._due - time.monotonic())

    def postpone(self) -> float:
        """Look again after the interval."""
        self._due = time.monotonic() + INTERVAL
        return INTERVAL


def is_due(cursor: sqlite3.Cursor, now: float) -> bool:
    """Whether there is anything to remove."""
    return bool(cursor.execute(_DUE, (now,)).fetchone()[0])


def collect(cursor: sqlite3.Cursor, now: float) -> bool:
    """Remove a step of each kind; whether there is more."""
    release_expired_claims(cursor, now)
    cursor.execute(_MESSAGES, (now, STEP))
    cursor.execute(_SUBSCRIPTIONS, (now, STEP))
    cursor.execute(_RECEIPTS, (now, STEP))
    _purge_doomed_spool(cursor)
    return is_due(cursor, now)


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
    for row in rows:
        cursor.execute('UPDATE messages SET claim = NULL WHERE claim = ?', row)
        cursor.execute('DELETE FROM claims WHERE id = ?', row)
    return len(rows) == CLAIMS_STEP


def _purge_doomed_spool(cursor: sqlite3.Cursor) -> None:
    row = cursor.execute('SELECT id FROM doomed_spools LIMIT 1').fetchone()
    if row is None:
        return
    for statement in _DOOMED_MESSAGES:
        cursor.execute(statement, (row[0], STEP))
        if cursor.rowcount:
            return
    cursor.execute('DELETE FROM doomed_spools WHERE id = ?', row)
