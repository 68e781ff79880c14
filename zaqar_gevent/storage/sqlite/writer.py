"""The work of the writing thread: group commit on one connection, and upkeep in between.

A failing file fails the whole transaction. After any failure there is a new connection.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from zaqar.storage import errors

from zaqar_gevent.storage.core.completions import Call
from zaqar_gevent.storage.core.group_commit import APART, GroupCommit, perform
from zaqar_gevent.storage.errors import StoreUnavailable
from zaqar_gevent.storage.sqlite import (
    checkpoints,
    collector,
    delays,
    epochs,
    posting,
    tallies,
)
from zaqar_gevent.storage.sqlite.files import LOOK_SECONDS, Files, ThreadConnection
from zaqar_gevent.storage.sqlite.outage import damaged, describe, is_damage, is_outage, unavailable
from zaqar_gevent.storage.sqlite.transaction import DueQueue, Transaction, open_transaction
from zaqar_gevent.storage.sqlite.wal import Wal

_WAL_LOOK_SECONDS = 0.05
"""How often the length of the log is looked at, at most."""

_OTHERS_LOOK_SECONDS = 0.005
"""How often it is looked whether other processes write, at most. Until one has been seen, SQLite's
back-off decides who is next."""

_POSTS = {posting.post}
_FAILED_SYNCS = frozenset((sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC))


class Writer(GroupCommit):
    """Runs batches of writing calls, each batch in one transaction.

    get_synchronous: returns the option's current value. report: logs an error that no caller gets.
    announce: reports delayed messages that have become visible. has_listeners: whether anybody
    listens to that. checkpoint: called when a checkpoint is due. part: refuses calls; the others.
    """

    def __init__(
        self,
        files: Files,
        get_synchronous: Callable[[], str],
        report: Callable[[StoreUnavailable], None],
        announce: Callable[[list[DueQueue]], None],
        has_listeners: Callable[[], bool],
        checkpoint: Callable[[], None],
        part: Callable[[Transaction, list[Call]], list[Call]],
    ) -> None:
        super().__init__()
        self._files = files
        self._get_synchronous = get_synchronous
        self._report = report
        self._checkpoint = checkpoint
        self._part_calls = part
        self._wal: Wal | None = None
        self._look_at = self._look_for_others_at = 0.0
        self._synchronous = ''
        self._syncs_late = self._syncs_commits = False
        self._held: ThreadConnection | None = None
        self._opening = 0
        self._announce = announce
        self._collection = collector.CollectionSchedule(files.path, report)
        self._delays = delays.DelaySchedule(files.path, report, announce, has_listeners)

    def on_idle(self) -> float | None:
        self._files.tend()
        if self._files.lost is not None:
            self._report(self._files.unavailable())
            return LOOK_SECONDS
        try:
            self._look_at_wal()
            wait = min(LOOK_SECONDS, self._delays.seconds, self._collection.seconds)
            if wait > 0:
                return wait
            connect, close = self._get_connection, self.close
            # The lock is one of the connection, which is opened anew when damage is met.
            connect()
            lock = self._get_write_lock()
            with self._files.writing, lock:
                wait = min(self._delays.run(connect, close), self._collection.run(connect, close))
            self._sync_late()
            return min(LOOK_SECONDS, wait)
        except (sqlite3.Error, errors.ExceptionBase) as error:
            # No caller waits for this. If the store is unavailable, the next call will report it.
            self.close()
            if is_damage(error):
                self._report(damaged(self._files.path, str(error)))
            return min(LOOK_SECONDS, self._delays.postpone(), self._collection.postpone())

    def close(self) -> None:
        """Close the connection, which rolls back whatever it is in the middle of."""
        if self._held is not None:
            held, self._held = self._held, None
            if held.is_open:
                held.close()
        if self._wal is not None:
            wal, self._wal = self._wal, None
            wal.close()

    def commit(self, calls: list[Call]) -> None:
        self._files.watch()
        # The commit that ends a long task syncs what its parts have written as well.
        needs_sync = any(call.work not in APART for call in calls)
        cursor = open_transaction(self._get_connection())
        try:
            lock = self._get_write_lock(needs_sync=needs_sync)
            with self._files.writing, lock:
                cursor.execute('BEGIN IMMEDIATE')
                done = self._part_calls(cursor, calls)
                perform(cursor, done)
                # PERF: posts change no counts.
                if {call.work for call in done} != _POSTS:
                    tallies.gather(cursor)
                cursor.execute('COMMIT')
            if needs_sync:
                self._sync_late()
        except sqlite3.Error as error:
            if getattr(error, 'sqlite_errorcode', 0) in _FAILED_SYNCS:
                self._files.is_log_in_doubt = True
            raise
        finally:
            # One that an error's traceback held would hold the transaction too.
            cursor.close()
        self._files.confirm()
        if cursor.next_due is not None or cursor.due:
            self._delays.delayed(cursor.next_due)
            self._announce(cursor.due)

    def reset(self) -> None:
        self.close()

    def concerns_all(self, error: BaseException) -> bool:
        if isinstance(error, StoreUnavailable):
            return True
        code = getattr(error, 'sqlite_errorcode', None)
        return is_outage(error) and not is_damage(error) and code != sqlite3.SQLITE_ERROR

    def is_damage(self, error: BaseException) -> bool:
        return is_damage(error)

    def explain(self, error: BaseException, queue: tuple[str, str] | None) -> BaseException:
        if is_damage(error):
            return damaged(self._files.path, str(error), queue)
        if is_outage(error) or isinstance(error, MemoryError) or not isinstance(error, Exception):
            return unavailable(self._files.path, describe(error))
        return error

    def explain_to_all(self, error: BaseException) -> BaseException:
        if self._files.lost is not None:
            return self._files.unavailable()
        if isinstance(error, StoreUnavailable):
            return error
        return unavailable(self._files.path, describe(error))

    def _get_connection(self) -> sqlite3.Connection:
        synchronous = self._get_synchronous()
        held = self._held
        is_usable = held is not None and held.is_open and not self._files.is_log_in_doubt
        if held is None or not is_usable or synchronous != self._synchronous:
            self.close()
            held = self._connect(synchronous)
            self._held, self._synchronous = held, synchronous
            self._syncs_late = False
            self._syncs_commits = synchronous == 'full'
            self._wal = self._files.open_wal()
            self._wal.write_lock.announce()
            self._look_for_others_at = 0.0
        return held.connection

    def _get_write_lock(self, *, needs_sync: bool = True) -> AbstractContextManager[object]:
        """The lock of those who write, of all processes, as far as that can be had.

        needs_sync: whether what is committed next is to be on the disk then.
        """
        wal, held = self._wal, self._held
        if wal is None or held is None:
            return nullcontext()
        self._look_for_others(wal)
        # SQLite syncs each commit, unless others would wait for it.
        syncs = needs_sync and self._synchronous == 'full' and not self._syncs_late
        if syncs is not self._syncs_commits:
            self._syncs_commits = syncs
            held.connection.execute(f'PRAGMA synchronous = {"full" if syncs else "normal"}')
        return wal.write_lock

    def _sync_late(self) -> None:
        """Have what has been committed on the disk, as far as it is to be.

        PERF: other processes commit meanwhile, and the disk serves all of them together.
        """
        if self._syncs_late and self._wal is not None:
            self._sync(self._wal)

    def _sync(self, wal: Wal) -> None:
        try:
            wal.sync()
        except OSError as error:
            self._files.is_log_in_doubt = True
            raise unavailable(self._files.path, describe(error)) from error

    def _look_for_others(self, wal: Wal) -> None:
        now = time.monotonic()
        if now < self._look_for_others_at:
            return
        self._look_for_others_at = now + _OTHERS_LOOK_SECONDS
        wal.write_lock.look_for_others()
        self._syncs_late = wal.write_lock.has_others and self._synchronous == 'full'

    def _look_at_wal(self) -> None:
        now = time.monotonic()
        if self._wal is not None and now >= self._look_at:
            self._look_at = now + _WAL_LOOK_SECONDS
            if checkpoints.is_due(self._wal):
                self._checkpoint()

    def _connect(self, synchronous: str) -> ThreadConnection:
        """Open the file to be written: an epoch begins if it may be another one than before."""
        held = self._files.connect(synchronous=synchronous)
        try:
            if self._files.is_log_in_doubt:
                self._begin_log_anew(held.connection)
            if self._opening != self._files.openings:
                epochs.begin(held.connection)
                self._opening = self._files.openings
        except BaseException:
            held.close()
            raise
        return held

    def _begin_log_anew(self, connection: sqlite3.Connection) -> None:
        """Leave the log behind after a failure to sync it.

        The system takes what it could not write for written. It may be missing on the disk, and
        then nothing that follows it in the log would be found after a power cut.
        """
        is_held, *_ = connection.execute('PRAGMA wal_checkpoint(RESTART)').fetchone()
        if is_held:
            raise unavailable(self._files.path, 'its log could not be synced, and is in use')
        self._files.is_log_in_doubt = False
