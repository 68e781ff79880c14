"""Turns in writing, between the processes of one machine that share a file.

SQLite lets a process that finds the file locked sleep for up to 100 ms and try again. Whoever comes
first after a commit is next, which mostly is the process that has just committed. So writers take
turns before they ask SQLite for its lock: the next one waits at the gate, and enters when the one
inside leaves; the others wait for the gate. A process that leaves goes to the end.

Turns are locks of the open file, which end with the process that holds them, however it ends. They
are advice: SQLite's own lock is still what protects the file. Who does not get a turn within
`PATIENCE` (its holder has been stopped, say) goes on without, and so do processes that know nothing
of turns, and systems without such locks.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time

from gevent import monkey

PATIENCE = 1.0
"""Seconds to wait for a turn."""

DISTRUST_SECONDS = 10.0
"""For how long a turn is not waited for, once one has not come, unless it is free at once."""

_LOOK_SECONDS = 0.0001
"""Between two looks at a lock. There is no wait for such a lock that can be broken off."""

# Beyond everything that is ever in the file.
_INSIDE, _GATE, _PRESENT = 1 << 61, (1 << 61) + 1, (1 << 61) + 2

_SET_LOCK: int | None = getattr(fcntl, 'F_OFD_SETLK', None)
_GET_LOCK: int | None = getattr(fcntl, 'F_OFD_GETLK', None)
_REQUEST = 'hhqqi4x'

_sleep = monkey.get_original('time', 'sleep')


class WriteLock:
    """A thread's turns in writing.

    descriptor: of an open file that is its own. is_held: whether it is this thread's turn.
    has_others: whether other processes write, too, as far as is known.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._distrusted_until = 0.0
        self.is_held = False
        self.has_others = True

    def announce(self) -> None:
        """Have other processes know that this one writes."""
        self._set(_PRESENT, fcntl.F_RDLCK)

    def look_for_others(self) -> None:
        """See whether other processes have announced themselves; without any, no turns are taken.

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

    def acquire(self) -> bool:
        """Wait for a turn, `PATIENCE` at most; whether it is this thread's now."""
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
        """Let the next one enter, if this thread is inside."""
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
