"""Stores that several drivers of a process share: opened by the first, closed with the last."""

from __future__ import annotations

import collections
import os
import weakref
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

from gevent import monkey

_allocate_lock = monkey.get_original('_thread', 'allocate_lock')


class SharedStore(Protocol):
    """A store that several drivers of a process may use at the same time."""

    def close(self, *, wait: bool) -> None:
        """Close it, after the last handle; with `wait`, return when its threads have ended."""
        ...

    def after_fork(self) -> None:
        """In a forked child: start anew, since neither threads nor connections survive a fork."""
        ...


Key = TypeVar('Key', bound=Hashable)
Store = TypeVar('Store', bound=SharedStore)


class Handle(Generic[Store]):
    """A driver's use of a store. One that is garbage collected ends when the next is opened."""

    def __init__(self, store: Store, release: Callable[[bool], None], abandon: Any) -> None:
        self.store = store
        self._release = release
        # Garbage is collected anywhere, also under locks: the finalizer only takes a note.
        self._finalizer = weakref.finalize(self, abandon, release)
        self._finalizer.atexit = False

    def close(self) -> None:
        """End the use, once; the last handle closes the store."""
        if self._finalizer.detach():
            self._release(True)


class Registry(Generic[Key, Store]):
    """The stores of one kind that this process uses, by their key."""

    def __init__(self) -> None:
        self._stores: dict[Key, Store] = {}
        self._counts: dict[Key, int] = {}
        self._abandoned: collections.deque[Callable[[bool], None]] = collections.deque()
        self.lock = _allocate_lock()
        os.register_at_fork(after_in_child=self._after_fork)

    def open(
        self,
        key: Key,
        make: Callable[[], Store],
        reuse: Callable[[Store], None] | None = None,
        handle: type[Handle[Store]] = Handle,
    ) -> Handle[Store]:
        """A handle of the store with this key.

        make: makes the store for the first handle. reuse: called with a store that is in use
            already. handle: the class of the handle.
        """
        while self._abandoned:
            self._abandoned.popleft()(False)
        with self.lock:
            store = self._stores.get(key)
            if store is None:
                store = self._stores[key] = make()
                self._counts[key] = 0
            elif reuse is not None:
                reuse(store)
            self._counts[key] += 1

        def release(wait: bool) -> None:
            self._release(key, wait=wait)

        return handle(store, release, self._abandoned.append)

    def _release(self, key: Key, *, wait: bool) -> None:
        with self.lock:
            self._counts[key] -= 1
            if self._counts[key]:
                return
            del self._counts[key]
            store = self._stores.pop(key)
        store.close(wait=wait)

    def _after_fork(self) -> None:
        self.lock = _allocate_lock()
        for store in self._stores.values():
            store.after_fork()
