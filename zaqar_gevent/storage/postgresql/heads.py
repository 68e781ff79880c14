"""The positions where claims begin to look for messages that were never claimed.

What is deleted stays in PostgreSQL's index until it is vacuumed, which a long transaction
elsewhere, such as a backup, puts off. A claim that began at the front of the queue would walk over
all of it each time. So a process remembers how far it has got.

That is a guess, since a message before that place may not have been seen: another claim that was
undone in the end had it locked. So claims begin at the front again and again, but never for more
than a small share of the time.
"""

from __future__ import annotations

import collections
import time

LOOK_SECONDS = 1.0
"""How often claims of a queue begin at the front, at most."""

SHARE = 20
"""Looking at the front takes at most one part in so many of the time."""

MOST = 10_000
"""Queues that are remembered."""

Queue = tuple[str, str]


class Heads:
    """Places by project and queue."""

    def __init__(self) -> None:
        # The place, and when to begin at the front again.
        self._places: collections.OrderedDict[Queue, tuple[int, float]] = collections.OrderedDict()

    def get(self, queue: Queue) -> int:
        """The position after which to look; 0 is the front."""
        place, look_at = self._places.get(queue, (0, 0.0))
        now = time.monotonic()
        if now < look_at:
            return place
        if place:
            # PERF: others that claim meanwhile go on where they were.
            self._places[queue] = place, now + LOOK_SECONDS
        return 0

    def not_looked(self, queue: Queue) -> None:
        """A claim that was to begin at the front has not looked there: the next one does."""
        if queue in self._places:
            self._places[queue] = self._places[queue][0], 0.0

    def taken(self, queue: Queue, after: int, last: int, seconds: float) -> None:
        """A claim has looked after a position, for `seconds`; the last that it took, or 0."""
        place, look_at = self._places.pop(queue, (0, 0.0))
        if not after:
            look_at = time.monotonic() + max(LOOK_SECONDS, SHARE * seconds)
        self._places[queue] = max(place, last), look_at
        if len(self._places) > MOST:
            self._places.popitem(last=False)
