"""Authentication on both transports, against a small identity service on loopback."""

from __future__ import annotations

import datetime
import http.server
import json
import pathlib
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import websocket

from tests.callers import TRANSPORTS, CompactCaller, Identity, WebSocketCaller, connect
from tests.functional.test_gunicorn import STOCK_WORKER, gunicorn
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch

POLICY = '"queues:delete": "role:operator"\n"ping:get": "system_scope:all or domain_id:home"\n'


class IdentityService:
    """What keystonemiddleware asks of the Identity API v3: discovery, and tokens.

    tokens: the valid ones, each with what it stands for. lifetime: of those that are given for a
    password, in seconds.
    """

    def __init__(self) -> None:
        self.tokens: dict[str, dict[str, Any]] = {'service': _token('service', ['service'])}
        self.lifetime = 3600.0
        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), self._handler())
        self.url = f'http://127.0.0.1:{self._server.server_port}/v3'

    def __enter__(self) -> IdentityService:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def issue(
        self,
        project_id: str,
        *,
        roles: tuple[str, ...] = ('member',),
        seconds: float = 3600,
        **more,
    ) -> str:
        """A new token, valid for some time."""
        name = uuid.uuid4().hex
        self.tokens[name] = {**_token(project_id, list(roles), seconds), **more}
        return name

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.rstrip('/').endswith('/v3'):
                    links = [{'rel': 'self', 'href': service.url}]
                    version = {'id': 'v3.14', 'status': 'stable', 'links': links}
                    self._answer(200, {'version': version})
                else:
                    self._show(self.headers.get('X-Subject-Token', ''), 200)

            def do_POST(self) -> None:
                given = json.loads(self.rfile.read(int(self.headers['Content-Length'])))['auth']
                if given['identity']['password']['user']['name'] == 'zaqar':
                    self._show('service', 201)
                    return
                project_id = given['scope']['project']['id']
                self._show(service.issue(project_id, seconds=service.lifetime), 201)

            def _show(self, name: str, status: int) -> None:
                token = service.tokens.get(name)
                if token is None:
                    self._answer(404, {'error': {'code': 404}})
                    return
                endpoint = {'interface': 'internal', 'url': service.url, 'region_id': 'one'}
                endpoints = [{**endpoint, 'id': 'e', 'region': 'one'}]
                catalog = [{'type': 'identity', 'name': 'i', 'id': 'i', 'endpoints': endpoints}]
                self._answer(status, {'token': {**token, 'catalog': catalog}}, name)

            def _answer(self, status: int, document: Any, subject: str = '') -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header('Content-Type', 'application/json')
                self.send_header('Content-Length', str(len(body)))
                self.send_header('X-Subject-Token', subject)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        return Handler


def _token(project_id: str, roles: list[str], seconds: float = 3600) -> dict[str, Any]:
    now = datetime.datetime.now(tz=datetime.UTC)
    domain = {'id': 'home', 'name': 'Home'}
    return {
        'methods': ['password'],
        'user': {'id': f'user-of-{project_id}', 'name': 'user', 'domain': domain},
        'project': {'id': project_id, 'name': project_id, 'domain': domain},
        'roles': [{'id': role, 'name': role} for role in roles],
        'issued_at': now.isoformat(),
        'expires_at': (now + datetime.timedelta(seconds=seconds)).isoformat(),
    }


@pytest.fixture(scope='module')
def identity_service() -> Iterator[IdentityService]:
    with IdentityService() as service:
        yield service


def configuration(service: IdentityService, policy_file: pathlib.Path) -> str:
    return '\n'.join(
        (
            '[DEFAULT]',
            'auth_strategy = keystone',
            '[oslo_policy]',
            f'policy_file = {policy_file}',
            '[signed_url]',
            'secret_key = a secret',
            '[cors]',
            'allowed_origin = https://console.example.com',
            '[keystone_authtoken]',
            f'auth_url = {service.url}',
            f'www_authenticate_uri = {service.url}',
            'auth_type = password',
            'username = zaqar',
            'password = a password',
            'user_domain_id = home',
            'project_name = service',
            'project_domain_id = home',
            'token_cache_time = -1',
        )
    )


@pytest.fixture(scope='module')
def guarded(
    identity_service: IdentityService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that wants tokens."""
    state = tmp_path_factory.mktemp('guarded')
    policy = state / 'policy.yaml'
    policy.write_text(POLICY)
    with ServerProcess(state, config=configuration(identity_service, policy)) as process:
        yield process


@pytest.fixture
def project_id() -> str:
    return uuid.uuid4().hex


def open_socket(server: ServerProcess, project_id: str, *, binary: bool = False) -> WebSocketCaller:
    identity = Identity(project_id)
    return WebSocketCaller(server.websocket_url, binary=binary, identity=identity)


def authenticate(caller: WebSocketCaller, token: str, **headers: str) -> Any:
    sent = {**caller.identity.headers(), 'X-Auth-Token': token, **headers}
    return caller.call('authenticate', headers=sent)


def close_code(caller: WebSocketCaller, within: float) -> tuple[int, bytes]:
    """How the server closes the connection, without being asked anything."""
    caller.socket.settimeout(within)
    opcode, payload = caller.socket.recv_data()
    assert opcode == websocket.ABNF.OPCODE_CLOSE
    return int.from_bytes(payload[:2]), payload[2:]


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_a_token_opens_its_project(
    guarded: ServerProcess, identity_service: IdentityService, project_id: str, transport: str
) -> None:
    token = identity_service.issue(project_id)
    identity = Identity(project_id)
    headers = identity.headers()
    caller = connect(transport, guarded.url, guarded.websocket_url, identity)
    if transport == 'rest':
        headers['X-Auth-Token'] = token
    else:
        assert authenticate(caller, token) == (200, {'message': 'Authentified.'})
    posted = caller.call(
        'message_post', headers=headers, queue_name='q', messages=[{'body': 1, 'ttl': 60}]
    )
    assert posted.status == 201
    assert caller.call('queue_list', headers=headers).body['queues'][0]['name'] == 'q'
    caller.close()


@pytest.mark.parametrize('token', [None, '', 'no such token', 'expired'])
def test_rest_refuses_whoever_has_no_valid_token(
    guarded: ServerProcess, identity_service: IdentityService, project_id: str, token: str | None
) -> None:
    headers = {**Identity(project_id).headers(), 'X-Roles': 'admin', 'X-User-Id': 'somebody'}
    if token is not None:
        expired = identity_service.issue(project_id, seconds=-1)
        headers['X-Auth-Token'] = expired if token == 'expired' else token
    response = requests.get(f'{guarded.url}/v2/queues', headers=headers, timeout=60)
    assert response.status_code == 401
    assert response.headers['WWW-Authenticate'] == f'Keystone uri="{identity_service.url}"'
    assert response.headers['X-OpenStack-Request-ID'].startswith('req-')


def test_rest_takes_the_project_from_the_token_and_not_from_the_headers(
    guarded: ServerProcess, identity_service: IdentityService, project_id: str
) -> None:
    mine = {'X-Auth-Token': identity_service.issue(project_id), **Identity(project_id).headers()}
    created = requests.put(f'{guarded.url}/v2/queues/mine', headers=mine, timeout=60)
    assert created.status_code == 201
    assert created.headers['Location'] == '/v2/queues/mine'
    theirs = {**mine, 'X-Auth-Token': identity_service.issue('another')}
    for header in ('X-Project-ID', 'X-Tenant-Id', 'X_Project_ID'):
        listed = requests.get(
            f'{guarded.url}/v2/queues', headers={**theirs, header: project_id}, timeout=60
        )
        assert listed.json()['queues'] == []


def test_the_versions_need_no_token(guarded: ServerProcess) -> None:
    assert requests.get(f'{guarded.url}/', timeout=60).status_code == 300


def test_a_signed_url_needs_no_token_and_opens_nothing_else(
    guarded: ServerProcess, identity_service: IdentityService, project_id: str
) -> None:
    headers = Identity(project_id).headers()
    token = {'X-Auth-Token': identity_service.issue(project_id)}
    shared = requests.post(
        f'{guarded.url}/v2/queues/q/share',
        json={'paths': ['messages']},
        headers={**headers, **token},
        timeout=60,
    ).json()
    signed = {
        **headers,
        'URL-Signature': shared['signature'],
        'URL-Expires': shared['expires'],
        'URL-Methods': ','.join(shared['methods']),
        'URL-Paths': ','.join(shared['paths']),
        'X-Roles': 'admin,operator',
        'X-User-Id': 'somebody',
    }
    url = f'{guarded.url}/v2/queues'
    assert requests.get(f'{url}/q/messages', headers=signed, timeout=60).status_code == 200
    assert requests.delete(f'{url}/q', headers=signed, timeout=60).status_code == 404
    assert requests.get(url, headers=signed, timeout=60).status_code == 404
    other = {**signed, 'X-Project-ID': 'another'}
    assert requests.get(f'{url}/q/messages', headers=other, timeout=60).status_code == 404
    caller = open_socket(guarded, project_id)
    assert caller.call('message_list', headers=signed, queue_name='q').status == 200
    assert caller.call('queue_delete', headers=signed, queue_name='q').status == 404
    # Refused headers leave nothing behind that would let the next request in.
    assert caller.call('queue_list').status == 403
    assert caller.call('queue_delete', headers=signed, queue_name='q').status == 404
    assert caller.call('queue_list', headers={**signed, 'URL-Signature': 'x'}).status == 404
    assert caller.call('queue_list').status == 403
    assert caller.call('queue_list', headers={**signed, 'URL-Signature': 'x'}).status == 404
    caller.close()


@pytest.mark.parametrize('binary', [False, True])
def test_nothing_but_authenticate_is_answered_before_it(
    guarded: ServerProcess, identity_service: IdentityService, project_id: str, binary: bool
) -> None:
    caller = open_socket(guarded, project_id, binary=binary)
    headers = {**caller.identity.headers(), 'X-Roles': 'admin', 'X-User-Id': 'somebody'}
    for action in ('queue_list', 'get_versions', 'ping_node'):
        refused = caller.call(action, headers=headers)
        assert refused.status == 403
        assert refused.body['error'] == 'Not authentified.'
    failed = authenticate(caller, 'no such token')
    assert failed.status == 401
    assert failed.body['error'] == 'Authentication failed.'
    assert authenticate(caller, identity_service.issue(project_id)).status == 200
    assert caller.call('queue_list').status == 200
    caller.close()


def test_a_token_in_hello_opens_its_project_for_every_request_after_it(
    guarded: ServerProcess, identity_service: IdentityService, project_id: str
) -> None:
    caller = CompactCaller(guarded.websocket_url, binary=False, identity=Identity(project_id))
    client = {'Client-ID': caller.identity.client_id}
    assert caller.call('queue_list', headers=client).status == 403
    refused = caller.call('hello', headers={**client, 'X-Auth-Token': 'no such token'})
    assert (refused.status, refused.body['code']) == (401, 'unauthorized')
    token = identity_service.issue(project_id)
    assert caller.call('hello', headers={**client, 'X-Auth-Token': token}).status == 200
    assert caller.call('queue_create', headers={}, queue_name='q').status == 201
    listed = caller.call('queue_list', headers={'X-Project-ID': project_id})
    assert [queue['name'] for queue in listed.body['queues']] == ['q']
    assert caller.call('queue_list', headers={'X-Project-ID': 'another'}).status == 403
    caller.close()


def test_the_answer_to_authenticate_echoes_no_token(
    guarded: ServerProcess, identity_service: IdentityService, project_id: str
) -> None:
    caller = open_socket(guarded, project_id)
    token = identity_service.issue(project_id)
    headers = {'X-AUTH-TOKEN': token, 'X-Service-Token': 'secret', 'request-id': '7'}
    for sent in (headers, {**headers, 'X-AUTH-TOKEN': 'secret'}):
        request = {'action': 'authenticate', 'headers': sent, 'body': {'token': 'secret'}}
        answer = caller.exchange(json.dumps(request).encode())
        assert answer['request']['headers'] == {'Request-ID': '7'}
        assert token not in json.dumps(answer)
        assert 'secret' not in json.dumps(answer)
    caller.close()


@pytest.mark.parametrize('headers', [{'X-Project-ID': 'another'}, {'X-Project-ID': ''}, {}])
def test_a_frame_for_another_project_is_refused(
    guarded: ServerProcess,
    identity_service: IdentityService,
    project_id: str,
    headers: dict[str, str],
) -> None:
    caller = open_socket(guarded, project_id)
    authenticate(caller, identity_service.issue(project_id))
    sent = {'Client-ID': caller.identity.client_id, **headers}
    assert caller.call('queue_list', headers=sent).status == 403
    assert caller.call('queue_list').status == 200
    caller.close()


def test_roles_and_domains_come_from_the_token(
    guarded: ServerProcess, identity_service: IdentityService, project_id: str
) -> None:
    caller = open_socket(guarded, project_id)
    claimed = {**caller.identity.headers(), 'X-Roles': 'operator', 'X-Domain-Id': 'home'}
    rest = {**claimed, 'X-Auth-Token': identity_service.issue(project_id)}
    authenticate(caller, rest['X-Auth-Token'])
    assert caller.call('queue_delete', headers=claimed, queue_name='q').status == 403
    assert caller.call('ping_node', headers=claimed).status == 403
    assert _rest_statuses(guarded, rest) == (403, 403)
    everything = identity_service.issue(project_id, roles=('operator',), system={'all': True})
    authenticate(caller, everything)
    assert caller.call('queue_delete', queue_name='q').status == 204
    assert caller.call('ping_node').status == 204
    assert _rest_statuses(guarded, {**rest, 'X-Auth-Token': everything}) == (204, 204)
    caller.close()


def _rest_statuses(server: ServerProcess, headers: dict[str, str]) -> tuple[int, int]:
    deleted = requests.delete(f'{server.url}/v2/queues/q', headers=headers, timeout=60)
    pinged = requests.get(f'{server.url}/v2/ping', headers=headers, timeout=60)
    return deleted.status_code, pinged.status_code


@pytest.mark.parametrize('binary', [False, True])
def test_an_idle_connection_is_closed_when_its_token_expires(
    guarded: ServerProcess, identity_service: IdentityService, project_id: str, binary: bool
) -> None:
    caller = open_socket(guarded, project_id, binary=binary)
    seconds = 3
    began, watch = time.monotonic(), Stopwatch(guarded.pid)
    token = identity_service.issue(project_id, seconds=seconds)
    assert authenticate(caller, token).status == 200
    assert close_code(caller, within=30) == (4003, b'Authentication expired.')
    assert time.monotonic() - began > seconds - 1
    assert watch.seconds() < seconds + 4


def test_authenticating_again_in_time_keeps_the_connection(
    guarded: ServerProcess, identity_service: IdentityService, project_id: str
) -> None:
    caller = open_socket(guarded, project_id)
    authenticate(caller, identity_service.issue(project_id, seconds=4))
    assert authenticate(caller, 'no such token').status == 401
    assert caller.call('queue_list').status == 200
    assert authenticate(caller, identity_service.issue(project_id, seconds=8)).status == 200
    time.sleep(4.5)
    assert caller.call('queue_list').status == 200
    assert close_code(caller, within=30)[0] == 4003


def test_authenticating_again_may_change_the_project(
    guarded: ServerProcess, identity_service: IdentityService, project_id: str
) -> None:
    caller = open_socket(guarded, project_id)
    authenticate(caller, identity_service.issue(project_id))
    assert caller.call('queue_list').status == 200
    authenticate(caller, identity_service.issue('another'))
    assert caller.call('queue_list').status == 403
    caller.close()


def test_a_token_restricted_by_access_rules_opens_no_connection(
    guarded: ServerProcess, identity_service: IdentityService, project_id: str
) -> None:
    rules = {'id': 'c', 'access_rules': [{'method': 'GET', 'path': '/**', 'service': 'messaging'}]}
    token = identity_service.issue(project_id, application_credential=rules)
    caller = open_socket(guarded, project_id)
    assert authenticate(caller, token).status == 401
    caller.close()


def test_a_token_in_the_handshake_authenticates(
    guarded: ServerProcess, identity_service: IdentityService, project_id: str
) -> None:
    token = identity_service.issue(project_id, seconds=3)
    caller = open_socket(guarded, project_id)
    caller.socket.close()
    caller.socket = websocket.create_connection(
        guarded.websocket_url, header={'X-Auth-Token': token}, timeout=60
    )
    assert caller.call('queue_list').status == 200
    assert close_code(caller, within=30)[0] == 4003


def test_an_invalid_token_in_the_handshake_is_refused(guarded: ServerProcess) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(guarded.websocket_url, header={'X-Auth-Token': 'x'}, timeout=60)
    assert refused.value.status_code == 401


def test_an_invalid_token_in_the_handshake_is_closed_with_1008_under_the_stock_worker(
    identity_service: IdentityService, tmp_path: pathlib.Path, project_id: str
) -> None:
    policy = tmp_path / 'policy.yaml'
    policy.write_text(POLICY)
    (tmp_path / '.zaqar').mkdir()
    (tmp_path / '.zaqar' / 'zaqar.conf').write_text(configuration(identity_service, policy))
    with gunicorn(STOCK_WORKER, tmp_path) as address:
        caller = WebSocketCaller(f'ws://{address}/', binary=False, identity=Identity(project_id))
        assert caller.call('queue_list').status == 403
        assert authenticate(caller, identity_service.issue(project_id)).status == 200
        assert caller.call('queue_list').status == 200
        caller.socket.close()
        caller.socket = websocket.create_connection(
            f'ws://{address}/', header={'X-Auth-Token': 'x'}, timeout=60
        )
        assert close_code(caller, within=30) == (1008, b'Authentication failed.')


def test_without_the_identity_service_everything_is_unavailable(
    tmp_path: pathlib.Path, project_id: str
) -> None:
    with IdentityService() as service:
        pass
    policy = tmp_path / 'policy.yaml'
    policy.write_text(POLICY)
    with ServerProcess(tmp_path, config=configuration(service, policy)) as server:
        caller = open_socket(server, project_id)
        assert authenticate(caller, 'any').status == 503
        assert caller.call('queue_list').status == 403
        headers = {**Identity(project_id).headers(), 'X-Auth-Token': 'any'}
        refused = requests.get(f'{server.url}/v2/queues', headers=headers, timeout=60)
        assert refused.status_code == 503
        assert refused.json()['code'] == 'service_unavailable'
        assert refused.headers['Content-Type'] == 'application/json'
        assert 'Retry-After' in refused.headers
        caller.close()


def test_a_server_that_does_not_authenticate_says_so(server: ServerProcess) -> None:
    caller = open_socket(server, 'demo')
    refused = authenticate(caller, 'any')
    assert refused.status == 400
    assert 'does not authenticate' in refused.body['error']
    caller.close()


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_a_trust_needs_a_trustee(
    guarded: ServerProcess, identity_service: IdentityService, transport: str, project_id: str
) -> None:
    """It can never be made without, so this is no failure that might pass."""
    token = identity_service.issue(project_id)
    caller = connect(transport, guarded.url, guarded.websocket_url, Identity(project_id))
    headers = {**caller.identity.headers(), 'X-Auth-Token': token}
    if transport != 'rest':
        assert caller.call('authenticate', headers=headers).status == 200
    target = {'queue_name': 'orders', 'subscriber': 'trust+http://a.example/'}
    answer = caller.call('subscription_create', headers=headers, **target)
    assert answer.status == 400
    assert '[trustee]' in str(answer.body)
    caller.close()


def test_an_unknown_strategy_is_refused_at_start(tmp_path: pathlib.Path) -> None:
    config = tmp_path / 'zaqar.conf'
    config.write_text('[DEFAULT]\nauth_strategy = keyhole\n')
    command = (sys.executable, '-m', 'zaqar_gevent.cmd', '--port', '0')
    options = ('--state-path', str(tmp_path), '--config-file', str(config))
    failed = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60)
    assert failed.returncode == 1
    assert failed.stderr.count('\n') == 1
    assert 'auth_strategy' in failed.stderr


def test_browsers_of_allowed_origins_are_told_so(
    guarded: ServerProcess, identity_service: IdentityService, project_id: str
) -> None:
    url = f'{guarded.url}/v2/queues'
    origin = {'Origin': 'https://console.example.com'}
    wanted = {'Access-Control-Request-Method': 'GET', 'Access-Control-Request-Headers': 'Client-ID'}
    preflight = requests.options(url, headers={**origin, **wanted}, timeout=60)
    assert preflight.status_code == 200
    assert preflight.headers['Access-Control-Allow-Methods'] == 'GET'
    headers = {**Identity(project_id).headers(), 'X-Auth-Token': identity_service.issue(project_id)}
    for status, sent in ((200, headers), (401, {})):
        allowed = requests.get(url, headers={**sent, **origin}, timeout=60)
        assert allowed.status_code == status
        assert allowed.headers['Access-Control-Allow-Origin'] == origin['Origin']
        assert 'X-OpenStack-Request-ID' in allowed.headers['Access-Control-Expose-Headers']
    elsewhere = requests.get(url, headers={**headers, 'Origin': 'https://evil.example'}, timeout=60)
    assert 'Access-Control-Allow-Origin' not in elsewhere.headers


def test_every_rest_answer_has_a_request_id_of_its_own(server: ServerProcess) -> None:
    answers = [requests.get(f'{server.url}{path}', timeout=60) for path in ('/', '/v2/ping', '/x')]
    assert len({answer.headers['X-OpenStack-Request-ID'] for answer in answers}) == 3
