"""The native driver where Redis is behind TLS, or found by Sentinel."""

from __future__ import annotations

import pathlib
import subprocess
import time
from collections.abc import Iterator

import gevent
import pytest
import redis as redis_py

from tests.certificate import write_certificate
from tests.ports import free_port
from tests.redis_process import REDIS_SERVER_PATH, RedisProcess
from tests.storage.relay import Relay, with_tls
from tests.storage.test_redis_trouble import open_store
from zaqar_gevent.storage.errors import StoreUnavailable

FAILOVER_SECONDS = 60


@pytest.fixture
def relay(redis: RedisProcess, tmp_path: pathlib.Path) -> Iterator[Relay]:
    opened = Relay(redis.port, greet=with_tls(write_certificate(tmp_path)))
    yield opened
    opened.close()


def test_redis_is_spoken_to_over_tls(
    relay: Relay, redis: RedisProcess, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('SSL_CERT_FILE', str(tmp_path / 'server.pem'))
    with open_store(f'rediss://127.0.0.1:{relay.port}', redis, tmp_path) as store:
        queue = store.queue()
        # More than one read and one write can carry.
        long = ['x' * 300_000, *range(5)]
        store.post(queue, *long)
        greenlets = [gevent.spawn(store.list, queue) for _ in range(10)]
        gevent.joinall(greenlets, raise_error=True)
        assert all(one.value == long for one in greenlets)


def test_a_certificate_nobody_vouches_for_is_not_believed(
    relay: Relay, redis: RedisProcess, tmp_path: pathlib.Path
) -> None:
    uri = f'rediss://127.0.0.1:{relay.port}'
    with pytest.raises(StoreUnavailable, match='certificate'), open_store(uri, redis, tmp_path):
        pass


@pytest.fixture
def sentinel(
    redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, RedisProcess]]:
    """The port of a Sentinel, and the master, of which `redis` is the replica."""
    with RedisProcess(tmp_path_factory.mktemp('master')) as master:
        redis.client.replicaof('127.0.0.1', master.port)
        directory = tmp_path_factory.mktemp('sentinel')
        port = free_port()
        config = directory / 'sentinel.conf'
        config.write_text(
            f'port {port}\nbind 127.0.0.1\nsentinel monitor m 127.0.0.1 {master.port} 1\n'
            'sentinel down-after-milliseconds m 500\nsentinel failover-timeout m 5000\n'
        )
        process = subprocess.Popen(
            [REDIS_SERVER_PATH, str(config), '--sentinel'],
            cwd=directory,
            stdout=subprocess.DEVNULL,
        )
        try:
            with redis_py.Redis(port=port) as client:
                await_replica(client)
            yield port, master
        finally:
            process.terminate()
            process.wait()
            redis.client.replicaof('no', 'one')


def await_replica(client: redis_py.Redis) -> None:
    """Wait until the Sentinel knows the replica, which can take over."""
    deadline = time.monotonic() + FAILOVER_SECONDS
    while True:
        try:
            if client.execute_command('SENTINEL', 'REPLICAS', 'm'):
                return
        except redis_py.RedisError:
            pass
        assert time.monotonic() < deadline, 'Sentinel does not find the replica'
        time.sleep(0.1)


@pytest.mark.timeout(300)
def test_another_master_is_found(
    sentinel: tuple[int, RedisProcess], redis: RedisProcess, tmp_path: pathlib.Path
) -> None:
    port, master = sentinel
    with open_store(f'redis://127.0.0.1:{port}?master=m', redis, tmp_path) as store:
        queue = store.queue()
        store.post(queue, 'before')
        # What has not come to the replica is lost with the master.
        assert master.client.wait(1, 10_000) == 1
        master.__exit__()
        deadline = time.monotonic() + FAILOVER_SECONDS
        while True:
            try:
                store.post(queue, 'after')
                break
            except StoreUnavailable:
                assert time.monotonic() < deadline, 'no other master is found'
        assert store.list(queue) == ['before', 'after']
        assert redis.client.zcard(f'shop.{queue}.messages') == 2


def test_a_master_that_no_sentinel_knows_is_told(
    sentinel: tuple[int, RedisProcess], redis: RedisProcess, tmp_path: pathlib.Path
) -> None:
    uri = f'redis://127.0.0.1:{sentinel[0]}?master=unknown'
    with pytest.raises(StoreUnavailable, match='unknown'), open_store(uri, redis, tmp_path):
        pass
