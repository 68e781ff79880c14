"""Serves keys in rotation, so that one with much waiting does not hold up the others."""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar('Key', bound=Hashable)
Item = TypeVar('Item')


class Rotation(Generic[Key, Item]):
    """Items that wait by key, as of a project: keys take turns, the items of each keep their order.

    True where anything waits. by_key: what waits, the keys in the order of their turns; for others
    to look at.
    """

    def __init__(self) -> None:
        self.by_key: dict[Key, collections.deque[Item]] = {}

    def __bool__(self) -> bool:
        return bool(self.by_key)

    def __contains__(self, key: Key) -> bool:
        """Whether anything waits for a key."""
        return key in self.by_key

    def add(self, key: Key, item: Item) -> None:
        """An item waits behind the others of its key."""
        self.by_key.setdefault(key, collections.deque()).append(item)

    def remove(self, key: Key, item: Item) -> None:
        """An item waits no longer; raises `KeyError` or `ValueError` if it did not wait."""
        items = self.by_key[key]
        items.remove(item)
        if not items:
            del self.by_key[key]

    def take(
        self, may_be_served: Callable[[Key], bool] = lambda _: True
    ) -> tuple[Key, Item] | None:
        """The item whose turn it is, of the first key that may be served; None without one."""
        for key, items in self.by_key.items():
            if may_be_served(key):
                item = items.popleft()
                del self.by_key[key]
                if items:
                    # Behind all others.
                    self.by_key[key] = items
                return key, item
        return None
