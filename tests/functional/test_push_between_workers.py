"""Processes that share a store push each other's messages: once each, in order, in time."""

from __future__ import annotations

import contextlib
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from tests.callers import Identity, RestCaller, new_identity
from tests.faults.client import COMPACT, DEFAULT, Dialect
from tests.faults.gunicorn_process import GunicornProcess
from tests.functional.test_push import Reader, Subscriber, contents, eventually, post
from tests.internal_urls import Urls, in_postgresql, in_redis, in_sqlite
from tests.ports import free_port
from tests.postgres_process import ON_POSTGRESQL, PostgresProcess
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import START_SECONDS, ServerProcess
from tests.stopwatch import Stopwatch

KNOWN_SECONDS = 1.2
"""After this time every process knows that another one waits for news of a queue."""

WOKEN_SECONDS = 0.8
"""Sooner than consumers look by themselves."""

AT_ONCE = 20
MSGPACK = Dialect('zaqar.v2', binary=True)
UPSTREAM = """
    [drivers]
    transport = wsgi
    message_store = redis
    management_store = redis
    [drivers:message_store:redis]
    uri = {redis}
    [drivers:management_store:redis]
    uri = {redis}
    [drivers:transport:wsgi]
    bind = 127.0.0.1
    port = {port}
    [storage]
    message_pipeline = zaqar.notification.notifier
    """

NOTIFYING = '[storage]\nmessage_pipeline = zaqar.notification.notifier\n'

Pair = tuple[ServerProcess, ServerProcess]


@contextlib.contextmanager
def on_sqlite(directory: pathlib.Path, config: str | None = None) -> Iterator[Pair]:
    """Two servers on one file."""
    with (
        ServerProcess(directory, config=config) as one,
        ServerProcess(directory, config=config) as other,
    ):
        yield one, other


@contextlib.contextmanager
def on_redis(directory: pathlib.Path) -> Iterator[tuple[Pair, RedisProcess]]:
    """Two servers on one Redis, and that."""
    with RedisProcess(directory) as redis:
        config = ON_REDIS.format(redis=redis.patient_uri)
        with (
            ServerProcess(directory, config=config) as one,
            ServerProcess(directory, config=config) as other,
        ):
            yield (one, other), redis


@pytest.fixture(scope='module')
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with on_sqlite(tmp_path_factory.mktemp('sqlite')) as pair:
        yield pair


@pytest.fixture(scope='module')
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pair, RedisProcess]]:
    with on_redis(tmp_path_factory.mktemp('redis')) as found:
        yield found


@pytest.fixture(scope='module')
def postgresql(
    postgres: PostgresProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Two servers on one database."""
    directory = tmp_path_factory.mktemp('postgresql')
    config = ON_POSTGRESQL.format(uri=postgres.uri, schema='pushed') + NOTIFYING
    with (
        ServerProcess(directory / '0', config=config) as one,
        ServerProcess(directory / '1', config=config) as other,
    ):
        yield one, other


@pytest.fixture(params=['sqlite', 'redis', 'postgresql'])
def pair(request: pytest.FixtureRequest) -> Pair:
    """Two servers on each store."""
    found = request.getfixturevalue(request.param)
    pair: Pair = found[0] if request.param == 'redis' else found
    return pair


class Listener(threading.Thread):
    """Stays connected and listens until it has been pushed so many messages.

    seen: their bodies, as they came. worker: where the process listens that it is connected to.
    """

    def __init__(
        self, port: int, dialect: Dialect, identity: Identity, total: int, urls: Urls
    ) -> None:
        super().__init__(daemon=True)
        self.seen: list[Any] = []
        self.client = Subscriber(port, dialect, identity=identity)
        self.worker = worker_of(self.client, urls)
        self._total = total

    def run(self) -> None:
        with self.client:
            self.seen = self.client.bodies(self._total)
            if not self.client.has_nothing_more():
                self.seen.append(self.client.pushed)


class Poster(threading.Thread):
    """Posts messages to servers in turn, over REST and WebSocket."""

    def __init__(self, ports: Sequence[int], identity: Identity, bodies: Sequence[Any]) -> None:
        super().__init__(daemon=True)
        rest = [RestCaller(f'http://127.0.0.1:{port}', identity=identity) for port in ports]
        sockets = [
            Subscriber(port, dialect, identity=identity)
            for port in ports
            for dialect in (DEFAULT, MSGPACK)
        ]
        self._callers: list[Any] = [*rest, *sockets]
        self._bodies = bodies

    def run(self) -> None:
        start = 0
        while start < len(self._bodies):
            end = start + random.randrange(10, AT_ONCE + 1)
            post(random.choice(self._callers), *self._bodies[start:end])
            start = end
        for caller in self._callers:
            caller.close()


def worker_of(client: Subscriber, urls: Urls) -> str:
    """Subscribe a client; where the process listens that it is connected to."""
    subscription_id = client.subscribe()
    return urlsplit(urls()[subscription_id]).netloc


def exchange(
    ports: Sequence[int],
    total: int,
    urls: Urls,
    each: Callable[[], Iterator[Any]] = lambda: iter([None]),
) -> None:
    """Post to all of the servers, listen on all, and see that everybody gets all of it.

    urls: of the connections, in their store. each: makes each of the workers that share a port the
    one that new clients connect to, in turn.
    """
    identity = new_identity()
    rest = RestCaller(f'http://127.0.0.1:{ports[0]}', identity=identity)
    [first] = post(rest, 'first')
    listeners = [
        Listener(port, dialect, identity, total, urls)
        for _ in each()
        for port in ports
        for dialect in (DEFAULT, MSGPACK)
    ]
    assert len({listener.worker for listener in listeners}) == 2
    readers = [
        Reader(ports[turn:] + ports[:turn], COMPACT, identity, first, total) for turn in (0, 1)
    ]
    half = total // 2
    posters = [Poster(ports, identity, range(half)), Poster(ports, identity, range(half, total))]
    began = time.monotonic()
    for thread in (*listeners, *readers, *posters):
        thread.start()
    for thread in (*posters, *listeners, *readers):
        thread.join(100)
    print(f'{total} messages in {time.monotonic() - began:.1f} s')
    stored = contents(rest)[1:]
    assert sorted(message['body'] for message in stored) == list(range(total))
    for listener in listeners:
        assert listener.seen == [message['body'] for message in stored]
    for reader in readers:
        assert reader.seen == [message['id'] for message in stored]
        assert (reader.connections > 10, reader.losses) == (True, 0)


def test_two_servers_on_one_file_push_everything_to_everybody(sqlite: Pair) -> None:
    exchange([server.port for server in sqlite], 10_000, in_sqlite(sqlite[0].state_path))


@pytest.mark.parametrize('total', [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_two_servers_on_one_redis_push_everything_to_everybody(
    redis: tuple[Pair, RedisProcess], total: int
) -> None:
    """Fewer unless there is time, for Redis takes four times as long."""
    servers, process = redis
    exchange([server.port for server in servers], total, in_redis(process.client))


@pytest.mark.parametrize('total', [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_two_servers_on_one_database_push_everything_to_everybody(
    postgresql: Pair, postgres: PostgresProcess, total: int
) -> None:
    urls = in_postgresql(postgres, 'pushed')
    exchange([server.port for server in postgresql], total, urls)


def test_processes_on_one_redis_tell_each_other_through_it(
    redis: tuple[Pair, RedisProcess],
) -> None:
    (one, other), process = redis
    client = process.client
    with (
        Subscriber(other.port) as subscriber,
        Subscriber(other.port, identity=subscriber.identity) as leaver,
    ):
        rest = RestCaller(one.url, identity=subscriber.identity)
        subscriber.subscribe()
        leaver.subscribe()
        eventually(lambda: client.pubsub_channels('zaqar_gevent:news:*'))
        client.config_resetstat()
        post(rest, 'first')
        assert subscriber.bodies(1) == ['first']
        assert client.info('commandstats')['cmdstat_publish']['calls'] > 0
        # Of a connection that is gone the other process is told, and tells those that are left.
        leaver.reset()
        for number in range(20):
            post(rest, number)
            assert subscriber.bodies(1) == [number]
        # Connections to Redis that break are made anew; until then others are told over HTTP.
        for number in range(20):
            client.client_kill_filter(_type='pubsub')
            post(rest, number)
            assert subscriber.bodies(1) == [number]
    for server in (one, other):
        assert not [line for line in server.output if 'Traceback' in line]


def test_pushes_through_redis_go_on_when_it_has_restarted(tmp_path: pathlib.Path) -> None:
    persistent = '--appendonly', 'yes', '--appendfsync', 'always'
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(RedisProcess(tmp_path, *persistent))
        config = ON_REDIS.format(redis=process.uri)
        one = stack.enter_context(ServerProcess(tmp_path / 'one', config=config))
        other = stack.enter_context(ServerProcess(tmp_path / 'other', config=config))
        subscriber = stack.enter_context(Subscriber(other.port))
        rest = RestCaller(one.url, identity=subscriber.identity)
        subscriber.subscribe()
        eventually(lambda: process.client.pubsub_channels('zaqar_gevent:news:*'))
        post(rest, 'first')
        assert subscriber.bodies(1) == ['first']
        process.__exit__()
        stack.enter_context(process)
        eventually(lambda: rest.call('ping_node').status == 204)
        for number in range(20):
            post(rest, number)
        assert subscriber.bodies(20) == list(range(20))


def test_two_workers_of_gunicorn_push_everything_to_everybody(tmp_path: pathlib.Path) -> None:
    with GunicornProcess(tmp_path, '-w', '2') as server:
        master = psutil.Process(server.pid)
        eventually(lambda: len(master.children()) == 2)
        exchange([server.port], 10_000, in_sqlite(tmp_path), lambda: alone(master.children()))


def alone(workers: Sequence[psutil.Process]) -> Iterator[psutil.Process]:
    """Each of the workers, while the others stand still."""
    for worker in workers:
        others = [other for other in workers if other != worker]
        for other in others:
            other.suspend()
        yield worker
        for other in others:
            other.resume()


def test_who_was_connected_to_a_server_that_was_killed_goes_on_with_another(
    tmp_path: pathlib.Path,
) -> None:
    total = 4_000
    identity = new_identity()
    with on_sqlite(tmp_path) as (doomed, other):
        rest = RestCaller(other.url, identity=identity)
        [first] = post(rest, 'first')
        ports = [doomed.port, other.port]
        readers = [
            Reader(ports, dialect, identity, first, total, patience=None)
            for dialect in (COMPACT, MSGPACK, COMPACT)
        ]
        with Subscriber(doomed.port, identity=identity) as idle:
            dead = worker_of(idle, in_sqlite(tmp_path))
            early = Poster(ports, identity, range(total // 2))
            late = Poster([other.port], identity, range(total // 2, total))
            for thread in (*readers, early):
                thread.start()
            early.join()
            late.start()
            eventually(lambda: all(len(reader.seen) > total / 10 for reader in readers))
            doomed.kill()
        for thread in (late, *readers):
            thread.join(100)
        stored = [message['id'] for message in contents(rest)[1:]]
        assert len(stored) == total
        for reader in readers:
            assert (reader.seen == stored, reader.losses) == (True, 1)
        post(rest, 'last')
        eventually(lambda: dead not in workers_at(tmp_path))


def test_who_was_connected_to_a_worker_that_was_killed_goes_on_with_another(
    tmp_path: pathlib.Path,
) -> None:
    """Of gunicorn's two; a third takes the place of the dead one.

    Gunicorn waits in vain for a worker that is told to stop while it starts, so it is not to wait
    for long.
    """
    total = 2_000
    identity = new_identity()
    with GunicornProcess(tmp_path, '-w', '2', '--graceful-timeout', '3') as server:
        master = psutil.Process(server.pid)
        eventually(lambda: len(master.children()) == 2)
        doomed, other = master.children()
        doomed.suspend()
        writer = Subscriber(server.port, identity=identity)
        [first] = post(writer, 'first')
        doomed.resume()
        other.suspend()
        readers = [
            Reader([server.port], dialect, identity, first, total, patience=None)
            for dialect in (COMPACT, MSGPACK, COMPACT)
        ]
        for reader in readers:
            reader.start()
        eventually(lambda: len(in_sqlite(tmp_path)()) == len(readers))
        other.resume()
        post(writer, 'second')
        eventually(lambda: all(reader.seen for reader in readers))
        for start in range(1, total, AT_ONCE):
            post(writer, *range(start, min(start + AT_ONCE, total)))
            if start == 1 + total // 2:
                doomed.kill()
        for reader in readers:
            reader.join(100)
        stored = [message['id'] for message in contents(writer)[1:]]
        assert len(stored) == total
        for reader in readers:
            assert (reader.seen == stored, reader.losses) == (True, 1)
        writer.close()


def workers_at(state: pathlib.Path) -> set[str]:
    """Where the processes listen whose connections are subscribed."""
    return {urlsplit(url).netloc for url in in_sqlite(state)().values()}


def test_what_is_posted_to_one_server_is_pushed_by_the_other(pair: Pair) -> None:
    """Also where the queue was empty, and to whoever has subscribed just now."""
    one, other = pair
    with Subscriber(other.port) as subscriber:
        rest = RestCaller(one.url, identity=subscriber.identity)
        subscriber.subscribe()
        post(rest, *range(100))
        assert subscriber.bodies(100) == list(range(100))
        with Subscriber(other.port, DEFAULT, identity=subscriber.identity) as newcomer:
            post(rest, 'before')
            newcomer.subscribe()
            post(rest, 'after')
            assert newcomer.bodies(1) == ['after']
        assert subscriber.bodies(2) == ['before', 'after']


def test_a_subscription_that_is_deleted_at_one_server_ends_at_the_other(pair: Pair) -> None:
    one, other = pair
    with (
        Subscriber(other.port) as subscriber,
        Subscriber(other.port, identity=subscriber.identity) as witness,
    ):
        rest = RestCaller(one.url, identity=subscriber.identity)
        subscription_id = subscriber.subscribe()
        witness.subscribe()
        post(rest, 'before')
        assert subscriber.bodies(1) == witness.bodies(1) == ['before']
        target = {'queue_name': 'orders', 'subscription_id': subscription_id}
        assert rest.call('subscription_delete', **target).status == 204

        def is_pushed() -> bool:
            post(rest, 'after')
            assert witness.bodies(1) == ['after']
            is_silent = subscriber.has_nothing_more()
            subscriber.pushed.clear()
            return not is_silent

        eventually(lambda: not is_pushed())


class Waiter(threading.Thread):
    """Waits for something in the background.

    result: what came. has_come: whether it has.
    """

    def __init__(self, wait: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.result: Any = None
        self.has_come = False
        self._wait = wait
        self.start()

    def run(self) -> None:
        self.result = self._wait()
        self.has_come = True

    def came_after(self, watch: Stopwatch) -> float:
        """Wait until it comes; how long after the start of a watch it did, in seconds."""
        self.join(60)
        assert self.has_come, 'it has not come'
        return watch.seconds()


@contextlib.contextmanager
def waiting_at(server: ServerProcess, identity: Identity) -> Iterator[dict[str, Waiter]]:
    """Whoever can wait for a message, at one server, long enough to be known at the other."""
    with contextlib.ExitStack() as stack:
        rest = [RestCaller(server.url, identity=identity) for _ in range(2)]
        default, compact, consumer = [
            stack.enter_context(Subscriber(server.port, dialect, identity=identity))
            for dialect in (DEFAULT, MSGPACK, COMPACT)
        ]
        claim = {'queue_name': 'orders', 'limit': 1, 'wait': 10}
        assert consumer.call('queue_consume', queue_name='orders').status == 201
        waiters = {
            'a list over REST': lambda: rest[0].call('message_list', wait=10, **LISTED),
            'a claim over REST': lambda: rest[1].call('claim_create', **claim),
            'a list over WebSocket': lambda: default.call('message_list', wait=10, **LISTED),
            'a claim over WebSocket': lambda: compact.call('claim_create', **claim),
            'a consumer': consumer.push,
        }
        started = {name: Waiter(wait) for name, wait in waiters.items()}
        time.sleep(KNOWN_SECONDS + 0.1)
        assert not any(waiter.has_come for waiter in started.values())
        yield started


LISTED = {'queue_name': 'orders', 'echo': True, 'include_claimed': True, 'marker': '0' * 16}


def test_whoever_waits_at_one_server_is_woken_by_a_post_at_the_other(pair: Pair) -> None:
    one, other = pair
    identity = new_identity()
    rest = RestCaller(one.url, identity=identity)
    with waiting_at(other, identity) as waiters:
        watch = Stopwatch(one.pid, other.pid)
        post(rest, 1, 2, 3)
        times = {name: waiter.came_after(watch) for name, waiter in waiters.items()}
        print({name: f'{1000 * seconds:.0f} ms' for name, seconds in times.items()})
        assert max(times.values()) < WOKEN_SECONDS
        assert waiters['a list over REST'].result.body['messages']
        assert waiters['a claim over WebSocket'].result.status == 201


def test_what_is_given_back_at_one_server_is_taken_at_the_other(pair: Pair) -> None:
    one, other = pair
    rest = RestCaller(one.url)
    post(rest, 'again')
    claim = rest.call('claim_create', queue_name='orders', ttl=60, grace=60).body
    with Subscriber(other.port, identity=rest.identity) as consumer:
        assert consumer.call('queue_consume', queue_name='orders').status == 201
        waiter = Waiter(lambda: consumer.push()['message']['body'])
        time.sleep(KNOWN_SECONDS + 0.1)
        watch = Stopwatch(one.pid, other.pid)
        freed = rest.call('claim_delete', queue_name='orders', claim_id=claim['claim_id'])
        assert freed.status == 204
        assert waiter.came_after(watch) < WOKEN_SECONDS
        assert waiter.result == 'again'


def test_processes_that_want_subscriptions_confirmed_tell_each_other(
    tmp_path: pathlib.Path,
) -> None:
    config = '[notification]\nrequire_confirmation = True\n[signed_url]\nsecret_key = key\n'
    with on_sqlite(tmp_path, config) as (one, other), Subscriber(other.port) as subscriber:
        rest = RestCaller(one.url, identity=subscriber.identity)
        far = RestCaller(other.url, identity=subscriber.identity)
        waiter = Waiter(lambda: far.call('message_list', queue_name='q', echo=True, wait=10))
        subscriber.subscribe()
        time.sleep(KNOWN_SECONDS + 0.1)
        post(rest, 'hello')
        assert subscriber.bodies(1) == ['hello']
        watch = Stopwatch(one.pid, other.pid)
        post(rest, 'hello', queue_name='q')
        assert waiter.came_after(watch) < WOKEN_SECONDS


@contextlib.contextmanager
def upstream_server(directory: pathlib.Path, uri: str) -> Iterator[str]:
    """Upstream's server on a Redis; its address."""
    port = free_port()
    file = directory / 'upstream.conf'
    file.write_text(UPSTREAM.replace('\n    ', '\n').format(redis=uri, port=port))
    program = 'from zaqar.cmd.server import run; run()'
    process = subprocess.Popen([sys.executable, '-c', program, '--config-file', str(file)])
    url = f'http://127.0.0.1:{port}'
    try:
        eventually(lambda: is_up(url), within=START_SECONDS)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_SECONDS)


def is_up(url: str) -> bool:
    try:
        return requests.get(f'{url}/v2', timeout=1).status_code < 500
    except requests.ConnectionError:
        return False


def test_what_is_posted_to_a_server_of_upstream_is_pushed(
    redis: tuple[Pair, RedisProcess], tmp_path: pathlib.Path
) -> None:
    (server, _), process = redis
    with upstream_server(tmp_path, process.patient_uri) as url, contextlib.ExitStack() as stack:
        identity = new_identity()
        default, compact = [
            stack.enter_context(Subscriber(server.port, dialect, identity=identity))
            for dialect in (DEFAULT, COMPACT)
        ]
        default.subscribe()
        compact.subscribe()
        upstream, rest = (
            RestCaller(url, identity=identity),
            RestCaller(server.url, identity=identity),
        )
        waits = []
        for number in range(20):
            began = time.monotonic()
            post(upstream, number)
            assert compact.bodies(1) == default.bodies(1) == [number]
            waits.append(time.monotonic() - began)
            post(rest, 'ours')
            assert compact.bodies(1) == default.bodies(1) == ['ours']
        print(f'upstream to push: median {1000 * sorted(waits)[10]:.0f} ms')
        assert compact.has_nothing_more()
        assert default.has_nothing_more()
