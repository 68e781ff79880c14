"""Values that are remembered for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar('Value')


class TTLCache(Generic[Value]):
    """Values, none of them None, as they were at most `seconds` ago.

    Each request needs the metadata of its queue, and each post the subscriptions, which hardly ever
    change. A change made in this process is seen at once, when it says `forget`; one made by
    another process after `seconds`.

    most: how much is remembered at a time, in what `weigh` tells of a value; by default 10,000
        values.
    """

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        most: int = 10_000,
        weigh: Callable[[Value], int] = lambda _: 1,
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._weigh = weigh
        self._weight = 0
        self._clock = clock
        # With what each weighs.
        self._known: dict[Hashable, tuple[Value, int]] = {}
        self._renew_at = clock() + seconds
        self._changes = 0

    def get(self, key: Hashable, load: Callable[[], Value]) -> Value:
        """The value under `key`, not to be changed; loaded when it is not known."""
        now = self._clock()
        if now >= self._renew_at:
            self._clear()
            self._renew_at = now + self._seconds
        known = self._known.get(key)
        if known is not None:
            return known[0]
        changes = self._changes
        value = load()
        if changes == self._changes and self._seconds:
            self._keep(key, value)
        return value

    def find(self, key: Hashable) -> Value | None:
        """The value under `key`; None where it is not known."""
        known = self._known.get(key)
        return None if known is None or self._clock() >= self._renew_at else known[0]

    def _keep(self, key: Hashable, value: Value) -> None:
        self._drop(key)
        weight = self._weigh(value)
        if self._weight + weight > self._most:
            self._clear()
        if weight <= self._most:
            self._known[key] = value, weight
            self._weight += weight

    def _clear(self) -> None:
        self._known = {}
        self._weight = 0

    def forget(self, key: Hashable) -> None:
        """The value under `key` has changed."""
        self._changes += 1
        self._drop(key)

    def _drop(self, key: Hashable) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._weight -= known[1]
