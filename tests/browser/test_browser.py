"""JavaScript's own WebSocket, in Node and in Chromium, against a real server."""

from __future__ import annotations

import base64
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from tests.browser.files import page_server
from tests.browser.hosts import SECONDS, Chromium, Host, Node, running_chromium, running_node
from tests.functional.test_peers import (
    SERVICES,
    Conversation,
    Service,
    assert_mute_client_is_ended,
    post_list_claim_and_delete,
    send_and_receive_a_large_message,
)
from tests.server_process import ServerProcess


@pytest.fixture(scope='session')
def allowed_origin() -> Iterator[str]:
    """The origin of a page that is listed in [cors] allowed_origin."""
    with page_server() as origin:
        yield origin


@pytest.fixture(scope='session')
def foreign_origin() -> Iterator[str]:
    """The origin of a page that is not."""
    with page_server() as origin:
        yield origin


@pytest.fixture(scope='session')
def node() -> Iterator[Node]:
    with running_node() as node:
        yield node


@pytest.fixture(scope='session')
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with running_chromium(tmp_path_factory.mktemp('profile')) as browser:
        yield browser


@pytest.fixture(scope='session', params=['node', 'chromium'])
def host(request: pytest.FixtureRequest, allowed_origin: str) -> Iterator[Host]:
    """Node, and a page of the allowed origin."""
    if request.param == 'node':
        yield request.getfixturevalue('node')
    else:
        with request.getfixturevalue('chromium').page(f'{allowed_origin}/') as page:
            yield page


def config_of(service: Service, allowed_origin: str, *options: str) -> str:
    return f'[cors]\nallowed_origin = {allowed_origin}\n{service.config(*options)}'


@pytest.fixture(scope='module', params=SERVICES, ids=str)
def service(request: pytest.FixtureRequest) -> Service:
    chosen: Service = request.param
    return chosen


@pytest.fixture(scope='module')
def server(
    service: Service, allowed_origin: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    config = config_of(service, allowed_origin)
    with ServerProcess(tmp_path_factory.mktemp('server'), config=config) as process:
        yield process


class JavaScriptSocket:
    """A WebSocket of JavaScript. See `tests.functional.test_peers.Peer`."""

    def __init__(self, host: Host, url: str, subprotocol: str = '') -> None:
        self._host = host
        self._number = host.call('open', url, [subprotocol] if subprotocol else [])
        opened = self.next('open')
        self.subprotocol: str = opened['protocol']
        self.extensions: str = opened['extensions']

    def next(self, kind: str) -> dict[str, Any]:
        """What happens next, which is of this kind."""
        event: dict[str, Any] = self._host.call('next', self._number, SECONDS)
        assert event['type'] == kind, event
        return event

    def send(self, payload: bytes, *, binary: bool) -> None:
        self._host.call('send', self._number, base64.b64encode(payload).decode(), binary)

    def receive(self) -> str | bytes:
        event = self._host.call('next', self._number, SECONDS)
        return base64.b64decode(event['base64']) if event['type'] == 'binary' else event['text']

    def close(self) -> int:
        self._host.call('close', self._number, 1000)
        closed = self.next('close')
        assert closed['wasClean']
        code: int = closed['code']
        return code


@pytest.fixture(params=['', 'zaqar.v2'], ids=['default', 'zaqar.v2'])
def subprotocol(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def peer(host: Host, server: ServerProcess, subprotocol: str) -> Iterator[JavaScriptSocket]:
    peer = JavaScriptSocket(host, server.websocket_url, subprotocol)
    yield peer
    assert peer.close() == 1000


@pytest.fixture(params=[False, True], ids=['json', 'msgpack'])
def conversation(request: pytest.FixtureRequest, peer: JavaScriptSocket) -> Conversation:
    return Conversation(peer, binary=request.param)


def test_what_was_asked_for_is_agreed_to(
    service: Service, peer: JavaScriptSocket, subprotocol: str
) -> None:
    assert peer.subprotocol == subprotocol
    if service.compresses:
        assert peer.extensions.startswith('permessage-deflate')
    else:
        assert peer.extensions == ''


def test_a_message_is_posted_listed_claimed_and_deleted(conversation: Conversation) -> None:
    post_list_claim_and_delete(conversation)


def test_a_large_message_goes_each_way(conversation: Conversation) -> None:
    send_and_receive_a_large_message(conversation)


def test_ping_is_an_action_where_there_are_no_ping_frames(
    host: Host, server: ServerProcess
) -> None:
    peer = JavaScriptSocket(host, server.websocket_url, 'zaqar.v2')
    peer.send(json.dumps({'action': 'ping'}).encode(), binary=False)
    assert json.loads(peer.receive()) == {'id': None, 'status': 200, 'body': {}}
    peer.close()


@pytest.mark.parametrize('engine', ['websockets', 'ws4py'])
def test_pings_of_the_server_are_answered_or_the_connection_is_ended(
    host: Host, engine: str, allowed_origin: str, tmp_path: pathlib.Path
) -> None:
    pings = ('ping_interval = 0.5', 'ping_timeout = 3.0')
    config = config_of(Service(engine, True), allowed_origin, *pings)
    with ServerProcess(tmp_path, config=config) as server:
        peer = JavaScriptSocket(host, server.websocket_url)
        assert_mute_client_is_ended(server)
        assert Conversation(peer, binary=False).ask('ping_node').status == 204
        assert peer.close() == 1000


@pytest.mark.parametrize('engine', ['websockets', 'ws4py'])
def test_a_server_that_stops_says_so_and_closes_with_1001(
    host: Host, engine: str, allowed_origin: str, tmp_path: pathlib.Path
) -> None:
    config = config_of(Service(engine, True), allowed_origin)
    with ServerProcess(tmp_path, config=config) as server:
        default, compact, packed = (
            JavaScriptSocket(host, server.websocket_url, subprotocol)
            for subprotocol in ('', 'zaqar.v2', 'zaqar.v2')
        )
        for peer in (default, compact, packed):
            assert Conversation(peer, binary=peer is packed).ask('ping_node').status == 204
        assert server.stop() == 0
    pushes = [json.loads(compact.receive()), msgpack.unpackb(packed.receive())]
    for push in pushes:
        assert push.pop('reconnect_after_ms') > 0
        assert push == {'push': 'closing', 'reason': 'The server is stopping.'}
    for peer in (default, compact, packed):
        closed = peer.next('close')
        assert (closed['code'], closed['wasClean']) == (1001, True)
        assert closed['reason'] == 'The server is stopping.'


def test_a_page_of_the_servers_own_origin_connects(
    chromium: Chromium, server: ServerProcess, subprotocol: str
) -> None:
    with chromium.page(f'{server.url}/') as page:
        peer = JavaScriptSocket(page, server.websocket_url, subprotocol)
        assert Conversation(peer, binary=False).ask('ping_node').status == 204
        assert peer.close() == 1000


def test_a_page_of_an_allowed_origin_connects(
    chromium: Chromium, server: ServerProcess, subprotocol: str, allowed_origin: str
) -> None:
    with chromium.page(f'{allowed_origin}/') as page:
        peer = JavaScriptSocket(page, server.websocket_url, subprotocol)
        assert Conversation(peer, binary=False).ask('ping_node').status == 204
        assert peer.close() == 1000


def test_a_page_of_a_foreign_origin_is_refused(
    chromium: Chromium, server: ServerProcess, subprotocol: str, foreign_origin: str
) -> None:
    with chromium.page(f'{foreign_origin}/') as page:
        number = page.call('open', server.websocket_url, [subprotocol] if subprotocol else [])
        events = [page.call('next', number, SECONDS) for _ in range(2)]
    assert events == [
        {'type': 'error'},
        {'type': 'close', 'code': 1006, 'reason': '', 'wasClean': False},
    ]
