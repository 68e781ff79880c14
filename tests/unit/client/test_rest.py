"""REST where something is in the way: gateways, pages of others, and connections that die."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from zaqar_gevent.client import (
    APIError,
    Client,
    OutcomeUnknown,
    ServiceUnavailable,
    Timeout,
    Unsupported,
    ZaqarError,
)


class Gateway(http.server.ThreadingHTTPServer):
    """Answers requests with what is in `answers`, in order, and the last one again and again.

    An answer is a status and a body, None for the end of the connection without one.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), GatewayHandler)
        self.answers: list[tuple[int, bytes] | None] = []
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_port}'

    def asked(self) -> list[tuple[str, str]]:
        """Methods and paths, but for the question what the server can do."""
        return [(how, path) for how, path, _ in self.requests if path != '/v2/capabilities']


class GatewayHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: Gateway

    def handle_one(self) -> None:
        length = int(self.headers.get('Content-Length') or 0)
        document = json.loads(self.rfile.read(length) or b'{}')
        self.server.requests.append((self.command, self.path, document))
        if self.path == '/v2/capabilities':
            self._answer(404, b'{}')
            return
        self.server.may_answer.wait(60)
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            self.close_connection = True
            self.connection.close()
        else:
            self._answer(*answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_one  # noqa: N815

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as gateway:
        thread = threading.Thread(target=gateway.serve_forever, args=(0.05,))
        thread.start()
        yield gateway
        gateway.may_answer.set()
        gateway.shutdown()
        thread.join()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with Client(gateway.url, project='demo', transport='rest', timeout=60) as client:
        yield client


@pytest.mark.parametrize('trouble', [(502, b'<h1>Bad gateway</h1>'), (504, b''), None])
def test_what_may_be_repeated_is_where_a_gateway_has_no_answer(
    gateway: Gateway, client: Client, trouble: tuple[int, bytes] | None
) -> None:
    gateway.answers = [trouble, (200, b'{"a": 1}')]
    assert client.queue('q').get_metadata() == {'a': 1}
    assert gateway.asked() == [('GET', '/v2/queues/q')] * 2


@pytest.mark.parametrize('trouble', [(502, b''), (504, b''), None])
def test_what_may_not_be_repeated_is_reported_as_unknown(
    gateway: Gateway, client: Client, trouble: tuple[int, bytes] | None
) -> None:
    gateway.answers = [trouble]
    with pytest.raises(OutcomeUnknown):
        client.queue('q').post('body')
    assert len(gateway.asked()) == 1


def test_a_page_that_is_not_of_the_server_is_an_error_nevertheless(
    gateway: Gateway, client: Client
) -> None:
    gateway.answers = [(503, b'<h1>Down for maintenance</h1>')]
    with pytest.raises(ServiceUnavailable) as error:
        client.queue('q').stats()
    assert error.value.description == '<h1>Down for maintenance</h1>'
    gateway.answers = [(418, b'{"title": "Teapot"}')]
    with pytest.raises(APIError) as other:
        client.queue('q').stats()
    assert (other.value.status, other.value.code, other.value.title) == (418, 'error', 'Teapot')
    gateway.answers = [(200, b'<h1>Log in</h1>')]
    with pytest.raises(ZaqarError):
        client.queue('q').stats()


def test_an_answer_that_does_not_come_is_a_timeout(gateway: Gateway, client: Client) -> None:
    gateway.answers = [(200, b'{}')]
    gateway.may_answer.clear()
    client.timeout = 0.3
    with pytest.raises(Timeout):
        client.queue('q').get_metadata()


def test_an_answer_that_is_too_long_is_not_read(gateway: Gateway) -> None:
    gateway.answers = [(200, b'"' + b'x' * 3000 + b'"')]
    with (
        Client(gateway.url, project='p', transport='rest', max_message_size=2000) as client,
        pytest.raises(ZaqarError, match='2000'),
    ):
        client.queue('q').get_metadata()


def test_names_cannot_lead_elsewhere(gateway: Gateway, client: Client) -> None:
    gateway.answers = [(200, b'{}')]
    client.queue('../pools?x=1#y').get_metadata()
    assert gateway.asked() == [('GET', '/v2/queues/..%2Fpools%3Fx%3D1%23y')]


def test_what_rest_does_not_have_is_unsupported(client: Client) -> None:
    with pytest.raises(Unsupported):
        client.call('queue_consume', queue_name='q')


def test_a_server_behind_a_path_is_found_there(gateway: Gateway) -> None:
    gateway.answers = [(200, b'{}')]
    with Client(f'{gateway.url}/messaging/v2/', project='p', transport='rest') as client:
        client.queue('q').get_metadata()
    assert gateway.asked() == [('GET', '/messaging/v2/queues/q')]
