"""Looking up names, with the time and the look-ups passed in."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import pytest

from zaqar_gevent.webhooks import resolver as resolving
from zaqar_gevent.webhooks.resolver import Place, Resolver, Unresolved

FIRST: list[Place] = [(socket.AF_INET, ('192.0.2.1', 80))]
SECOND: list[Place] = [(socket.AF_INET, ('192.0.2.2', 80))]


class Names:
    """A system's resolver: what names lead to, which may take as long as it likes."""

    def __init__(self) -> None:
        self.places: dict[str, list[Place]] = {}
        self.asked: list[str] = []
        self._answers = threading.Event()
        self._answers.set()

    def __call__(self, host: str, port: int) -> list[Place]:
        self.asked.append(host)
        if host.startswith('slow'):
            self._answers.wait(60)
        if host not in self.places:
            raise socket.gaierror('not known')
        return self.places[host]

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Names that begin with `slow` are not answered meanwhile."""
        self._answers.clear()
        try:
            yield
        finally:
            self._answers.set()


class Now:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def resolver(names: Names, now: Now) -> Resolver:
    return Resolver(names, now)


def test_an_address_is_remembered_for_a_moment(resolver: Resolver, names: Names, now: Now) -> None:
    names.places['a'] = FIRST
    assert resolver.places('a', 80, 'p') == FIRST
    names.places['a'] = SECOND
    now.seconds += resolving.SECONDS - 1
    assert resolver.places('a', 80, 'p') == FIRST
    now.seconds += 1
    assert resolver.places('a', 80, 'p') == SECOND
    assert names.asked == ['a', 'a']


def test_a_name_that_is_not_known_is_not_looked_up_each_time(
    resolver: Resolver, names: Names, now: Now
) -> None:
    for _ in range(3):
        with pytest.raises(Unresolved, match='a could not be found'):
            resolver.places('a', 80, 'p')
    assert names.asked == ['a']
    now.seconds += resolving.FAILURE_SECONDS
    names.places['a'] = FIRST
    assert resolver.places('a', 80, 'p') == FIRST


def test_an_older_address_is_used_where_the_new_look_fails(
    resolver: Resolver, names: Names, now: Now
) -> None:
    names.places['a'] = FIRST
    resolver.places('a', 80, 'p')
    del names.places['a']
    now.seconds += resolving.SECONDS
    assert resolver.places('a', 80, 'p') == FIRST
    now.seconds += resolving.STALE_SECONDS
    with pytest.raises(Unresolved):
        resolver.places('a', 80, 'p')


def test_or_takes_long(
    resolver: Resolver, names: Names, now: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolving, 'PATIENCE_SECONDS', 0.05)
    names.places['slow'] = FIRST
    resolver.places('slow', 80, 'p')
    names.places['slow'] = SECOND
    now.seconds += resolving.SECONDS
    with names.silent():
        assert resolver.places('slow', 80, 'p') == FIRST
    while resolver.places('slow', 80, 'p') == FIRST:
        gevent.sleep(0.01)
    assert resolver.places('slow', 80, 'p') == SECOND


def test_a_name_is_looked_up_once_for_all_who_wait(resolver: Resolver, names: Names) -> None:
    names.places['slow'] = FIRST
    with names.silent():
        waiting = [gevent.spawn(resolver.places, 'slow', 80, 'p') for _ in range(20)]
        while not names.asked:
            gevent.sleep(0.01)
    gevent.joinall(waiting, timeout=60)
    assert [each.value for each in waiting] == [FIRST] * 20
    assert names.asked == ['slow']


def test_names_that_take_long_hold_up_only_their_project(resolver: Resolver, names: Names) -> None:
    names.places['a'] = FIRST
    with names.silent():
        slow = [gevent.spawn(resolver.places, f'slow{n}', 80, 'p') for n in range(100)]
        while len(names.asked) < 4:
            gevent.sleep(0.01)
        assert resolver.places('a', 80, 'other') == FIRST
        assert len(names.asked) == 5
    gevent.joinall(slow, timeout=60)
    assert all(isinstance(each.exception, Unresolved) for each in slow)


def test_only_so_many_names_are_remembered(
    resolver: Resolver, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolving, 'MAX_NAMES', 2)
    names.places = dict.fromkeys('abc', FIRST)
    for name in 'abca':
        resolver.places(name, 80, 'p')
    assert names.asked == ['a', 'b', 'c', 'a']


def test_the_systems_resolver_finds_addresses() -> None:
    assert (socket.AF_INET, ('127.0.0.1', 80)) in resolving.look_up('127.0.0.1', 80)
    with pytest.raises(OSError, match=r'.'):
        resolving.look_up('name.invalid', 80)
