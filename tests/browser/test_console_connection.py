"""How the console connects: tokens, transports, encodings, and what gets in the way."""

from __future__ import annotations

import json
import pathlib
import socket
import socketserver
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import requests

from tests.browser.another_client import AnotherClient
from tests.browser.console_page import ConsolePage, WatchedChromium
from tests.functional.test_authentication import POLICY, IdentityService, configuration
from tests.functional.test_observability import Difference, eventually
from tests.intermediaries import Intermediary
from tests.server_process import ServerProcess


@pytest.fixture(scope='module')
def identity_service() -> Iterator[IdentityService]:
    with IdentityService() as service:
        yield service


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


@pytest.mark.parametrize('transport', ['auto', 'rest'])
def test_a_token_is_asked_for_and_kept_in_memory_alone(
    browser: WatchedChromium,
    guarded: ServerProcess,
    identity_service: IdentityService,
    transport: str,
) -> None:
    project = uuid.uuid4().hex
    token = identity_service.issue(project)
    with browser.console(guarded.url, project) as page:
        page.open()
        page.sees('This server wants a token.', '#banner')
        page.sees('No access', '#connection')
        page.press('Enter a token')
        page.fill('Token', 'no such token')
        page.choose('Transport', transport)
        page.press('Connect')
        page.sees('The token is not accepted', '#banner')
        page.press('Enter a token')
        page.fill('Token', token)
        page.press('Connect')
        page.sees('has no queues yet')
        page.sees('WebSocket' if transport == 'auto' else 'Polling', '#connection')
        assert page.text('#banner') == ''
        page.press('Create the first queue')
        page.fill('Name', 'orders')
        page.press('Create')
        page.sees('Live tail')
        # The policy lets operators delete, and this is none: no token is asked for because of it.
        page.press('Delete…')
        page.press('Delete')
        page.sees('(403)', 'dialog')
        page.press('Cancel')
        assert page.text('#banner') == ''
        kept = page.evaluate('JSON.stringify([{...localStorage}, {...sessionStorage}])')
        assert token not in kept
        assert project in kept
        assert page.evaluate('document.cookie') == ''
        page.command('Page.reload')
        page.sees('This server wants a token.', '#banner')
        assert page.complaints == []


def test_a_token_that_ends_is_asked_for_again(
    browser: WatchedChromium, guarded: ServerProcess, identity_service: IdentityService
) -> None:
    project = uuid.uuid4().hex
    with browser.console(guarded.url, project) as page:
        page.open()
        page.press('Enter a token')
        page.fill('Token', identity_service.issue(project, seconds=3))
        page.press('Connect')
        page.sees('has no queues yet')
        page.sees('The token is not accepted', '#banner')
        page.press('Enter a token')
        page.fill('Token', identity_service.issue(project))
        page.press('Connect')
        page.sees('has no queues yet')
        assert page.complaints == []


def test_polling_is_shown_where_websockets_do_not_get_through(
    browser: WatchedChromium, server: ServerProcess
) -> None:
    project = uuid.uuid4().hex
    other = AnotherClient(server.url, project)
    other.call('queue_create', queue_name='orders')
    with (
        Intermediary(server.port, 'strip') as proxy,
        browser.console(proxy.url, project) as page,
    ):
        page.open('#/queues/orders')
        page.sees('Polling', '#connection')
        page.sees('JSON', '#connection')
        page.wait("document.querySelector('.live')?.dataset.state === 'live'")
        page.sees('Waiting for messages.')
        page.fill('Body', '"polled"')
        page.press('Post')
        page.sees('polled', '.messages')
        other.post('orders', 'from another')
        page.sees('from another', '.messages')
        assert page.complaints == []


def test_a_connection_that_dies_loses_nothing_and_doubles_nothing(
    browser: WatchedChromium, server: ServerProcess
) -> None:
    project = uuid.uuid4().hex
    other = AnotherClient(server.url, project)
    other.call('queue_create', queue_name='orders')
    with Intermediary(server.port) as proxy, browser.console(proxy.url, project) as page:
        page.open_tail('orders')
        other.post('orders', 'one')
        page.sees('one', '.messages')
        proxy.cut_all()
        other.post('orders', 'two', 'three')
        page.sees('three', '.messages')
        page.sees('3 received')
        assert page.evaluate("document.querySelectorAll('.message').length") == 3
        page.sees('WebSocket', '#connection')
        assert page.complaints == []


def test_a_server_that_is_away_is_told_of_and_found_again(
    browser: WatchedChromium, tmp_path: pathlib.Path
) -> None:
    with (
        ServerProcess(tmp_path) as server,
        Intermediary(server.port) as proxy,
        browser.console(proxy.url) as page,
    ):
        page.open()
        page.sees('has no queues yet')
        server.stop()
        page.sees('The server does not answer.', '#banner')
        page.sees('Connecting', '#connection')
        server.start()
        proxy.target = server.port
        page.wait("document.getElementById('connection').dataset.state === 'websocket'", 40)
        assert page.text('#banner') == ''
        assert page.complaints == []


def test_the_encoding_can_be_switched(page: ConsolePage) -> None:
    difference = Difference(page.url)

    def open_in(encoding: str) -> float:
        kind = {'engine': 'websockets', 'protocol': 'zaqar.v2', 'encoding': encoding}
        return difference.of('websocket_connections', **kind)

    page.open()
    page.sees('MsgPack', '#connection')
    eventually(lambda: open_in('msgpack'), 1)
    page.evaluate("document.getElementById('connection').click()")
    page.choose('Encoding', 'json')
    page.press('Connect')
    page.sees('JSON', '#connection')
    eventually(lambda: open_in('json'), 1)
    eventually(lambda: open_in('msgpack'), 0)
    page.command('Page.reload')
    page.sees('JSON', '#connection')


def test_a_client_id_is_a_uuid(page: ConsolePage) -> None:
    page.open()
    page.sees('has no queues yet')
    before = page.evaluate("JSON.parse(localStorage['zaqar-console']).clientId")
    page.evaluate("document.getElementById('connection').click()")
    page.fill('Client-ID', 'no UUID')
    page.press('Connect')
    page.sees('A UUID is wanted', 'dialog')
    page.press('New')
    page.press('Connect')
    page.wait("!document.querySelector('dialog')")
    page.sees('has no queues yet')
    after = page.evaluate("JSON.parse(localStorage['zaqar-console']).clientId")
    assert str(uuid.UUID(after)) == after != before


def test_what_is_stored_in_the_browser_may_be_anything(page: ConsolePage) -> None:
    page.open()
    for stored in (
        'not JSON',
        '[]',
        'null',
        '{"project": {"a": 1}, "transport": "carrier pigeon"}',
        '{"encoding": "smoke", "transport": "toString"}',
    ):
        page.evaluate(f"void (localStorage['zaqar-console'] = {json.dumps(stored)})")
        page.command('Page.reload')
        page.sees('The project “demo”')
        page.sees('WebSocket', '#connection')


PREFIX = b'/zaqar'


class _Stripping(socketserver.BaseRequestHandler):
    """Passes on what is asked below a path, as if it were asked at the root."""

    server: _Proxy

    def handle(self) -> None:
        with socket.create_connection(('127.0.0.1', self.server.target)) as upstream:
            back = threading.Thread(target=self._answer, args=(upstream,))
            back.start()
            # Either end may leave when it likes.
            with suppress(OSError):
                while sent := self.request.recv(65536):
                    upstream.sendall(sent.replace(b' ' + PREFIX + b'/', b' /', 1))
            with suppress(OSError):
                upstream.shutdown(socket.SHUT_RDWR)
            back.join()

    def _answer(self, upstream: socket.socket) -> None:
        with suppress(OSError):
            while answered := upstream.recv(65536):
                self.request.sendall(answered)
            self.request.shutdown(socket.SHUT_RDWR)


class _Proxy(socketserver.ThreadingTCPServer):
    """A proxy that gives a server a path of its own."""

    daemon_threads = True
    target: int


@contextmanager
def served_below(port: int) -> Iterator[str]:
    """The address of a server that is reached below a path."""
    with _Proxy(('127.0.0.1', 0), _Stripping) as proxy:
        proxy.target = port
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{proxy.server_address[1]}{PREFIX.decode()}'
        proxy.shutdown()


@pytest.mark.parametrize('transport', ['auto', 'rest'])
def test_it_may_have_a_path_of_its_own_behind_a_proxy(
    browser: WatchedChromium, server: ServerProcess, transport: str
) -> None:
    with (
        served_below(server.port) as url,
        browser.console(url, uuid.uuid4().hex) as page,
    ):
        moved = requests.get(f'{url}/console', timeout=60)
        assert (moved.url, moved.status_code) == (f'{url}/console/', 200)
        page.open()
        page.evaluate("document.getElementById('connection').click()")
        page.choose('Transport', transport)
        page.press('Connect')
        page.sees('WebSocket' if transport == 'auto' else 'Polling', '#connection')
        page.press('Create the first queue')
        page.fill('Name', 'orders')
        page.press('Create')
        page.wait("document.querySelector('.live')?.dataset.state === 'live'")
        page.fill('Body', '"below"')
        page.press('Post')
        page.sees('below', '.messages')
        assert page.complaints == []
