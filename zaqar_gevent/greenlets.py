"""Greenlets that let others run, and that are used again.

PERF: a new one costs 9 us, nearly all of it for its stack, which is mapped and unmapped; to wake
one that waits costs 1 us.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import gevent
from gevent import monkey
from gevent.hub import Waiter
from gevent.lock import BoundedSemaphore

MOMENT = 1e-6
"""Seconds for which to let others run. Not 0: of such sleeps, and timers, gevent takes up to fifty
before it looks at the sockets again."""

MAX_IDLE = 256
"""Greenlets of one hub that wait for something to do; each holds some 20 KB."""

_AT_ONCE = 100

Item = TypeVar('Item')

_local = monkey.get_original('threading', 'local')


class _GreenletPool:
    """The greenlets of one hub."""

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self._idle: list[Waiter[Any]] = []

    def start(self, job: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self._idle:
            self.hub.loop.run_callback(self._idle.pop().switch, (job, arguments))
        else:
            gevent.spawn_raw(self._work, job, arguments)

    def _work(self, job: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        waiter: Waiter[Any] = Waiter(self.hub)
        while True:
            job(*arguments)
            if len(self._idle) >= MAX_IDLE:
                return
            waiter.clear()
            self._idle.append(waiter)
            job, arguments = waiter.get()


_pools = _local()


class Locks:
    """A lock for each key, which is there only as long as somebody holds it."""

    def __init__(self) -> None:
        # With how many greenlets hold it, or wait for it.
        self._locks: dict[Hashable, tuple[BoundedSemaphore, int]] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether somebody holds the lock of a key."""
        return key in self._locks

    @contextmanager
    def held(self, key: Hashable) -> Iterator[None]:
        """Hold the lock of a key; those who wait for it get it in their order."""
        lock, users = self._locks.get(key) or (BoundedSemaphore(), 0)
        self._locks[key] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = lock, users - 1


def in_turns(items: Iterable[Item]) -> Iterator[Item]:
    """The items as they are now, one by one; after some of them, others may run."""
    for number, item in enumerate(tuple(items)):
        if number % _AT_ONCE == _AT_ONCE - 1:
            gevent.sleep(MOMENT)
        yield item


def spawn(job: Callable[..., None], *arguments: Any) -> None:
    """Have `job(*arguments)` done in a greenlet, after what is ready to run already.

    What the job leaves in greenlet-local storage is still there for the next one.
    """
    hub = gevent.get_hub()
    pool: _GreenletPool | None = getattr(_pools, 'pool', None)
    if pool is None or pool.hub is not hub:
        pool = _pools.pool = _GreenletPool(hub)
    pool.start(job, arguments)
