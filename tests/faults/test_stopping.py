"""A server that is told to stop while a thousand clients are connected."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psutil
import pytest
import requests

from tests.callers import Identity, RestCaller, new_identity
from tests.exposition import read, value_in
from tests.faults.client import DIALECTS, Client, Dialect
from tests.faults.conftest import LOGGING
from tests.faults.frames import Opcode, StatusCode, frame
from tests.faults.gunicorn_process import GunicornProcess
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch

CLIENTS = 1000
BUSY = 100
IN_FLIGHT = 5
GRACEFUL_TIMEOUT = 50
# The clients say farewell one after the other.
CONFIG = f"""{LOGGING}
[drivers:transport:gevent]
close_timeout = 40
"""
GOING_AWAY = 1001
ADDRESSES = ('127.0.1.1', '127.0.1.2', '127.0.1.3')


class Farewell(NamedTuple):
    """What a client gets until its connection is closed."""

    answers: list[Any]
    pushes: list[Any]
    code: StatusCode


def leave(client: Client) -> Farewell:
    """Receive until the close frame, and answer it."""
    answers: list[Any] = []
    pushes: list[Any] = []
    received = client.receive()
    while received.opcode != Opcode.CLOSE:
        if received.opcode != Opcode.PING:
            # Who has not said anything yet is told in JSON.
            document = Dialect(None, received.opcode == Opcode.BINARY).decode(received.payload)
            (pushes if 'push' in document else answers).append(document)
        received = client.receive()
    client.send(frame(Opcode.CLOSE, received.payload))
    assert client.socket.recv(1) == b''
    client.socket.close()
    return Farewell(answers, pushes, StatusCode.of(received.payload))


class Crew:
    """Clients of every dialect in equal parts; the first BUSY of them have asked something.

    All are of one project.
    """

    def __init__(self, server: ServerProcess) -> None:
        self.identity = new_identity()
        self._server = server
        self.clients = [
            Client(
                server.port,
                DIALECTS[number % len(DIALECTS)],
                source=ADDRESSES[number % len(ADDRESSES)],
                identity=self.identity,
            )
            for number in range(CLIENTS)
        ]

    def post(self) -> int:
        """Let the busy ones post, each several messages one after the other; how many it is."""
        for number, client in enumerate(self.clients[:BUSY]):
            for turn in range(IN_FLIGHT):
                messages = [{'body': f'{number}-{turn}', 'ttl': 3600}]
                client.send(client.request('message_post', queue_name='q', messages=messages))
        return BUSY * IN_FLIGHT

    def leave(self) -> list[Farewell]:
        return [leave(client) for client in self.clients]

    def close(self) -> None:
        for client in self.clients:
            client.socket.close()


@pytest.fixture
def crew_of() -> Iterator[Callable[[ServerProcess], Crew]]:
    """Makes crews, which are gone after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda server: stack.enter_context(contextlib.closing(Crew(server)))


def own(state: pathlib.Path) -> ServerProcess:
    return ServerProcess(state, config=CONFIG)


def worker(state: pathlib.Path) -> ServerProcess:
    options = ('--graceful-timeout', f'{GRACEFUL_TIMEOUT}', '--worker-connections', '2000')
    return GunicornProcess(state, *options, config=CONFIG)


def store_of(state: pathlib.Path) -> pathlib.Path:
    [store] = state.rglob('zaqar.sqlite')
    return store


@contextlib.contextmanager
def locked(store: pathlib.Path) -> Iterator[None]:
    """Another program writes to the store, so that nobody else can."""
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as program:
        program.execute('BEGIN IMMEDIATE')
        yield
        program.execute('ROLLBACK')


def await_received(server: ServerProcess, count: int) -> None:
    """Wait until the server has received that many requests; those of one connection that are
    answered in order wait in its socket."""
    deadline = time.monotonic() + 60
    received = 0.0
    while received < count:
        assert time.monotonic() < deadline, f'of {count} requests {received} have come'
        samples = read(requests.get(f'{server.url}/metrics', timeout=60).text)
        labels = ({'direction': 'in', 'encoding': encoding} for encoding in ('json', 'msgpack'))
        received = sum(value_in(samples, 'websocket_frames_total', **each) for each in labels)
        time.sleep(0.02)


def stored(server: ServerProcess, identity: Identity) -> list[str]:
    """The bodies of all messages in the queue."""
    caller = RestCaller(server.url, identity=identity)
    bodies: list[str] = []
    marker: dict[str, str] = {}
    while True:
        listed = caller.call('message_list', queue_name='q', echo=True, limit=20, **marker).body
        if not listed['messages']:
            caller.close()
            return bodies
        bodies += [message['body'] for message in listed['messages']]
        marker = {'marker': listed['marker']}


def assert_told(crew: Crew, farewells: list[Farewell]) -> None:
    """All have been told why they have to go, and when to come back."""
    assert {farewell.code.code for farewell in farewells} == {GOING_AWAY}
    delays: list[int] = []
    for client, farewell in zip(crew.clients, farewells, strict=True):
        if not client.dialect.subprotocol:
            assert farewell.pushes == []
            continue
        [push] = farewell.pushes
        assert (push['push'], set(push)) == ('closing', {'push', 'reason', 'reconnect_after_ms'})
        delays.append(push['reconnect_after_ms'])
    assert len(delays) == CLIENTS // 2
    assert len(set(delays)) > 200
    assert min(delays) < 500
    assert max(delays) > 1500


def posted(crew: Crew, farewells: list[Farewell]) -> list[str]:
    """The bodies that were acknowledged to the clients."""
    acknowledged: list[str] = []
    for number, (client, farewell) in enumerate(zip(crew.clients, farewells, strict=True)):
        turns = range(len(farewell.answers))
        if client.dialect.subprotocol:
            turns = [answer['id'] - 1 for answer in farewell.answers]  # type: ignore[assignment]
        for turn, answer in zip(turns, farewell.answers, strict=True):
            if client.dialect.status(answer) == 201:
                acknowledged.append(f'{number}-{turn}')
    return acknowledged


@pytest.mark.parametrize('make', [own, worker])
def test_what_is_in_flight_is_answered_and_everybody_is_told(
    make: Callable[[pathlib.Path], ServerProcess],
    crew_of: Callable[[ServerProcess], Crew],
    tmp_path: pathlib.Path,
) -> None:
    """The store is locked by another program when the server is told, so that all posts are in
    flight; those of one connection that are answered in order, but the first, are still unread."""
    with make(tmp_path) as server:
        crew = crew_of(server)
        with locked(store_of(tmp_path)):
            crew.post()
            await_received(server, BUSY // 2 + BUSY // 2 * IN_FLIGHT)
            began = time.monotonic()
            psutil.Process(server.pid).send_signal(signal.SIGTERM)
            refuses(server)
        farewells = crew.leave()
        assert server.stop() == 0
        assert time.monotonic() - began < GRACEFUL_TIMEOUT
    assert 'Traceback' not in '\n'.join(server.output)
    assert_told(crew, farewells)
    for client, farewell in zip(crew.clients[:BUSY], farewells, strict=False):
        due = IN_FLIGHT if client.dialect.subprotocol else 1
        assert len(farewell.answers) >= due
        assert {client.dialect.status(answer) for answer in farewell.answers} == {201}
    with make(tmp_path) as server:
        acknowledged = posted(crew, farewells)
        kept = stored(server, crew.identity)
    assert sorted(kept) == sorted(acknowledged)


def refuses(server: ServerProcess) -> None:
    """Wait until the server takes no more connections."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(('127.0.0.1', server.port), timeout=1):
                time.sleep(0.02)
        except OSError:
            return
    raise AssertionError('the server goes on')


@pytest.mark.parametrize('make', [own, worker])
def test_nothing_acknowledged_is_lost_in_full_swing(
    make: Callable[[pathlib.Path], ServerProcess],
    crew_of: Callable[[ServerProcess], Crew],
    tmp_path: pathlib.Path,
) -> None:
    with make(tmp_path) as server:
        crew = crew_of(server)
        crew.post()
        began = time.monotonic()
        psutil.Process(server.pid).send_signal(signal.SIGTERM)
        farewells = crew.leave()
        assert server.stop() == 0
        assert time.monotonic() - began < GRACEFUL_TIMEOUT
    assert 'Traceback' not in '\n'.join(server.output)
    assert_told(crew, farewells)
    with make(tmp_path) as server:
        kept = stored(server, crew.identity)
    assert len(kept) == len(set(kept))
    assert set(posted(crew, farewells)) <= set(kept)


def test_a_reloaded_gunicorn_lets_its_clients_go_and_serves_on(
    crew_of: Callable[[ServerProcess], Crew], tmp_path: pathlib.Path
) -> None:
    with worker(tmp_path) as server:
        master = psutil.Process(server.pid)
        [before] = master.children()
        crew = crew_of(server)
        with locked(store_of(tmp_path)):
            crew.post()
            await_received(server, BUSY // 2 + BUSY // 2 * IN_FLIGHT)
            master.send_signal(signal.SIGHUP)
            time.sleep(1.5)
        farewells = crew.leave()
        assert_told(crew, farewells)
        assert psutil.wait_procs([before], timeout=GRACEFUL_TIMEOUT)[0]
        [after] = master.children()
        assert after.pid != before.pid
        with Client(server.port, identity=crew.identity) as client:
            assert client.lives()
        assert sorted(stored(server, crew.identity)) == sorted(posted(crew, farewells))
        assert server.stop() == 0


def test_a_client_that_does_not_answer_the_close_holds_nobody_up(tmp_path: pathlib.Path) -> None:
    config = f'{LOGGING}[drivers:transport:gevent]\nclose_timeout = 1\n'
    with ServerProcess(tmp_path, config=config) as server, contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(Client(server.port))
        watch = Stopwatch(server.pid)
        assert server.stop() == 0
        assert watch.seconds() < 10
