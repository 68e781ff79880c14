"""A value is remembered for a moment, and not beyond a change."""

from __future__ import annotations

from typing import Any

from zaqar_gevent.api.ttl_cache import TTLCache


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Store:
    """Counts how often the metadata is read."""

    def __init__(self) -> None:
        self.reads = 0
        self.metadata = {'version': 1}

    def read(self) -> dict[str, Any]:
        self.reads += 1
        return dict(self.metadata)


def test_it_is_read_once_in_its_time() -> None:
    clock, store = Clock(), Store()
    cache = TTLCache(1.0, clock)
    for moment in (0.0, 0.5, 0.99):
        clock.now = moment
        assert cache.get('q', store.read) == {'version': 1}
    assert store.reads == 1


def test_another_process_is_heard_after_that_time() -> None:
    clock, store = Clock(), Store()
    cache = TTLCache(1.0, clock)
    cache.get('q', store.read)
    store.metadata = {'version': 2}
    clock.now = 1.0
    assert cache.get('q', store.read) == {'version': 2}


def test_a_change_made_here_is_seen_at_once() -> None:
    store = Store()
    cache = TTLCache(60.0, Clock())
    cache.get('q', store.read)
    store.metadata = {'version': 2}
    cache.forget('q')
    assert cache.get('q', store.read) == {'version': 2}


def test_what_was_read_before_a_change_is_not_remembered_after_it() -> None:
    store = Store()
    cache = TTLCache(60.0, Clock())

    def read_slowly() -> dict[str, Any]:
        found = store.read()
        store.metadata = {'version': 2}
        cache.forget('q')
        return found

    assert cache.get('q', read_slowly) == {'version': 1}
    assert cache.get('q', store.read) == {'version': 2}


def test_no_time_means_no_memory() -> None:
    clock, store = Clock(), Store()
    cache = TTLCache(0.0, clock)
    cache.get('q', store.read)
    cache.get('q', store.read)
    assert store.reads == 2
