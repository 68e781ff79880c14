"""Requests for foreign hosts, and what proxies say of requests, at real servers."""

from __future__ import annotations

import json
import pathlib
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
import websocket

from tests.callers import new_identity
from tests.faults.gunicorn_process import GunicornProcess
from tests.functional.test_command import failure
from tests.functional.test_gunicorn import OUR_WORKER, STOCK_WORKER
from tests.server_process import ServerProcess

PATHS = ('/', '/v2', '/v2/queues', '/v2/ping', '/nowhere', '/console/', '/metrics', '/healthcheck')
BEHIND_A_PROXY = """
[oslo_middleware]
enable_proxy_headers_parsing = True
[drivers:transport:gevent]
allowed_hosts = zaqar.example, other.example
max_websockets_per_address = 1
proxy_headers = {kind}
"""


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    path = tmp_path_factory.mktemp('server')
    options = ('--allowed-host', 'zaqar.example', '--allowed-host', 'OTHER.example')
    with ServerProcess(path, *options) as process:
        yield process


def request(
    port: int, path: str, headers: dict[str, str], method: str = 'GET', body: bytes = b''
) -> tuple[int, bytes]:
    """Status and body of an answer; the headers are sent as they are, and no other Host."""
    connection = HTTPConnection('127.0.0.1', port, timeout=60)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in {**headers, 'Content-Length': str(len(body))}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    response = connection.getresponse()
    try:
        return response.status, response.read()
    finally:
        connection.close()


def connect(port: int, path: str, host: str, headers: dict[str, str] | None = None) -> Any:
    return websocket.create_connection(
        f'ws://127.0.0.1:{port}{path}',
        host=host,
        header=headers or {},
        suppress_origin=True,
        timeout=60,
    )


@pytest.mark.parametrize('path', PATHS)
def test_nothing_is_answered_to_a_foreign_host(server: ServerProcess, path: str) -> None:
    headers = new_identity().headers()
    status, body = request(server.port, path, {**headers, 'Host': f'evil.example:{server.port}'})
    assert status == 403
    assert 'allowed_hosts' in json.loads(body)['description']
    assert request(server.port, path, {**headers, 'Host': 'localhost'})[0] != 403


def test_nothing_is_done_for_a_foreign_host(server: ServerProcess) -> None:
    identity = new_identity().headers()
    post = json.dumps({'messages': [{'body': 'precious'}]}).encode()
    path = '/v2/queues/orders/messages'
    evil, good = {**identity, 'Host': 'evil.example'}, {**identity, 'Host': 'localhost'}
    assert request(server.port, path, evil, 'POST', post)[0] == 403
    assert request(server.port, path + '?echo=true', good)[1].count(b'precious') == 0
    assert request(server.port, path, good, 'POST', post)[0] == 201
    assert request(server.port, '/v2/queues/orders', evil, 'DELETE')[0] == 403
    assert request(server.port, path + '?echo=true', good)[1].count(b'precious') == 1


@pytest.mark.parametrize('path', ['/', '/v2/ws'])
def test_no_websocket_is_opened_for_a_foreign_host(server: ServerProcess, path: str) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        # As the page's browser sends it: for it, page and server are one origin.
        websocket.create_connection(
            f'ws://127.0.0.1:{server.port}{path}',
            host='evil.example',
            origin='http://evil.example',
            timeout=60,
        )
    assert refused.value.status_code == 403
    assert 'allowed_hosts' in json.loads(refused.value.resp_body)['description']
    status, metrics = request(server.port, '/metrics', {'Host': 'localhost'})
    assert status == 200
    assert b'zaqar_websocket_refusals_total{reason="host"}' in metrics


@pytest.mark.parametrize('host', ['zaqar.example', 'Other.Example.:8888', '[::1]:8888', '10.1.2.3'])
def test_listed_names_and_addresses_are_answered(server: ServerProcess, host: str) -> None:
    assert request(server.port, '/', {'Host': host})[0] == 300
    connect(server.port, '/v2/ws', host).close()


@pytest.mark.parametrize('host', ['localhost@evil.example', '', 'a b', 'localhost:99999'])
def test_a_host_that_is_none_is_refused(server: ServerProcess, host: str) -> None:
    status, body = request(server.port, '/v2/queues', {**new_identity().headers(), 'Host': host})
    assert 400 <= status < 500
    assert b'queues' not in json.dumps(list(json.loads(body))).encode()


def test_the_host_of_an_absolute_target_counts(server: ServerProcess) -> None:
    headers = {**new_identity().headers(), 'Host': 'localhost'}
    status, body = request(server.port, 'http://evil.example/v2/queues', headers)
    assert 400 <= status < 500
    assert 'queues' not in json.loads(body)


def test_a_request_without_host_is_a_probe(server: ServerProcess) -> None:
    """As load balancers send them, in HTTP/1.0; browsers always name a host."""
    with socket.create_connection(('127.0.0.1', server.port), timeout=60) as client:
        client.sendall(b'GET /healthcheck HTTP/1.0\r\n\r\n')
        assert client.recv(65536).startswith(b'HTTP/1.1 200 ')


def test_an_asterisk_answers_to_every_host(tmp_path: pathlib.Path) -> None:
    config = '[drivers:transport:gevent]\nallowed_hosts = *\n'
    with ServerProcess(tmp_path, config=config) as server:
        assert request(server.port, '/', {'Host': 'evil.example'})[0] == 300
        connect(server.port, '/', 'evil.example').close()


def test_with_authentication_every_host_is_answered(tmp_path: pathlib.Path) -> None:
    """A token is needed, and a page of another site has none."""
    config = """
        [DEFAULT]
        auth_strategy = keystone
        [keystone_authtoken]
        www_authenticate_uri = http://127.0.0.1:1/v3
        auth_url = http://127.0.0.1:1/v3
        auth_type = password
    """
    with ServerProcess(tmp_path, config=config) as server:
        assert request(server.port, '/', {'Host': 'zaqar.example'})[0] == 300
        assert request(server.port, '/v2/queues', {'Host': 'zaqar.example'})[0] == 401
        connect(server.port, '/', 'zaqar.example').close()


@pytest.mark.parametrize('worker', [OUR_WORKER, STOCK_WORKER], ids=['ours', 'stock'])
def test_a_foreign_host_is_refused_under_gunicorn(tmp_path: pathlib.Path, worker: str) -> None:
    """gevent-websocket's own worker has answered the handshake before anybody can look."""
    with GunicornProcess(tmp_path, '--graceful-timeout', '1', worker=worker) as server:
        assert request(server.port, '/v2/queues', {'Host': 'evil.example'})[0] == 403
        if worker == OUR_WORKER:
            with pytest.raises(websocket.WebSocketBadStatusException) as refused:
                connect(server.port, '/', 'evil.example')
            assert refused.value.status_code == 403
        else:
            client = connect(server.port, '/', 'evil.example')
            opcode, payload = client.recv_data()
            assert opcode == websocket.ABNF.OPCODE_CLOSE
            assert int.from_bytes(payload[:2]) == 1008
            assert b'evil.example' in payload
        connect(server.port, '/', 'localhost').close()


@pytest.fixture(scope='module', params=['x-forwarded', 'forwarded'])
def proxied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, ServerProcess]]:
    config = BEHIND_A_PROXY.format(kind=request.param)
    with ServerProcess(tmp_path_factory.mktemp('proxied'), config=config) as server:
        yield request.param, server


def added(kind: str, address: str, host: str | None = None) -> dict[str, str]:
    """What a proxy adds to a request that a client has sent with headers of its own."""
    if kind == 'forwarded':
        element = f'for="{address}"' + (f';host="{host}"' if host else '')
        return {
            'Forwarded': f'for=198.51.100.6;host=localhost, {element}',
            'X-Forwarded-For': '198.51.100.6',
            'X-Forwarded-Host': 'localhost',
        }
    return {
        'X-Forwarded-For': f'198.51.100.6, {address}',
        'Forwarded': 'for=198.51.100.6;host=localhost',
        **({'X-Forwarded-Host': host} if host else {}),
    }


def test_addresses_are_counted_as_the_proxy_gives_them(proxied: tuple[str, ServerProcess]) -> None:
    kind, server = proxied
    first = connect(server.port, '/', 'zaqar.example', added(kind, '203.0.113.1'))
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        connect(server.port, '/', 'zaqar.example', added(kind, '203.0.113.1:4711'))
    assert refused.value.status_code == 503
    second = connect(server.port, '/', 'zaqar.example', added(kind, '203.0.113.2'))
    for client in (first, second):
        client.close()


def test_the_host_that_the_proxy_gives_counts_too(proxied: tuple[str, ServerProcess]) -> None:
    kind, server = proxied

    def status(host: str, forwarded: str) -> int:
        headers = {'Host': host, **added(kind, '203.0.113.3', forwarded)}
        return request(server.port, '/', headers)[0]

    assert status('zaqar.example', 'other.example') == 300
    assert status('zaqar.example', 'evil.example') == 403
    # A page that has reached the server past its proxy says what it likes in other headers.
    assert status('evil.example', 'zaqar.example') == 403


@pytest.mark.parametrize(
    ('bind', 'is_warned'), [('127.0.0.1', False), ('::1', False), ('0.0.0.0', True)]
)
def test_listening_beyond_loopback_without_authentication_is_warned_of(
    tmp_path: pathlib.Path, bind: str, is_warned: bool
) -> None:
    with ServerProcess(tmp_path, '--bind', bind) as server:
        assert server.stop() == 0
    warnings = [line for line in server.output if 'warning' in line]
    assert len(server.output) == 1 + is_warned
    assert len(warnings) == is_warned
    for warning in warnings:
        assert f'0.0.0.0:{server.port}' in warning
        assert 'auth_strategy' in warning


def test_an_allowed_host_that_is_none_gets_one_line(tmp_path: pathlib.Path) -> None:
    options = ('--port', '0', '--state-path', str(tmp_path))
    line = failure(*options, '--allowed-host', 'http://zaqar.example')
    assert 'allowed_hosts' in line
    assert 'http://zaqar.example' in line
