"""Answers to several clients that are written one right after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent import monkey

MAX_WRITES = 16
"""When so many writes wait, they are made at once."""

MAX_SECONDS = 0.001
"""When the first write has waited for this time, the next one ends the wait."""

_local = monkey.get_original('threading', 'local')


class Batch:
    """Writes that wait for the end of the current turn of the event loop.

    PERF: a write wakes a receiver that sleeps, such as a proxy on the same machine, and that costs
    more than the write itself. A receiver that is still busy with the first answer need not be
    woken for the others.
    """

    __slots__ = ('_began', '_is_scheduled', '_waiting', 'hub')

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self._waiting: list[Callable[[], None]] = []
        self._is_scheduled = False
        self._began = 0.0

    def add(self, write: Callable[[], None]) -> None:
        """Call `write` soon, maybe at once; it must neither raise nor let other greenlets run."""
        now = time.monotonic()
        if not self._waiting:
            self._began = now
            if not self._is_scheduled:
                self._is_scheduled = True
                self.hub.loop.run_callback(self._end_turn)
        self._waiting.append(write)
        if len(self._waiting) >= MAX_WRITES or now - self._began >= MAX_SECONDS:
            self._flush()

    def _end_turn(self) -> None:
        self._is_scheduled = False
        self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for write in waiting:
            write()


_batches = _local()


def get_batch() -> Batch:
    """The batch of this hub."""
    hub = gevent.get_hub()
    batch: Batch | None = getattr(_batches, 'batch', None)
    if batch is None or batch.hub is not hub:
        batch = _batches.batch = Batch(hub)
    return batch
