"""Tokens: fixed, asked for, and of a keystoneauth1 session with an identity service."""

from __future__ import annotations

import datetime
import http.server
import json
import threading
import uuid
from collections.abc import Iterator

import pytest
from keystoneauth1.fixture import V3Token
from keystoneauth1.identity import v3
from keystoneauth1.session import Session

from tests.unit.client.scripted_server import ScriptedServer
from zaqar_gevent.client import Client, ConnectionLost, Unauthorized
from zaqar_gevent.client.credentials import SessionToken


class Identity(http.server.ThreadingHTTPServer):
    """Issues tokens as Keystone does.

    lifetime: of the tokens, in seconds. issued: the tokens, the newest last. is_refusing: whether
    it refuses passwords. endpoint: of the messaging service in the catalogue.
    """

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), IdentityHandler)
        self.lifetime = 3600.0
        self.issued: list[str] = []
        self.is_refusing = False
        self.endpoint = 'http://127.0.0.1:1'

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_port}/v3'

    def session(self) -> Session:
        return Session(
            v3.Password(
                auth_url=self.url,
                username='ann',
                password='secret',
                user_domain_id='default',
                project_name='demo',
                project_domain_id='default',
            )
        )


class IdentityHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: Identity

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers['Content-Length']))
        if self.server.is_refusing:
            self._answer(401, {'error': {'code': 401, 'message': 'No.', 'title': 'Unauthorized'}})
            return
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        token = V3Token(expires=now + datetime.timedelta(seconds=self.server.lifetime))
        token.set_project_scope(id='the-project')
        token.add_service('messaging').add_standard_endpoints(public=self.server.endpoint)
        self.server.issued.append(uuid.uuid4().hex)
        self._answer(201, token, self.server.issued[-1])

    def _answer(self, status: int, document: object, token: str = '') -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        if token:
            self.send_header('X-Subject-Token', token)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def identity() -> Iterator[Identity]:
    with Identity() as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.05,))
        thread.start()
        yield service
        service.shutdown()
        thread.join()


def test_a_session_has_one_token_for_as_long_as_it_is_good(identity: Identity) -> None:
    credentials = SessionToken(identity.session())
    assert credentials.token() == credentials.token() == identity.issued[0]
    assert credentials.place() == ('http://127.0.0.1:1', None, 'the-project')
    assert len(identity.issued) == 1


def test_a_token_that_is_about_to_expire_is_replaced(identity: Identity) -> None:
    identity.lifetime = 100.0
    credentials = SessionToken(identity.session())
    first = credentials.token()
    identity.lifetime = 3600.0
    assert credentials.token() != first
    assert credentials.token() == identity.issued[-1]
    assert len(identity.issued) == 2


def test_a_token_that_was_refused_is_replaced(identity: Identity) -> None:
    credentials = SessionToken(identity.session())
    first = credentials.token()
    assert credentials.invalidate()
    assert credentials.token() != first


def test_a_session_that_is_refused_is_not_authorized(identity: Identity) -> None:
    identity.is_refusing = True
    with pytest.raises(Unauthorized):
        SessionToken(identity.session()).token()


def test_a_catalogue_without_the_service_is_said_to_be_so(identity: Identity) -> None:
    credentials = SessionToken(identity.session(), region='R9')
    with pytest.raises(ConnectionLost, match=r'no service `messaging` for region_name R9'):
        credentials.place()


def test_an_identity_service_that_does_not_answer_is_a_lost_connection(identity: Identity) -> None:
    session = Session(v3.Token(auth_url='http://127.0.0.1:1/v3', token='x'))
    with pytest.raises(ConnectionLost):
        SessionToken(session).token()


def test_a_client_of_a_session_needs_nothing_else(identity: Identity) -> None:
    with ScriptedServer(lambda *_: (204, {})) as server:
        identity.endpoint = server.url
        with Client(session=identity.session(), transport='websocket', encoding='json') as client:
            client.call('ping_node')
        [hello] = server.asked('hello')
        assert hello['headers']['X-Auth-Token'] == identity.issued[-1]
        assert hello['headers']['X-Project-ID'] == 'the-project'
