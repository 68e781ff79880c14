"""A queue of calls for several threads, in which projects take turns.

This module uses the interpreter's own primitives, since `threading` is usually patched.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Sequence
from typing import Any

from gevent import monkey

from zaqar_gevent.rotation import Rotation
from zaqar_gevent.storage.core.arguments import find_project
from zaqar_gevent.storage.core.completions import Call

_allocate_lock = monkey.get_original('_thread', 'allocate_lock')
_get_ident = monkey.get_original('_thread', 'get_ident')
_Empty = monkey.get_original('queue', 'Empty')


class FairQueue:
    """The queue between callers and several threads; each thread takes one call at a time.

    The projects that have calls waiting take turns, and one project is served by at most `most`
    threads at a time, so that the others are left to the rest.

    is_last: whether a call is taken only after all others.
    """

    def __init__(self, most: int, is_last: Callable[[Call], bool]) -> None:
        self._most = most
        self._is_last = is_last
        self._lock = _allocate_lock()
        # By project.
        self._waiting: Rotation[str, Call] = Rotation()
        self._last: collections.deque[Call] = collections.deque()
        # By thread, the project that it serves.
        self._served: dict[int, str] = {}
        self._idle: list[Any] = []

    def put(self, calls: Sequence[Call]) -> None:
        """Add `calls`, and wake threads to take them."""
        with self._lock:
            for call in calls:
                if self._is_last(call):
                    self._last.append(call)
                else:
                    project = find_project(call.work, call.arguments)
                    self._waiting.add(project, call)
            self._wake()

    def get(self, timeout: float | None = None) -> list[Call]:
        """The next call, when this thread is done with the one before.

        Raises `queue.Empty` after `timeout` seconds; None waits for ever.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        thread = _get_ident()
        wake_up = None
        while True:
            with self._lock:
                if self._served.pop(thread, None) is not None and self._waiting:
                    # Others may serve this project now.
                    self._wake()
                call = self._take(thread)
                if call is not None:
                    return [call]
                if wake_up is None:
                    wake_up = _allocate_lock()
                    wake_up.acquire()
                self._idle.append(wake_up)
            left = -1.0 if deadline is None else max(0.0, deadline - time.monotonic())
            if not wake_up.acquire(True, left):
                self._give_up(wake_up)

    def empty(self) -> bool:
        """Whether no call waits."""
        return not self._waiting and not self._last

    def _give_up(self, wake_up: Any) -> None:
        with self._lock:
            if wake_up in self._idle:
                self._idle.remove(wake_up)
        raise _Empty

    def _take(self, thread: int) -> Call | None:
        serving = collections.Counter(self._served.values())
        found = self._waiting.take(lambda project: serving[project] < self._most)
        if found is not None:
            project, call = found
            self._served[thread] = project
            return call
        if self._waiting or not self._last:
            return None
        return self._last.popleft()

    def _wake(self) -> None:
        idle, self._idle = self._idle, []
        for wake_up in idle:
            wake_up.release()
