"""The metadata of queues, remembered for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any

Metadata = dict[str, Any]


class MetadataCache:
    """Metadata as it was at most `seconds` ago.

    Each post, list and claim needs the metadata of its queue, which hardly ever changes. A change
    made in this process is seen at once; one made by another process after `seconds`.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._known: dict[Hashable, Metadata] = {}
        self._renew_at = clock() + seconds
        self._changes = 0

    def get(self, key: Hashable, load: Callable[[], Metadata]) -> Metadata:
        """The metadata under `key`, not to be changed; loaded when it is not known."""
        now = self._clock()
        if now >= self._renew_at:
            self._known = {}
            self._renew_at = now + self._seconds
        metadata = self._known.get(key)
        if metadata is None:
            changes = self._changes
            metadata = load()
            if changes == self._changes:
                self._known[key] = metadata
        return metadata

    def forget(self, key: Hashable) -> None:
        """The metadata under `key` has changed."""
        self._changes += 1
        self._known.pop(key, None)
