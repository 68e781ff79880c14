"""Checkpoints beside the writing thread, so that no commit waits for one.

A checkpoint puts what the log holds into the database file; when all of it is there, the next
commit begins the log anew, and cuts it to `connecting.MAX_WAL_BYTES` if it is longer. While others
go on committing, the end of the log is never reached. So most is done beside them, pass by pass,
each of which finds less to do than the one before. The few pages that have been added meanwhile are
done in a turn of their own. When nobody has written for a while, the log is emptied.

SQLite syncs the database file only at the end of the log. So each pass is synced here, or the last
one, for which all others wait, would have to sync everything.

Those who write long bodies have the log synced here as well, after each piece: commits of others
find little that is not on the disk yet, and the next piece waits for the checkpoint.
"""

from __future__ import annotations

import sqlite3

from zaqar_gevent.storage.core.completions import Call
from zaqar_gevent.storage.core.group_commit import apart
from zaqar_gevent.storage.errors import StoreUnavailable
from zaqar_gevent.storage.sqlite import connecting
from zaqar_gevent.storage.sqlite.files import Files, ThreadConnection
from zaqar_gevent.storage.sqlite.outage import describe, unavailable
from zaqar_gevent.storage.sqlite.wal import Wal

IDLE_SECONDS = 10.0
"""After so long without a commit of any process, the log is emptied."""

LAST_PAGES = 32
"""The last pass may have so many pages to do, since all others wait for it."""

MOST_PASSES = 8
"""Passes before the last one, even if that has more to do."""

PIECES_A_PASS = 4
"""After so many pieces of long bodies there is a pass, so that none has much to do."""

_PASSIVE = 'PRAGMA wal_checkpoint(PASSIVE)'
_TRUNCATE = 'PRAGMA wal_checkpoint(TRUNCATE)'


@apart
def sync_log() -> None:
    """The work of a call that waits until what was committed before outlives a power cut."""


class Checkpointer:
    """Makes a checkpoint when it is woken and one is due; its calls are of `sync_log`."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._held: ThreadConnection | None = None
        self._wal: Wal | None = None
        self._pieces = 0

    def execute(self, calls: list[Call]) -> None:
        try:
            _, wal = self._open()
            self._sync(wal)
        except (StoreUnavailable, sqlite3.Error, OSError) as error:
            self.close()
            is_told = isinstance(error, StoreUnavailable)
            reason = error if is_told else unavailable(self._files.path, describe(error))
            for call in calls:
                call.error = reason
        self._pieces += len(calls)

    def on_idle(self) -> None:
        try:
            held, wal = self._open()
            with held.lock:
                self._tend(held.connection, wal)
        except (StoreUnavailable, sqlite3.Error, OSError):
            # Nobody waits for it: another one is asked for soon.
            self.close()

    def close(self) -> None:
        held, self._held = self._held, None
        wal, self._wal = self._wal, None
        if wal is not None:
            wal.close()
        if held is not None:
            held.close()

    def _open(self) -> tuple[ThreadConnection, Wal]:
        held, wal = self._held, self._wal
        if held is None or wal is None or not held.is_open:
            self.close()
            # Without patience: what another process is about is not to be waited for.
            held = self._held = self._files.connect(timeout=0)
            wal = self._wal = self._files.open_wal()
        return held, wal

    def _sync(self, wal: Wal) -> None:
        try:
            wal.sync()
        except OSError:
            self._files.is_log_in_doubt = True
            raise

    def _tend(self, connection: sqlite3.Connection, wal: Wal) -> None:
        is_idle = wal.is_idle(IDLE_SECONDS)
        if is_idle or wal.has_frames(connecting.CHECKPOINT_PAGES):
            self._checkpoint(connection, wal, is_idle=is_idle)
        elif self._pieces >= PIECES_A_PASS:
            self._pass(connection)

    def _checkpoint(self, connection: sqlite3.Connection, wal: Wal, *, is_idle: bool) -> None:
        for _ in range(MOST_PASSES):
            length = self._pass(connection)
            if not is_idle and not wal.has_frames(connecting.CHECKPOINT_PAGES):
                # The pass has reached the end of the log, and it has begun anew.
                return
            if not wal.has_frames(length + LAST_PAGES):
                break
        with self._files.writing, wal.write_lock:
            is_held, length, done = connection.execute(_PASSIVE).fetchone()
            if is_idle and not is_held and length == done:
                connection.execute(_TRUNCATE).fetchall()

    def _pass(self, connection: sqlite3.Connection) -> int:
        """Put into the file what is in the log now, and sync it; the pages in the log."""
        self._pieces = 0
        _, length, _ = connection.execute(_PASSIVE).fetchone()
        self._files.sync()
        return max(0, int(length))


def is_due(wal: Wal) -> bool:
    """Whether a checkpoint would be of use."""
    return wal.has_frames(connecting.CHECKPOINT_PAGES) or wal.is_idle(IDLE_SECONDS)
