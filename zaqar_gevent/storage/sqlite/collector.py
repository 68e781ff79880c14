"""Removes expired rows, and the rows of deleted queues.

Readers and writers never see such rows; removing them is only housekeeping, done in small steps
between the transactions of the writing thread. Once a step has failed because the file is damaged,
`salvage` takes over.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

from oslo_utils import timeutils

from zaqar_gevent.storage.errors import StoreDamaged
from zaqar_gevent.storage.sqlite import deleting, groups, releasing, staging, steps, tallies
from zaqar_gevent.storage.sqlite.outage import damaged, is_damage
from zaqar_gevent.storage.sqlite.releasing import LEASE_COLUMNS, HeldLease
from zaqar_gevent.storage.sqlite.salvage import Salvage
from zaqar_gevent.storage.sqlite.transaction import Transaction, open_transaction

INTERVAL = 2.0
"""Seconds between looks for something to remove."""

STEP = 250
"""Rows of a kind that one transaction removes at most; messages only up to `steps.BYTES`."""

CLAIMS_STEP = 50
"""Expired claims that one transaction releases at most; their messages up to `steps.BYTES`."""

SALVAGE_SECONDS = 600.0
"""For how long what is damaged is passed over, before it is tried once more."""

_NAME = 'SELECT project, name FROM spools WHERE id = ?'

_DUE = f"""SELECT EXISTS (SELECT 1 FROM messages WHERE expires <= ?1)
    OR EXISTS (SELECT 1 FROM claims WHERE expires <= ?1)
    OR EXISTS (SELECT 1 FROM subscriptions WHERE expires <= ?1)
    OR EXISTS (SELECT 1 FROM receipts WHERE expires <= ?1)
    OR EXISTS (SELECT 1 FROM doomed_spools)
    OR {staging.IS_DUE.format(now='?1')}
    OR EXISTS (SELECT 1 FROM groupings WHERE spool IS NULL)"""

_EXPIRED = f"""SELECT id, {steps.SIZE} FROM messages INDEXED BY messages_expiry
    WHERE expires <= ? LIMIT ?"""
_MESSAGES = steps.first(_EXPIRED)

_HELD = f"""SELECT json_group_array(id) FILTER (WHERE before < :most),
        count(*) FILTER (WHERE before < :most), count(*), ifnull(sum(size), 0)
    FROM (SELECT id, size, sum(size) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) - size AS before
        FROM (SELECT id, {steps.SIZE} FROM messages INDEXED BY messages_held
            WHERE claim = :claim))"""

_SUBSCRIPTIONS = """DELETE FROM subscriptions WHERE id IN (
    SELECT id FROM subscriptions WHERE expires <= ? LIMIT ?)"""

_RECEIPTS = """DELETE FROM receipts WHERE (spool, post_id) IN (
    SELECT spool, post_id FROM receipts INDEXED BY receipts_expiry WHERE expires <= ? LIMIT ?)"""

_DOOMED = (
    f"""SELECT id, {steps.SIZE} FROM messages INDEXED BY messages_free
        WHERE spool = ? AND claim IS NULL AND delayed_until = 0 LIMIT ?""",
    f"""SELECT id, {steps.SIZE} FROM messages INDEXED BY messages_delayed
        WHERE spool = ? AND delayed_until > 0 LIMIT ?""",
    f"""SELECT id, {steps.SIZE} FROM messages INDEXED BY messages_held_in_order
        WHERE spool = ? AND claim IS NOT NULL LIMIT ?""",
)

_DOOMED_MESSAGES = tuple(map(steps.first, _DOOMED))
_DOOMED_CLAIMS = 'DELETE FROM claims WHERE id IN (SELECT id FROM claims WHERE spool = ? LIMIT ?)'


class CollectionSchedule:
    """When the writing thread collects: at intervals, and again at once while there is more.

    path: of the file. report: told of what is damaged.
    """

    def __init__(self, path: str, report: Callable[[StoreDamaged], None]) -> None:
        self._path = path
        self._report = report
        self._due = time.monotonic() + INTERVAL
        self._salvage: Salvage | None = None
        self._salvage_until = 0.0

    @property
    def seconds(self) -> float:
        """Seconds until the next step; none or less where it is time for one."""
        return self._due - time.monotonic()

    def run(
        self, get_connection: Callable[[], sqlite3.Connection], close: Callable[[], None]
    ) -> float:
        """Take a step if it is time; seconds until the next one.

        close: closes the connection, which is not to be used any more after damage was met.
        """
        if self.seconds <= 0:
            try:
                # One that an error's traceback held would hold the transaction too.
                with closing(open_transaction(get_connection())) as cursor:
                    has_more = self._collect(cursor, timeutils.utcnow_ts(microsecond=True))
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                close()
                self._tell(get_connection(), error)
                has_more = True
            if has_more:
                self._due = time.monotonic()
                return 0.0
            self.postpone()
        return max(0.0, self.seconds)

    def postpone(self) -> float:
        """Look again after the interval."""
        self._due = time.monotonic() + INTERVAL
        return INTERVAL

    def _collect(self, cursor: Transaction, now: float) -> bool:
        """Take a step; whether there may be more to remove."""
        if self._salvage is not None:
            if time.monotonic() < self._salvage_until:
                return self._salvage.step(cursor, now)
            self._salvage = None
        # Looked at first: all the processes of a file do this, and few find anything.
        if not is_due(cursor, now):
            return False
        cursor.execute('BEGIN IMMEDIATE')
        collect(cursor, now)
        cursor.execute('COMMIT')
        return True

    def _tell(self, connection: sqlite3.Connection, error: sqlite3.Error) -> None:
        if self._salvage is None:
            self._salvage = Salvage()
            self._salvage_until = time.monotonic() + SALVAGE_SECONDS
            return
        spool = self._salvage.found
        if spool is not None:
            queue = connection.execute(_NAME, (spool,)).fetchone()
            reason = f'{error} (found in removing what has expired)'
            self._report(damaged(self._path, reason, queue))


def is_due(cursor: sqlite3.Cursor, now: float) -> bool:
    """Whether there is anything to remove."""
    return bool(cursor.execute(_DUE, (now,)).fetchone()[0])


def collect(cursor: Transaction, now: float) -> bool:
    """Remove a step of each kind; whether there is more."""
    release_expired_claims(cursor, now)
    deleting.delete_found(cursor, _MESSAGES, (now, STEP))
    cursor.execute(_SUBSCRIPTIONS, (now, STEP))
    cursor.execute(_RECEIPTS, (now, STEP))
    _purge_doomed_spool(cursor)
    groups.collect(cursor, STEP)
    staging.collect(cursor, now, STEP)
    tallies.gather(cursor)
    return is_due(cursor, now)


def release_expired_claims(
    cursor: Transaction, now: float, spool: int | None = None, most: int = steps.BYTES
) -> bool:
    """Make some messages of expired claims free again; whether there may be more.

    most: bytes of messages, at least one. Of a claim with more, some messages are released now and
    the others later.
    """
    if spool is None:
        cursor.execute(
            f'SELECT {LEASE_COLUMNS} FROM claims WHERE expires <= ? LIMIT ?', (now, CLAIMS_STEP)
        )
    else:
        cursor.execute(
            f'SELECT {LEASE_COLUMNS} FROM claims WHERE spool = ? AND expires <= ? LIMIT ?',
            (spool, now, CLAIMS_STEP),
        )
    claims = [HeldLease(*row) for row in cursor.fetchall()]
    for lease in claims:
        if most <= 0:
            return True
        ids, count, held, size = cursor.execute(
            _HELD, {'claim': lease.number, 'most': most}
        ).fetchone()
        if count < held:
            releasing.free(cursor, lease, ids, lease.expires, now)
            return True
        releasing.free_all(cursor, lease, lease.expires, now)
        most -= size
    return len(claims) == CLAIMS_STEP


def _purge_doomed_spool(cursor: sqlite3.Cursor) -> None:
    row = cursor.execute('SELECT id FROM doomed_spools LIMIT 1').fetchone()
    if row is None:
        return
    for query in _DOOMED_MESSAGES:
        if deleting.delete_found(cursor, query, (row[0], STEP)):
            return
    cursor.execute(_DOOMED_CLAIMS, (row[0], STEP))
    if cursor.rowcount:
        return
    cursor.execute('DELETE FROM doomed_spools WHERE id = ?', row)
