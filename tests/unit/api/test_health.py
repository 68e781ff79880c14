"""A store is asked seldom whether it works, and is not waited for."""

import gevent
import gevent.event
import pytest

from zaqar_gevent.api import health
from zaqar_gevent.api.health import Health


class Store:
    def __init__(self):
        self.answer = True
        self.asked = 0
        self.answers = gevent.event.Event()
        self.answers.set()

    def is_alive(self):
        self.asked += 1
        self.answers.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr('time.monotonic', lambda: Clock.now)
    return Clock


def test_an_answer_is_given_again_for_a_while(clock):
    store = Store()
    asked = Health(store.is_alive)
    assert asked.is_well() is True
    store.answer = False
    assert asked.is_well() is True
    assert store.asked == 1
    clock.now += health.FRESH_SECONDS
    assert asked.is_well() is False
    store.answer = True
    clock.now += health.FRESH_SECONDS
    assert asked.is_well() is True


def test_whatever_a_store_raises_means_that_it_does_not_work(clock):
    store = Store()
    store.answer = RuntimeError('broken')
    assert Health(store.is_alive).is_well() is False


def test_a_store_that_does_not_answer_is_not_well_after_a_while(monkeypatch):
    monkeypatch.setattr(health, 'PATIENCE_SECONDS', 600.0)
    store = Store()
    store.answers.clear()
    asked = Health(store.is_alive)
    first = gevent.spawn(asked.is_well)
    gevent.sleep(0)
    assert asked.is_well() is True
    monkeypatch.setattr(health, 'PATIENCE_SECONDS', 0.1)
    gevent.sleep(0.15)
    assert asked.is_well() is False
    assert store.asked == 1
    store.answers.set()
    assert first.get() is True
    assert asked.is_well() is True
