"""The driver for PostgreSQL behind PgBouncer, which shares connections by the transaction."""

from __future__ import annotations

import collections
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from zaqar.storage import pipeline

from tests.pgbouncer_process import PgBouncer, PgBouncerMissing
from tests.postgres_process import PostgresProcess
from tests.storage.conftest import Store, load_postgresql, open_drivers
from zaqar_gevent.storage.errors import StoreUnavailable
from zaqar_gevent.storage.postgresql import options

pytestmark = pytest.mark.slow

POSTERS = 6
POSTS = 60
SECONDS = 120


@pytest.fixture(scope='module')
def bouncer() -> Iterator[PgBouncer]:
    """Fewer connections to PostgreSQL than two servers have to PgBouncer."""
    with PostgresProcess() as postgres:
        try:
            opened = PgBouncer(postgres, pool_size=3)
        except PgBouncerMissing as missing:
            pytest.skip(str(missing))
        with opened:
            yield opened


@pytest.fixture(params=[False, True], ids=['unprepared', 'prepared'])
def pair(
    bouncer: PgBouncer, request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> Iterator[list[Store]]:
    """Two stores that share nothing in this process, in a schema of their own."""
    gevent.get_hub()
    stores: list[Store] = []
    name = f'behind_{uuid.uuid4().hex}'
    for number in range(2):
        uri = f'{bouncer.uri}?application_name=server-{number}&connect_timeout=10'
        conf = load_postgresql(uri, tmp_path, name)
        for group in (options.MESSAGE_GROUP, options.MANAGEMENT_GROUP):
            conf.set_override('prepared_statements', request.param, group)
        driver, control = open_drivers('postgresql', conf)
        stores.append(
            Store('postgresql', pipeline.DataDriver(conf, driver, control), control, None)
        )
    yield stores
    for store in stores:
        store.data._storage.close()
        store.control.close()


def test_everything_is_done_once_and_in_order(pair: list[Store]) -> None:
    one, other = pair
    queue = one.queue()
    total = len(pair) * POSTERS * POSTS
    held: list[Any] = []

    def post(store: Store, poster: str) -> None:
        for number in range(POSTS):
            store.post(queue, [poster, number])

    def follow(store: Store) -> list[Any]:
        seen: list[Any] = []
        marker = None
        while len(seen) < total:
            results = store.messages.list(queue, marker=marker, echo=True, include_claimed=True)
            seen += [tuple(one['body']) for one in next(results)]
            marker = next(results)
        return seen

    def work(store: Store) -> None:
        while len(held) < total:
            held.extend(tuple(one['body']) for one in store.claim(queue, limit=7)[1])

    followers = [gevent.spawn(follow, store) for store in pair]
    others = [gevent.spawn(work, store) for store in pair for _ in range(3)]
    others += [
        gevent.spawn(post, store, f'{number}.{poster}')
        for number, store in enumerate(pair)
        for poster in range(POSTERS)
    ]
    gevent.joinall([*others, *followers], timeout=SECONDS, raise_error=True)
    assert len(held) == len(set(held)) == total
    assert followers[0].get() == followers[1].get()
    check_order(followers[0].get(), POSTS)
    assert other.counts(queue) == (total, 0)


def test_retries_delays_and_dead_letters_work(pair: list[Store]) -> None:
    one, other = pair
    dead = one.queue()
    queue = one.queue(_dead_letter_queue=dead, _max_claim_count=1)
    one.post(queue, 'retried')
    one.post(queue, 'later', delay=30)
    claim, _ = other.claim(queue)
    one.claims.delete(queue, claim, delay=20)
    assert other.list(queue) == []
    with one.later(25):
        assert other.claim(queue)[1] == []
        assert one.list(dead) == ['retried']
    with one.later(35):
        assert [message['body'] for message in other.claim(queue)[1]] == ['later']


def test_nothing_is_lost_when_it_is_killed(pair: list[Store], bouncer: PgBouncer) -> None:
    queue = pair[0].queue()
    posted: dict[str, int] = collections.Counter()
    is_over = False

    def post(store: Store, poster: str) -> None:
        while not is_over:
            number = posted[poster]
            try:
                store.post(queue, [poster, number], post_id=f'{poster}-{number}')
            except StoreUnavailable:
                gevent.sleep(0.02)
                continue
            posted[poster] += 1

    posters = [
        gevent.spawn(post, store, f'{number}.{poster}')
        for number, store in enumerate(pair)
        for poster in range(POSTERS)
    ]
    for _ in range(3):
        wait_for_more(posted, 2 * POSTERS, 5)
        bouncer.kill()
        gevent.get_hub().threadpool.apply(bouncer.start)
    wait_for_more(posted, 2 * POSTERS, 5)
    is_over = True
    gevent.joinall(posters, timeout=SECONDS, raise_error=True)
    found = [tuple(one) for one in pair[1].list(queue, limit=1_000_000)]
    assert len(found) == sum(posted.values())
    check_order(found)


def wait_for_more(posted: dict[str, int], posters: int, more: int) -> None:
    """Wait until each poster has posted so many more."""
    goal = {poster: posted[poster] + more for poster in list(posted)}
    with gevent.Timeout(SECONDS):
        while len(posted) < posters or any(posted[one] < goal[one] for one in goal):
            gevent.sleep(0.02)


def check_order(found: list[Any], each: int | None = None) -> None:
    """What each poster has posted is there once, in its order."""
    by_poster: dict[str, list[int]] = collections.defaultdict(list)
    for poster, number in found:
        by_poster[poster].append(number)
    assert len(by_poster) == 2 * POSTERS
    for numbers in by_poster.values():
        assert numbers == [*range(len(numbers) if each is None else each)]
