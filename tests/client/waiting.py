"""Waiting for what another thread or process brings about."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.stopwatch import Stopwatch


def wait_until(is_so: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until something is so; gives how long that took, in seconds.

    How long this process waited for a processor does not count.
    """
    watch = Stopwatch()
    while not is_so():
        assert watch.seconds() < seconds, f'not within {seconds} s: {what}'
        time.sleep(0.005)
    return watch.seconds()
