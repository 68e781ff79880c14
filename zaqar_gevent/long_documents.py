"""Turns of those who read long documents, so that others wait for one of them, not for all.

To read one may take the interpreter for tens of milliseconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable
from types import TracebackType
from typing import Any

import gevent
from gevent import monkey
from gevent.event import Event

from zaqar_gevent.greenlets import MOMENT
from zaqar_gevent.rotation import Rotation

LONG_BYTES = 32 * 1024
"""Documents of at least so many bytes are read one at a time."""

_local = monkey.get_original('threading', 'local')


class _FairLock:
    """The turns in one hub: after each, the sockets and all that is ready to run come first."""

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self._is_taken = False
        # By project.
        self._waiting: Rotation[Hashable, Event] = Rotation()
        self._end = hub.loop.timer(MOMENT)

    def take(self, project: Hashable) -> None:
        """Wait for a turn; the projects that wait take them in rotation."""
        if not self._is_taken:
            self._is_taken = True
            return
        wait = Event()
        self._waiting.add(project, wait)
        try:
            wait.wait()
        except BaseException:
            if wait.is_set():
                self.give_up()
            else:
                self._waiting.remove(project, wait)
            raise

    def give_up(self) -> None:
        """The next one has its turn when the loop has looked at the sockets."""
        self._end.start(self._pass_on)

    def _pass_on(self) -> None:
        found = self._waiting.take()
        if found is None:
            self._is_taken = False
            return
        _, wait = found
        wait.set()


_locks = _local()


class _Held:
    """Held while a long document is read."""

    __slots__ = ('_lock', '_project')

    def __init__(self, lock: _FairLock, project: Hashable) -> None:
        self._lock = lock
        self._project = project

    def __enter__(self) -> None:
        self._lock.take(self._project)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.give_up()


_AT_ONCE: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


def exclusive(size: int, project: Hashable) -> contextlib.AbstractContextManager[None]:
    """What to hold while a document of `size` bytes is read; nobody waits for a short one.

    project: who takes turns with others; the connection where the project is not known.
    """
    if size < LONG_BYTES:
        return _AT_ONCE
    hub = gevent.get_hub()
    lock: _FairLock | None = getattr(_locks, 'lock', None)
    if lock is None or lock.hub is not hub:
        lock = _locks.lock = _FairLock(hub)
    return _Held(lock, project)
