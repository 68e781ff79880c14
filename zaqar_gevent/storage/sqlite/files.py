"""The files of one store, and this process's connections to them.

SQLite goes on writing to files that have been moved, replaced or deleted: what it commits then is
gone at the next start. So they are looked at: after every commit, and otherwise a few times a
second. Once they are not where they were opened, nothing is read or written. All that has been
committed is put into the database file, wherever it is, and every connection is closed. The store
is opened again when the database file is back.

Why nothing else is safe: connections that stay open know the content of a file that another
program may change meanwhile; and of processes that share the files, none must begin new ones while
another still has the old ones.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from gevent import monkey

from zaqar_gevent.storage.errors import StoreUnavailable
from zaqar_gevent.storage.sqlite import connecting
from zaqar_gevent.storage.sqlite.outage import describe, unavailable
from zaqar_gevent.storage.sqlite.wal import Wal

LOOK_SECONDS = 0.25
"""How often the files are looked at where nothing is written."""

RETURN_SECONDS = 2.0
"""How long all connections stay closed at least: until all processes have closed theirs."""

_CLOSE_SECONDS = 5.0
_CHECKPOINT_MILLISECONDS = 1000

# Of a directory that has changed so lately, a change that follows may have the same time.
_SETTLE_NANOSECONDS = 50_000_000

_allocate_lock = monkey.get_original('_thread', 'allocate_lock')

_Identity = tuple[int, int]


_ADVICE = (
    'The server goes on by itself when the file is back, and with another file after a restart'
)
_ADVICE_BESIDE = 'The server makes it anew'


class _Missing(Exception):
    """The file `name` is not where it was opened."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f'{name} {what}')
        self.name = name


class ThreadConnection:
    """A connection of one thread, which another may close between two uses."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.is_open = True
        self.lock = _allocate_lock()

    def close(self) -> None:
        """In the thread that uses it; what it is in the middle of is rolled back."""
        with self.lock:
            self._close()

    def take_away(self) -> bool:
        """Close it in another thread, breaking off what it does; whether that was possible."""
        with suppress(sqlite3.ProgrammingError):
            # Closed meanwhile, otherwise.
            self.connection.interrupt()
        if not self.lock.acquire(True, _CLOSE_SECONDS):
            return False
        try:
            self._close()
        finally:
            self.lock.release()
        return True

    def _close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        try:
            # Closed, it lives as long as a cursor that an error's traceback may hold.
            if self.connection.in_transaction:
                self.connection.rollback()
        finally:
            self.connection.close()


class Files:
    """The database file at `path` with its `-wal` and `-shm`.

    lost: why nothing can be read or written now; None while it can.
    names: the paths by which the database file is known.
    look_at: when they are to be looked at again, by `time.perf_counter`.
    openings: how often they have been opened.
    writing: held by the thread of this process that writes.
    is_log_in_doubt: whether a sync of the log has failed since it last began anew.
    """

    def __init__(self, path: str, names: Iterable[str] = ()) -> None:
        self.path = path
        self.lost: str | None = None
        self.look_at = 0.0
        self.openings = 0
        self._directory = os.path.dirname(path)
        self.names = {path, *names}
        self._settled: tuple[int, int, int] | None = None
        self._known: dict[str, _Identity] = {}
        self._handles: list[ThreadConnection] = []
        # It keeps the other files from being removed and made anew as connections come and go.
        self._anchor: sqlite3.Connection | None = None
        # To close it ends all locks that this process has on the file, by its connections.
        self._descriptor: int | None = None
        self._lost_at = 0.0
        self.writing = _allocate_lock()
        self.is_log_in_doubt = False
        self._lock = _allocate_lock()

    def add_name(self, name: str) -> None:
        """Look at `name` too, by which the database file is known: a link, say."""
        with self._lock:
            self.names.add(name)
            if self._known:
                self._known[name] = self._known[self.path]

    def open(self) -> None:
        """Open the files, before anything is read or written; raises like `connect`."""
        with self._lock:
            if self._anchor is None:
                try:
                    self._open()
                except _Missing as error:
                    self._lose(error)
                    raise self.unavailable() from None

    def connect(self, **options: Any) -> ThreadConnection:
        """A connection (see `connection.connect`); raises `StoreUnavailable` or `sqlite3.Error`."""
        if self.lost is not None:
            raise self.unavailable()
        self.open()
        with self._lock:
            if self._anchor is None:
                raise self.unavailable()
            held = ThreadConnection(connecting.connect(self.path, **options))
            self._handles = [*(each for each in self._handles if each.is_open), held]
        return held

    def open_wal(self) -> Wal:
        """The log, for one thread; raises `StoreUnavailable`."""
        try:
            return Wal(self.path)
        except OSError as error:
            raise unavailable(self.path, describe(error)) from error

    def sync(self) -> None:
        """Have what is in the database file outlive a power cut; raises `OSError`."""
        descriptor = self._descriptor
        if descriptor is not None:
            os.fdatasync(descriptor)

    def _open(self) -> None:
        known = self._known.get(self.path)
        if known is not None:
            # Another file is not even opened: SQLite would change it, and what lies beside it.
            _check(self.path, known)
        anchor = connecting.connect(self.path)
        try:
            # Only now it opens the other files.
            anchor.execute('SELECT count(*) FROM sqlite_master').fetchall()
            names = (*self.names, f'{self.path}-wal', f'{self.path}-shm')
            self._known = {name: _identify(name) for name in names}
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            anchor.close()
            raise
        self._anchor, self._settled, self.look_at = anchor, None, 0.0
        self.openings += 1

    def unavailable(self) -> StoreUnavailable:
        """The error of a call that needs the files, which are lost."""
        return unavailable(self.path, self.lost or 'it has been closed')

    def watch(self) -> None:
        """Look at the files if it is time to; raises `StoreUnavailable`."""
        if self.lost is None and time.perf_counter() >= self.look_at:
            self._look()
        if self.lost is not None:
            raise self.unavailable()

    def confirm(self) -> None:
        """Whether what has just been committed is in the files that a restart would open.

        Raises `StoreUnavailable` if it is not. PERF: names in a directory do not change without
        its time of modification, so that mostly one look is enough.
        """
        try:
            found = os.stat(self._directory)
        except OSError:
            self._look()
        else:
            if self._settled != (found.st_dev, found.st_ino, found.st_mtime_ns):
                self._look()
        if self.lost is not None:
            raise self.unavailable()

    def _look(self) -> None:
        with self._lock:
            if self.lost is not None or self._anchor is None:
                return
            self.look_at = time.perf_counter() + LOOK_SECONDS
            try:
                self._settled = self._get_settled()
                for name, known in self._known.items():
                    _check(name, known)
            except _Missing as error:
                self._lose(error)

    def _lose(self, error: _Missing) -> None:
        self._lost_at = time.monotonic()
        advice = _ADVICE if error.name in self.names else _ADVICE_BESIDE
        self.lost = f'{error}. {advice}'

    def _get_settled(self) -> tuple[int, int, int] | None:
        """The state of the directory, if a change of it would be seen."""
        try:
            found = os.stat(self._directory)
        except OSError:
            return None
        if time.time_ns() - found.st_mtime_ns < _SETTLE_NANOSECONDS:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns

    def tend(self) -> None:
        """Once they are lost, save what they hold and close them, or open them when they are back.

        For one native thread, again and again, while its own connection is in no use.
        """
        with suppress(StoreUnavailable):
            self.watch()
        if self.lost is None:
            return
        if self._anchor is not None:
            self._retire()
        elif time.monotonic() - self._lost_at >= RETURN_SECONDS:
            self._return()

    def _retire(self) -> None:
        with self._lock:
            anchor = self._anchor
            if anchor is None:
                return
            _checkpoint(anchor)
            if all(held.take_away() for held in self._handles if held.is_open):
                self._handles = []
                self._anchor = None
                anchor.close()
                self._close_descriptor()

    def _return(self) -> None:
        with self._lock, suppress(_Missing, sqlite3.Error):
            self._open()
            self.lost = None

    def close(self) -> None:
        """Put everything into the database file and close all connections, which nobody uses.

        What the last connection of all processes does at its end is not enough: two that end
        together each leave it to the other.
        """
        with self._lock:
            anchor, self._anchor = self._anchor, None
            for held in self._handles:
                if held.is_open:
                    held.close()
            self._handles = []
            if anchor is not None:
                _checkpoint(anchor)
                anchor.close()
            self._close_descriptor()

    def _close_descriptor(self) -> None:
        """Once there are no connections any more."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _identify(name: str) -> _Identity:
    """The identity of the file `name`; raises `_Missing`."""
    try:
        found = os.stat(name)
    except FileNotFoundError:
        raise _Missing(name, 'has been moved or deleted') from None
    except OSError as error:
        raise _Missing(name, f'cannot be found: {error.strerror}') from None
    return found.st_dev, found.st_ino


def _check(name: str, known: _Identity) -> None:
    if _identify(name) != known:
        raise _Missing(name, 'is not the file that was opened')


def _checkpoint(connection: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):
        connection.execute(f'PRAGMA busy_timeout = {_CHECKPOINT_MILLISECONDS}')
        connection.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchall()
