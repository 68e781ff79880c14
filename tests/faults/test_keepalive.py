"""Clients that are gone without a word, and those that only look like it."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
import requests

from tests.client.waiting import wait_until
from tests.exposition import read
from tests.faults.client import DEFAULT, DIALECTS, Client
from tests.faults.conftest import LOGGING
from tests.faults.frames import Opcode, StatusCode, frame
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch
from zaqar_gevent.websocket.engines import ENGINES

PING_INTERVAL = 1.0
PING_TIMEOUT = 2.0
CLOSE_TIMEOUT = 1.0
GONE = PING_INTERVAL + PING_TIMEOUT
# What the machine may take to tell: far less than a client has that is not pinged.
GRACE = 5.0
SECONDS = 60.0
CONFIG = f"""{LOGGING}
[drivers:transport:gevent]
ping_interval = {PING_INTERVAL}
ping_timeout = {PING_TIMEOUT}
close_timeout = {CLOSE_TIMEOUT}
"""
STOPPED_CLIENT = """
import sys, websocket
client = websocket.create_connection(sys.argv[1])
print('connected', flush=True)
client.recv()
"""


def running(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[ServerProcess]:
    config = f'{CONFIG}websocket_engine = {engine}\n'
    with ServerProcess(tmp_path_factory.mktemp('pinging'), config=config) as process:
        yield process
        assert process.stop() == 0
    assert 'Traceback' not in '\n'.join(process.output)


@pytest.fixture(scope='module', params=tuple(ENGINES))
def with_each_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that pings, with each engine."""
    yield from running(tmp_path_factory, request.param)


@pytest.fixture(scope='module')
def pinging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that pings, for what is the same with each engine."""
    yield from running(tmp_path_factory, 'websockets')


def test_whoever_does_not_answer_a_ping_is_told_and_gone(with_each_engine: ServerProcess) -> None:
    began = time.monotonic()
    with ExitStack() as stack:
        for dialect in DIALECTS:
            client = stack.enter_context(Client(with_each_engine.port, dialect))
            stack.callback(assert_given_up, client, began)


def assert_given_up(client: Client, began: float) -> None:
    """The client has been pinged and given up, though it has been listening."""
    received = client.receive()
    assert received.opcode == Opcode.PING
    received = client.receive()
    assert StatusCode.of(received.payload) == (1008, b'No answer to a ping.')
    assert client.socket.recv(1) == b''
    assert PING_INTERVAL / 2 < time.monotonic() - began < GONE + GRACE


def test_whoever_stops_answering_is_gone(pinging: ServerProcess) -> None:
    with Client(pinging.port) as client:
        answer_ping(client)
        began = time.monotonic()
        assert client.is_cut(within=GONE + GRACE)
        assert time.monotonic() - began > PING_INTERVAL / 2


def answer_ping(client: Client) -> None:
    received = client.receive()
    assert received.opcode == Opcode.PING
    client.send(frame(Opcode.PONG, received.payload))


def silent(server: ServerProcess, stack: ExitStack) -> None:
    """Neither reads nor writes."""
    stack.enter_context(Client(server.port))


def in_the_middle(server: ServerProcess, stack: ExitStack) -> None:
    """Has sent half a frame."""
    client = stack.enter_context(Client(server.port))
    client.send(frame(Opcode.TEXT, b'{"action": "ping_node"}')[:10])


def stopped(server: ServerProcess, stack: ExitStack) -> None:
    """A process that answers pings, but has been stopped."""
    command = [sys.executable, '-c', STOPPED_CLIENT, server.websocket_url]
    process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    stack.callback(process.kill)
    assert process.stdout is not None
    assert process.stdout.readline() == 'connected\n'
    process.send_signal(signal.SIGSTOP)


@pytest.mark.parametrize('be', [silent, in_the_middle, stopped])
def test_a_half_open_connection_is_gone(
    pinging: ServerProcess, be: Callable[[ServerProcess, ExitStack], None]
) -> None:
    wait_until(lambda: not connections(pinging), SECONDS, 'those of other tests are gone')
    with ExitStack() as stack:
        be(pinging, stack)
        watch = Stopwatch(pinging.pid)
        assert connections(pinging) == 1
        while connections(pinging):
            assert watch.seconds() < GONE + GRACE
            time.sleep(0.02)


def connections(server: ServerProcess) -> float:
    """How many WebSockets are open."""
    samples = read(requests.get(f'{server.url}/metrics', timeout=60).text)
    return sum(
        value for (name, _), value in samples.items() if name == 'zaqar_websocket_connections'
    )


def test_whoever_answers_pings_stays(with_each_engine: ServerProcess) -> None:
    """Not only once: it is pinged again and again."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Client(with_each_engine.port, dialect)) for dialect in DIALECTS
        ]
        began = time.monotonic()
        for _ in range(4):
            for client in clients:
                answer_ping(client)
        assert time.monotonic() - began > GONE
        assert all(client.lives() for client in clients)


def test_whoever_talks_is_not_pinged(pinging: ServerProcess) -> None:
    with Client(pinging.port) as client:
        began = heard = time.monotonic()
        while time.monotonic() - began < GONE + PING_INTERVAL / 2:
            asked = time.monotonic()
            client.send(client.request('ping_node'))
            received = client.receive()
            if received.opcode == Opcode.PING:
                assert time.monotonic() - heard >= PING_INTERVAL, 'it has not been silent'
                received = client.receive()
            assert received.opcode == DEFAULT.opcode
            heard = asked
            time.sleep(PING_INTERVAL / 10)


def test_whoever_waits_for_the_store_is_not_cut(pinging: ServerProcess) -> None:
    """The store is locked by another program for longer than a silent client is given."""
    store = pinging.output[0].partition('store sqlite:///')[2]
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(pinging.port, dialect)) for dialect in DIALECTS]
        with closing(sqlite3.connect(store, isolation_level=None)) as program:
            program.execute('BEGIN IMMEDIATE')
            for client in clients:
                messages = [{'body': 1, 'ttl': 60}]
                client.send(client.request('message_post', queue_name='q', messages=messages))
            statuses: list[int] = []
            threads = [
                threading.Thread(target=lambda client=client: statuses.append(client.status()))  # type: ignore[misc]
                for client in clients
            ]
            for thread in threads:
                thread.start()
            threads[0].join(GONE + 1)
            assert not statuses
            program.execute('ROLLBACK')
        for thread in threads:
            thread.join()
        assert statuses == [201] * len(clients)
        assert all(client.lives() for client in clients)


def test_a_close_that_is_not_answered_is_not_waited_for_long(pinging: ServerProcess) -> None:
    with Client(pinging.port) as client:
        client.send(frame(3))
        assert client.status_code().code == 1002
        watch = Stopwatch(pinging.pid)
        while connections(pinging):
            assert watch.seconds() < CLOSE_TIMEOUT + GRACE / 2
            time.sleep(0.02)
