"""Checkpoints beside the writing thread, so that no commit waits for one.

A checkpoint puts what the log holds into the database file; when all of it is there, the next
commit begins the log anew, and cuts it to `connection.MAX_WAL_BYTES` if it is longer. While others
go on committing, the end of the log is never reached. So most is done beside them, and the few
pages that have been added meanwhile in a turn of its own. When nobody has written for a while, the
log is emptied.
"""

from __future__ import annotations

import sqlite3

from zaqar_gevent.storage.core.completions import Call
from zaqar_gevent.storage.errors import StoreUnavailable
from zaqar_gevent.storage.sqlite import connecting
from zaqar_gevent.storage.sqlite.files import Files, ThreadConnection
from zaqar_gevent.storage.sqlite.wal import Wal

IDLE_SECONDS = 10.0
"""After so long without a commit of any process, the log is emptied."""

_PASSIVE = 'PRAGMA wal_checkpoint(PASSIVE)'
_TRUNCATE = 'PRAGMA wal_checkpoint(TRUNCATE)'


class Checkpointer:
    """Makes a checkpoint when it is woken and one is due."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._held: ThreadConnection | None = None
        self._wal: Wal | None = None

    def execute(self, calls: list[Call]) -> None: ...

    def on_idle(self) -> None:
        try:
            self._tend()
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

    def _tend(self) -> None:
        if self._held is None or self._wal is None or not self._held.is_open:
            self.close()
            # Without patience: what another process is about is not to be waited for.
            self._held = self._files.connect(timeout=0)
            self._wal = self._files.open_wal()
        with self._held.lock:
            self._checkpoint(self._held.connection, self._wal)

    def _checkpoint(self, connection: sqlite3.Connection, wal: Wal) -> None:
        is_idle = wal.is_idle(IDLE_SECONDS)
        if not (is_idle or wal.has_frames(connecting.CHECKPOINT_PAGES)):
            return
        connection.execute(_PASSIVE).fetchall()
        with self._files.writing, wal.write_lock:
            is_held, length, done = connection.execute(_PASSIVE).fetchone()
            if is_idle and not is_held and length == done:
                connection.execute(_TRUNCATE).fetchall()


def is_due(wal: Wal) -> bool:
    """Whether a checkpoint would be of use."""
    return wal.has_frames(connecting.CHECKPOINT_PAGES) or wal.is_idle(IDLE_SECONDS)
