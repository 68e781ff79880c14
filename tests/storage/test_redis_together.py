"""The native driver and upstream's on one Redis: each reads what the other writes."""

from __future__ import annotations

import itertools
import pathlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import gevent
import pytest
from zaqar.storage import errors, pipeline

from tests.redis_process import RedisProcess
from tests.storage.conftest import Store, load, open_drivers
from zaqar_gevent.storage import drivers

SOON = 10.0
"""Seconds; it is one on a machine that is not busy."""


class Both(NamedTuple):
    native: Store
    upstream: Store


@pytest.fixture(scope='module')
def both(redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    gevent.get_hub()
    redis.client.flushall()
    directory: pathlib.Path = tmp_path_factory.mktemp('both')
    stores = []
    for name in Both._fields:
        conf = load(name, redis, directory)
        driver, control = open_drivers(name, conf)
        data = pipeline.DataDriver(conf, driver, control)
        drivers.protect(data)
        drivers.protect_control(control)
        stores.append(Store(name, data, control, redis))
    yield Both(*stores)
    for store in stores:
        store.data.close()
        store.control.close()


@pytest.fixture(params=['native first', 'upstream first'])
def pair(request: pytest.FixtureRequest, both: Both) -> tuple[Store, Store]:
    """The one that writes and the one that reads."""
    native, upstream = both
    return (native, upstream) if request.param == 'native first' else (upstream, native)


_numbers = itertools.count()


def queue_of(writer: Store) -> str:
    """A new queue, whose name no other test has."""
    name = f'{writer.name}-{next(_numbers)}'
    assert writer.queues.create(name, metadata={'by': writer.name})
    return name


def test_queues_and_messages_are_read(pair: tuple[Store, Store]) -> None:
    writer, reader = pair
    queue = queue_of(writer)
    assert reader.queues.get(queue) == {'by': writer.name}
    ids = writer.post(queue, 'a', {'b': [None, 'ä']}, b'encrypted')
    assert reader.list(queue) == ['a', {'b': [None, 'ä']}, b'encrypted']
    found = reader.messages.get(queue, ids[1])
    assert (found['id'], found['ttl'], found['claim_id']) == (ids[1], 300, None)
    assert [one['id'] for one in reader.messages.bulk_get(queue, ids)] == ids
    assert reader.list(queue, marker=ids[0], limit=1) == [{'b': [None, 'ä']}]
    reader.messages.delete(queue, ids[0])
    assert writer.list(queue) == [{'b': [None, 'ä']}, b'encrypted']
    reader.post(queue, 'last')
    assert writer.list(queue)[-1] == reader.list(queue)[-1] == 'last'
    assert writer.counts(queue) == reader.counts(queue) == (0, 3)
    reader.queues.delete(queue)
    assert not writer.queues.exists(queue)


def test_claims_are_respected(pair: tuple[Store, Store]) -> None:
    writer, reader = pair
    queue = queue_of(writer)
    ids = writer.post(queue, 0, 1, 2)
    claim, _ = writer.claim(queue, limit=2)
    assert [one['body'] for one in reader.claim(queue)[1]] == [2]
    assert [one['body'] for one in reader.claims.get(queue, claim)[1]] == [0, 1]
    assert writer.counts(queue) == reader.counts(queue) == (3, 0)
    with pytest.raises(errors.MessageIsClaimed):
        reader.messages.delete(queue, ids[0])
    reader.messages.delete(queue, ids[0], claim=claim)
    reader.claims.update(queue, claim, {'ttl': 100, 'grace': 60})
    assert writer.claims.get(queue, claim)[0]['ttl'] == 100
    reader.claims.delete(queue, claim)
    assert [one['body'] for one in writer.claim(queue)[1]] == [1]


def hold(both: Both, queue: str, count: int) -> list[str]:
    """Post messages and claim them natively, each by itself, so that their head is remembered."""
    both.native.post(queue, *range(count))
    return [both.native.claim(queue, limit=1)[0] for _ in range(count)]


def test_what_upstream_makes_free_is_found(both: Both, redis: RedisProcess) -> None:
    queue = queue_of(both.native)
    claims = hold(both, queue, 50)
    both.native.post(queue, 'last')
    assert redis.client.exists(f'shop.{queue}:head')
    both.upstream.claims.delete(queue, claims[7])
    assert both.native.list(queue) == [7, 'last']
    assert [one['body'] for one in both.native.claim(queue, limit=1)[1]] == [7]
    both.native.claims.delete(queue, claims[3])
    both.upstream.claims.delete(queue, claims[5])
    assert [one['body'] for one in both.native.claim(queue, limit=2)[1]] == [3, 5]
    # It ends before those that the head was remembered with.
    both.upstream.claims.update(queue, claims[9], {'ttl': 20, 'grace': 60})
    assert [one['body'] for one in both.native.claim(queue, limit=1)[1]] == ['last']
    with both.native.later(21):
        assert [one['body'] for one in both.native.claim(queue)[1]] == [9]


def test_what_upstream_makes_free_beside_a_new_claim_is_found_soon(both: Both) -> None:
    queue = queue_of(both.native)
    claims = hold(both, queue, 50)
    both.native.post(queue, 'last')
    assert [one['body'] for one in both.upstream.claim(queue)[1]] == ['last']
    both.upstream.claims.delete(queue, claims[7])
    deadline = time.monotonic() + SOON
    while not (found := both.native.claim(queue)[1]):
        assert time.monotonic() < deadline, 'it is overlooked'
        gevent.sleep(0.1)
    assert [one['body'] for one in found] == [7]


def test_delayed_messages_of_both_are_listed_on_demand(both: Both) -> None:
    queue = queue_of(both.native)
    both.native.post(queue, 'first', delay=30)
    both.upstream.post(queue, 'second', delay=30)
    both.native.post(queue, 'third')
    listed = both.native.list(queue, include_delayed=True)
    assert sorted(listed) == ['first', 'second', 'third']
    assert listed[0] == 'first'
    [delayed] = [
        one['id']
        for one in next(both.native.messages.list(queue, echo=True, include_delayed=True))
        if one['body'] == 'first'
    ]
    both.upstream.messages.delete(queue, delayed)
    assert sorted(both.native.list(queue, include_delayed=True)) == ['second', 'third']
    assert both.native.list(queue) == ['third']


def test_subscriptions_are_read(pair: tuple[Store, Store]) -> None:
    writer, reader = pair
    queue = queue_of(writer)
    one = writer.subscriptions.create(queue, 'http://a', 300, {'a': 1})
    found = reader.subscriptions.get(queue, one)
    assert (found['subscriber'], found['ttl'], found['options']) == ('http://a', 300, {'a': 1})
    assert reader.subscriptions.create(queue, 'http://a', 300, {}) is None
    reader.subscriptions.confirm(queue, one)
    assert writer.subscriptions.get(queue, one)['confirmed'] is True
    reader.subscriptions.update(queue, one, ttl=500)
    assert writer.subscriptions.get(queue, one)['ttl'] == 500
    reader.subscriptions.delete(queue, one)
    assert list(next(writer.subscriptions.list(queue))) == []


def test_dead_letters_are_found(pair: tuple[Store, Store]) -> None:
    writer, reader = pair
    queue, dead = queue_of(writer), queue_of(reader)
    writer.queues.set_metadata(queue, {'_max_claim_count': 1, '_dead_letter_queue': dead})
    writer.post(queue, 0, 1)
    for _ in range(2):
        claim, _ = writer.claim(queue)
        writer.claims.delete(queue, claim)
    assert reader.list(dead) == writer.list(dead) == [0, 1]
    assert [one['body'] for one in reader.claim(dead)[1]] == [0, 1]


def test_what_upstream_has_left_of_a_message_is_none(both: Both, redis: RedisProcess) -> None:
    queue = queue_of(both.native)
    ids = both.native.post(queue, 0, 1)
    # As upstream writes back a message that has expired meanwhile.
    redis.client.hdel(ids[0], 'b')
    assert both.native.list(queue) == [1]
    assert both.native.counts(queue) == (0, 1)
    assert list(both.native.messages.bulk_get(queue, ids[:1])) == []
    assert [one['body'] for one in both.native.claim(queue)[1]] == [1]


def test_a_message_that_upstream_would_let_vanish_is_kept(both: Both, redis: RedisProcess) -> None:
    queue = queue_of(both.native)
    [message_id] = both.native.post(queue, 'x', ttl=60)
    claim, _ = both.upstream.claim(queue, ttl=300)
    # As an upstream server leaves it.
    redis.client.expire(message_id, 60)
    both.native.claims.update(queue, claim, {'ttl': 300, 'grace': 60})
    assert redis.client.ttl(message_id) >= 300
