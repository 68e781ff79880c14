"""Sentinel with a master and its replicas, of which one becomes the master.

The master is killed, or another is made the master while all of them live.
"""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
import redis as redis_py

from tests.ports import free_port
from tests.redis_process import REDIS_SERVER_PATH, RedisProcess
from tests.storage.conftest import Store
from tests.storage.test_redis_trouble import open_store
from zaqar_gevent.storage.errors import OutcomeUnknown, StoreUnavailable

POSTERS = 8
FAILOVERS = 5
MOST_SECONDS = 60
"""Of one failover, on a busy machine."""


def eventually(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + MOST_SECONDS
    while True:
        with contextlib.suppress(redis_py.RedisError):
            if condition():
                return
        assert time.monotonic() < deadline, what
        gevent.sleep(0.05)


class Group:
    """A master with its replicas, and the Sentinel that watches them."""

    def __init__(
        self, directory: pathlib.Path, stack: contextlib.ExitStack, *, replicas: int
    ) -> None:
        self.replicas = replicas
        self._servers: list[RedisProcess] = []
        for number in range(1 + replicas):
            path = directory / f'redis-{number}'
            path.mkdir()
            at_once = '--repl-diskless-sync', 'yes', '--repl-diskless-sync-delay', '0'
            self._servers.append(stack.enter_context(RedisProcess(path, *at_once)))
        self.master = self._servers[0]
        for replica in self._servers[1:]:
            self._follow(replica)
        self.port = self._start_sentinel(directory, stack)
        self._sentinel = stack.enter_context(redis_py.Redis(port=self.port, decode_responses=True))
        self.await_replicas()

    @property
    def uri(self) -> str:
        return f'redis://127.0.0.1:{self.port}?master=m'

    def kill_master(self) -> None:
        self.master.kill()

    def fail_over(self) -> None:
        """Have the Sentinel make another server the master."""
        self._sentinel.execute_command('SENTINEL', 'FAILOVER', 'm')

    def await_other_master(self) -> RedisProcess:
        """Wait until another is the master; returns the former one."""
        former = self.master
        eventually(lambda: self._find_master() is not former, 'no other master')
        self.master = self._find_master()
        return former

    def repair(self) -> None:
        """Wait until another is the master, and let the one that was killed follow it."""
        self.await_other_master().__enter__()
        self.follow_master()
        self.await_replicas()

    def follow_master(self) -> None:
        """Let all others follow the master, sooner than the Sentinel would."""
        for replica in self._servers:
            if replica is not self.master:
                self._follow(replica)

    def await_replicas(self) -> None:
        """Wait until all replicas have come up, and the Sentinel knows that."""

        def are_there() -> bool:
            # One that has not got the data yet may be made the master as well.
            self.master.client.set('any', 'thing')
            if self.master.client.wait(self.replicas, 50) < self.replicas:
                return False
            known = self._sentinel.execute_command('SENTINEL', 'REPLICAS', 'm')
            count = self.master.client.info('replication')['connected_slaves']
            return count == len(known) == self.replicas and all(
                (one['flags'], one.get('master-link-status')) == ('slave', 'ok') for one in known
            )

        eventually(are_there, 'the replicas do not come up')

    def _follow(self, replica: RedisProcess) -> None:
        replica.client.replicaof('127.0.0.1', self.master.port)

    def _find_master(self) -> RedisProcess:
        _, port = self._sentinel.execute_command('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'm')
        [found] = [one for one in self._servers if one.port == int(port)]
        return found

    def _start_sentinel(self, directory: pathlib.Path, stack: contextlib.ExitStack) -> int:
        port = free_port()
        config = directory / 'sentinel.conf'
        config.write_text(
            f'port {port}\nbind 127.0.0.1\n'
            f'sentinel monitor m 127.0.0.1 {self.master.port} 1\n'
            'sentinel down-after-milliseconds m 1000\nsentinel failover-timeout m 2000\n'
            'sentinel parallel-syncs m 2\n'
        )
        process = subprocess.Popen(
            [REDIS_SERVER_PATH, str(config), '--sentinel'],
            cwd=directory,
            stdout=(directory / 'sentinel.log').open('w'),
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        return port


class Posters:
    """Greenlets that post, and repeat what was not acknowledged until it is.

    acknowledged: what was. unknown: how often an outcome was not known. refused: how often the
        store was unavailable.
    """

    def __init__(self, store: Store, queue: str) -> None:
        self._store, self._queue = store, queue
        self._numbers = itertools.count()
        self.acknowledged: list[int] = []
        self.unknown = self.refused = 0
        self._is_over = False
        self._greenlets = [gevent.spawn(self._run) for _ in range(POSTERS)]

    def await_more_than(self, count: int) -> None:
        """Wait until more than so many are acknowledged."""
        eventually(lambda: len(self.acknowledged) > count, 'nothing is acknowledged')

    def count_lost(self) -> int:
        """Stop, and how many acknowledged messages are not there; none may be there twice."""
        self._is_over = True
        gevent.joinall(self._greenlets, raise_error=True)
        found = read_all(self._store, self._queue)
        assert len(found) == len(set(found)), 'made twice'
        return len(set(self.acknowledged) - set(found))

    def _run(self) -> None:
        while not self._is_over:
            number = next(self._numbers)
            while not self._post(number):
                gevent.sleep(0.01)
            self.acknowledged.append(number)

    def _post(self, number: int) -> bool:
        try:
            self._store.post(self._queue, number, ttl=3600, post_id=str(number))
        except OutcomeUnknown:
            self.unknown += 1
            return False
        except StoreUnavailable:
            self.refused += 1
            return False
        return True


@pytest.fixture
def group(tmp_path: pathlib.Path) -> Iterator[Group]:
    """One with one replica: the one that confirms a write is the one that takes over."""
    with contextlib.ExitStack() as stack:
        yield Group(tmp_path, stack, replicas=1)


@pytest.fixture
def large_group(tmp_path: pathlib.Path) -> Iterator[Group]:
    """One whose former master keeps a replica, which confirms writes."""
    with contextlib.ExitStack() as stack:
        yield Group(tmp_path, stack, replicas=2)


def post(store: Store, queue: str, body: str) -> bool:
    """Post once, however often it is repeated; whether it is acknowledged."""
    try:
        store.post(queue, body, post_id=body)
    except StoreUnavailable:
        return False
    return True


def read_all(store: Store, queue: str) -> list[int]:
    found: list[int] = []
    marker = None
    while True:
        results = store.messages.list(queue, marker=marker, limit=1000, echo=True)
        page = [one['body'] for one in next(results)]
        if not page:
            return found
        found += page
        marker = next(results)


@pytest.mark.parametrize(
    ('durability', 'kills'),
    [
        ('replica', 2),
        pytest.param('replica', 10, marks=pytest.mark.slow),
        pytest.param('memory', 10, marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(900)
def test_nothing_acknowledged_is_lost_where_a_replica_confirms_it(
    group: Group, durability: str, kills: int, tmp_path: pathlib.Path
) -> None:
    lost, seconds = 0, []
    with open_store(group.uri, group.master, tmp_path, durability) as store:
        queue = store.queue()
        group.await_replicas()
        posters = Posters(store, queue)
        for _ in range(kills):
            before = len(posters.acknowledged)
            posters.await_more_than(before + 50)
            killed = time.monotonic()
            group.kill_master()
            # What was acknowledged by the one that is gone is woken first.
            gevent.sleep(0.01)
            since = len(posters.acknowledged)
            group.repair()
            posters.await_more_than(since)
            seconds.append(time.monotonic() - killed)
        lost = posters.count_lost()
    print(
        f'durability {durability}, {kills} kills: {len(posters.acknowledged)} acknowledged, '
        f'{posters.unknown} outcomes unknown, {lost} lost; down for '
        f'{min(seconds):.2f} to {max(seconds):.2f} s'
    )
    if durability == 'replica':
        assert lost == 0


@pytest.mark.slow
@pytest.mark.parametrize('durability', ['memory', 'replica'])
@pytest.mark.timeout(900)
def test_nothing_acknowledged_is_lost_in_planned_failovers(
    large_group: Group, durability: str, tmp_path: pathlib.Path
) -> None:
    seconds = []
    with open_store(large_group.uri, large_group.master, tmp_path, durability) as store:
        queue = store.queue()
        large_group.await_replicas()
        posters = Posters(store, queue)
        for _ in range(FAILOVERS):
            posters.await_more_than(len(posters.acknowledged) + 50)
            began = time.monotonic()
            large_group.fail_over()
            large_group.await_other_master()
            # The former master still takes writes.
            posters.await_more_than(len(posters.acknowledged) + 50)
            seconds.append(time.monotonic() - began)
            large_group.follow_master()
            large_group.await_replicas()
        lost = posters.count_lost()
    print(
        f'durability {durability}, {FAILOVERS} failovers: {len(posters.acknowledged)} '
        f'acknowledged, {posters.unknown} outcomes unknown, {posters.refused} refused, {lost} lost;'
        f' each took {min(seconds):.2f} to {max(seconds):.2f} s'
    )
    assert lost == 0


def test_the_former_master_is_left_at_once(group: Group, tmp_path: pathlib.Path) -> None:
    with open_store(group.uri, group.master, tmp_path) as store:
        queue = store.queue()
        store.post(queue, 'before')
        assert group.master.client.wait(1, MOST_SECONDS * 1000) == 1
        group.fail_over()
        former = group.await_other_master()
        eventually(lambda: post(store, queue, 'in a greenlet'), 'nothing is acknowledged')
        pool = gevent.get_hub().threadpool
        eventually(
            lambda: pool.spawn(post, store, queue, 'in a thread').get(), 'nothing is acknowledged'
        )
        # The Sentinel has not demoted it, so that it would have taken them.
        was_demoted = former.client.info('replication')['role'] != 'master'
        bodies = ['before', 'in a greenlet', 'in a thread']
        assert read_all(store, queue) == bodies
        assert was_demoted or former.client.zcard(f'shop.{queue}.messages') == 1
