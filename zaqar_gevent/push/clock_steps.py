"""Detects steps of the wall clock.

Rows in the store expire by the wall clock; this process renews them by the monotonic clock. When
the wall clock is set, or the machine was suspended, rows may have expired although they were
renewed in time, or last longer than they should.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_TOLERANCE_SECONDS = 0.5

Clock = Callable[[], float]


class ClockStepDetector:
    """Notices when the wall clock has moved against the monotonic clock.

    wall, steady: `time.time` and `time.monotonic`, for tests to replace.
    """

    def __init__(self, wall: Clock = time.time, steady: Clock = time.monotonic) -> None:
        self._wall = wall
        self._steady = steady
        self._offset = self._measure()

    def has_stepped(self) -> bool:
        """Whether the clock has moved by half a second or more since it last did."""
        offset = self._measure()
        if abs(offset - self._offset) < _TOLERANCE_SECONDS:
            return False
        self._offset = offset
        return True

    def _measure(self) -> float:
        return self._wall() - self._steady()
