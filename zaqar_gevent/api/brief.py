"""Values that are remembered for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar('Value')


class Brief(Generic[Value]):
    """Values, none of them None, as they were at most `seconds` ago.

    Each request needs the metadata of its queue, and each post the subscriptions, which hardly ever
    change. A change made in this process is seen at once, when it says `forget`; one made by
    another process after `seconds`.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._known: dict[Hashable, Value] = {}
        self._renew_at = clock() + seconds
        self._changes = 0

    def get(self, key: Hashable, load: Callable[[], Value]) -> Value:
        """The value under `key`, not to be changed; loaded when it is not known."""
        now = self._clock()
        if now >= self._renew_at:
            self._known = {}
            self._renew_at = now + self._seconds
        known = self._known.get(key)
        if known is not None:
            return known
        changes = self._changes
        value = load()
        if changes == self._changes:
            self._known[key] = value
        return value

    def forget(self, key: Hashable) -> None:
        """The value under `key` has changed."""
        self._changes += 1
        self._known.pop(key, None)
