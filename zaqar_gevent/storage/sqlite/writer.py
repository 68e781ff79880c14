"""The writing thread's work: group commit.

What has gathered while the last transaction was being committed becomes the next one. A call that
raises an error of `zaqar.storage.errors` has changed nothing and fails alone; a failing file fails
the whole transaction, and the next one starts with a new connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from zaqar.storage import errors

from zaqar_gevent.metrics import COMMIT_SIZES
from zaqar_gevent.storage.sqlite import collector
from zaqar_gevent.storage.sqlite import connection as files
from zaqar_gevent.storage.sqlite.mailbox import Call
from zaqar_gevent.storage.sqlite.outage import Outage, StoreUnavailable, is_outage


class Writer:
    """Runs batches of writing calls, each batch in one transaction.

    get_synchronous: the current value of the option.
    """

    def __init__(self, path: str, get_synchronous: Callable[[], str]) -> None:
        self._path = path
        self._get_synchronous = get_synchronous
        self._synchronous = ''
        self._connection: sqlite3.Connection | None = None
        self._collection = collector.Schedule()

    def serve(self, calls: list[Call]) -> None:
        try:
            self._commit(calls)
        except Exception as error:
            if is_outage(error):
                self._fail(calls, error)
            else:
                # A defect of one call must not fail the others.
                self.close()
                self._commit_one_by_one(calls)

    def rest(self) -> float | None:
        try:
            return self._collection.run(self._get_connection)
        except sqlite3.Error:
            # Nobody waits for it; what is wrong with the file, the next call will be told.
            self.close()
            return self._collection.postpone()

    def close(self) -> None:
        """Close the connection, which rolls back whatever it is in the middle of."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _commit(self, calls: list[Call]) -> None:
        cursor = self._get_connection().cursor()
        cursor.execute('BEGIN IMMEDIATE')
        waiting: dict[Callable[..., Any], list[Call]] = {}
        for call in calls:
            if hasattr(call.work, 'is_coalesced'):
                waiting.setdefault(call.work, []).append(call)
                continue
            try:
                call.result = call.work(cursor, *call.arguments)
            except errors.ExceptionBase as error:
                call.error = error
        for work, alike in waiting.items():
            outcomes = work(cursor, [call.arguments for call in alike])
            for call, outcome in zip(alike, outcomes, strict=True):
                if isinstance(outcome, BaseException):
                    call.error = outcome
                else:
                    call.result = outcome
        cursor.execute('COMMIT')
        COMMIT_SIZES.append(len(calls))

    def _commit_one_by_one(self, calls: list[Call]) -> None:
        for call in calls:
            call.result = call.error = None
            try:
                self._commit([call])
            except Exception as error:
                if is_outage(error):
                    self._fail([call], error)
                else:
                    self.close()
                    call.error = error

    def _get_connection(self) -> sqlite3.Connection:
        synchronous = self._get_synchronous()
        if self._connection is None or synchronous != self._synchronous:
            self.close()
            self._connection = files.connect(self._path, synchronous=synchronous)
            self._synchronous = synchronous
        return self._connection

    def _fail(self, calls: list[Call], error: Exception) -> None:
        self.close()
        outage = Outage(self._path, str(error))
        for call in calls:
            call.result = None
            call.error = StoreUnavailable(self._path, str(error), outage)
