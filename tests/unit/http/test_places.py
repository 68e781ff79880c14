"""The places that a server has for connections."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from zaqar_gevent.http.places import Places


def nothing() -> None:
    """Nobody is there to be ended."""


def test_there_are_as_many_places_as_were_asked_for() -> None:
    places, end = Places(2, nothing), Event()
    assert not places.full()
    places.spawn(end.wait)
    assert (places.full(), places.free_count()) == (False, 1)
    places.spawn(end.wait)
    assert (places.full(), places.free_count()) == (True, 0)
    end.set()
    assert places.join(timeout=60)
    assert (places.full(), places.free_count()) == (False, 2)


def test_a_place_is_free_again_whatever_happened(caplog: pytest.LogCaptureFixture) -> None:
    places = Places(1, nothing)

    def fail() -> None:
        raise RuntimeError('defect')

    places.spawn(fail)
    assert places.join(timeout=60)
    assert places.free_count() == 1
    assert 'A connection failed' in caplog.text


def test_whoever_waits_for_all_to_end_waits_no_longer_than_asked() -> None:
    places, end = Places(1, nothing), Event()
    places.spawn(end.wait)
    assert not places.join(timeout=0.01)
    end.set()
    assert places.join(timeout=60)


def test_those_that_are_left_are_ended() -> None:
    end = Event()
    places = Places(2, end.set)
    places.spawn(end.wait)
    places.kill(timeout=60)
    assert places.free_count() == 2


def test_a_server_is_told_of_room(request: pytest.FixtureRequest) -> None:
    """gevent's servers link to the semaphore when there is none."""
    places, end, told = Places(1, nothing), Event(), Event()
    places.spawn(end.wait)
    places._semaphore.rawlink(lambda _: told.set())
    end.set()
    assert told.wait(60)
    gevent.sleep(0)
    assert not places.full()
