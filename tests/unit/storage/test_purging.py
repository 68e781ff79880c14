"""Purges step by step, on the embedded store and by upstream's interface alone."""

import time

import pytest

from zaqar_gevent.storage import purging
from zaqar_gevent.storage.sqlite import removal


@pytest.fixture
def steps(store, monkeypatch):
    """What is done between two steps of a purge: the functions in this list, one each."""
    monkeypatch.setattr(removal, 'PURGE_STEP', 10)
    between = []
    write = store.database.write

    def write_and_go_on(work, *arguments):
        result = write(work, *arguments)
        if work is removal.purge and between:
            between.pop(0)()
        return result

    monkeypatch.setattr(store.database, 'write', write_and_go_on)
    return between


def test_what_is_posted_between_two_steps_stays(store, steps):
    store.post(*range(35))
    steps += [lambda: store.post('new'), lambda: store.post('newer')]
    purging.purge(store.data, 'q', None)
    assert steps == []
    assert store.bodies() == ['new', 'newer']


def test_a_queue_that_is_made_anew_meanwhile_is_left_alone(store, steps):
    def make_anew():
        store.queues.delete('q')
        store.queues.create('q')
        store.post('new')

    store.post(*range(35))
    steps.append(make_anew)
    purging.purge(store.data, 'q', None)
    assert store.bodies() == ['new']


def test_what_is_claimed_stays_and_what_was_claimed_too_long_goes(store, clock):
    store.post('held', 'free')
    store.claim(limit=1, ttl=300)
    store.claim(limit=1, ttl=60)
    clock.advance(60)
    purging.purge(store.data, 'q', None)
    assert store.bodies(include_claimed=True) == ['held']


def test_others_queues_are_left_alone(store):
    store.queues.create('other')
    store.post(1, queue='other')
    store.post(2)
    purging.purge(store.data, 'q', None)
    assert store.bodies('other') == [1]


class Upstream:
    """The embedded store without what upstream's drivers do not have."""

    def __init__(self, store, between):
        self.message_controller = self
        self._messages = store.messages
        self._between = between

    def __getattr__(self, name):
        if name == 'purge':
            raise AttributeError(name)
        return getattr(self._messages, name)

    def list(self, *args, **kwargs):
        page, marker = self._messages.list(*args, **kwargs)
        page = list(page)
        if self._between:
            self._between.pop(0)()
        return iter((iter(page), marker))


def test_with_upstreams_interface_it_ends_at_the_message_that_was_the_newest(store, monkeypatch):
    monkeypatch.setattr(purging, 'STEP', 10)
    store.post('held')
    store.claim()
    store.post(*range(34))
    between = [lambda: store.post('new'), lambda: store.post('newer')]
    purging.purge(Upstream(store, between), 'q', None)
    assert store.bodies(include_claimed=True) == ['held', 'new', 'newer']
    purging.purge(Upstream(store, []), 'nowhere', None)


def test_with_upstreams_interface_it_ends_even_if_the_newest_message_is_gone(store, monkeypatch):
    monkeypatch.setattr(purging, 'STEP', 10)
    ids = store.post(*range(35))
    elapsed = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, 'monotonic', lambda: next(elapsed))
    monkeypatch.setattr(store.messages, 'first', lambda *a, **k: {'id': ids[-1]})
    store.messages.delete('q', ids[-1])
    store.post('new')
    began = [message['id'] for message in store.list(limit=100)]
    purging.purge(Upstream(store, []), 'q', None)
    assert [message['id'] for message in store.list(limit=100)] == began
