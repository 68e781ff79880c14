"""A fair lock for writers, between the processes of one machine that share a file.

SQLite lets a process that finds the file locked sleep for up to 100 ms and try again. The process
that has just committed mostly gets the lock again. So writers take this lock before they ask SQLite
for its own. It has two parts: the next writer holds the gate and waits for the inside, the others
wait for the gate. A process that leaves goes to the end.

Both are locks of an open file, which the system releases when the process ends, however it ends.
They are advisory: SQLite's own lock still protects the file. A process that does not get this lock
within `PATIENCE` (its holder may have been stopped) goes on without it, and so do programs that do
not know it, and systems that do not have such locks.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time

from gevent import monkey

PATIENCE = 1.0
"""Seconds to wait for the lock."""

DISTRUST_SECONDS = 10.0
"""After a wait that failed, how long the lock is only taken if it is free at once."""

_LOOK_SECONDS = 0.0001
"""Between two looks at a lock. There is no wait for such a lock that can be broken off."""

# Beyond everything that is ever in the file.
_INSIDE, _GATE, _PRESENT = 1 << 61, (1 << 61) + 1, (1 << 61) + 2

_SET_LOCK: int | None = getattr(fcntl, 'F_OFD_SETLK', None)
_GET_LOCK: int | None = getattr(fcntl, 'F_OFD_GETLK', None)
_REQUEST = 'hhqqi4x'

_sleep = monkey.get_original('time', 'sleep')


class WriteLock:
    """The lock as one thread uses it.

    descriptor: of an open file that only this thread uses. is_held: whether this thread has it.
    has_others: whether other processes write, too, as far as is known.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._distrusted_until = 0.0
        self.is_held = False
        self.has_others = True

    def announce(self) -> None:
        """Let other processes know that this one writes."""
        self._set(_PRESENT, fcntl.F_RDLCK)

    def look_for_others(self) -> None:
        """See whether other processes write; without any, the lock is not taken.

        PERF: every lock is a hand-over of the GIL, which a busy hub takes its time to give back.
        """
        if _GET_LOCK is not None:
            request = struct.pack(_REQUEST, fcntl.F_WRLCK, os.SEEK_SET, _PRESENT, 1, 0)
            try:
                found = fcntl.fcntl(self._descriptor, _GET_LOCK, request)
            except OSError:
                self.has_others = True
            else:
                self.has_others = struct.unpack(_REQUEST, found)[0] != fcntl.F_UNLCK

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def acquire(self) -> bool:
        """Wait for the lock, `PATIENCE` at most; whether this thread has it now."""
        if _SET_LOCK is None or not self.has_others:
            return False
        now = time.monotonic()
        if now < self._distrusted_until:
            self.is_held = self._set(_INSIDE, fcntl.F_WRLCK)
        else:
            deadline = now + PATIENCE
            self.is_held = self._wait(_GATE, deadline) and self._wait(_INSIDE, deadline)
            self._set(_GATE, fcntl.F_UNLCK)
            now = time.monotonic()
        self._distrusted_until = 0.0 if self.is_held else now + DISTRUST_SECONDS
        return self.is_held

    def release(self) -> None:
        """Release the lock, if this thread has it."""
        if self.is_held:
            self.is_held = False
            self._set(_INSIDE, fcntl.F_UNLCK)

    def _wait(self, place: int, deadline: float) -> bool:
        while not self._set(place, fcntl.F_WRLCK):
            if time.monotonic() > deadline:
                return False
            _sleep(_LOOK_SECONDS)
        return True

    def _set(self, place: int, kind: int) -> bool:
        """Lock or unlock one byte; False where another has it, or the file system has no locks."""
        if _SET_LOCK is None:
            return False
        request = struct.pack(_REQUEST, kind, os.SEEK_SET, place, 1, 0)
        try:
            fcntl.fcntl(self._descriptor, _SET_LOCK, request)
        except OSError:
            return False
        return True
