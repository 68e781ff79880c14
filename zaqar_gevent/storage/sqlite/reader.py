"""The reading threads' work."""

from __future__ import annotations

import sqlite3

from zaqar_gevent.storage.sqlite import connection as files
from zaqar_gevent.storage.sqlite.mailbox import Call
from zaqar_gevent.storage.sqlite.outage import StoreUnavailable, is_outage


class Reader:
    """Runs one reading call after the other on a connection of its own."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def serve(self, calls: list[Call]) -> None:
        for call in calls:
            try:
                if self._connection is None:
                    self._connection = files.connect(self._path, readonly=True)
                call.result = call.work(self._connection, *call.arguments)
            except Exception as error:
                call.error = error
                if is_outage(error):
                    call.error = StoreUnavailable(self._path, str(error))
                    self.close()

    def rest(self) -> float | None:
        return None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
