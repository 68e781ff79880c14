"""Translates SQLite's errors into the store's errors."""

from __future__ import annotations

import sqlite3

from zaqar_gevent.storage.errors import StoreDamaged, StoreUnavailable

_PRIMARY = 0xFF
"""Of an extended result code of SQLite, the bits of the primary one."""

_DAMAGED_READS = frozenset(
    (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS)
)


def unavailable(path: str, reason: str) -> StoreUnavailable:
    """The error for a file that cannot be used now."""
    return StoreUnavailable(f'The store {path}', reason)


def damaged(path: str, reason: str, queue: tuple[str, str] | None = None) -> StoreDamaged:
    """The error for a file of which a part is damaged.

    queue: the project and the name of the queue whose call failed, if they are known.
    """
    return StoreDamaged(f'The store {path}', reason, queue)


def is_outage(error: BaseException) -> bool:
    """Whether `error` speaks of the file, rather than of what one call asked for."""
    return isinstance(error, sqlite3.OperationalError | sqlite3.InternalError) or (
        # The bare class: a damaged file, or none of SQLite's.
        type(error) is sqlite3.DatabaseError
    )


def is_damage(error: BaseException) -> bool:
    """Whether `error` speaks of a part of the file, so that others may be sound."""
    code = getattr(error, 'sqlite_errorcode', 0)
    return code & _PRIMARY == sqlite3.SQLITE_CORRUPT or code in _DAMAGED_READS


def describe(error: BaseException) -> str:
    """The reason that `error` gives, in a few words."""
    return str(error) or type(error).__name__
