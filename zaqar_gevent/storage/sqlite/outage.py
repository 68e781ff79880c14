"""What callers get when the file cannot be opened, read or written.

zaqar.storage.errors.ConnectionError
└── StoreUnavailable        one line: the path and the reason
"""

from __future__ import annotations

import sqlite3

from oslo_log import log
from zaqar.storage import errors

LOG = log.getLogger(__name__)


class Outage:
    """One failure of the file, shared by all the calls that it failed."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        self._reported = False

    def report(self) -> None:
        """Log the failure, once. Not for native threads: the locks of logging are patched."""
        if not self._reported:
            self._reported = True
            LOG.error('The store %s is unavailable: %s', self.path, self.reason)


def is_outage(error: BaseException) -> bool:
    """Whether `error` speaks of the file, rather than of what one call asked for."""
    return isinstance(error, sqlite3.OperationalError | sqlite3.InternalError) or (
        # The bare class: a damaged file, or none of SQLite's.
        type(error) is sqlite3.DatabaseError
    )


class StoreUnavailable(errors.ConnectionError):
    """The file cannot be opened, read or written now; a later request may succeed."""

    msg_format = 'The store {path} is unavailable: {reason}'

    def __init__(self, path: str, reason: str, outage: Outage | None = None) -> None:
        super().__init__(path=path, reason=reason)
        self.outage = outage or Outage(path, reason)
