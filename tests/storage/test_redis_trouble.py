"""The native driver for Redis when the server is gone, full, busy, or not what it should be."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import pytest
import redis as redis_py
from oslo_config import cfg
from zaqar.storage import pipeline

from tests.redis_process import REDIS_SERVER_PATH, VALKEY_SERVER_PATH, RedisProcess
from tests.storage.conftest import ON_REDIS, Store, open_drivers
from tests.storage.relay import Relay
from zaqar_gevent import conf as configuration
from zaqar_gevent.storage.core import links
from zaqar_gevent.storage.errors import OutcomeUnknown, StoreUnavailable, UnsuitableStore
from zaqar_gevent.storage.redis import driver, news, servers

# A call may wait for an answer, then for a connection; a busy machine has some of it.
MOST_SECONDS = 20.0


@contextlib.contextmanager
def open_store(
    uri: str, redis: RedisProcess, directory: pathlib.Path, durability: str = 'memory'
) -> Iterator[Store]:
    """A store at `uri`."""
    gevent.get_hub()
    path = directory / 'zaqar.conf'
    values = {'driver': 'native', 'redis': uri, 'is_shared': True, 'durability': durability}
    path.write_text(ON_REDIS.format(**values))
    conf = configuration.load(cfg.ConfigOpts(), [str(path)])
    driver, control = open_drivers('native', conf)
    yield Store('native', pipeline.DataDriver(conf, driver, control), control, redis)
    driver.close()
    control.close()


@pytest.fixture
def own(tmp_path: pathlib.Path) -> Iterator[RedisProcess]:
    """A server that the test may do with what it likes."""
    with RedisProcess(tmp_path) as process:
        yield process


@pytest.fixture
def store(own: RedisProcess, tmp_path: pathlib.Path) -> Iterator[Store]:
    with open_store(own.uri, own, tmp_path) as opened:
        yield opened


def attempt(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns or raises, and how many seconds it takes."""
    began = time.monotonic()
    try:
        return call(), time.monotonic() - began
    except StoreUnavailable as error:
        return error, time.monotonic() - began


def all_at_once(*attempts: Callable[[], Any]) -> list[Any]:
    greenlets = [gevent.spawn(attempt, one) for one in attempts]
    gevent.joinall(greenlets, timeout=60, raise_error=True)
    return [greenlet.get(block=False) for greenlet in greenlets]


def test_a_paused_server_is_given_up_in_time(store: Store, own: RedisProcess) -> None:
    queue = store.queue()
    ticks = []

    def tick() -> None:
        while True:
            gevent.sleep(0.05)
            ticks.append(time.monotonic())

    ticker = gevent.spawn(tick)
    os.kill(own.pid, signal.SIGSTOP)
    try:
        calls_made = [lambda: store.post(queue, 'x'), lambda: store.list(queue)] * 4
        outcomes = all_at_once(*calls_made, *[lambda: store.claim(queue)] * 2)
    finally:
        os.kill(own.pid, signal.SIGCONT)
    ticker.kill()
    assert all(isinstance(outcome, StoreUnavailable) for outcome, _ in outcomes)
    assert max(seconds for _, seconds in outcomes) < MOST_SECONDS
    # The others go on meanwhile.
    assert len(ticks) > 5
    assert store.post(queue, 'y')
    # A post whose outcome is not known may have been made.
    assert set(store.list(queue, limit=20)) <= {'x', 'y'}


@pytest.fixture
def patient(
    own: RedisProcess, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """One whose calls wait for a connection for as long as a slow machine needs."""
    for module in (driver, servers):
        monkeypatch.setattr(module, 'PATIENCE_SECONDS', 60.0)
    with open_store(own.patient_uri, own, tmp_path) as opened:
        yield opened


def test_calls_wait_for_a_server_that_restarts(patient: Store, own: RedisProcess) -> None:
    store = patient
    queue = store.queue()
    own.__exit__()
    restart = gevent.spawn_later(0.3, own.__enter__)
    # Nothing was kept, so that the queue is made anew; what counts is that nobody is refused.
    outcomes = all_at_once(*[lambda: store.queues.create(queue)] * 5)
    restart.get()
    assert sorted(outcome for outcome, _ in outcomes) == [False] * 4 + [True]
    assert store.post(queue, 'x')
    assert store.list(queue) == ['x']


def test_a_server_that_is_gone_is_told_in_time(store: Store, own: RedisProcess) -> None:
    queue = store.queue()
    own.__exit__()
    try:
        for outcome, seconds in all_at_once(*[lambda: store.list(queue)] * 5):
            assert isinstance(outcome, StoreUnavailable)
            assert str(own.port) in str(outcome)
            assert seconds < MOST_SECONDS
        assert not store.data.is_alive()
    finally:
        own.__enter__()
    assert store.data.is_alive()
    assert store.list(queue) == []


def test_scripts_are_loaded_again(store: Store, own: RedisProcess) -> None:
    queue = store.queue()
    for number in range(3):
        own.client.script_flush()
        results = all_at_once(*[lambda: store.post(queue, 'x')] * 20)
        assert all(len(ids) == 1 for ids, _ in results)
        assert store.counts(queue) == (0, 20 * (number + 1))


def test_messages_are_deleted_together_by_a_server_of_an_older_version(
    store: Store, own: RedisProcess
) -> None:
    own.client.execute_command('ACL', 'SETUSER', 'default', '-zmscore')
    queue, other = store.queue(), store.queue()
    ids, others = store.post(queue, 1, 2, 3), store.post(other, 4)
    store.messages.bulk_delete(queue, [ids[0], ids[2], *others])
    assert (store.list(queue), store.list(other)) == ([2], [4])


def test_nothing_is_made_that_was_refused_for_want_of_memory(
    store: Store, own: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    queue = store.queue()
    store.post(queue, 'x')
    own.client.config_set('maxmemory', 1)
    for call in (
        lambda: store.post(queue, 'y'),
        lambda: store.claim(queue),
        lambda: store.queues.create('other'),
        lambda: store.subscriptions.create(queue, 'http://a', 300, {}),
    ):
        with pytest.raises(StoreUnavailable, match='out of memory'):
            call()
        assert store.list(queue) == ['x']
    assert len([line for line in caplog.messages if 'out of memory' in line]) == 1
    assert store.list(queue) == ['x']
    assert store.counts(queue) == (0, 1)
    assert list(next(store.subscriptions.list(queue))) == []
    [message] = store.messages.pop(queue, 1)
    assert message['body'] == 'x'
    own.client.config_set('maxmemory', 0)
    assert store.post(queue, 'y')


def test_a_server_that_evicts_is_refused(own: RedisProcess, tmp_path: pathlib.Path) -> None:
    own.client.config_set('maxmemory', '100mb')
    own.client.config_set('maxmemory-policy', 'allkeys-lru')
    with (
        pytest.raises(UnsuitableStore, match='maxmemory-policy allkeys-lru'),
        open_store(own.uri, own, tmp_path),
    ):
        pass
    own.client.config_set('maxmemory-policy', 'noeviction')
    with open_store(own.uri, own, tmp_path) as opened:
        assert opened.data.is_alive()


def test_a_replica_is_not_written(
    store: Store, own: RedisProcess, redis: RedisProcess, tmp_path: pathlib.Path
) -> None:
    queue = store.queue()
    store.post(queue, 'x')
    redis.client.replicaof('127.0.0.1', own.port)
    with open_store(redis.uri, redis, tmp_path) as replicated:
        while not replicated.queues.exists(queue):
            gevent.sleep(0.05)
        with pytest.raises(StoreUnavailable, match='replica'):
            replicated.post(queue, 'y')
        assert replicated.list(queue) == ['x']
        redis.client.replicaof('no', 'one')
        assert replicated.post(queue, 'y')
        assert replicated.list(queue) == ['x', 'y']


def test_a_busy_server_is_waited_for(store: Store, own: RedisProcess) -> None:
    queue = store.queue()
    own.client.config_set('lua-time-limit', 50)

    def spin() -> None:
        with contextlib.suppress(redis_py.RedisError), redis_py.Redis(port=own.port) as client:
            client.eval('while true do end', 0)

    spinning = threading.Thread(target=spin)
    spinning.start()
    killing = threading.Timer(0.2, own.client.script_kill)
    killing.start()
    outcomes = all_at_once(*[lambda: store.post(queue, 'x')] * 3)
    spinning.join()
    killing.join()
    assert all(isinstance(outcome, list) for outcome, _ in outcomes)
    assert store.counts(queue) == (0, 3)


def test_a_wrong_password_is_told(own: RedisProcess, tmp_path: pathlib.Path) -> None:
    own.client.config_set('requirepass', 'r@:/%ght')
    for uri in (own.uri, own.uri.replace('//', '//:wrong@')):
        with pytest.raises(StoreUnavailable, match='password'), open_store(uri, own, tmp_path):
            pass
    with open_store(own.uri.replace('//', '//:r%40%3A%2F%25ght@'), own, tmp_path) as opened:
        assert opened.data.is_alive()


RIGHTS = (
    '~* resetchannels &zaqar_gevent:* +@read +@write +eval +evalsha +info +ping '
    '+select +client|setname +publish +subscribe +wait +waitaof +config|get'
)
"""As docs/operators.md lists them."""


def give_rights(own: RedisProcess, rights: str) -> str:
    """The URI of a user with these rights, as far as this Redis knows the commands."""
    version = own.client.info('server')['redis_version']
    if tuple(map(int, version.split('.')[:2])) < (7, 2):
        rights = rights.replace(' +waitaof', '')
    own.client.execute_command('ACL', 'SETUSER', 'z', 'reset', 'on', '>p@ss', *rights.split())
    return own.patient_uri.replace('//', '//z:p%40ss@')


@pytest.mark.parametrize(
    'program', [REDIS_SERVER_PATH, VALKEY_SERVER_PATH], ids=['redis', 'valkey']
)
def test_a_user_needs_no_more_rights_than_documented(program: str, tmp_path: pathlib.Path) -> None:
    documented = (pathlib.Path(__file__).parents[2] / 'docs' / 'operators.md').read_text()
    assert f'on >PASSWORD {RIGHTS}' in ' '.join(documented.split())
    with (
        RedisProcess(tmp_path, program=program) as own,
        open_store(give_rights(own, RIGHTS) + '&dbid=1', own, tmp_path) as store,
    ):
        queue = store.queue(_max_claim_count=5, _dead_letter_queue='dead')
        ids = store.post(queue, *range(5))
        claim_id, found = store.claim(queue, limit=2)
        assert len(found) == 2
        store.claims.delete(queue, claim_id)
        store.messages.delete(queue, ids[0])
        assert [one['body'] for one in store.messages.pop(queue, 1)] == [1]
        assert store.list(queue) == [2, 3, 4]
        store.purge(queue)
        store.queues.delete(queue)
        told, connected = gevent.event.Event(), gevent.event.Event()
        channel = store.control.news_channel
        channel.listen('p', lambda news: told.set(), connected.set)
        assert connected.wait(60)
        assert channel.tell('p', b'news')
        assert told.wait(60)


@pytest.mark.parametrize(
    ('lacks', 'message'),
    [('~*', 'may not'), ('+eval', 'may not'), ('+evalsha', 'may not'), ('+@write', 'scripts')],
)
def test_a_redis_that_runs_no_scripts_is_refused(
    own: RedisProcess, tmp_path: pathlib.Path, lacks: str, message: str
) -> None:
    uri = give_rights(own, RIGHTS.replace(lacks + ' ', '', 1))
    with pytest.raises(UnsuitableStore, match=message), open_store(uri, own, tmp_path):
        pass


@pytest.mark.parametrize(
    ('program', 'setting', 'message'),
    [
        (REDIS_SERVER_PATH, 'maxmemory', 'out of memory'),
        # Older ones let scripts write.
        (VALKEY_SERVER_PATH, 'min-replicas-to-write', 'too few replicas'),
    ],
    ids=['full', 'replicas'],
)
def test_a_redis_that_is_not_written_for_now_is_not_refused(
    program: str, setting: str, message: str, tmp_path: pathlib.Path
) -> None:
    with RedisProcess(tmp_path, program=program) as own:
        own.client.config_set(setting, 1)
        with (
            open_store(own.patient_uri, own, tmp_path) as store,
            pytest.raises(StoreUnavailable, match=message),
        ):
            store.queue()


def test_a_redis_with_a_renamed_eval_is_refused(tmp_path: pathlib.Path) -> None:
    with (
        RedisProcess(tmp_path, '--rename-command', 'EVALSHA', 'OTHER') as redis,
        pytest.raises(UnsuitableStore, match=r'unknown command .EVALSHA.[.] The driver needs'),
        open_store(redis.patient_uri, redis, tmp_path),
    ):
        pass


def test_a_connection_need_not_be_named(own: RedisProcess, tmp_path: pathlib.Path) -> None:
    uri = give_rights(own, RIGHTS.replace('+client|setname ', ''))
    with open_store(uri, own, tmp_path) as opened:
        assert opened.data.is_alive()


def test_a_listener_without_rights_is_told_once(
    own: RedisProcess,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    attempts, enough = [], gevent.event.Event()

    dial = news.dial_master

    def dial_again(*arguments: Any) -> Any:
        attempts.append(arguments)
        if len(attempts) == 4:
            enough.set()
        return dial(*arguments)

    monkeypatch.setattr(news, '_RETRY_SECONDS', 0.01)
    monkeypatch.setattr(news, 'dial_master', dial_again)
    caplog.set_level('INFO')
    uri = give_rights(own, RIGHTS.replace('+subscribe ', ''))
    with open_store(uri, own, tmp_path) as store:
        listener = gevent.spawn(
            store.control.news_channel._listen, 'p', lambda news: None, lambda: None
        )
        assert enough.wait(60)
        listener.kill()
    assert sum('news is listened to' in r.getMessage() for r in caplog.records) == 1


def test_calls_that_wait_are_bounded(
    store: Store, own: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = store.queue()
    monkeypatch.setattr(links, 'MAX_WAITING', 5)
    os.kill(own.pid, signal.SIGSTOP)
    try:
        outcomes = all_at_once(*[lambda: store.list(queue)] * 20)
    finally:
        os.kill(own.pid, signal.SIGCONT)
    at_once = [outcome for outcome, seconds in outcomes if 'too many calls' in str(outcome)]
    assert len(at_once) == 15
    assert store.list(queue) == []


def test_whoever_waits_is_told_when_the_driver_is_closed(
    own: RedisProcess, tmp_path: pathlib.Path
) -> None:
    with open_store(own.uri, own, tmp_path) as store:
        queue = store.queue()
        os.kill(own.pid, signal.SIGSTOP)
        waiting = [gevent.spawn(attempt, lambda: store.post(queue, 'x')) for _ in range(3)]
        gevent.sleep(0.1)
        waiting += [gevent.spawn(attempt, lambda: store.list(queue)) for _ in range(3)]
        gevent.sleep(0)
    try:
        gevent.joinall(waiting, timeout=60, raise_error=True)
        assert all(isinstance(one.value[0], StoreUnavailable) for one in waiting)
    finally:
        os.kill(own.pid, signal.SIGCONT)


def test_a_killed_greenlet_leaves_nothing_behind(store: Store, own: RedisProcess) -> None:
    queue = store.queue()
    os.kill(own.pid, signal.SIGSTOP)
    try:
        first = gevent.spawn(attempt, lambda: store.list(queue))
        gevent.sleep(0.1)
        never_sent = gevent.spawn(attempt, lambda: store.post(queue, 'x'))
        gevent.sleep(0.1)
        never_sent.kill()
    finally:
        os.kill(own.pid, signal.SIGCONT)
    assert first.get()[0] == []
    assert store.list(queue) == []


@pytest.fixture
def relay(own: RedisProcess) -> Iterator[Relay]:
    opened = Relay(own.port)
    yield opened
    opened.close()


def test_an_outcome_that_is_not_known_is_told(
    relay: Relay, own: RedisProcess, tmp_path: pathlib.Path
) -> None:
    with open_store(f'redis://127.0.0.1:{relay.port}', own, tmp_path) as store:
        queue = store.queue()
        store.post(queue, 'before')
        relay.loses.set()
        outcomes = all_at_once(*[lambda: store.post(queue, 'x')] * 5)
        assert all(isinstance(outcome, OutcomeUnknown) for outcome, _ in outcomes)
        assert 'post_id' in outcomes[0][0].explanation
        assert store.list(queue) == ['before', *['x'] * 5]


def test_what_can_be_repeated_is(relay: Relay, own: RedisProcess, tmp_path: pathlib.Path) -> None:
    with open_store(f'redis://127.0.0.1:{relay.port}', own, tmp_path) as store:
        queue = store.queue()
        ids = store.post(queue, 'x', post_id='warm')
        relay.loses.set()
        assert store.list(queue) == ['x']
        relay.loses.set()
        once = store.post(queue, 'y', post_id='p1')
        assert store.list(queue) == ['x', 'y']
        relay.loses.set()
        store.messages.delete(queue, ids[0])
        assert [one['id'] for one in store.messages.bulk_get(queue, [*ids, *once])] == once


def test_a_unix_socket_serves(tmp_path: pathlib.Path, own: RedisProcess) -> None:
    # By the name below the directory of the server: the whole path may be too long.
    own.client.config_set('dir', str(tmp_path))
    listener = socket.socket(socket.AF_UNIX)
    path = tmp_path / 'r.sock'
    listener.bind(str(path))
    listener.listen()
    relay = Relay(own.port, listener)
    with open_store(f'redis://{path}', own, tmp_path) as store:
        queue = store.queue()
        store.post(queue, 'x')
        assert store.list(queue) == ['x']
    relay.close()


def test_many_claim_at_once_and_no_message_is_held_twice(store: Store) -> None:
    queue = store.queue()
    all_at_once(*[lambda: store.post(queue, *range(10))] * 30)
    claimed: list[str] = []

    def work() -> None:
        while found := store.claim(queue, limit=7)[1]:
            claimed.extend(one['id'] for one in found)

    all_at_once(*[work] * 20)
    assert len(claimed) == len(set(claimed)) == 300
    assert store.counts(queue) == (300, 0)
