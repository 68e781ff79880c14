"""The work of the reading threads."""

from __future__ import annotations

import time

from zaqar_gevent.storage.core.arguments import find_queue
from zaqar_gevent.storage.core.completions import Call
from zaqar_gevent.storage.sqlite.files import Files, ThreadConnection
from zaqar_gevent.storage.sqlite.outage import damaged, describe, is_damage, is_outage, unavailable

_STEPS = 10_000
"""Instructions of SQLite's machine between two looks at whether a read is to be broken off."""

# A read may take this many times its processor time, waiting for the disk or the processor.
_PATIENCE = 5


class ReadTooLong(Exception):
    """A read was broken off here; another thread is to do it."""


class Reader:
    """Runs one reading call after the other on a connection of its own.

    A read is broken off when its caller no longer waits for it.

    seconds: of processor time that a read may take here, before it is broken off with
        `ReadTooLong`; None for no limit.
    """

    def __init__(self, files: Files, seconds: float | None = None) -> None:
        self._files = files
        self._seconds = seconds
        self._began = self._used = 0.0
        self._is_too_long = False
        self._held: ThreadConnection | None = None
        self._call: Call | None = None

    def execute(self, calls: list[Call]) -> None:
        for call in calls:
            try:
                self._files.watch()
                call.result = self._read(call)
            except Exception as error:
                call.error = self._name(error, call)

    def on_idle(self) -> float | None:
        return None

    def close(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            held.close()

    def _read(self, call: Call) -> object:
        if self._held is None or not self._held.is_open:
            self._held = self._files.connect(readonly=True)
            self._held.connection.set_progress_handler(self._is_over, _STEPS)
        with self._held.lock:
            self._call = call
            self._is_too_long = False
            self._began, self._used = time.monotonic(), time.thread_time()
            return call.work(self._held.connection, *call.arguments)

    def _is_over(self) -> bool:
        """Whether the read is to be broken off."""
        if self._seconds is not None and not self._is_too_long:
            passed = time.monotonic() - self._began
            self._is_too_long = passed > self._seconds and (
                passed > _PATIENCE * self._seconds
                or time.thread_time() - self._used > self._seconds
            )
        return self._is_too_long or (self._call is not None and self._call.is_abandoned)

    def _name(self, error: Exception, call: Call) -> Exception:
        """The exception for the caller of a call that failed with `error`."""
        if self._files.lost is not None:
            return self._files.unavailable()
        if self._is_too_long:
            # PERF: see `Database.read`.
            self.close()
            return ReadTooLong()
        if is_damage(error):
            self.close()
            queue = find_queue(call.work, call.arguments)
            return damaged(self._files.path, str(error), queue)
        if is_outage(error) or isinstance(error, MemoryError):
            self.close()
            return unavailable(self._files.path, describe(error))
        return error
