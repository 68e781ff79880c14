"""What callers get when the store cannot be used, or what it holds of a queue cannot.

zaqar.storage.errors.ConnectionError
├── StoreUnavailable        one line: the path and the reason
│   └── StoreDamaged        the same, of a part of the file
└── MessageDamaged          the file can be read, but a message in it is garbled
ScanTooLong                 the store is well, but a read took too long
"""

from __future__ import annotations

import functools
import inspect
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from oslo_log import log
from zaqar.storage import errors

from zaqar_gevent.scans import explain_scan

LOG = log.getLogger(__name__)

_MAX_LOGGED = 1000

_PRIMARY = 0xFF
"""Of an extended result code of SQLite, the bits of the primary one."""

_DAMAGED_READS = frozenset(
    (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS)
)


class StoreUnavailable(errors.ConnectionError):
    """The file cannot be opened, read or written now; a later request may succeed.

    is_logged: the store itself logs each outage, once and not for each call that it fails.
    """

    is_logged = True
    msg_format = 'The store {path} is unavailable: {reason}'

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path=path, reason=reason)


class StoreDamaged(StoreUnavailable):
    """A part of the file cannot be read; what does not need it is served.

    explanation: what a client is told.
    """

    msg_format = 'The store {path} is damaged: {reason}'
    explanation = (
        'What is stored of this queue is damaged and cannot be used, and trying again will not '
        'help. The operator of the server is told more by the command "zaqar-gevent check".'
    )

    def __init__(self, path: str, reason: str, queue: tuple[str, str] | None = None) -> None:
        """queue: the project and the name of the queue whose call failed, if they are known."""
        if queue is not None:
            reason = f'{reason}, in the queue {queue[1]!r} of the project {queue[0]!r}'
        super().__init__(path, f'{reason}. All else is served; see: zaqar-gevent check')


class MessageDamaged(errors.ConnectionError):
    """What is stored of a message is no JSON, though the file can be read."""

    msg_format = 'What is stored of a message is garbled ({reason}); see: zaqar-gevent check'
    explanation = StoreDamaged.explanation

    def __init__(self, reason: str) -> None:
        super().__init__(reason=reason)


class ScanTooLong(errors.ExceptionBase):
    """A read has been broken off, which looked at too much.

    explanation: what a client is told. is_logged: it is no failure of the store.
    """

    is_logged = True
    msg_format = 'A read was broken off after {seconds:g} s'

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds=seconds)
        self.explanation = explain_scan(seconds)


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


def find_queue(work: Callable[..., Any], arguments: Sequence[Any]) -> tuple[str, str] | None:
    """The project and the queue that a call is about, as far as its arguments say so.

    They are arguments of these names, or members of one.
    """
    given = dict(zip(get_names(work), arguments, strict=False))
    for one in (given, *arguments):
        if isinstance(one, Mapping) and 'queue' in one:
            return str(one.get('project') or ''), str(one['queue'])
        if hasattr(one, 'queue') and hasattr(one, 'project'):
            return str(one.project or ''), str(one.queue)
    return None


@functools.lru_cache
def get_names(work: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the parameters of `work` after the first, which is the cursor."""
    return tuple(inspect.signature(work).parameters)[1:]


def describe(error: BaseException) -> str:
    """The reason that `error` gives, in a few words."""
    return str(error) or type(error).__name__


class FailureLog:
    """What is logged of failures: each once, outages again when they come again.

    Not for native threads: the locks of logging are patched.
    """

    def __init__(self) -> None:
        self._outages: set[str] = set()
        self._damages: set[str] = set()

    @property
    def has_outage(self) -> bool:
        """Whether no call has succeeded since the last outage."""
        return bool(self._outages)

    def report(self, error: StoreUnavailable) -> None:
        """Log `error`, unless it has been."""
        logged = self._damages if isinstance(error, StoreDamaged) else self._outages
        text = str(error)
        if text not in logged:
            if len(logged) >= _MAX_LOGGED:
                logged.clear()
            logged.add(text)
            LOG.error('%s', text)

    def succeeded(self) -> None:
        """Note that a call has succeeded: what fails from now on is another outage."""
        if self._outages:
            self._outages.clear()
