"""Several servers on one database: each with drivers and connections of its own."""

from __future__ import annotations

import pathlib
import random
import uuid
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from zaqar.storage import pipeline

from tests.postgres_process import PostgresProcess
from tests.storage.conftest import Store, load_postgresql, open_drivers
from zaqar_gevent.markers import MarkerNotGiven
from zaqar_gevent.retry_delays import RetryDelay
from zaqar_gevent.settlements import Settle, Settlement
from zaqar_gevent.storage.postgresql import upkeep

POSTERS = 4
POSTS = 50
WORKERS = 8


@pytest.fixture
def pair(postgres: PostgresProcess, tmp_path: pathlib.Path) -> Iterator[list[Store]]:
    """Two stores that share nothing in this process."""
    gevent.get_hub()
    name = f'zaqar_{uuid.uuid4().hex}'
    stores = []
    for number in range(2):
        # What is in a URI makes another server of it.
        uri = f'{postgres.uri}?application_name=server-{number}'
        conf = load_postgresql(uri, tmp_path, name)
        driver, control = open_drivers('postgresql', conf)
        data = pipeline.DataDriver(conf, driver, control)
        stores.append(Store('postgresql', data, control, None))
    assert stores[0].data._storage.server is not stores[1].data._storage.server
    yield stores
    for store in stores:
        store.data._storage.close()
        store.control.close()


def test_whoever_follows_by_marker_sees_each_message_once(pair: list[Store]) -> None:
    queue = pair[0].queue()
    total = len(pair) * POSTERS * POSTS

    def post(store: Store, poster: str) -> None:
        for number in range(POSTS):
            store.post(queue, f'{poster}-{number}')

    def follow(store: Store) -> list[Any]:
        seen: list[Any] = []
        marker = None
        while len(seen) < total:
            results = store.messages.list(queue, marker=marker, echo=True, include_claimed=True)
            seen += [one['body'] for one in next(results)]
            marker = next(results)
        return seen

    followers = [gevent.spawn(follow, store) for store in pair]
    posters = [
        gevent.spawn(post, store, f'{number}.{poster}')
        for number, store in enumerate(pair)
        for poster in range(POSTERS)
    ]
    gevent.joinall([*posters, *followers], timeout=60, raise_error=True)
    stored = pair[0].list(queue, limit=2 * total)
    assert len(stored) == len(set(stored)) == total
    for follower in followers:
        assert follower.get() == stored
    for poster in {one.split('-')[0] for one in stored}:
        mine = [one for one in stored if one.startswith(f'{poster}-')]
        assert mine == [f'{poster}-{number}' for number in range(POSTS)]


def test_no_message_is_held_by_two(pair: list[Store]) -> None:
    queue = pair[0].queue()
    for first in range(0, 400, 20):
        pair[0].post(queue, *range(first, first + 20))
    held: list[Any] = []

    def work(store: Store) -> None:
        while found := store.claim(queue, limit=7)[1]:
            held.extend(one['body'] for one in found)

    workers = [gevent.spawn(work, store) for store in pair for _ in range(WORKERS)]
    gevent.joinall(workers, timeout=60, raise_error=True)
    assert sorted(held) == list(range(400))
    assert pair[1].counts(queue) == (400, 0)


@pytest.mark.parametrize('is_fair', [False, True], ids=['ordered', 'both'])
def test_workers_of_two_servers_keep_the_order_of_groups(pair: list[Store], is_fair: bool) -> None:
    groups, each, limit = 12, 8, 3
    queue = pair[0].queue(_ordered_groups=True, _fair_groups=is_fair)
    for number in range(each):
        new = [
            {'ttl': 300, 'body': [f'g{group}', number], 'group': f'g{group}'}
            for group in range(groups)
        ]
        pair[number % 2].messages.post(queue, new, None)
    holders: dict[str, str] = {}
    done: dict[str, list[int]] = {f'g{group}': [] for group in range(groups)}
    chance = random.Random(1)

    def work(store: Store) -> None:
        while any(len(numbers) < each for numbers in done.values()):
            claim, found = store.claim(queue, limit=limit)
            mine = [tuple(one['body']) for one in found]
            for group in {group for group, _ in mine}:
                assert holders.setdefault(group, claim) == claim, 'two claims hold a group'
                first = len(done[group])
                numbers = [number for name, number in mine if name == group]
                assert numbers == list(range(first, first + len(numbers)))
            is_released = chance.random() < 0.2
            for (group, number), one in zip(mine, found, strict=True):
                # Others may have the group before this one knows that it is free.
                last = number == max(other for name, other in mine if name == group)
                if not is_released:
                    done[group].append(number)
                if last:
                    del holders[group]
                if not is_released:
                    store.messages.delete(queue, one['id'], claim=claim)
            if is_released and claim:
                store.claims.delete(queue, claim)

    workers = [gevent.spawn(work, store) for store in pair for _ in range(WORKERS)]
    gevent.joinall(workers, timeout=60, raise_error=True)
    assert all(worker.ready() for worker in workers)
    assert pair[1].counts(queue) == (0, 0)


def test_a_message_that_somebody_deletes_holds_up_its_group(
    pair: list[Store], postgres: PostgresProcess
) -> None:
    one, other = pair
    queue = one.queue(_ordered_groups=True)
    one.post(queue, 'first')
    # The first claim of groups waits for transactions that are open.
    assert [found['body'] for found in one.messages.pop(queue, 1)] == ['first']
    ids = [one.post(queue, number, group=group)[0] for number, group in enumerate(('a', 'a', 'b'))]
    name = one.data._storage.server.address.schema
    with postgres.connect() as connection:
        connection.execute('BEGIN')
        connection.execute(f'DELETE FROM {name}.messages WHERE position = {int(ids[0], 16)}')
        assert [found['body'] for found in other.claim(queue)[1]] == [2]
        connection.execute('ROLLBACK')
    assert [found['body'] for found in one.claim(queue)[1]] == [0, 1]


def test_what_one_makes_free_the_other_finds(pair: list[Store]) -> None:
    one, other = pair
    queue = one.queue()
    one.post(queue, *range(4))
    claim, _ = one.claim(queue, limit=2)
    assert [found['body'] for found in other.claim(queue)[1]] == [2, 3]
    assert other.claim(queue)[1] == []
    one.claims.delete(queue, claim)
    assert [found['body'] for found in other.claim(queue)[1]] == [0, 1]


def test_a_post_is_made_once_by_either(pair: list[Store]) -> None:
    one, other = pair
    queue = one.queue()
    posts = [
        gevent.spawn(store.post, queue, 'x', post_id='p1') for store in (one, other) for _ in '123'
    ]
    gevent.joinall(posts, timeout=60, raise_error=True)
    assert len({tuple(post.get()) for post in posts}) == 1
    assert other.list(queue) == ['x']


def test_a_marker_that_was_lost_with_the_end_of_the_database_is_refused(
    pair: list[Store], postgres: PostgresProcess
) -> None:
    """As after a failover to a standby that was behind."""
    one, other = pair
    queue = one.queue()
    one.post(queue, 'kept')
    results = one.messages.list(queue, echo=True)
    list(next(results))
    kept = next(results)
    name = one.data._storage.server.address.schema
    before = postgres.run(f'SELECT last_value FROM {name}.batches')[0][0]
    one.post(queue, 'lost')
    results = one.messages.list(queue, echo=True)
    list(next(results))
    lost = next(results)
    postgres.run(f'DELETE FROM {name}.messages WHERE position > {before * 65536 + 65535}')
    postgres.run(f"SELECT setval('{name}.batches', {before})")
    postgres.run(f"UPDATE {name}.epochs SET timeline = 'another'")
    other.post(queue, 'new')
    assert other.list(queue, marker=kept) == ['new']
    with pytest.raises(MarkerNotGiven):
        other.list(queue, marker=lost)


def test_nothing_is_left_of_a_deleted_queue(pair: list[Store], postgres: PostgresProcess) -> None:
    one, other = pair
    queue = one.queue()
    one.post(queue, 'delayed', delay=100, post_id='p')
    ids = one.post(queue, *range(6))
    lease = {'ttl': 60, 'grace': 60, 'retry': RetryDelay(100)}
    waiting, _ = one.claims.create(queue, lease, limit=2)
    one.claims.delete(queue, waiting)
    held, _ = one.claims.create(queue, lease, limit=2)
    extend = Settlement(Settle.EXTEND, ids[2], held, ttl=300, grace=60)
    assert one.claims.settle(queue, [extend]) == [None]
    assert one.counts(queue) == (2, 5)
    one.queues.delete(queue)
    name = one.data._storage.server.address.schema
    tables = ('messages', 'delayed', 'claims', 'receipts', 'tallies', 'changes', 'spools')
    counts = ' + '.join(f'(SELECT count(*) FROM {name}.{table})' for table in tables)
    with gevent.Timeout(60):
        # One server at a time collects, and the others leave it to that one.
        while postgres.run(f'SELECT {counts} + (SELECT count(*) FROM {name}.doomed_spools)') != [
            (0,)
        ]:
            other.data.gc()
            gevent.sleep(0.02)


def test_a_retry_that_one_delays_the_other_shows(pair: list[Store]) -> None:
    one, other = pair
    queue = one.queue()
    one.post(queue, 1, 2)
    claim, _ = one.claim(queue)
    one.claims.delete(queue, claim, delay=1)
    due: list[Any] = []
    other.data._storage.listen(lambda *found: due.append(found[:2]))
    with gevent.Timeout(60):
        while not due:
            gevent.sleep(0.02)
    assert due[0][1] == queue
    assert [found['body'] for found in other.claim(queue)[1]] == [1, 2]


def test_nothing_is_passed_over_where_reads_begin(
    pair: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each deletion has the queue swept, while both servers post, take and put back."""
    monkeypatch.setattr(upkeep, 'SWEEP', 1)
    queue = pair[0].queue()
    total = len(pair) * POSTERS * POSTS
    taken: list[Any] = []

    def post(store: Store, poster: str) -> None:
        for number in range(POSTS):
            store.post(queue, f'{poster}-{number}')

    def work(store: Store, number: int) -> None:
        while len(taken) < total:
            found = store.messages.pop(queue, 3)
            gevent.sleep(0)
            store.messages.restore(queue, found[number % 2 :])
            taken.extend(one['body'] for one in found[: number % 2])
            if number > 1 or not found:
                gevent.sleep(0.01)

    greenlets = [
        gevent.spawn(post, store, f'{place}.{poster}')
        for place, store in enumerate(pair)
        for poster in range(POSTERS)
    ]
    greenlets += [gevent.spawn(work, store, number) for number in range(4) for store in pair]
    gevent.joinall(greenlets, timeout=120, raise_error=True)
    assert all(greenlet.ready() for greenlet in greenlets)
    assert len(set(taken)) == len(taken) == total
    assert [store.counts(queue) for store in pair] == [(0, 0)] * 2
    [store.post(queue, 'last') for store in pair]
    assert [store.list(queue) for store in pair] == [['last'] * 2] * 2
