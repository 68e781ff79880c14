"""The places that a server has for connections, each of which is served by one greenlet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent.event import Event
from gevent.lock import Semaphore
from oslo_log import log

from zaqar_gevent import greenlets

LOG = log.getLogger(__name__)


class Places:
    """The part of `gevent.pool.Pool` that gevent's servers and gunicorn's workers use.

    size: how many greenlets may run at a time, but for those whose places are about to be free.
    end_all: makes them end soon.

    PERF: the greenlets are used again; a pool's are made anew for every connection.
    """

    def __init__(self, size: int, end_all: Callable[[], None]) -> None:
        self.size = size
        self._running = 0
        self._end_all = end_all
        self._is_empty = Event()
        self._is_empty.set()
        # Servers link to it, to accept again when there is room.
        self._semaphore = Semaphore(size)

    def spawn(self, job: Callable[..., None], *arguments: Any) -> None:
        """Have `job(*arguments)` done; there must be room, or be about to be."""
        self._running += 1
        self._semaphore.acquire(blocking=False)
        self._is_empty.clear()
        greenlets.spawn(self._run, job, arguments)

    def full(self) -> bool:
        """Whether there is no room."""
        return self.free_count() <= 0

    def free_count(self) -> int:
        """How many more greenlets may run."""
        return int(self._semaphore.counter)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nobody runs any more; whether that is so."""
        return bool(self._is_empty.wait(timeout))

    def kill(self, block: bool = True, timeout: float | None = None) -> None:
        """End what still runs; with `block`, wait `timeout` seconds for it."""
        self._end_all()
        if block:
            self.join(timeout)

    def _run(self, job: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        try:
            job(*arguments)
        except Exception:
            LOG.exception('A connection failed')
        finally:
            self._running -= 1
            if self._running < self.size:
                self._semaphore.release()
            if not self._running:
                self._is_empty.set()
