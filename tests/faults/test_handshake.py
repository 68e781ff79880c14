"""Opening handshakes that RFC 6455 does not allow, and those of pages that may not connect."""

from __future__ import annotations

import json
import pathlib
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import pytest

from tests.faults.client import KEY, UPGRADE, Client, read_head, read_to_end
from tests.faults.conftest import LOGGING
from tests.faults.gunicorn_process import GunicornProcess
from tests.functional.test_gunicorn import STOCK_WORKER
from tests.server_process import ServerProcess

CONFIG = f'{LOGGING}[cors]\nallowed_origin = https://good.example\n'
ORIGINS = ['https://evil.example', 'null', 'https://good.example.evil.com', 'http://good.example']
POLICY_VIOLATION = 1008


def own(state: pathlib.Path) -> ServerProcess:
    return ServerProcess(state, config=CONFIG)


def worker(state: pathlib.Path) -> ServerProcess:
    return GunicornProcess(state, config=CONFIG)


@pytest.fixture(scope='module', params=[own, worker])
def upgrading(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that does the handshake itself."""
    make: Callable[[pathlib.Path], ServerProcess] = request.param
    with make(tmp_path_factory.mktemp('upgrading')) as process:
        yield process
        process.stop()
    assert 'Traceback' not in '\n'.join(process.output)


@pytest.fixture(scope='module')
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose gunicorn worker has upgraded before it is asked."""
    state = tmp_path_factory.mktemp('stock')
    with GunicornProcess(state, worker=STOCK_WORKER, config=CONFIG) as process:
        yield process


class Response(NamedTuple):
    """An answer, and whether the connection has been closed behind it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def shake_hands(
    server: ServerProcess,
    changes: Mapping[str, str | None],
    *more: str,
    first: str = 'GET /v2/ws HTTP/1.1',
    body: bytes = b'',
) -> Response:
    """Send an upgrade request and read to the end of the connection.

    changes: headers that are other than they should be, or missing. more: lines behind them.
    """
    headers = {**UPGRADE, **changes}
    lines = [f'{name}: {value}' for name, value in headers.items() if value is not None]
    with socket.create_connection(('127.0.0.1', server.port), timeout=60) as connection:
        request = '\r\n'.join([first, *lines, *more, '', '']).encode() + body
        connection.sendall(request)
        status, answered, early = read_head(connection)
        if status == 101:
            return Response(status, answered, early)
        return Response(status, answered, early + read_to_end(connection))


def assert_told(response: Response, status: int) -> None:
    """It is refused with a complete answer."""
    assert response.status == status
    assert int(response.headers['content-length']) == len(response.body)
    assert response.headers['content-type'] == 'application/json'
    assert response.headers['connection'] == 'close'
    assert set(json.loads(response.body)) == {'code', 'title', 'description'}
    if status == 426:
        assert response.headers['sec-websocket-version'] == '13'
        assert response.headers['upgrade'] == 'websocket'


def test_a_proper_handshake_is_accepted(upgrading: ServerProcess) -> None:
    response = shake_hands(upgrading, {})
    assert response.status == 101
    assert response.headers['sec-websocket-accept'] == 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='


@pytest.mark.parametrize(
    'key',
    [
        *(None, '', ' ', 'short', '!' * 24, KEY[:-2], KEY + KEY, f'{KEY},{KEY}'),
        *('AAAAAAAAAAAAAAAAAAAA', 'AAAAAAAAAAAAAAAAAAAAAAA=', 'AAAAAAAAAAAAAAAAAAAAAAAA', 'ключ'),
    ],
)
def test_a_bad_key_is_400(upgrading: ServerProcess, key: str | None) -> None:
    assert_told(shake_hands(upgrading, {'Sec-WebSocket-Key': key}), 400)


@pytest.mark.parametrize('version', ['7', '8', '12', '0', '14', '', 'x', '13, 13', '13.0', None])
def test_another_version_is_426(upgrading: ServerProcess, version: str | None) -> None:
    assert_told(shake_hands(upgrading, {'Sec-WebSocket-Version': version}), 426)


@pytest.mark.parametrize('method', ['POST', 'PUT', 'HEAD', 'DELETE', 'OPTIONS'])
def test_another_method_is_400(upgrading: ServerProcess, method: str) -> None:
    response = shake_hands(upgrading, {}, first=f'{method} /v2/ws HTTP/1.1')
    if method == 'HEAD':
        assert response.status == 400
    else:
        assert_told(response, 400)


def test_an_unknown_method_is_501(upgrading: ServerProcess) -> None:
    assert_told(shake_hands(upgrading, {}, first='BREW /v2/ws HTTP/1.1'), 501)


def test_http_1_0_is_400(upgrading: ServerProcess) -> None:
    assert_told(shake_hands(upgrading, {}, first='GET /v2/ws HTTP/1.0'), 400)


@pytest.mark.parametrize(
    ('header', 'body'),
    [
        ('Content-Length: 5', b'hello'),
        ('Content-Length: 100000', b'x' * 100_000),
        ('Transfer-Encoding: chunked', b'5\r\nhello\r\n0\r\n\r\n'),
    ],
)
def test_a_body_is_400(upgrading: ServerProcess, header: str, body: bytes) -> None:
    assert_told(shake_hands(upgrading, {}, header, body=body), 400)


@pytest.mark.parametrize(
    ('again', 'status'),
    [
        (f'Sec-WebSocket-Key: {KEY}', 400),
        ('Sec-WebSocket-Key: another', 400),
        ('Sec-WebSocket-Version: 13', 426),
        ('Sec-WebSocket-Version: 8', 426),
        ('Upgrade: websocket', 426),
        ('Upgrade: h2c', 426),
        ('Host: elsewhere', 400),
        ('Host: localhost', 400),
    ],
)
def test_a_header_that_is_there_twice_is_refused(
    upgrading: ServerProcess, again: str, status: int
) -> None:
    assert_told(shake_hands(upgrading, {}, again), status)


def test_a_request_without_a_host_is_400(upgrading: ServerProcess) -> None:
    assert_told(shake_hands(upgrading, {'Host': None}), 400)


@pytest.mark.parametrize(
    'again',
    ['Connection: keep-alive', 'Sec-WebSocket-Extensions: x-one', 'Sec-WebSocket-Protocol: chat'],
)
def test_a_list_may_be_in_several_headers(upgrading: ServerProcess, again: str) -> None:
    name = again.split(':', maxsplit=1)[0]
    first = UPGRADE.get(name, 'x-other')
    assert shake_hands(upgrading, {name: first}, again).status == 101


@pytest.mark.parametrize(
    ('changes', 'status'),
    [
        ({'Connection': None}, 426),
        ({'Connection': 'close'}, 426),
        ({'Connection': 'keep-alive'}, 426),
        ({'Upgrade': 'websocket, h2c'}, 426),
        ({'Upgrade': 'xwebsocket'}, 426),
        ({'Sec-WebSocket-Protocol': ';'}, 400),
    ],
)
def test_a_header_that_says_something_else_is_refused(
    upgrading: ServerProcess, changes: Mapping[str, str | None], status: int
) -> None:
    assert_told(shake_hands(upgrading, changes), status)


@pytest.mark.parametrize('origin', ORIGINS)
def test_pages_of_foreign_origins_are_refused(upgrading: ServerProcess, origin: str) -> None:
    assert_told(shake_hands(upgrading, {'Origin': origin}), 403)


@pytest.mark.parametrize('origin', [None, 'https://good.example', 'http://localhost'])
def test_pages_of_good_origins_and_clients_without_one_are_let_in(
    upgrading: ServerProcess, origin: str | None
) -> None:
    assert shake_hands(upgrading, {'Origin': origin}).status == 101


def test_a_good_origin_beside_a_foreign_one_does_not_help(upgrading: ServerProcess) -> None:
    origins = {'Origin': 'https://evil.example'}
    assert_told(shake_hands(upgrading, origins, 'Origin: https://good.example'), 403)


@pytest.mark.parametrize('origin', ORIGINS)
def test_pages_of_foreign_origins_are_closed_on_where_they_have_been_upgraded(
    stock: ServerProcess, origin: str
) -> None:
    with Client(stock.port, headers={'Origin': origin}) as client:
        assert client.status_code().code == POLICY_VIOLATION


@pytest.mark.parametrize('headers', [{}, {'Origin': 'https://good.example'}])
def test_others_are_served_where_they_have_been_upgraded(
    stock: ServerProcess, headers: Mapping[str, str]
) -> None:
    with Client(stock.port, headers=headers) as client:
        assert client.lives()
