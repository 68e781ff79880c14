"""Pushing from the stores of upstream, which know less of an order than the embedded one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.callers import RestCaller
from tests.faults.client import COMPACT, DEFAULT
from tests.functional.test_push import Subscriber, post
from tests.functional.test_stores import server  # noqa: F401
from tests.redis_process import RedisProcess
from tests.server_process import ServerProcess


@pytest.fixture
def subscriber(server: ServerProcess) -> Iterator[Subscriber]:  # noqa: F811
    with Subscriber(server.port, COMPACT) as subscriber:
        yield subscriber


@pytest.fixture
def rest(server: ServerProcess, subscriber: Subscriber) -> RestCaller:  # noqa: F811
    return RestCaller(server.url, identity=subscriber.identity)


def expire(redis: RedisProcess, ids: list[str]) -> None:
    """Do to messages what Redis does: their ids stay until upstream collects them."""
    assert redis.client.delete(*ids) == len(ids)


def grow_old(redis: RedisProcess, ids: list[str]) -> None:
    """Let messages have been posted a minute ago."""
    for one in ids:
        assert redis.client.hset(one, 'cr', int(time.time()) - 60) == 0


def test_a_subscriber_to_an_empty_queue_is_pushed_everything(
    server: ServerProcess,  # noqa: F811
    subscriber: Subscriber,
    rest: RestCaller,
) -> None:
    subscriber.subscribe()
    with Subscriber(server.port, DEFAULT, identity=subscriber.identity) as other:
        other.subscribe()
        for start in range(0, 60, 5):
            post(rest, *range(start, start + 5))
        assert subscriber.bodies(60) == other.bodies(60) == list(range(60))
        assert subscriber.has_nothing_more()
        assert other.has_nothing_more()


@pytest.mark.parametrize('seen', [1, 2, 30, 50])
def test_a_marker_resumes(subscriber: Subscriber, rest: RestCaller, seen: int) -> None:
    ids = post(rest, *range(50))
    subscriber.subscribe(marker=ids[seen - 1])
    post(rest, 50)
    assert subscriber.bodies(51 - seen) == list(range(seen, 51))
    assert subscriber.has_nothing_more()


def test_a_queue_is_read_on_past_what_has_expired(
    subscriber: Subscriber,
    rest: RestCaller,
    redis: RedisProcess,
) -> None:
    """However much that is."""
    ids = post(rest, *range(100))
    expire(redis, ids)
    subscriber.subscribe()
    post(rest, 'new')
    assert subscriber.bodies(1) == ['new']
    with Subscriber(subscriber.socket.getpeername()[1], identity=subscriber.identity) as late:
        late.subscribe(marker=ids[0])
        post(rest, 'newer')
        assert late.bodies(2) == ['new', 'newer']
    assert subscriber.bodies(1) == ['newer']
    assert subscriber.has_nothing_more()


def test_a_newest_message_that_goes_brings_back_none_of_the_older(
    subscriber: Subscriber,
    rest: RestCaller,
    redis: RedisProcess,
) -> None:
    ids = post(rest, *range(50))
    grow_old(redis, ids)
    subscriber.subscribe()
    rest.call('message_delete_many', queue_name='orders', message_ids=ids[-1:])
    post(rest, 'new')
    assert subscriber.bodies(1) == ['new']
    expire(redis, ids[-3:-1])
    post(rest, 'newer')
    assert subscriber.bodies(1) == ['newer']
    assert subscriber.has_nothing_more()


def test_a_queue_whose_newest_message_has_expired_is_joined_at_its_end(
    subscriber: Subscriber,
    rest: RestCaller,
    redis: RedisProcess,
) -> None:
    ids = post(rest, *range(50))
    expire(redis, ids[-1:])
    subscriber.subscribe()
    post(rest, 'new')
    assert subscriber.bodies(1) == ['new']
    assert subscriber.has_nothing_more()


def test_messages_are_pushed_while_they_are_worked_on(
    server: ServerProcess,  # noqa: F811
    subscriber: Subscriber,
    rest: RestCaller,
) -> None:
    """Each is gone soon after it was pushed, and with it the place to read on from."""
    subscriber.subscribe()
    with Subscriber(server.port, identity=subscriber.identity) as worker:
        consumer = worker.call('queue_consume', queue_name='orders', credit=5).body
        settled: list[Any] = []
        for number in range(100):
            post(rest, number)
            message = worker.push()['message']
            settled.append(message['body'])
            # What is deleted before its turn does not come.
            assert subscriber.bodies(1) == [number]
            acknowledged = worker.call(
                'message_ack', consumer_id=consumer['consumer_id'], message_ids=[message['id']]
            )
            assert acknowledged.status == 204
        assert settled == list(range(100))
    assert subscriber.has_nothing_more()


def test_a_list_waits_for_a_message(
    server: ServerProcess,  # noqa: F811
    subscriber: Subscriber,
    rest: RestCaller,
) -> None:
    subscriber.send(subscriber.request('claim_create', queue_name='orders', wait=10))
    began = time.monotonic()
    empty = rest.call('message_list', queue_name='orders', echo=True, wait=0.3)
    assert (empty.body['messages'], time.monotonic() - began > 0.3) == ([], True)
    post(rest, 'hello')
    answer = subscriber.answer()
    assert [message['body'] for message in answer['body']['messages']] == ['hello']
