"""Whoever says another name each time, and a long one, is not remembered for it."""

from __future__ import annotations

import pathlib
import socket
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.faults.client import COMPACT, DEFAULT, Client, Dialect, read_head
from tests.faults.conftest import LOGGING
from tests.faults.memory import MB, settled
from tests.server_process import ServerProcess

REQUESTS = 3000
GROWTH = 12 * MB
HYPHENS = '-' * 300_000
# What a head may have of one header.
LONG = '-' * 30_000
CLIENT = '3381af92-2b9e-11e3-b191-71861300734c'


@pytest.fixture(scope='module')
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that believes what clients say of themselves."""
    state: pathlib.Path = tmp_path_factory.mktemp('plain')
    with ServerProcess(state, config=LOGGING) as process:
        yield process
        assert process.stop() == 0
    assert 'Traceback' not in '\n'.join(process.output)


class Rest:
    """A connection for requests, made anew when the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(('127.0.0.1', self._port), timeout=60)

    def status(self, headers: dict[str, str]) -> int:
        """What a listing with these headers is answered."""
        lines = [f'{name}: {value}' for name, value in headers.items()]
        request = '\r\n'.join(['GET /v2/queues HTTP/1.1', 'Host: localhost', *lines, '', ''])
        self._socket.sendall(request.encode())
        status, answered, body = read_head(self._socket)
        while len(body) < int(answered['content-length']):
            body += self._socket.recv(65536)
        if answered.get('connection') == 'close':
            self.close()
            self._connect()
        return status

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def said(number: int, **changes: str) -> dict[str, str]:
    return {'Client-ID': CLIENT, 'X-Project-ID': f'p{number}', **changes}


def digits() -> str:
    """A UUID of which only the digits are left."""
    return uuid.uuid4().hex


# By header: what each request says, and what it is answered.
ODD: dict[str, tuple[int, Callable[[int], dict[str, str]]]] = {
    'long client': (400, lambda n: said(n, **{'Client-ID': LONG + digits()})),
    'client with hyphens': (200, lambda n: said(n, **{'Client-ID': '-' * 250 + digits()})),
    'client with braces': (200, lambda n: said(n, **{'Client-ID': '{' * 99 + digits() + '}' * 99})),
    'client that is none': (400, lambda n: said(n, **{'Client-ID': 'x' * 29_000 + str(n)})),
    'long project': (400, lambda n: said(n, **{'X-Project-ID': LONG + str(n)})),
    'project as long as may be': (200, lambda n: said(n, **{'X-Project-ID': f'{n:0256}'})),
    'long user': (400, lambda n: said(n, **{'X-User-ID': LONG + str(n)})),
    'long roles': (400, lambda n: said(n, **{'X-Roles': LONG + str(n)})),
    'roles as long as may be': (200, lambda n: said(n, **{'X-Roles': f'{n:08192}'})),
    'many roles': (200, lambda n: said(n, **{'X-Roles': ','.join(f'{n}{m}' for m in range(999))})),
    'odd header': (200, lambda n: said(n, **{f'X-{n}-{"x" * 20_000}': '1'})),
}


@pytest.mark.parametrize('kind', ODD)
def test_rest_remembers_nobody_for_long(plain: ServerProcess, kind: str) -> None:
    status, make = ODD[kind]
    count = REQUESTS if status == 200 or kind == 'long client' else REQUESTS // 4
    rest = Rest(plain.port)
    try:
        for number in range(count // 3):
            assert rest.status(make(number)) == status
        early = settled(plain.pid)
        for number in range(count // 3, count):
            assert rest.status(make(number)) == status
    finally:
        rest.close()
    growth = settled(plain.pid) - early
    print(f'{kind}: {growth / MB:.1f} MB more after two thirds of {count} requests')
    assert growth < GROWTH


def test_a_client_of_so_many_hyphens_is_refused(plain: ServerProcess) -> None:
    """No head is that long."""
    with socket.create_connection(('127.0.0.1', plain.port), timeout=60) as connection:
        head = f'GET /v2/queues HTTP/1.1\r\nHost: localhost\r\nClient-ID: {HYPHENS}{digits()}'
        connection.sendall(f'{head}\r\n\r\n'.encode())
        assert read_head(connection)[0] == 431


FRAMES: dict[str, tuple[int, Callable[[int], dict[str, str]]]] = {
    'long client': (400, lambda n: said(n, **{'Client-ID': HYPHENS + digits()})),
    'long project': (400, lambda n: said(n, **{'X-Project-ID': HYPHENS + str(n)})),
    'project as long as may be': (200, lambda n: said(n, **{'X-Project-ID': f'{n:0256}'})),
    'odd header': (400, lambda n: said(n, **{f'X-{n}{HYPHENS}': '1'})),
}


@pytest.mark.parametrize('dialect', [DEFAULT, COMPACT], ids=str)
@pytest.mark.parametrize('kind', FRAMES)
def test_websockets_remember_nobody_for_long(
    plain: ServerProcess, dialect: Dialect, kind: str
) -> None:
    status, make = FRAMES[kind]
    count = REQUESTS // 6

    def ask(number: int) -> None:
        document = {'id': number, 'action': 'queue_list', 'headers': make(number), 'body': {}}
        client.send(client.frame(document))
        assert client.status() == status

    with Client(plain.port, dialect) as client:
        for number in range(count // 3):
            ask(number)
        early = settled(plain.pid)
        for number in range(count // 3, count):
            ask(number)
        growth = settled(plain.pid) - early
    print(f'{kind}: {growth / MB:.1f} MB more after two thirds of {count} requests')
    assert growth < GROWTH
