"""Serves keys in rotation, so that one with much waiting does not hold up the others."""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar('Key', bound=Hashable)
Item = TypeVar('Item')


class Rotation(Generic[Key, Item]):
    """Items that wait by key, as of a project: keys take turns, the items of each keep their order.

    True where anything waits.
    """

    def __init__(self) -> None:
        # In the order of their turns.
        self._waiting: dict[Key, collections.deque[Item]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, key: Key) -> bool:
        """Whether anything waits for a key."""
        return key in self._waiting

    def add(self, key: Key, item: Item) -> None:
        """An item waits behind the others of its key."""
        self._waiting.setdefault(key, collections.deque()).append(item)

    def remove(self, key: Key, item: Item) -> None:
        """An item waits no longer; raises `KeyError` or `ValueError` if it did not wait."""
        items = self._waiting[key]
        items.remove(item)
        if not items:
            del self._waiting[key]

    def take(
        self, may_be_served: Callable[[Key], bool] = lambda _: True
    ) -> tuple[Key, Item] | None:
        """The item whose turn it is, of the first key that may be served; None without one."""
        for key, items in self._waiting.items():
            if may_be_served(key):
                item = items.popleft()
                del self._waiting[key]
                if items:
                    # Behind all others.
                    self._waiting[key] = items
                return key, item
        return None
