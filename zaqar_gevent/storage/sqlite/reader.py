"""The reading threads' work."""

from __future__ import annotations

from zaqar_gevent.storage.sqlite.files import Files, Handle
from zaqar_gevent.storage.sqlite.origins import Call
from zaqar_gevent.storage.sqlite.outage import (
    StoreDamaged,
    StoreUnavailable,
    describe,
    find_queue,
    is_damage,
    is_outage,
)

_STEPS = 100_000
"""Instructions of SQLite's machine between two looks at whether an answer is still wanted."""


class Reader:
    """Runs one reading call after the other on a connection of its own.

    What takes so long that nobody waits for it any more is broken off.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._handle: Handle | None = None
        self._call: Call | None = None

    def serve(self, calls: list[Call]) -> None:
        for call in calls:
            try:
                self._files.watch()
                call.result = self._read(call)
            except Exception as error:
                call.error = self._name(error, call)

    def rest(self) -> float | None:
        return None

    def close(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            handle.close()

    def _read(self, call: Call) -> object:
        if self._handle is None or not self._handle.is_open:
            self._handle = self._files.connect(readonly=True)
            self._handle.connection.set_progress_handler(self._is_abandoned, _STEPS)
        with self._handle.lock:
            self._call = call
            return call.work(self._handle.connection, *call.arguments)

    def _is_abandoned(self) -> bool:
        return self._call is not None and self._call.is_abandoned

    def _name(self, error: Exception, call: Call) -> Exception:
        """What the caller is to be told of `error`."""
        if self._files.lost is not None:
            return self._files.unavailable()
        if is_damage(error):
            self.close()
            queue = find_queue(call.work, call.arguments)
            return StoreDamaged(self._files.path, str(error), queue)
        if is_outage(error) or isinstance(error, MemoryError):
            self.close()
            return StoreUnavailable(self._files.path, describe(error))
        return error
