"""Greenlets that are used again."""

from __future__ import annotations

import threading
from collections.abc import Callable

import gevent
import pytest
from gevent.event import Event

from zaqar_gevent import greenlets


def do(*jobs: Callable[[], None]) -> list[gevent.greenlet]:
    """The greenlets that do the jobs, in order, when all have begun."""
    found: list[gevent.greenlet] = []

    def note(job: Callable[[], None]) -> None:
        found.append(gevent.getcurrent())
        job()

    for job in jobs:
        greenlets.spawn(note, job)
    gevent.sleep(0.001)
    return found


def nothing() -> None: ...


def test_jobs_begin_in_order_and_after_who_asks() -> None:
    begun: list[int] = []
    for number in range(10):
        greenlets.spawn(begun.append, number)
    assert begun == []
    gevent.sleep(0.001)
    assert begun == list(range(10))


def test_a_greenlet_that_is_done_is_used_again() -> None:
    first = do(nothing, nothing)
    assert set(do(nothing, nothing)) == set(first)


def test_one_that_waits_is_not_disturbed() -> None:
    over = Event()
    ended: list[int] = []

    def wait() -> None:
        over.wait()
        ended.append(1)

    waiting = do(wait, wait)
    assert not set(do(nothing, nothing)) & set(waiting)
    assert ended == []
    over.set()
    gevent.sleep(0.001)
    assert ended == [1, 1]


def test_no_more_are_kept_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greenlets, 'MAX_IDLE', 2)
    over = Event()
    crowd = do(*[over.wait] * 10)
    over.set()
    gevent.sleep(0.001)
    assert sum(not one.dead for one in crowd) <= 2


def test_a_job_that_fails_takes_nothing_with_it(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError('as asked')

    [failed] = do(fail)
    assert failed.dead
    assert 'as asked' in capfd.readouterr().err
    assert len(do(nothing, nothing)) == 2


def test_each_thread_has_its_own() -> None:
    own = set(do(nothing, nothing))
    found: list[gevent.greenlet] = []
    thread = threading.Thread(target=lambda: found.extend(do(nothing, nothing)))
    thread.start()
    thread.join()
    assert len(found) == 2
    assert not own & set(found)
