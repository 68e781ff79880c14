"""Writes that are made one right after the other."""

from __future__ import annotations

import functools
import threading
import time

import gevent

from zaqar_gevent.greenlets import MOMENT
from zaqar_gevent.sockets.batch import MAX_SECONDS, MAX_WRITES, get_batch


def test_writes_are_made_in_order_at_the_end_of_the_turn() -> None:
    written: list[int] = []
    for number in range(3):
        get_batch().add(functools.partial(written.append, number))
    assert written == []
    gevent.sleep(MOMENT)
    assert written == [0, 1, 2]


def test_each_is_made_once_and_more_can_follow() -> None:
    written: list[str] = []
    for name in ('first', 'second'):
        get_batch().add(functools.partial(written.append, name))
        gevent.sleep(MOMENT)
    gevent.sleep(MOMENT)
    assert written == ['first', 'second']


def test_only_so_many_wait() -> None:
    written: list[int] = []
    for number in range(MAX_WRITES + 1):
        get_batch().add(functools.partial(written.append, number))
    assert written == list(range(MAX_WRITES))
    gevent.sleep(MOMENT)
    assert written == list(range(MAX_WRITES + 1))


def test_none_waits_for_others_for_long() -> None:
    written: list[str] = []
    get_batch().add(functools.partial(written.append, 'first'))
    until = time.monotonic() + MAX_SECONDS
    while time.monotonic() < until:
        pass
    get_batch().add(functools.partial(written.append, 'second'))
    assert written == ['first', 'second']


def test_each_hub_has_a_batch_of_its_own() -> None:
    found = []
    threads = [threading.Thread(target=lambda: found.append(get_batch())) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert len({id(one) for one in (*found, get_batch())}) == 3
