"""Clients that were not written here, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import pathlib
import secrets
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit

import msgpack
import pytest
import requests
import websocket
import websockets.asyncio.client
import websockets.sync.client
from autobahn.asyncio.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.compress import (
    PerMessageDeflateOffer,
    PerMessageDeflateResponse,
    PerMessageDeflateResponseAccept,
)
from zaqarclient import transport as zaqar_transport
from zaqarclient.queues import client as zaqar_client
from zaqarclient.transport import errors as zaqar_errors
from zaqarclient.transport.request import Request

from tests.callers import Answer, new_identity
from tests.exposition import read, value_in
from tests.functional.test_authentication import IdentityService, configuration
from tests.server_process import ServerProcess

SECONDS = 60
LARGE = 200_000
Result = TypeVar('Result')


class Peer(Protocol):
    """A connected client.

    subprotocol, extensions: what was negotiated; '' for nothing.
    """

    subprotocol: str
    extensions: str

    def send(self, payload: bytes, *, binary: bool) -> None: ...

    def receive(self) -> str | bytes: ...

    def close(self) -> int:
        """Close with 1000; returns the code that the server closes with. May be called again."""


class PythonPeer(Peer, Protocol):
    """A client of some library for Python."""

    def __init__(self, url: str, subprotocol: str = '') -> None: ...

    def ping(self, payload: bytes) -> None:
        """Send a ping frame and return when it is answered."""

    def idle(self, seconds: float) -> None:
        """Do nothing but what the library does by itself."""


class Websockets:
    """The blocking client of `websockets`."""

    def __init__(self, url: str, subprotocol: str = '') -> None:
        offered: Any = [subprotocol] if subprotocol else None
        connecting = websockets.sync.client.connect(url, subprotocols=offered)
        self._context = contextlib.ExitStack()
        self._client = self._context.enter_context(connecting)
        assert self._client.response is not None
        self.subprotocol = self._client.subprotocol or ''
        self.extensions = self._client.response.headers.get('Sec-WebSocket-Extensions', '')

    def send(self, payload: bytes, *, binary: bool) -> None:
        self._client.send(payload, text=not binary)

    def receive(self) -> str | bytes:
        received: str | bytes = self._client.recv(SECONDS)
        return received

    def ping(self, payload: bytes) -> None:
        assert self._client.ping(payload).wait(SECONDS)

    def idle(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> int:
        self._context.close()
        closed = self._client.protocol.close_rcvd
        assert closed is not None
        return int(closed.code)


class WebSocketClient:
    """`websocket-client`."""

    extensions = ''

    def __init__(self, url: str, subprotocol: str = '') -> None:
        offered = [subprotocol] if subprotocol else None
        self._client = websocket.create_connection(url, timeout=SECONDS, subprotocols=offered)
        self.subprotocol = self._client.getsubprotocol() or ''
        self._code: int | None = None

    def send(self, payload: bytes, *, binary: bool) -> None:
        opcode = websocket.ABNF.OPCODE_BINARY if binary else websocket.ABNF.OPCODE_TEXT
        self._client.send(payload, opcode)

    def receive(self) -> str | bytes:
        received: str | bytes = self._client.recv()
        return received

    def ping(self, payload: bytes) -> None:
        self._client.ping(payload)
        opcode, frame = self._client.recv_data_frame(control_frame=True)
        assert (opcode, frame.data) == (websocket.ABNF.OPCODE_PONG, payload)

    def idle(self, seconds: float) -> None:
        self._client.settimeout(seconds)
        with pytest.raises(websocket.WebSocketTimeoutException):
            self._client.recv()
        self._client.settimeout(SECONDS)

    def close(self) -> int:
        if self._code is None:
            self._client.send_close(websocket.STATUS_NORMAL)
            opcode, payload = self._client.recv_data(control_frame=True)
            while opcode == websocket.ABNF.OPCODE_PING:
                opcode, payload = self._client.recv_data(control_frame=True)
            assert opcode == websocket.ABNF.OPCODE_CLOSE
            self._code = int.from_bytes(payload[:2])
            with pytest.raises(websocket.WebSocketConnectionClosedException):
                self._client.recv()
            self._client.shutdown()
        return self._code


class Asynchronous:
    """A client that lives in an event loop, which runs only while it is asked something."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(asyncio.wait_for(coroutine, SECONDS))

    def idle(self, seconds: float) -> None:
        self._run(asyncio.sleep(seconds))


class AsyncioWebsockets(Asynchronous):
    """The asyncio client of `websockets`."""

    def __init__(self, url: str, subprotocol: str = '') -> None:
        super().__init__()
        offered: Any = [subprotocol] if subprotocol else None

        async def connected() -> websockets.asyncio.client.ClientConnection:
            return await websockets.asyncio.client.connect(url, subprotocols=offered)

        self._client = self._run(connected())
        assert self._client.response is not None
        self.subprotocol = self._client.subprotocol or ''
        self.extensions = self._client.response.headers.get('Sec-WebSocket-Extensions', '')

    def send(self, payload: bytes, *, binary: bool) -> None:
        self._run(self._client.send(payload, text=not binary))

    def receive(self) -> str | bytes:
        return self._run(self._client.recv())

    def ping(self, payload: bytes) -> None:
        async def answered() -> None:
            await (await self._client.ping(payload))

        self._run(answered())

    def close(self) -> int:
        closed = self._client.protocol.close_rcvd
        if closed is None:
            self._run(self._client.close())
            self._runner.close()
            closed = self._client.protocol.close_rcvd
            assert closed is not None
        return int(closed.code)


class AutobahnProtocol(WebSocketClientProtocol):
    """What happens on a connection of autobahn, for whoever waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.response: asyncio.Future[Any] = asyncio.Future()
        self.opened = asyncio.Event()
        self.messages: asyncio.Queue[str | bytes] = asyncio.Queue()
        self.pongs: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed: asyncio.Future[tuple[bool, int]] = asyncio.Future()

    def onConnect(self, response: Any) -> None:
        self.response.set_result(response)

    def onOpen(self) -> None:
        self.opened.set()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803
        self.messages.put_nowait(payload if isBinary else payload.decode())

    def onPong(self, payload: bytes) -> None:
        self.pongs.put_nowait(payload)

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:  # noqa: N803
        self.closed.set_result((wasClean, code))


class Autobahn(Asynchronous):
    """The asyncio client of `autobahn`, which sends in fragments of 16 KiB."""

    def __init__(self, url: str, subprotocol: str = '') -> None:
        super().__init__()
        self._client, response = self._run(self._connect(url, subprotocol))
        self.subprotocol = response.protocol or ''
        self.extensions = str(response.headers.get('sec-websocket-extensions', ''))
        if self.extensions:
            assert self._client.websocket_extensions_in_use

    async def _connect(self, url: str, subprotocol: str) -> tuple[AutobahnProtocol, Any]:
        loop = asyncio.get_running_loop()
        offered = [subprotocol] if subprotocol else None
        factory = WebSocketClientFactory(url, protocols=offered, loop=loop)
        factory.protocol = AutobahnProtocol
        factory.setProtocolOptions(
            autoFragmentSize=16 * 1024,
            openHandshakeTimeout=SECONDS,
            closeHandshakeTimeout=SECONDS,
            serverConnectionDropTimeout=SECONDS,
            perMessageCompressionOffers=[PerMessageDeflateOffer()],
            perMessageCompressionAccept=_accept_deflate,
        )
        address = urlsplit(url)
        _, client = await loop.create_connection(factory, address.hostname, address.port)
        await client.opened.wait()
        return client, await client.response

    def send(self, payload: bytes, *, binary: bool) -> None:
        async def sent() -> None:
            self._client.sendMessage(payload, isBinary=binary)

        self._run(sent())

    def receive(self) -> str | bytes:
        return self._run(self._client.messages.get())

    def ping(self, payload: bytes) -> None:
        async def answered() -> bytes:
            self._client.sendPing(payload)
            return await self._client.pongs.get()

        assert self._run(answered()) == payload

    def close(self) -> int:
        async def closed() -> tuple[bool, int]:
            self._client.sendClose(1000)
            return await self._client.closed

        if not self._client.closed.done():
            self._run(closed())
            self._runner.close()
        clean, code = self._client.closed.result()
        assert clean
        return code


def _accept_deflate(response: Any) -> Any:
    assert isinstance(response, PerMessageDeflateResponse)
    return PerMessageDeflateResponseAccept(response)


PEERS: dict[str, type[PythonPeer]] = {
    'websockets': Websockets,
    'websockets-asyncio': AsyncioWebsockets,
    'websocket-client': WebSocketClient,
    'autobahn': Autobahn,
}


class Service(NamedTuple):
    """How a server is set up: what reads its frames, and whether they may be compressed."""

    engine: str
    compression: bool

    def __str__(self) -> str:
        return f'{self.engine}-deflate' if self.compression else self.engine

    @property
    def compresses(self) -> bool:
        return self.compression and self.engine == 'websockets'

    def config(self, *more: str) -> str:
        options = (f'websocket_engine = {self.engine}', f'compression = {self.compression}', *more)
        return '\n'.join(('[drivers:transport:gevent]', *options))


SERVICES = [Service('websockets', False), Service('websockets', True), Service('ws4py', True)]


@pytest.fixture(scope='module', params=SERVICES, ids=str)
def service(request: pytest.FixtureRequest) -> Service:
    chosen: Service = request.param
    return chosen


@pytest.fixture(scope='module')
def server(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp('server'), config=service.config()) as process:
        yield process


@pytest.fixture(params=PEERS)
def kind(request: pytest.FixtureRequest) -> type[PythonPeer]:
    return PEERS[request.param]


@pytest.fixture(params=['', 'zaqar.v2'], ids=['default', 'zaqar.v2'])
def subprotocol(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def peer(kind: type[PythonPeer], server: ServerProcess, subprotocol: str) -> Iterator[PythonPeer]:
    peer = kind(server.websocket_url, subprotocol)
    yield peer
    peer.close()


class Conversation:
    """Requests of a peer in the envelope that was agreed to, all in one encoding."""

    def __init__(self, peer: Peer, *, binary: bool) -> None:
        self._peer = peer
        self._binary = binary
        self._headers = new_identity().headers()
        self._ids = itertools.count()

    def ask(self, action: str, **body: Any) -> Answer:
        request = {'action': action, 'headers': self._headers, 'body': body}
        if self._peer.subprotocol:
            request['id'] = next(self._ids)
        self._peer.send(self._encode(request), binary=self._binary)
        answer = self._decode(self._peer.receive())
        if self._peer.subprotocol:
            assert answer['id'] == request['id']
            return Answer(answer['status'], answer['body'])
        return Answer(answer['headers']['status'], answer['body'])

    def _encode(self, document: Any) -> bytes:
        if self._binary:
            encoded: bytes = msgpack.packb(document)
            return encoded
        return json.dumps(document, ensure_ascii=False).encode()

    def _decode(self, payload: str | bytes) -> Any:
        assert isinstance(payload, bytes) == self._binary
        return msgpack.unpackb(payload) if isinstance(payload, bytes) else json.loads(payload)


def post_list_claim_and_delete(conversation: Conversation) -> None:
    body = {'sku': 42, 'name': 'Größe ½ 🛒'}
    ask = conversation.ask
    posted = ask('message_post', queue_name='orders', messages=[{'body': body, 'ttl': 300}])
    assert posted.status == 201
    [listed] = ask('message_list', queue_name='orders', echo=True).body['messages']
    assert (listed['id'], listed['body']) == (posted.body['message_ids'][0], body)
    claim = ask('claim_create', queue_name='orders', ttl=300, grace=60).body
    assert [message['body'] for message in claim['messages']] == [body]
    taken = {'message_id': listed['id'], 'claim_id': claim['claim_id']}
    assert ask('message_delete', queue_name='orders', **taken).status == 204
    left = ask('queue_get_stats', queue_name='orders').body['messages']
    assert left == {'claimed': 0, 'free': 0, 'total': 0}


def send_and_receive_a_large_message(conversation: Conversation) -> None:
    body = secrets.token_hex(LARGE // 2)
    messages = [{'body': body, 'ttl': 300}]
    assert conversation.ask('message_post', queue_name='large', messages=messages).status == 201
    [listed] = conversation.ask('message_list', queue_name='large', echo=True).body['messages']
    assert listed['body'] == body


def assert_mute_client_is_ended(server: ServerProcess) -> None:
    """Whoever says nothing is sent a ping, and closed with 1008 when it does not answer that."""
    mute = websocket.create_connection(server.websocket_url, timeout=SECONDS)
    assert mute.recv_frame().opcode == websocket.ABNF.OPCODE_PING
    assert mute.recv_frame().data[:2] == (1008).to_bytes(2)
    mute.shutdown()


@pytest.fixture(params=[False, True], ids=['json', 'msgpack'])
def conversation(request: pytest.FixtureRequest, peer: Peer) -> Conversation:
    return Conversation(peer, binary=request.param)


def test_the_subprotocol_asked_for_is_agreed_to(peer: Peer, subprotocol: str) -> None:
    assert peer.subprotocol == subprotocol


def test_a_peer_posts_lists_claims_and_deletes_a_message(conversation: Conversation) -> None:
    post_list_claim_and_delete(conversation)


def test_a_large_message_goes_each_way(conversation: Conversation) -> None:
    send_and_receive_a_large_message(conversation)


def test_a_ping_frame_is_answered(peer: PythonPeer) -> None:
    peer.ping(b'are you there?')
    assert Conversation(peer, binary=False).ask('ping_node').status == 204


def test_a_close_is_answered_with_its_own_code(peer: Peer) -> None:
    assert peer.close() == 1000


def test_compression_is_agreed_to_where_the_server_and_the_peer_have_it(
    service: Service, kind: type[PythonPeer], peer: PythonPeer
) -> None:
    if service.compresses and kind is not WebSocketClient:
        assert peer.extensions.startswith('permessage-deflate')
    else:
        assert peer.extensions == ''


@pytest.mark.parametrize('engine', ['websockets', 'ws4py'])
def test_whoever_answers_pings_is_kept_and_whoever_does_not_is_not(
    engine: str, tmp_path: pathlib.Path
) -> None:
    pings = ('ping_interval = 0.5', 'ping_timeout = 3.0')
    with ServerProcess(tmp_path, config=Service(engine, True).config(*pings)) as server:
        over = threading.Event()

        def stay(kind: type[PythonPeer]) -> int:
            peer = kind(server.websocket_url)
            while not over.is_set():
                peer.idle(0.5)
            assert Conversation(peer, binary=False).ask('ping_node').status == 204
            return peer.close()

        with ThreadPoolExecutor(len(PEERS)) as pool:
            codes = pool.map(stay, PEERS.values())
            try:
                assert_mute_client_is_ended(server)
            finally:
                over.set()
            assert list(codes) == [1000] * len(PEERS)


@pytest.fixture(scope='module')
def identity_service() -> Iterator[IdentityService]:
    with IdentityService() as service:
        yield service


@pytest.fixture(scope='module', params=['websockets', 'ws4py'])
def guarded(
    request: pytest.FixtureRequest,
    identity_service: IdentityService,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    """A server that wants tokens: python-zaqarclient's WebSocket transport always presents one."""
    state = tmp_path_factory.mktemp('guarded')
    config = configuration(identity_service, state / 'policy.yaml')
    (state / 'policy.yaml').write_text('')
    engine = Service(request.param, False).config()
    with ServerProcess(state, config=f'{config}\n{engine}') as process:
        yield process


@pytest.fixture
def credentials(identity_service: IdentityService) -> dict[str, Any]:
    """What python-zaqarclient is told of a project of its own and its token."""
    project_id = new_identity().project_id
    token = identity_service.issue(project_id)
    options = {'os_auth_token': token, 'os_project_id': project_id}
    return {'auth_opts': {'backend': 'keystone', 'options': options}}


class ZaqarTransport:
    """python-zaqarclient's WebSocket transport, as its documentation uses it.

    Its `Client` leaves out the names of queues and messages over this transport.
    """

    def __init__(self, url: str, credentials: dict[str, Any]) -> None:
        self._url = url
        self._transport = zaqar_transport.get_transport_for(url, options=credentials)

    def __enter__(self) -> ZaqarTransport:
        self._transport.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._transport.__exit__(*exc_info)

    def ask(self, operation: str, **body: Any) -> Any:
        request = Request(self._url, operation, content=json.dumps(body))
        return self._transport.send(request).deserialized_content


@pytest.fixture
def zaqar_ws(guarded: ServerProcess, credentials: dict[str, Any]) -> Iterator[ZaqarTransport]:
    with ZaqarTransport(guarded.websocket_url, credentials) as transport:
        yield transport


def test_zaqarclient_posts_lists_claims_and_deletes_over_websocket(
    zaqar_ws: ZaqarTransport,
) -> None:
    ask = zaqar_ws.ask
    ask('queue_create', queue_name='orders')
    [message_id] = ask('message_post', queue_name='orders', messages=[{'body': {'sku': 42}}])[
        'message_ids'
    ]
    [listed] = ask('message_list', queue_name='orders', echo=True)['messages']
    assert (listed['id'], listed['body']) == (message_id, {'sku': 42})
    claim = ask('claim_create', queue_name='orders', ttl=300, grace=60)
    assert [message['id'] for message in claim['messages']] == [message_id]
    taken = {'message_id': message_id, 'claim_id': claim['claim_id']}
    ask('message_delete', queue_name='orders', **taken)
    assert ask('queue_get_stats', queue_name='orders')['messages']['total'] == 0


def test_zaqarclient_carries_large_messages_over_websocket(zaqar_ws: ZaqarTransport) -> None:
    messages = [{'body': secrets.token_hex(LARGE // 2)}]
    zaqar_ws.ask('message_post', queue_name='large', messages=messages)
    [listed] = zaqar_ws.ask('message_list', queue_name='large', echo=True)['messages']
    assert listed['body'] == messages[0]['body']


def test_zaqarclient_lists_queues_over_websocket(
    guarded: ServerProcess, credentials: dict[str, Any], zaqar_ws: ZaqarTransport
) -> None:
    """All that its `Client` can do over this transport, for it is all that takes no parameters."""
    zaqar_ws.ask('queue_create', queue_name='orders')
    client = zaqar_client.Client(guarded.websocket_url, version=2, conf=credentials)
    queues, _ = client.queues()
    assert [queue.name for queue in queues] == ['orders']


def test_zaqarclient_understands_errors_over_websocket(zaqar_ws: ZaqarTransport) -> None:
    with pytest.raises(zaqar_errors.ResourceNotFound, match='nothing'):
        zaqar_ws.ask('message_get', queue_name='orders', message_id='nothing')
    with pytest.raises(zaqar_errors.MalformedRequest, match='queue_name'):
        zaqar_ws.ask('queue_get')
    assert zaqar_ws.ask('queue_list')['queues'] == []


def test_zaqarclient_understands_that_its_token_is_refused(
    guarded: ServerProcess, credentials: dict[str, Any]
) -> None:
    credentials['auth_opts']['options']['os_auth_token'] = 'expired'
    with (
        ZaqarTransport(guarded.websocket_url, credentials) as transport,
        pytest.raises(zaqar_errors.UnauthorizedError, match='Authentication failed'),
    ):
        transport.ask('queue_list')


def test_zaqarclient_closes_with_1000(guarded: ServerProcess, credentials: dict[str, Any]) -> None:
    wait_until_all_are_gone(guarded)
    before = normal_closes(guarded)
    with ZaqarTransport(guarded.websocket_url, credentials) as transport:
        transport.ask('queue_list')
        assert normal_closes(guarded) == before
    wait_until_all_are_gone(guarded)
    assert normal_closes(guarded) == before + 1


def normal_closes(server: ServerProcess) -> float:
    """How many WebSocket connections the server has seen closed with 1000."""
    return value_in(metrics_of(server), 'websocket_closes_total', code=1000)


def wait_until_all_are_gone(server: ServerProcess) -> None:
    """A client that has closed is gone before the server has noticed."""
    deadline = time.monotonic() + SECONDS
    while any(
        value
        for (name, _), value in metrics_of(server).items()
        if name == 'zaqar_websocket_connections'
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def metrics_of(server: ServerProcess) -> Mapping[Any, float]:
    return read(requests.get(f'{server.url}/metrics', timeout=SECONDS).text)


@pytest.fixture
def zaqar_http(guarded: ServerProcess, credentials: dict[str, Any]) -> Any:
    return zaqar_client.Client(guarded.url, version=2, conf=credentials)


def test_zaqarclient_posts_lists_claims_and_deletes_over_http(zaqar_http: Any) -> None:
    queue = zaqar_http.queue('orders', force_create=True)
    assert [queue.name for queue in zaqar_http.queues()[0]] == ['orders']
    queue.post({'body': {'sku': 42}, 'ttl': 300})
    [listed] = queue.messages(echo=True)
    assert (listed.body, listed.ttl) == ({'sku': 42}, 300)
    claim = queue.claim(ttl=300, grace=60)
    [claimed] = claim
    assert (claimed.id, claimed.claim_id) == (listed.id, claim.id)
    claimed.delete()
    assert queue.stats['messages']['total'] == 0
    queue.delete()
    assert list(zaqar_http.queues()[0]) == []


def test_zaqarclient_carries_large_messages_over_http(zaqar_http: Any) -> None:
    body = secrets.token_hex(LARGE // 2)
    queue = zaqar_http.queue('large')
    queue.post({'body': body, 'ttl': 300})
    assert [message.body for message in queue.messages(echo=True)] == [body]


def test_zaqarclient_renews_and_gives_back_claims_over_http(zaqar_http: Any) -> None:
    queue = zaqar_http.queue('orders')
    queue.post([{'body': number, 'ttl': 300} for number in range(3)])
    claim = queue.claim(ttl=100, grace=60, limit=2)
    claim.update(ttl=200, grace=60)
    again = queue.claim(id=claim.id)
    assert [message.body for message in again] == [0, 1]
    assert again.ttl == 200
    claim.delete()
    assert queue.stats['messages']['free'] == 3
    assert list(zaqar_http.queue('empty').claim(ttl=100, grace=60)) == []


def test_zaqarclient_pops_deletes_and_purges_over_http(zaqar_http: Any) -> None:
    queue = zaqar_http.queue('orders')
    queue.post([{'body': number, 'ttl': 300} for number in range(6)])
    assert [message.body for message in queue.pop(count=2)] == [0, 1]
    some = list(queue.messages(echo=True, limit=2))
    queue.delete_messages(*(message.id for message in some))
    assert [message.body for message in queue.messages(echo=True)] == [4, 5]
    queue.purge(resource_types=['messages'])
    assert queue.stats['messages']['total'] == 0


def test_zaqarclient_shares_a_queue_over_http(zaqar_http: Any) -> None:
    shared = zaqar_http.queue('orders').signed_url(paths=['messages'], methods=['GET'])
    assert shared['methods'] == ['GET']
    assert shared['paths'] == ['/v2/queues/orders/messages']


def test_zaqarclient_renews_and_gives_back_claims_over_websocket(zaqar_ws: ZaqarTransport) -> None:
    ask = zaqar_ws.ask
    messages = [{'body': number, 'ttl': 300} for number in range(3)]
    ask('message_post', queue_name='orders', messages=messages)
    claim = {
        'queue_name': 'orders',
        'claim_id': ask('claim_create', queue_name='orders', ttl=100, grace=60)['claim_id'],
    }
    ask('claim_update', **claim, ttl=200, grace=60)
    found = ask('claim_get', **claim)
    assert (found['ttl'], len(found['messages'])) == (200, 3)
    ask('claim_delete', **claim)
    assert ask('queue_get_stats', queue_name='orders')['messages']['free'] == 3
    [first, *_] = ask('message_list', queue_name='orders', echo=True)['messages']
    ask('message_delete_many', queue_name='orders', message_ids=[first['id']])
    ask('queue_purge', queue_name='orders', resource_types=['messages'])
    assert ask('queue_get_stats', queue_name='orders')['messages']['total'] == 0


def test_zaqarclient_follows_the_links_of_pages_over_http(zaqar_http: Any) -> None:
    queue = zaqar_http.queue('many')
    queue.post([{'body': number, 'ttl': 300} for number in range(20)])
    followed = queue.messages(echo=True, limit=7).stream()
    assert [message.body for message in followed] == list(range(20))


def test_zaqarclient_keeps_metadata_and_subscriptions_over_http(zaqar_http: Any) -> None:
    queue = zaqar_http.queue('orders', force_create=True)
    assert queue.metadata({'team': 'red'})['team'] == 'red'
    assert queue.metadata(force_reload=True)['team'] == 'red'
    mine = zaqar_http.subscription('orders', subscriber='http://example.org/told', ttl=300)
    [listed] = queue.subscriptions()
    assert (listed.id, listed.subscriber) == (mine.id, 'http://example.org/told')
    mine.delete()
    assert list(queue.subscriptions()) == []


def test_zaqarclient_understands_errors_over_http(zaqar_http: Any) -> None:
    assert zaqar_http.ping()
    with pytest.raises(zaqar_errors.ResourceNotFound, match='nothing'):
        zaqar_http.queue('orders').message('nothing')
