"""Opening the file."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
import urllib.parse

from gevent import monkey

from zaqar_gevent.bodies import Encoding
from zaqar_gevent.storage.sqlite import schema
from zaqar_gevent.storage.sqlite.outage import unavailable

# PERF: a parameter of a type that has no adapter costs 0.3 us, since sqlite3 looks for one in three
# places; a row of a message has four of them. These adapters give the same value.
sqlite3.register_adapter(bytes, bytes)
sqlite3.register_adapter(memoryview, memoryview)
sqlite3.register_adapter(type(None), lambda _: None)
sqlite3.register_adapter(Encoding, int)

# Not the patched one: files are opened under a lock of native threads.
_sleep = monkey.get_original('time', 'sleep')

BUSY_TIMEOUT = 5.0
"""Seconds to wait for a lock that another process or connection holds."""

_CACHE_KIB = 16 * 1024
# SQLite empties the cache of a reading connection whenever another one has written.
_READING_CACHE_KIB = 4 * 1024

CHECKPOINT_PAGES = 4000
"""So many pages of log make a checkpoint due."""

MAX_WAL_BYTES = 32 * 1024 * 1024
"""The size that the log keeps when it begins anew: overwriting is faster."""

# Should no checkpoint be made elsewhere, SQLite makes one after a commit.
_LATE = 4


def prepare(path: str) -> None:
    """Create the file if need be and bring it to the current format.

    Raises `StoreUnavailable` with the reason when that cannot be done.
    """
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise unavailable(path, f'the directory {directory} does not exist')
    try:
        # SQLite gives the -wal and -shm files the mode of the file itself.
        _create(path)
        sync_directory(directory)
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
        try:
            _switch_to_wal(connection)
            schema.migrate(connection)
        finally:
            connection.close()
    except (OSError, sqlite3.Error, schema.UnknownFormat) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise unavailable(path, reason or type(error).__name__) from error


def _create(path: str) -> None:
    """Create the file, unless it exists."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        # It must not be opened here: to close it would end all locks that this process has on it,
        # by other connections, and another process would remove the log under them.
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS)) from None
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def connect(
    path: str,
    *,
    synchronous: str = 'full',
    timeout: float | None = None,
    readonly: bool = False,
) -> sqlite3.Connection:
    """A connection in autocommit mode to a file that `prepare` has seen.

    It may be closed in another thread than the one that made it. A file that is gone is not made.
    """
    connection = sqlite3.connect(
        f'file:{urllib.parse.quote(path)}?mode=rw',
        uri=True,
        timeout=BUSY_TIMEOUT if timeout is None else timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute(f'PRAGMA synchronous = {synchronous}')
    cache_kib = _READING_CACHE_KIB if readonly else _CACHE_KIB
    connection.execute(f'PRAGMA cache_size = -{cache_kib}')
    connection.execute(f'PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES * _LATE}')
    connection.execute(f'PRAGMA journal_size_limit = {MAX_WAL_BYTES}')
    # PERF: some builds overwrite what is deleted, which writes long bodies once more.
    connection.execute('PRAGMA secure_delete = FAST')
    connection.execute(f'PRAGMA query_only = {int(readonly)}')
    return connection


def sync_directory(directory: str | os.PathLike[str]) -> None:
    """Make what has been created in `directory` outlive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # The busy timeout does not cover every step of the switch when processes start together.
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute('PRAGMA journal_mode = WAL')
            return
        except sqlite3.OperationalError as error:
            if 'locked' not in str(error) or time.monotonic() > deadline:
                raise
            _sleep(0.02)
