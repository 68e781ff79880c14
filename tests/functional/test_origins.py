"""Web pages of other origins: which may use a real server, and what the log says of the others."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator

import pytest
import requests
import websocket

from tests.callers import Identity
from tests.functional.test_command import failure
from tests.server_process import ServerProcess

ALLOWED = 'http://localhost:5173'
FOREIGN = 'https://evil.example'
LOG_SECONDS = 60
IDENTITY = Identity('demo').headers()


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    config = '[cors]\nallowed_origin = https://shop.example\n[drivers]\nmesage_store = redis\n'
    path = tmp_path_factory.mktemp('server')
    with ServerProcess(path, '--allowed-origin', ALLOWED, config=config) as process:
        yield process


@pytest.mark.parametrize('origin', [ALLOWED, 'https://shop.example'])
def test_pages_of_allowed_origins_use_rest_and_websockets(
    server: ServerProcess, origin: str
) -> None:
    answer = requests.get(f'{server.url}/v2/ping', headers={'Origin': origin}, timeout=60)
    assert answer.headers['Access-Control-Allow-Origin'] == origin
    websocket.create_connection(server.websocket_url, origin=origin, timeout=60).close()


@pytest.mark.parametrize('origin', [ALLOWED, FOREIGN, None])
@pytest.mark.parametrize('path', ['/', '/v2/', '/v2/ping', '/v2/nothing', '/client/zaqar.js'])
def test_caches_are_told_what_an_answer_depends_on(
    server: ServerProcess, path: str, origin: str | None
) -> None:
    headers = {'Origin': origin} if origin else {}
    answer = requests.get(server.url + path, headers={**IDENTITY, **headers}, timeout=60)
    names = answer.headers['Vary'].split(',')
    depends_on_version = path in ('/', '/v2/')
    assert names == [*['OpenStack-API-Version'] * depends_on_version, 'Origin']
    latest = {**IDENTITY, **headers, 'OpenStack-API-Version': 'messaging latest'}
    again = requests.get(server.url + path, headers=latest, timeout=60)
    if depends_on_version:
        assert again.headers['Vary'] == answer.headers['Vary']


def test_only_the_home_document_may_be_stored_by_caches(server: ServerProcess) -> None:
    for path in ('/', '/v2/queues', '/v2/ping', '/v2/queues/none/messages/none', '/nothing'):
        answer = requests.get(server.url + path, headers=IDENTITY, timeout=60)
        assert answer.headers['Cache-Control'] == 'no-store', path
    refused = requests.delete(f'{server.url}/v2/queues', headers=IDENTITY, timeout=60)
    assert (refused.status_code, refused.headers['Cache-Control']) == (405, 'no-store')
    home = requests.get(f'{server.url}/v2/', headers=IDENTITY, timeout=60)
    assert home.headers['Cache-Control'] == 'max-age=86400'


@pytest.mark.parametrize('origin', [ALLOWED, FOREIGN])
def test_pages_of_allowed_origins_import_the_client(server: ServerProcess, origin: str) -> None:
    url = f'{server.url}/client/zaqar.js'
    script = requests.get(url, headers={'Origin': origin}, timeout=60)
    assert script.status_code == 200
    assert script.headers['Content-Type'] == 'text/javascript; charset=utf-8'
    assert script.headers['Vary'] == 'Origin'
    assert 'class Client extends EventTarget' in script.text
    again = {'Origin': origin, 'If-None-Match': script.headers['ETag']}
    unchanged = requests.get(url, headers=again, timeout=60)
    assert unchanged.status_code == 304
    for answer in (script, unchanged):
        allowed = answer.headers.get('Access-Control-Allow-Origin')
        assert allowed == (ALLOWED if origin == ALLOWED else None)


def test_the_first_refusal_of_an_origin_or_host_is_logged(server: ServerProcess) -> None:
    for _ in range(3):
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            websocket.create_connection(server.websocket_url, origin=FOREIGN, timeout=60)
        assert refused.value.status_code == 403
        assert b'--allowed-origin' in refused.value.resp_body
        over_rest = requests.get(f'{server.url}/v2/ping', headers={'Origin': FOREIGN}, timeout=60)
        assert 'Access-Control-Allow-Origin' not in over_rest.headers
        elsewhere = requests.get(f'{server.url}/v2', headers={'Host': 'evil.example'}, timeout=60)
        assert elsewhere.status_code == 403
    [origin] = logged(server, repr(FOREIGN))
    assert 'WARNING' in origin
    assert '--allowed-origin' in origin
    [host] = logged(server, "'evil.example'")
    assert '--allowed-host' in host


def test_a_refusal_is_logged_with_the_id_of_its_own_request(server: ServerProcess) -> None:
    with requests.Session() as session:
        before = session.get(f'{server.url}/v2/ping', timeout=60)
        name = 'other.example'
        refused = session.get(f'{server.url}/v2/ping', headers={'Host': name}, timeout=60)
    assert refused.status_code == 403
    [line] = logged(server, f"'{name}'")
    assert refused.headers['X-OpenStack-Request-ID'] in line
    assert before.headers['X-OpenStack-Request-ID'] not in line


def test_a_refused_handshake_has_a_request_id(server: ServerProcess) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(
            server.websocket_url, origin='https://third.example', timeout=60
        )
    request_id = refused.value.resp_headers['x-openstack-request-id']
    [line] = logged(server, "'https://third.example'")
    assert request_id in line


def test_strangers_cannot_fill_the_log(server: ServerProcess) -> None:
    for number in range(300):
        headers = {'Origin': f'https://{number}.flood.example'}
        requests.get(f'{server.url}/v2/ping', headers=headers, timeout=60)
    assert 0 < len(logged(server, 'flood.example')) <= 100


def test_a_misspelt_option_is_logged_at_start(server: ServerProcess) -> None:
    [line] = logged(server, 'mesage_store')
    assert 'Did you mean message_store?' in line


@pytest.mark.parametrize(
    'origin',
    ['http://localhost:*', 'localhost:5173', 'https://shop.example/', 'https://*.shop.example'],
)
def test_what_is_not_an_origin_is_refused_at_start(tmp_path: pathlib.Path, origin: str) -> None:
    told = failure('--state-path', str(tmp_path), '--port', '0', '--allowed-origin', origin)
    assert 'allowed_origin' in told
    assert repr(origin) in told
    assert told.count('\n') <= 1


def logged(server: ServerProcess, text: str) -> list[str]:
    """The lines with `text` that the server has printed, once there is one."""
    end = time.monotonic() + LOG_SECONDS
    while time.monotonic() < end and not any(text in line for line in server.output):
        time.sleep(0.05)
    return [line for line in server.output if text in line]
