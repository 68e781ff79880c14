"""One SQLite file, shared by all drivers of the process that name it.

Writes go to one native thread, which commits all writes that have gathered as one transaction.

A short read is done by the calling thread, usually the hub's, because handing it to another thread
and back costs three times as much. A read that takes too long there is broken off and done again by
the reading threads; reads that are never short go to these at once. A read that takes too long
there, too, goes to the scanning threads. Projects take turns in both, and none has all the threads.
"""

from __future__ import annotations

import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent import monkey

from zaqar_gevent.storage.core.completions import Call, NotAnswered
from zaqar_gevent.storage.core.handles import Handle, Registry
from zaqar_gevent.storage.core.outages import OutageLog
from zaqar_gevent.storage.core.pages import decode_page
from zaqar_gevent.storage.core.thread_pool import ThreadFailed, ThreadPool, ThreadPoolClosed
from zaqar_gevent.storage.errors import ScanTooLong, StoreUnavailable, UndecodableValue
from zaqar_gevent.storage.sqlite import checkpoints, connecting
from zaqar_gevent.storage.sqlite.files import Files, ThreadConnection
from zaqar_gevent.storage.sqlite.outage import unavailable
from zaqar_gevent.storage.sqlite.reader import Reader, ReadTooLong
from zaqar_gevent.storage.sqlite.transaction import DueQueue, Transaction
from zaqar_gevent.storage.sqlite.writer import Writer

_allocate_lock = monkey.get_original('_thread', 'allocate_lock')
_local = monkey.get_original('threading', 'local')

Listener = Callable[[str | None, str, list[dict[str, Any]]], None]
"""Called with the project, the queue and its delayed messages that have become visible."""

READERS = 3
"""Native threads for reads that are not short. One project has at most all but one of them."""

READ_SECONDS = 0.02
"""Seconds of processor time that a read may take of a reading thread."""

SCANNERS = 2
"""Native threads for reads that take longer than that. One project has at most all but one."""

SCAN_SECONDS = 10.0
"""How long a read may take all in all, where nothing else is configured."""

SHORT = 0.001
"""Seconds of processor time that a read may take of the calling thread; with 0 all go to the
reading threads."""

_WAIT = 0.003
"""Seconds after which a read of the calling thread must be waiting for the disk."""

_PROBE_BYTES = 64 * 1024
"""Written to find out if a full disk has room again; it may have room for less."""

_STEPS = 500
"""Instructions of SQLite's machine between two looks at the clock."""


class _LoggedPool:
    """Native threads, and the log of their failures."""

    def __init__(self, make_executor: Callable[[], Any], **options: Any) -> None:
        self.pool = ThreadPool(make_executor, **options)
        self.outages = OutageLog()


class Database:
    """Reading and writing of one file. Use `open_database`.

    part_calls: in a transaction, refuses some of the calls, which have then been done nothing for;
        the others. None refuses none.
    """

    def __init__(self, path: str, synchronous: str) -> None:
        self.path = path
        self.synchronous = synchronous
        self.scan_seconds = SCAN_SECONDS
        self.part_calls: Callable[[Transaction, list[Call]], list[Call]] | None = None
        self._is_closed = False
        self._listening: weakref.WeakSet[DatabaseHandle] = weakref.WeakSet()
        connecting.prepare(path)
        self._start()
        try:
            self._files.open()
        except sqlite3.Error as error:
            raise unavailable(path, str(error)) from error

    def add_name(self, name: str) -> None:
        """Watch `name`, too, by which the file is known: a link, say."""
        self._files.add_name(name)

    def write(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """`work(cursor, *arguments)` in a transaction, done when it has been committed.

        If `work` raises an error of `zaqar.storage.errors`, it must not have changed anything.
        Raises what `work` raised, or `StoreUnavailable`.
        """
        return self._call(self._writing, work, arguments)

    def sync_log(self) -> None:
        """Wait until all that has been committed outlives a power cut, if it is to.

        Others commit meanwhile. Raises `StoreUnavailable`.
        """
        if self.synchronous == 'full':
            self._call(self._checkpointing, checkpoints.sync_log, ())

    def read(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """`work(connection, *arguments)`, which is expected to be short; raises like `write`."""
        if self._is_closed:
            raise self._closed()
        if SHORT:
            thread_connection = self._get_thread_connection()
            # Another thread holds the lock only to close the connection.
            if thread_connection is not None and thread_connection.lock.acquire(False):
                try:
                    return work(thread_connection.connection, *arguments)
                except sqlite3.DatabaseError:
                    # Too long, or an error: a reading thread tries again, and reports the error.
                    pass
                finally:
                    thread_connection.lock.release()
                # PERF: with Python 3.11, a connection prepares a statement anew each time once it
                # has been broken off behind its first row, which costs six times as much.
                thread_connection.close()
        return self.scan(work, *arguments)

    def scan(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """`work(connection, *arguments)` in another thread; raises like `write`, or `ScanTooLong`.

        A long read is done again by another thread, so `work` must change nothing.
        """
        ends_at = time.monotonic() + self.scan_seconds
        try:
            return self._call(self._reading, work, arguments)
        except ReadTooLong:
            left = max(0.0, ends_at - time.monotonic())
            return self._call(self._scanning, work, arguments, left)

    def get_row(self, statement: str, parameters: tuple[Any, ...] | dict[str, Any]) -> Any:
        """The first row of a query, or None; raises like `write`."""
        return self.read(_get_row, statement, parameters)

    def add_listener(self, handle: DatabaseHandle) -> None:
        """Call the listener of a handle from now on, as long as the handle exists."""
        with self._listeners_lock:
            self._listening.add(handle)
        self._writing.pool.wake()

    def is_working(self) -> bool:
        """Whether the store can be read and written now.

        It reads and writes; after a failure it writes as much as many posts would.
        """
        try:
            self.write(_rewrite if self._writing.outages.is_on else _do_nothing)
            self.scan(_touch)
        except StoreUnavailable:
            return False
        return True

    def close(self, *, wait: bool) -> None:
        """End the threads and close the file; with `wait`, return when that is done."""
        self._is_closed = True
        have_ended = self._reading.pool.close(wait=wait)
        have_ended &= self._scanning.pool.close(wait=wait)
        have_ended &= self._writing.pool.close(wait=wait)
        have_ended &= self._checkpointing.pool.close(wait=wait)
        if have_ended:
            self._files.close()

    def _start(self, names: Iterable[str] = ()) -> None:
        opened = Files(self.path, names)
        self._files = opened
        self._writing = _LoggedPool(self._make_writer, greedy=True)
        self._reading = _LoggedPool(
            lambda: Reader(opened, READ_SECONDS), threads=READERS, at_once=READERS - 1
        )
        self._scanning = _LoggedPool(lambda: Reader(opened), threads=SCANNERS, at_once=SCANNERS - 1)
        self._checkpointing = _LoggedPool(lambda: checkpoints.Checkpointer(opened), greedy=True)
        self._local = _local()
        self._listeners_lock = _allocate_lock()

    def _make_writer(self) -> Writer:
        return Writer(
            self._files,
            lambda: self.synchronous,
            self._report_later,
            self._announce,
            lambda: bool(self._listening),
            self._checkpointing.pool.wake,
            self._part,
        )

    def _part(self, cursor: Transaction, calls: list[Call]) -> list[Call]:
        part = self.part_calls
        return calls if part is None else part(cursor, calls)

    def _announce(self, dues: list[DueQueue]) -> None:
        """In the writing thread: call each listener once."""
        with self._listeners_lock:
            listeners = {
                handle.listener: handle.hub for handle in self._listening if handle.listener
            }
        for due in dues:
            for listener, hub in listeners.items():
                try:
                    hub.loop.run_callback_threadsafe(gevent.spawn_raw, _tell, listener, due)
                except (AttributeError, RuntimeError, ValueError):
                    # The hub has been destroyed.
                    continue

    def _report_later(self, error: StoreUnavailable) -> None:
        self._writing.pool.tell(lambda: self._writing.outages.failed(error))

    def _call(
        self,
        threads: _LoggedPool,
        work: Callable[..., Any],
        arguments: tuple[Any, ...],
        seconds: float | None = None,
    ) -> Any:
        try:
            result = threads.pool.call(work, arguments, seconds)
        except ThreadPoolClosed:
            raise self._closed() from None
        except (ThreadFailed, NotAnswered) as failure:
            if seconds is not None and isinstance(failure, NotAnswered):
                raise ScanTooLong(self.scan_seconds) from None
            error = unavailable(self.path, str(failure))
            threads.outages.failed(error)
            raise error from None
        except StoreUnavailable as error:
            # Lost files are reported once, whichever threads notice it first.
            responsible = threads if self._files.lost is None else self._writing
            responsible.outages.failed(error)
            raise
        threads.outages.succeeded()
        return result

    def _closed(self) -> StoreUnavailable:
        return unavailable(self.path, 'it has been closed')

    def _get_thread_connection(self) -> ThreadConnection | None:
        """The connection of the calling thread, or None. The time limit of a read begins now."""
        own = self._local
        own.began = time.perf_counter()
        own.used = time.thread_time()
        try:
            if self._files.lost is not None or own.began >= self._files.look_at:
                self._watch()
            thread_connection: ThreadConnection | None = getattr(own, 'thread_connection', None)
            if thread_connection is None or not thread_connection.is_open:
                # No timeout: the calling thread must not wait for a lock, either.
                thread_connection = own.thread_connection = self._files.connect(
                    timeout=0, readonly=True
                )
                thread_connection.connection.set_progress_handler(lambda: _is_long(own), _STEPS)
        except (StoreUnavailable, sqlite3.Error):
            # A reading thread will report it.
            return None
        return thread_connection

    def _watch(self) -> None:
        try:
            self._files.watch()
        except StoreUnavailable:
            # The writing thread closes the connections, and opens them again.
            self._writing.pool.wake()
            raise

    def after_fork(self) -> None:
        """In a forked child: start anew, since neither threads nor connections survive a fork."""
        threads = (self._writing, self._reading, self._scanning, self._checkpointing)
        _inherited.append((self._files, self._local, threads))
        self._start(self._files.names)


class DatabaseHandle(Handle[Database]):
    """A driver's use of a database, with the listener of that driver."""

    def __init__(self, store: Database, release: Callable[[bool], None], abandon: Any) -> None:
        super().__init__(store, release, abandon)
        self.listener: Listener | None = None
        self.hub: Any = None

    def listen(self, listener: Listener) -> None:
        """Have `listener` called in a greenlet of this hub when delayed messages become visible.

        It is told of those that this process makes visible: of each message, one process is told.
        It is given the project, the queue and, where that has subscriptions, the messages, with
        their `delay` in seconds and what they have `passed`.
        """
        self.listener, self.hub = listener, gevent.get_hub()
        self.store.add_listener(self)

    def close(self) -> None:
        """End the use; returns when the threads of a file that nobody uses have ended."""
        self.listener = None
        super().close()


_registry: Registry[str, Database] = Registry()


def open_database(path: str, synchronous: str = 'full') -> DatabaseHandle:
    """A handle of the file at `path`; the strictest `synchronous` of its handles holds.

    Raises `StoreUnavailable` when the file cannot be opened.
    """

    def tighten(database: Database) -> None:
        if synchronous == 'full':
            database.synchronous = 'full'

    name, path = os.path.abspath(path), os.path.realpath(path)
    handle = _registry.open(path, lambda: Database(path, synchronous), tighten, DatabaseHandle)
    assert isinstance(handle, DatabaseHandle)
    handle.store.add_name(name)
    return handle


def _is_long(read: Any) -> bool:
    """Whether a read of the calling thread has taken too long.

    Processor time counts: on a busy machine wall time passes while the read does not run.
    """
    passed = time.perf_counter() - read.began
    return bool(passed > SHORT and (passed > _WAIT or time.thread_time() - read.used > SHORT))


def _tell(listener: Listener, due: DueQueue) -> None:
    messages = []
    for document, delay, passed in due.deliveries:
        try:
            [message] = decode_page(document)
        except UndecodableValue:
            # It cannot be read.
            continue
        messages.append(message | {'delay': delay, 'passed': passed})
    listener(due.project or None, due.queue, messages)


def _get_row(connection: sqlite3.Connection, statement: str, parameters: tuple[Any, ...]) -> Any:
    return connection.execute(statement, parameters).fetchone()


def _do_nothing(cursor: sqlite3.Cursor) -> None:
    """A transaction that only takes the lock."""


def _rewrite(cursor: sqlite3.Cursor) -> None:
    """A transaction that writes as much as many posts, to see if the disk has room.

    The row that it writes has expired already, so it is removed with the others.
    """
    receipt = (0, 'x' * _PROBE_BYTES, 0, 0, 0.0)
    cursor.execute('INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?, ?)', receipt)


def _touch(connection: sqlite3.Connection) -> None:
    connection.execute('SELECT id FROM spools LIMIT 1').fetchone()


# Never closed: closing them in the child would release locks of the parent.
_inherited: list[Any] = []
