"""Clients that never pause: no single one may keep the server from the others."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.callers import Identity
from tests.faults.client import COMPACT, DEFAULT, Client, Dialect
from tests.faults.crowd import Crowd
from tests.faults.frames import Opcode, frame
from tests.faults.light_load import PROMPT, LightLoad
from tests.faults.memory import MB, resident
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch

SECONDS = 1
HEADERS = {'Host': 'localhost', 'Content-Type': 'application/json', **Identity().headers()}
LINES = ''.join(f'{name}: {value}\r\n' for name, value in HEADERS.items())
POST = f'POST /v2/queues/q/messages HTTP/1.1\r\n{LINES}'


def flood(connection: socket.socket, unit: bytes) -> int:
    """Send it again and again, reading whatever comes; how many bytes could be sent."""
    reader = threading.Thread(target=_read_all, args=(connection,), daemon=True)
    reader.start()
    data = unit * (1 + 65_536 // len(unit))
    deadline = time.monotonic() + SECONDS
    sent = 0
    connection.settimeout(SECONDS)
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            sent += connection.send(data)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    reader.join()
    return sent


def _read_all(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(1 << 20):
            pass


@pytest.mark.parametrize(
    ('dialect', 'unit'),
    [
        (DEFAULT, frame(Opcode.PING)),
        (DEFAULT, frame(Opcode.PONG)),
        (DEFAULT, frame(Opcode.TEXT, b'{}')),
        (COMPACT, frame(Opcode.BINARY, b'\x80')),
        (COMPACT, frame(Opcode.TEXT, b'x' * 100_000)),
    ],
    ids=['pings', 'pongs', 'empty-json', 'empty-msgpack', 'nonsense'],
)
def test_a_websocket_client_that_never_pauses_delays_nobody(
    server: ServerProcess, dialect: Dialect, unit: bytes
) -> None:
    with LightLoad(server.port, '/') as rest, Client(server.port, dialect) as client:
        assert flood(client.socket, unit) > MB / 10
    assert rest.p99 < PROMPT


@pytest.fixture(scope='module')
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for tests that have nothing to do with WebSockets."""
    with ServerProcess(tmp_path_factory.mktemp('plain')) as process:
        yield process


@pytest.mark.parametrize(
    ('first', 'unit'),
    [
        ('', f'GET /v2/nowhere HTTP/1.1\r\n{LINES}\r\n'),
        ('', f'GET /v2/queues HTTP/1.1\r\n{LINES}\r\n'),
        (f'{POST}Content-Length: 1000000000000\r\n\r\n', 'x' * 65_536),
        (f'{POST}Transfer-Encoding: chunked\r\n\r\n', '1\r\nx\r\n'),
    ],
    ids=['requests-for-nothing', 'requests', 'one-body', 'tiny-chunks'],
)
def test_a_rest_client_that_never_pauses_delays_nobody(
    plain: ServerProcess, first: str, unit: str
) -> None:
    with (
        LightLoad(plain.port, '/') as rest,
        socket.create_connection(('127.0.0.1', plain.port)) as connection,
    ):
        connection.sendall(first.encode())
        assert flood(connection, unit.encode()) > MB / 10
    assert rest.p99 < PROMPT


def test_pongs_do_not_pile_up_for_a_client_that_does_not_read(server: ServerProcess) -> None:
    pings = frame(Opcode.PING, b'x' * 125) * 1000
    before = resident(server.pid)
    with Client(server.port, receive_buffer=4096) as client:
        client.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            for _ in range(1000):
                client.socket.sendall(pings)
        assert resident(server.pid) - before < 10 * MB


def test_a_crowd_that_comes_at_once_finds_a_place(tmp_path: pathlib.Path) -> None:
    """Even while the server does something else; whoever finds none tries again a second later."""
    with ServerProcess(tmp_path) as server:
        process = psutil.Process(server.pid)
        process.suspend()
        try:
            watch = Stopwatch()
            with Crowd(server.port, 1000) as crowd:
                took = watch.seconds()
                process.resume()
                # Not for its health, which may have suffered.
                crowd.say(b'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
                crowd.listen(60)
                answers = {answer.split(b'\r\n')[0] for answer in crowd.received.values()}
        finally:
            process.resume()
        assert answers == {b'HTTP/1.1 300 Multiple Choices'}
        assert took < 1
