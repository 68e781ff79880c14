"""PostgreSQL, and servers on it, killed under load: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import collections
import contextlib
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import websocket

from tests.callers import RestCaller, connect, new_identity
from tests.extensions.conftest import VERSION
from tests.postgres_process import ON_POSTGRESQL, PostgresProcess
from tests.server_process import ServerProcess

TRANSPORTS = ('rest', 'v2-msgpack')
SECONDS = 60.0
"""Within this time everything works again, on the slowest machine."""

PAGE = 20


class Load:
    """Workers of two servers that post to one queue, each a row of numbers."""

    def __init__(self, servers: list[ServerProcess]) -> None:
        self._servers = servers
        self.identity = new_identity()
        self.acknowledged: dict[str, int] = collections.Counter()
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._post, args=(server, transport), daemon=True)
            for server in servers
            for transport in TRANSPORTS
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()

    def wait(self, more: int = 2) -> None:
        """Wait until each worker has been acknowledged so many posts more."""
        goals = {worker: self.acknowledged[worker] + more for worker in self._workers()}
        deadline = time.monotonic() + SECONDS
        while any(self.acknowledged[worker] < goal for worker, goal in goals.items()):
            assert time.monotonic() < deadline, f'{self.acknowledged} of {goals}'
            time.sleep(0.02)

    def check(self) -> None:
        """What was acknowledged is there, once and in its order; what was not, at most once."""
        found: dict[str, list[int]] = collections.defaultdict(list)
        for body in self.read(self._servers[0]):
            found[body['worker']].append(body['number'])
        for worker in self._workers():
            acknowledged = self.acknowledged[worker]
            assert found[worker] == list(range(len(found[worker])))
            assert acknowledged <= len(found[worker]) <= acknowledged + 1

    def read(self, server: ServerProcess) -> Iterator[Any]:
        """The bodies of all messages."""
        caller: Any = RestCaller(server.url, identity=self.identity)
        marker: dict[str, str] = {}
        while True:
            page = caller.call('message_list', queue_name='q', echo=True, limit=PAGE, **marker).body
            if not page['messages']:
                return
            yield from (one['body'] for one in page['messages'])
            marker = {'marker': page['marker']}

    def _workers(self) -> list[str]:
        return [
            f'{number}-{transport}'
            for number in range(len(self._servers))
            for transport in TRANSPORTS
        ]

    def _post(self, server: ServerProcess, transport: str) -> None:
        worker = f'{self._servers.index(server)}-{transport}'
        caller: Any = None
        while not self._is_over.is_set():
            number = self.acknowledged[worker]
            message = {'ttl': 600, 'body': {'worker': worker, 'number': number}}
            try:
                if caller is None:
                    caller = connect(transport, server.url, server.websocket_url)
                    caller.identity = self.identity
                answer = caller.call(
                    'message_post', queue_name='q', messages=[message], post_id=f'{worker}-{number}'
                )
            except (requests.RequestException, OSError, websocket.WebSocketException):
                caller = None
                time.sleep(0.05)
                continue
            if answer.status == 201:
                self.acknowledged[worker] += 1
            else:
                assert answer.status == 503, answer
                time.sleep(0.05)


class Workers:
    """Workers of two servers that do jobs: some at once, some after a retry with a delay."""

    def __init__(self, servers: list[ServerProcess]) -> None:
        self._servers = servers
        self.identity = new_identity()
        metadata = {'_retry_delay': {'initial': 0.1, 'factor': 1}}
        assert self._call('queue_create', metadata=metadata).status == 201
        self._jobs = 0
        # Those that a worker has had, whose acknowledgment was answered, and that came after it.
        self._tried: set[int] = set()
        self._done: set[int] = set()
        self._again: list[int] = []
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(server, transport), daemon=True)
            for server in servers
            for transport in TRANSPORTS
        ]
        for thread in self._threads:
            thread.start()

    def add(self) -> None:
        """Post some jobs, which must work now."""
        messages = [{'ttl': 3600, 'body': self._jobs + number} for number in range(PAGE)]
        answer = self._call('message_post', messages=messages)
        assert answer.status == 201, answer
        self._jobs += PAGE

    def check(self) -> None:
        """Wait until all jobs are done; each was, and none is left."""
        deadline = time.monotonic() + 3 * SECONDS
        while self._count():
            assert time.monotonic() < deadline, f'{self._count()} jobs are left'
            time.sleep(0.2)
        self._is_over.set()
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
        assert self._tried == {*range(self._jobs)}
        assert len(self._done) > self._jobs / 2
        assert self._again == []

    def _count(self) -> int:
        return int(self._call('queue_get_stats').body['messages']['total'])

    def _call(self, action: str, **arguments: Any) -> Any:
        # A server has another address after each start.
        caller: Any = RestCaller(self._servers[0].url, identity=self.identity)
        return caller.call(action, queue_name='jobs', **arguments)

    def _work(self, server: ServerProcess, transport: str) -> None:
        caller: Any = None
        queue = {'queue_name': 'jobs'}
        headers = {**self.identity.headers(), **VERSION}
        while not self._is_over.is_set():
            try:
                if caller is None:
                    caller = connect(transport, server.url, server.websocket_url)
                    caller.identity = self.identity
                # Those whose worker loses its connection come back when this has passed.
                answer = caller.call(
                    'claim_create', **queue, headers=headers, ttl=60, grace=60, limit=3
                )
                if answer.status != 201:
                    assert answer.status in (204, 503), answer
                    time.sleep(0.05)
                    continue
                claim_id = answer.body['claim_id']
                messages = answer.body['messages']
                self._again += [one['body'] for one in messages if one['body'] in self._done]
                for message in messages:
                    entry = {'message_id': message['id'], 'claim_id': claim_id}
                    if not message['claim_count'] and not message['body'] % 3:
                        caller.call('message_release_many', **queue, entries=[entry])
                        continue
                    self._tried.add(message['body'])
                    answer = caller.call('message_ack_many', **queue, entries=[entry])
                    if answer.status == 200 and answer.body['outcomes'][0]['status'] == 204:
                        self._done.add(message['body'])
            except (requests.RequestException, OSError, websocket.WebSocketException):
                caller = None
                time.sleep(0.05)


@contextlib.contextmanager
def two_servers(uri: str, directory: pathlib.Path) -> Iterator[list[ServerProcess]]:
    config = ON_POSTGRESQL.format(uri=uri, schema='zaqar')
    with (
        ServerProcess(directory / '0', config=config) as one,
        ServerProcess(directory / '1', config=config) as other,
    ):
        yield [one, other]


def kill_in_turn(rounds: int, directory: pathlib.Path, *, has_jobs: bool) -> dict[str, list[float]]:
    """Kill PostgreSQL and servers in turn; the seconds until all posters had answers again.

    They count from when what was killed serves again. has_jobs: whether jobs are done meanwhile.
    """
    took: dict[str, list[float]] = {'PostgreSQL': [], 'a server': []}
    with (
        PostgresProcess(is_durable=True) as postgres,
        two_servers(postgres.uri, directory) as servers,
        Load(servers) as load,
    ):
        workers = Workers(servers) if has_jobs else None
        load.wait()
        for number in range(rounds):
            if workers is not None:
                workers.add()
            if number % 2:
                server = servers[number // 2 % 2]
                server.kill()
                server.start()
            else:
                postgres.kill()
                postgres.start()
            began = time.monotonic()
            load.wait(1)
            took['a server' if number % 2 else 'PostgreSQL'].append(time.monotonic() - began)
        load.wait()
        load.__exit__()
        load.check()
        if workers is not None:
            workers.check()
    return took


def test_nothing_is_lost_when_postgresql_and_servers_are_killed(tmp_path: pathlib.Path) -> None:
    kill_in_turn(2, tmp_path, has_jobs=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_is_lost_however_often_they_are_killed(tmp_path: pathlib.Path) -> None:
    for killed, took in kill_in_turn(20, tmp_path, has_jobs=True).items():
        print(f'\nanswered again after {killed} was killed: {_list(took)} s')


def _list(seconds: list[float]) -> str:
    return ', '.join(f'{one:.1f}' for one in seconds)


def fail_over(rounds: int, directory: pathlib.Path) -> list[float]:
    """Kill the primary and promote its synchronous standby; the seconds without an answer."""
    took = []
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(PostgresProcess())
        standby = stack.enter_context(PostgresProcess(standby_of=primary))
        uri = _uri(primary, standby)
        follow(primary)
        servers = stack.enter_context(two_servers(uri, directory))
        with Load(servers) as load:
            for number in range(rounds):
                load.wait()
                primary.kill()
                standby.promote()
                began = time.monotonic()
                stand_alone(standby)
                load.wait(1)
                took.append(time.monotonic() - began)
                if number + 1 < rounds:
                    # A new standby where the old primary was.
                    port = primary.port
                    primary, standby = standby, PostgresProcess(standby_of=standby, at=port)
                    stack.enter_context(standby)
                    follow(primary)
            load.wait()
        load.check()
    return took


def follow(primary: PostgresProcess) -> None:
    """Have the primary wait for its standby."""
    primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.run('SELECT pg_reload_conf()')
    deadline = time.monotonic() + SECONDS
    connected = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
    while primary.run(connected) != [(1,)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stand_alone(primary: PostgresProcess) -> None:
    """Have a primary that was a standby wait for nobody."""
    primary.run('ALTER SYSTEM RESET synchronous_standby_names')
    primary.run('SELECT pg_reload_conf()')


def _uri(primary: PostgresProcess, standby: PostgresProcess) -> str:
    hosts = ','.join(f'127.0.0.1:{one.port}' for one in (primary, standby))
    return f'postgresql://zaqar@{hosts}/postgres'


def test_nothing_is_lost_when_the_primary_fails(tmp_path: pathlib.Path) -> None:
    fail_over(1, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_is_lost_however_often_the_primary_fails(tmp_path: pathlib.Path) -> None:
    took = fail_over(5, tmp_path)
    print(f'\nanswered again after {_list(took)} s')
