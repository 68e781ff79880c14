"""One file, shared by all drivers of the process that name it.

Writes go to one native thread, which commits what has gathered as one transaction. Reads that are
short are done by the calling thread, usually the hub's: a hand-over to another thread and back
costs three times as much. One that turns out not to be short is broken off and goes to the reading
threads, where those that never are go at once.
"""

from __future__ import annotations

import collections
import os
import sqlite3
import time
import weakref
from collections.abc import Callable
from typing import Any

from gevent import monkey

from zaqar_gevent.storage.sqlite import connection as files
from zaqar_gevent.storage.sqlite.mailbox import Mailbox, MailboxClosed, forget_origins
from zaqar_gevent.storage.sqlite.outage import StoreUnavailable
from zaqar_gevent.storage.sqlite.reader import Reader
from zaqar_gevent.storage.sqlite.writer import Writer

_allocate_lock = monkey.get_original('_thread', 'allocate_lock')
_local = monkey.get_original('threading', 'local')

READERS = 2
"""Native threads for reads that are not short."""

SHORT = 0.001
"""Seconds of processor time that a read may take of the calling thread; with 0 all go to the
reading threads."""

_WAIT = 0.003
"""Seconds after which a read of the calling thread must be waiting for the disk."""

_STEPS = 100
"""Instructions of SQLite's machine between two looks at the clock."""


class Database:
    """Reading and writing of one file. Use `Database.open`."""

    def __init__(self, path: str, synchronous: str) -> None:
        self.path = path
        self.synchronous = synchronous
        self.users = 0
        files.prepare(path)
        self._start()

    @classmethod
    def open(cls, path: str, synchronous: str = 'full') -> Lease:
        """The use of the file at `path`; the strictest `synchronous` of its users holds.

        Raises `StoreUnavailable` when the file cannot be opened.
        """
        path = os.path.realpath(path)
        _release_abandoned()
        with _registry_lock:
            database = _registry.get(path)
            if database is None:
                database = _registry[path] = cls(path, synchronous)
            elif synchronous == 'full':
                database.synchronous = 'full'
            database.users += 1
        return Lease(database)

    def write(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """`work(cursor, *arguments)` in a transaction, done when it has been committed.

        `work` must have raised its errors of `zaqar.storage.errors` before its first change.
        Raises what `work` raised, or `StoreUnavailable`.
        """
        return self._call(self._writer, work, arguments)

    def read(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """`work(connection, *arguments)`, which is expected to be short; raises like `write`."""
        if not self.users:
            raise self._closed()
        if SHORT:
            try:
                return work(self._get_connection(), *arguments)
            except sqlite3.DatabaseError:
                # Too long, or an error: it is waited for, or told, elsewhere.
                pass
        return self.scan(work, *arguments)

    def scan(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """`work(connection, *arguments)` in a reading thread; raises like `write`."""
        return self._call(self._readers, work, arguments)

    def get_row(self, statement: str, parameters: tuple[Any, ...]) -> Any:
        """The first row of a query, or None; raises like `write`."""
        return self.read(_get_row, statement, parameters)

    def release(self, *, wait: bool) -> None:
        """Give up one use; the last one closes the file."""
        with _registry_lock:
            self.users -= 1
            if self.users:
                return
            _registry.pop(self.path, None)
        self._readers.close(wait=wait)
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._writer.close(wait=wait)

    def _start(self) -> None:
        self._writer = Mailbox(lambda: Writer(self.path, lambda: self.synchronous), greedy=True)
        self._readers = Mailbox(lambda: Reader(self.path), threads=READERS)
        self._connections: list[sqlite3.Connection] = []
        self._local = _local()

    def _call(self, mailbox: Mailbox, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        try:
            return mailbox.call(work, *arguments)
        except MailboxClosed:
            raise self._closed() from None
        except StoreUnavailable as error:
            error.outage.report()
            raise

    def _closed(self) -> StoreUnavailable:
        return StoreUnavailable(self.path, 'it has been closed')

    def _get_connection(self) -> sqlite3.Connection:
        own = self._local
        own.began = time.perf_counter()
        own.used = time.thread_time()
        connection: sqlite3.Connection | None = getattr(own, 'connection', None)
        if connection is None:
            # Without patience: the calling thread is not to wait for a lock, either.
            connection = files.connect(self.path, timeout=0, readonly=True)
            connection.set_progress_handler(lambda: _is_long(own), _STEPS)
            own.connection = connection
            self._connections.append(connection)
        return connection

    def forget_inherited(self) -> None:
        """In a forked child: start anew, since neither threads nor connections survive a fork."""
        _inherited.append((self._connections, self._local, self._writer, self._readers))
        self._start()


class Lease:
    """A driver's use of a database. One that is garbage collected ends at the next opening."""

    def __init__(self, database: Database) -> None:
        self.database = database
        # Garbage is collected anywhere, also under locks: the finalizer only takes a note.
        self._finalizer = weakref.finalize(self, _abandoned.append, database)
        self._finalizer.atexit = False

    def close(self) -> None:
        """Give it up, once; returns when the threads of a file nobody uses have ended."""
        if self._finalizer.detach():
            self.database.release(wait=True)


def _release_abandoned() -> None:
    while _abandoned:
        _abandoned.popleft().release(wait=False)


def _is_long(read: Any) -> bool:
    """Whether a read is to be broken off.

    On a busy machine time passes without the read's doing.
    """
    passed = time.perf_counter() - read.began
    return bool(passed > SHORT and (passed > _WAIT or time.thread_time() - read.used > SHORT))


def _get_row(connection: sqlite3.Connection, statement: str, parameters: tuple[Any, ...]) -> Any:
    return connection.execute(statement, parameters).fetchone()


_abandoned: collections.deque[Database] = collections.deque()
_registry: dict[str, Database] = {}
_registry_lock = _allocate_lock()
# Kept for good: closing them in the child would disturb the locks of the parent.
_inherited: list[Any] = []


def _after_fork() -> None:
    global _registry_lock
    _registry_lock = _allocate_lock()
    forget_origins()
    for database in _registry.values():
        database.forget_inherited()


os.register_at_fork(after_in_child=_after_fork)
