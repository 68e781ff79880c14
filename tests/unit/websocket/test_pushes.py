"""Pushes and the requests of one connection: which is sent first."""

from __future__ import annotations

import gevent
import pytest

from zaqar_gevent.websocket.pushes import Push, Pushes


class Requests:
    """Requests of one connection, each performed by a greenlet until it is told to end.

    sent: what the client has been sent, answers included.
    """

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.pushes = Pushes(lambda push: self.sent.append(push.payload.decode()))
        self._ends: dict[str, gevent.event.Event] = {}
        self._greenlets: dict[str, gevent.Greenlet] = {}

    def begin(self, name: str) -> None:
        self._ends[name] = gevent.event.Event()
        self._greenlets[name] = gevent.spawn(self._perform, name)
        gevent.sleep(0)

    def answer(self, name: str) -> None:
        self._ends[name].set()
        self._greenlets[name].join()

    def push(self, name: str) -> None:
        self.pushes.add(Push(name.encode(), False, 'message'))

    def _perform(self, name: str) -> None:
        self.pushes.begin()
        self._ends[name].wait()
        self.sent.append(name)
        self.pushes.end()


@pytest.fixture
def requests() -> Requests:
    return Requests()


def test_a_push_is_sent_at_once_while_nothing_is_performed(requests: Requests) -> None:
    requests.push('push')
    assert requests.sent == ['push']
    assert requests.pushes.size == 0


def test_a_push_comes_after_the_answers_to_all_that_may_have_caused_it(requests: Requests) -> None:
    requests.begin('first')
    requests.begin('second')
    requests.push('push')
    assert requests.sent == []
    requests.answer('second')
    assert requests.sent == ['second']
    requests.answer('first')
    assert requests.sent == ['second', 'first', 'push']


def test_a_push_does_not_wait_for_requests_that_begin_after_it(requests: Requests) -> None:
    """However many there are: a client that always has some in flight is pushed to as well."""
    requests.begin('0')
    for number in range(5):
        requests.push(f'push {number}')
        requests.begin(str(number + 1))
        requests.answer(str(number))
    assert requests.sent == [
        *('0', 'push 0', '1', 'push 1', '2', 'push 2', '3', 'push 3', '4', 'push 4')
    ]


def test_pushes_stay_in_order(requests: Requests) -> None:
    requests.begin('first')
    requests.push('a')
    requests.begin('second')
    requests.push('b')
    requests.answer('second')
    requests.push('c')
    requests.answer('first')
    assert requests.sent == ['second', 'first', 'a', 'b', 'c']


def test_what_is_held_counts_and_can_be_waited_for(requests: Requests) -> None:
    requests.begin('request')
    requests.push('12345')
    assert requests.pushes.size == 5
    waiter = gevent.spawn(requests.pushes.wait_until_released)
    gevent.sleep(0)
    assert not waiter.dead
    requests.answer('request')
    waiter.get(timeout=60)
    assert requests.pushes.size == 0


def test_the_end_of_the_connection_ends_the_wait_and_forgets_what_is_held(
    requests: Requests,
) -> None:
    requests.begin('request')
    requests.push('lost')
    waiter = gevent.spawn(requests.pushes.wait_until_released)
    gevent.sleep(0)
    requests.pushes.close()
    waiter.get(timeout=60)
    requests.answer('request')
    assert requests.sent == ['request']


def test_pushes_do_not_wait_for_a_request_that_waits(requests: Requests) -> None:
    def long_poll() -> None:
        requests.pushes.begin()
        requests.push('before')
        with requests.pushes.waiting():
            requests.push('meanwhile')
        requests.push('after')
        requests.sent.append('answer')
        requests.pushes.end()

    gevent.spawn(long_poll).get(timeout=60)
    assert requests.sent == ['before', 'meanwhile', 'answer', 'after']
