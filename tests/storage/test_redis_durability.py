"""Writes of the native driver that are acknowledged when a replica or a disk has them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import time
from collections.abc import Iterator

import gevent
import pytest
import redis as redis_py

from tests.redis_process import REDIS_SERVER_PATH, VALKEY_SERVER_PATH, RedisProcess
from tests.storage.test_redis_trouble import MOST_SECONDS, all_at_once, attempt, open_store
from zaqar_gevent.storage.errors import OutcomeUnknown, StoreUnavailable, UnsuitableStore

AT_ONCE = 40
PROGRAMS = {'redis': REDIS_SERVER_PATH, 'valkey': VALKEY_SERVER_PATH}
LOG = ('--appendonly', 'yes', '--appendfsync')


@contextlib.contextmanager
def paused(process: RedisProcess) -> Iterator[None]:
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def attempt_write(redis: RedisProcess) -> bool:
    try:
        return bool(redis.client.set('any', 'thing'))
    except redis_py.ResponseError:
        return False


def calls_of(redis: RedisProcess, command: str) -> int:
    found = redis.client.info('commandstats').get(f'cmdstat_{command}', {})
    return int(found.get('calls', 0))


@pytest.fixture(scope='module', params=PROGRAMS)
def replicated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RedisProcess, RedisProcess]]:
    """A master and its replica."""
    program = PROGRAMS[request.param]
    at_once = '--repl-diskless-sync-delay', '0'
    with (
        RedisProcess(tmp_path_factory.mktemp('master'), *at_once, program=program) as master,
        RedisProcess(tmp_path_factory.mktemp('replica'), program=program) as replica,
    ):
        replica.client.replicaof('127.0.0.1', master.port)
        assert master.client.set('any', 'thing')
        assert master.client.wait(1, 30_000) == 1
        yield master, replica


@pytest.fixture
def pair(replicated: tuple[RedisProcess, RedisProcess]) -> tuple[RedisProcess, RedisProcess]:
    """The same, with nothing in them."""
    master, _ = replicated
    master.client.flushall()
    assert master.client.wait(1, 30_000) == 1
    return replicated


def test_one_confirmation_serves_all_that_write_together(
    pair: tuple[RedisProcess, RedisProcess], tmp_path: pathlib.Path
) -> None:
    master, replica = pair
    master.client.config_resetstat()
    with open_store(master.patient_uri, master, tmp_path, 'replica') as store:
        queue = store.queue()
        results = all_at_once(*[lambda: store.post(queue, 'x')] * AT_ONCE)
        ids = {ids[0] for ids, _ in results}
        assert len(ids) == AT_ONCE
        # It has them already.
        assert all(replica.client.exists(one) for one in ids)
        waits = calls_of(master, 'wait')
        assert 0 < waits < AT_ONCE / 2
        assert len(store.list(queue, limit=100)) == AT_ONCE
        assert len(store.claim(queue, limit=3)[1]) == 3
        assert calls_of(master, 'wait') > waits


def test_without_a_replica_the_outcome_of_writes_is_unknown(
    pair: tuple[RedisProcess, RedisProcess], tmp_path: pathlib.Path
) -> None:
    master, replica = pair
    with open_store(master.uri, master, tmp_path, 'replica') as store:
        queue = store.queue()
        store.post(queue, 'before')
        with paused(replica):
            posts = [
                gevent.spawn(attempt, lambda n=n: store.post(queue, 'x', post_id=f'p{n}'))
                for n in range(5)
            ]
            gevent.sleep(0.1)
            listed, seconds = attempt(lambda: store.list(queue))
            # Reads do not wait for what is not confirmed, and may see it.
            assert listed[0] == 'before'
            gevent.joinall(posts, raise_error=True)
            outcomes = [one.value for one in posts]
        assert all(isinstance(outcome, OutcomeUnknown) for outcome, _ in outcomes)
        assert 'no replica' in str(outcomes[0][0])
        assert 'post_id' in outcomes[0][0].explanation
        assert seconds < max(waited for _, waited in outcomes) < MOST_SECONDS
        # Repeated, they are confirmed and made once.
        master.client.wait(1, 30_000)
        ids = [store.post(queue, 'x', post_id=f'p{n}')[0] for n in range(5)]
        assert len(set(ids)) == 5
        assert store.list(queue) == ['before', *['x'] * 5]


def test_a_server_without_a_replica_is_told(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        RedisProcess(tmp_path) as redis,
        open_store(redis.uri, redis, tmp_path, 'replica') as store,
    ):
        outcome, _ = attempt(lambda: store.post(store.queue(), 'x'))
    assert isinstance(outcome, OutcomeUnknown)
    assert 'has no replica' in caplog.text


def test_threads_without_a_hub_wait_for_the_replica(
    pair: tuple[RedisProcess, RedisProcess], tmp_path: pathlib.Path
) -> None:
    master, replica = pair
    with open_store(master.uri, master, tmp_path, 'replica') as store:
        queue = store.queue()
        pool = gevent.get_hub().threadpool
        [one] = pool.spawn(store.post, queue, 'x').get()
        assert replica.client.exists(one)
        with paused(replica):
            outcome, _ = pool.spawn(attempt, lambda: store.post(queue, 'y')).get()
        assert isinstance(outcome, OutcomeUnknown)


@pytest.mark.parametrize(
    ('program', 'policy'),
    [
        ('valkey', 'everysec'),
        ('valkey', 'always'),
        ('redis', 'always'),
    ],
)
def test_what_was_fsynced_is_there_after_a_crash(
    program: str, policy: str, tmp_path: pathlib.Path
) -> None:
    with (
        RedisProcess(tmp_path, *LOG, policy, program=PROGRAMS[program]) as redis,
        open_store(redis.uri, redis, tmp_path, 'fsync') as store,
    ):
        queue = store.queue()
        began = time.monotonic()
        results = all_at_once(*[lambda: store.post(queue, 'x')] * AT_ONCE)
        assert time.monotonic() - began < MOST_SECONDS
        ids = {ids[0] for ids, _ in results}
        waits = calls_of(redis, 'waitaof')
        assert (0 < waits < AT_ONCE / 2) if policy == 'everysec' else waits == 0
        redis.kill()
        redis.__enter__()
        assert {one['id'] for one in store.messages.bulk_get(queue, [*ids])} == ids


@pytest.mark.parametrize(
    ('program', 'options', 'reason'),
    [
        ('valkey', (), 'no append-only file'),
        ('valkey', (*LOG, 'no'), 'appendfsync no'),
        ('redis', (*LOG, 'everysec'), 'WAITAOF'),
    ],
)
def test_a_server_that_cannot_confirm_an_fsync_is_refused(
    program: str, options: tuple[str, ...], reason: str, tmp_path: pathlib.Path
) -> None:
    with (
        RedisProcess(tmp_path, *options, program=PROGRAMS[program]) as redis,
        pytest.raises(UnsuitableStore, match=reason),
        open_store(redis.uri, redis, tmp_path, 'fsync'),
    ):
        pass


def test_a_write_that_is_refused_at_once_is_no_unknown_outcome(
    pair: tuple[RedisProcess, RedisProcess], tmp_path: pathlib.Path
) -> None:
    master, _ = pair
    if master.client.info('server')['redis_version'] < '7':
        pytest.skip('scripts write all the same before Redis 7')
    with open_store(master.uri, master, tmp_path, 'replica') as store:
        queue = store.queue()
        master.client.config_set('min-replicas-to-write', 2)
        try:
            # Redis counts its replicas once a second.
            while attempt_write(master):
                time.sleep(0.05)
            outcome, _ = attempt(lambda: store.post(queue, 'x'))
        finally:
            master.client.config_set('min-replicas-to-write', 0)
        assert isinstance(outcome, StoreUnavailable)
        assert not isinstance(outcome, OutcomeUnknown)
        assert 'too few replicas' in str(outcome)
        assert store.list(queue) == []


@pytest.mark.parametrize('program', PROGRAMS)
def test_redis_cluster_is_refused(program: str, tmp_path: pathlib.Path) -> None:
    with (
        RedisProcess(tmp_path, '--cluster-enabled', 'yes', program=PROGRAMS[program]) as redis,
        pytest.raises(UnsuitableStore, match='Redis Cluster'),
        open_store(redis.uri, redis, tmp_path),
    ):
        pass
