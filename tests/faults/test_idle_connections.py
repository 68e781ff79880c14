"""Connections that are kept and not used, until there is no place for another."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.faults.client import Client
from tests.faults.conftest import LOGGING
from tests.faults.gunicorn_process import GunicornProcess
from tests.server_process import ServerProcess

PLACES = 6
FEW = '127.0.0.2'
MANY = '127.0.0.3'
REQUEST = b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'


@pytest.fixture(scope='module', params=['command', 'gunicorn'])
def small(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with room for few connections."""
    state = tmp_path_factory.mktemp('few-places')
    process: ServerProcess
    if request.param == 'command':
        config = f'{LOGGING}[drivers:transport:gevent]\nmax_connections = {PLACES}\n'
        process = ServerProcess(state, config=config)
    else:
        process = GunicornProcess(state, '--worker-connections', str(PLACES))
    with process:
        yield process
    assert 'Traceback' not in '\n'.join(process.output)


class Rest:
    """A connection from `source` that is kept."""

    def __init__(self, server: ServerProcess, source: str) -> None:
        self.socket = socket.create_connection(('127.0.0.1', server.port), 10, (source, 0))

    def __enter__(self) -> Rest:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def is_served(self) -> bool:
        """Whether a request is answered."""
        try:
            self.socket.sendall(REQUEST)
            return self.socket.recv(65536).startswith(b'HTTP/1.1 300')
        except ConnectionError:
            return False

    def is_closed(self) -> bool:
        """Whether the server closes the connection, which it is to do soon."""
        return self.socket.recv(1) == b''


def test_a_new_connection_takes_the_place_of_one_that_is_idle(small: ServerProcess) -> None:
    with ExitStack() as stack:
        connections = []
        for _ in range(3 * PLACES):
            connection = stack.enter_context(Rest(small, MANY))
            assert connection.is_served()
            connections.append(connection)
        for connection in connections[: 2 * PLACES]:
            assert connection.is_closed()
        assert all(connection.is_served() for connection in connections[-PLACES:])


def test_the_address_with_most_gives_the_place(small: ServerProcess) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(Rest(small, FEW))
        assert first.is_served()
        for _ in range(3 * PLACES):
            assert stack.enter_context(Rest(small, MANY)).is_served()
        assert first.is_served()


def test_busy_connections_keep_their_places(small: ServerProcess) -> None:
    """A new connection waits while none is idle, and is served as soon as one is."""
    with ExitStack() as stack:
        client = stack.enter_context(Client(small.port))
        busy = [stack.enter_context(Rest(small, MANY)) for _ in range(PLACES - 1)]
        for connection in busy:
            assert connection.is_served()
            connection.socket.sendall(REQUEST[:-2])
        late = stack.enter_context(Rest(small, FEW))
        late.socket.sendall(REQUEST)
        late.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            late.socket.recv(1)
        late.socket.settimeout(60)
        busy[0].socket.sendall(b'\r\n')
        assert late.socket.recv(65536).startswith(b'HTTP/1.1 300')
        for connection in busy[1:]:
            connection.socket.sendall(b'\r\n')
            assert connection.socket.recv(65536).startswith(b'HTTP/1.1 300')
        assert client.lives()
