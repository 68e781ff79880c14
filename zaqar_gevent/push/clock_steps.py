"""The two clocks: the store's rows end by the wall clock, what this process does by the steady one.

The wall clock is set now and then, and it alone goes on while the machine is suspended. Then what
this process renews in time has ended in the store all the same, or lasts longer than it should.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_TOLERANCE_SECONDS = 0.5

Clock = Callable[[], float]


class ClockStepDetector:
    """Notices when the wall clock has moved against the steady one.

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
