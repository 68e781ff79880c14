"""Checkpoints beside the writing thread, so that no commit waits for one.

A checkpoint puts what the log holds into the database file; when all of it is there, the next
commit begins the log anew, and cuts it to `connection.MAX_WAL_BYTES` if it is longer. While others
go on committing, the end of the log is never reached. So most is done beside them, and the few
pages that have been added meanwhile in a turn of its own. When nobody has written for a while, the
log is emptied.
"""

from __future__ import annotations

import sqlite3

from zaqar_gevent.storage.sqlite import connection as connections
from zaqar_gevent.storage.sqlite.files import Files, Handle
from zaqar_gevent.storage.sqlite.origins import Call
from zaqar_gevent.storage.sqlite.outage import StoreUnavailable
from zaqar_gevent.storage.sqlite.wal import Wal

IDLE_SECONDS = 10.0
"""After so long without a commit of any process, the log is emptied."""

_PASSIVE = 'PRAGMA wal_checkpoint(PASSIVE)'
_TRUNCATE = 'PRAGMA wal_checkpoint(TRUNCATE)'


class Checkpointer:
    """Makes a checkpoint when it is woken and one is due."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._handle: Handle | None = None
        self._wal: Wal | None = None

    def serve(self, calls: list[Call]) -> None: ...

    def rest(self) -> None:
        try:
            self._tend()
        except (StoreUnavailable, sqlite3.Error, OSError):
            # Nobody waits for it: another one is asked for soon.
            self.close()

    def close(self) -> None:
        handle, self._handle = self._handle, None
        wal, self._wal = self._wal, None
        if wal is not None:
            wal.close()
        if handle is not None:
            handle.close()

    def _tend(self) -> None:
        if self._handle is None or self._wal is None or not self._handle.is_open:
            self.close()
            # Without patience: what another process is about is not to be waited for.
            self._handle = self._files.connect(timeout=0)
            self._wal = self._files.open_wal()
        with self._handle.lock:
            self._checkpoint(self._handle.connection, self._wal)

    def _checkpoint(self, connection: sqlite3.Connection, wal: Wal) -> None:
        is_idle = wal.is_idle(IDLE_SECONDS)
        if not (is_idle or wal.has_frames(connections.CHECKPOINT_PAGES)):
            return
        connection.execute(_PASSIVE).fetchall()
        with self._files.writing, wal.turn():
            is_held, length, done = connection.execute(_PASSIVE).fetchone()
            if is_idle and not is_held and length == done:
                connection.execute(_TRUNCATE).fetchall()


def is_due(wal: Wal) -> bool:
    """Whether a checkpoint would be of use."""
    return wal.has_frames(connections.CHECKPOINT_PAGES) or wal.is_idle(IDLE_SECONDS)
