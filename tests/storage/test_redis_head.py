"""What claims and lists of the native driver cost where many messages are claimed already."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gevent
import pytest
from zaqar.storage import pipeline

from tests.redis_process import RedisProcess
from tests.storage.conftest import Store, load, open_drivers
from zaqar_gevent.storage import drivers

HELD = 4000
MOST_COMMANDS = 120
"""What a call may have Redis do, however many messages are claimed."""


@pytest.fixture(scope='module', params=['native', 'unshared'])
def held(
    request: pytest.FixtureRequest, redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Store, str, list[str]]]:
    """A queue at whose head many messages are claimed, and their claims."""
    gevent.get_hub()
    redis.client.flushall()
    conf = load(request.param, redis, tmp_path_factory.mktemp(request.param))
    driver, control = open_drivers(request.param, conf)
    data = pipeline.DataDriver(conf, driver, control)
    drivers.protect(data)
    store = Store(request.param, data, control, redis)
    queue = store.queue()
    claims = []
    for _ in range(HELD // 200):
        for _ in range(2):
            store.post(queue, *range(100))
        claims.append(store.claim(queue, limit=200)[0])
    for _ in range(2):
        store.post(queue, *range(100))
    yield store, queue, claims
    data.close()
    control.close()


def commands(store: Store, call: Callable[[], object]) -> int:
    """How many commands Redis performs for a call, those of scripts included."""
    store.redis.client.config_resetstat()
    call()
    found = store.redis.client.info('commandstats')
    return sum(one['calls'] for one in found.values())


def cheapest(store: Store, call: Callable[[], object]) -> int:
    """The same of the cheapest of some calls: where upstream's servers may work on the queue, what
    is claimed is looked at again each second."""
    return min(commands(store, call) for _ in range(5))


def test_claims_and_lists_pass_over_what_is_claimed(held: tuple[Store, str, list[str]]) -> None:
    store, queue, _ = held
    found = store.list(queue, limit=3)
    assert found == [0, 1, 2]
    assert cheapest(store, lambda: store.list(queue)) < MOST_COMMANDS
    assert cheapest(store, lambda: store.claim(queue, limit=2)) < MOST_COMMANDS
    page = next(store.messages.list(queue, limit=1, echo=True, include_claimed=True))
    first = page[0]['id']
    assert cheapest(store, lambda: store.list(queue, marker=first)) < MOST_COMMANDS
    delayed = cheapest(store, lambda: store.list(queue, include_delayed=True))
    assert delayed < MOST_COMMANDS


def test_what_is_released_or_put_back_is_found(held: tuple[Store, str, list[str]]) -> None:
    store, queue, claims = held
    store.claims.delete(queue, claims[3])
    ids = [one['id'] for one in store.messages.pop(queue, 2)]
    page = next(store.messages.list(queue, limit=3, echo=True))
    assert [one['body'] for one in page] == [2, 3, 4]
    assert len(ids) == 2
    assert cheapest(store, lambda: store.list(queue)) < MOST_COMMANDS
    # What is free before the head again.
    store.claims.delete(queue, claims[1])
    popped = store.messages.pop(queue, 1)
    assert [one['body'] for one in popped] == [0]
    store.messages.restore(queue, popped)
    assert store.list(queue, limit=2) == [0, 1]


def test_lists_alone_remember_what_is_claimed(held: tuple[Store, str, list[str]]) -> None:
    store, queue, _ = held
    store.redis.client.delete(f'shop.{queue}:head')
    assert commands(store, lambda: store.list(queue, limit=300)) > MOST_COMMANDS
    store.redis.client.delete(f'shop.{queue}:head')
    store.list(queue)
    assert store.redis.client.exists(f'shop.{queue}:head')


def test_it_is_found_anew_where_it_is_not_remembered(held: tuple[Store, str, list[str]]) -> None:
    store, queue, claims = held
    before = store.counts(queue)
    store.redis.client.delete(f'shop.{queue}:head')
    claimed = store.claim(queue, limit=5)[1]
    assert len(claimed) == 5
    assert store.counts(queue) == (before[0] + 5, before[1] - 5)
    of_one = {one['id'] for one in store.claims.get(queue, claims[5])[1]}
    store.claims.update(queue, claims[5], {'ttl': 30, 'grace': 60})
    with store.later(31):
        while of_one:
            found = store.claim(queue, limit=100)[1]
            assert found
            of_one -= {one['id'] for one in found}
