"""Every argument of every operation with hostile values: refused as the client's fault, or done.

Nothing that a client sends is answered with 5xx, logged as an error or ends the connection, on the
embedded store and on Redis, with and without pools.
"""

from __future__ import annotations

import http.client
import itertools
import json
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple, Protocol

import msgpack
import pytest
import websocket

from tests.callers import TRANSPORTS, Identity, RestCaller, new_identity
from tests.faults.operations import (
    ARGUMENTS,
    OPERATIONS,
    TEXTS,
    Hostile,
    members_of,
    requests_for,
)
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import ServerProcess

SHOWN = 40
STORES = ('sqlite', 'redis')
POOLED = ('pool_', 'flavor_')

LOGGING = '[DEFAULT]\nadmin_mode = True\n'
POOLS = 'pooling = True\n[pooling:catalog]\nenable_virtual_pool = True\n'
# Nobody is told: who fails to be is another matter.
REST_OF_IT = '[signed_url]\nsecret_key = key\n[storage]\nmessage_pipeline =\n'


class Unencodable(Exception):
    """A transport has no way to say it."""


class Caller(Protocol):
    """Sends requests over one transport."""

    def status(self, hostile: Hostile) -> int:
        """The status of the answer; raises `OSError` for a lost connection."""
        ...

    def close(self) -> None: ...


class Rest:
    """Over HTTP, as the routes say."""

    def __init__(self, port: int, identity: Identity) -> None:
        self._connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
        self._headers = identity.headers()

    def status(self, hostile: Hostile) -> int:
        operation, arguments = hostile.operation, dict(hostile.arguments)
        route = operation.route
        if not route.methods:
            raise Unencodable
        path = route.path
        for part in route.path.split('/'):
            if part.startswith('{'):
                text = _text(arguments.pop(part[1:-1], ''))
                path = path.replace(part, _quoted(text))
        query = [
            (parameter, arguments.pop(operation.member(parameter)))
            for parameter in route.query
            if operation.member(parameter) in arguments
        ]
        if operation.filters:
            filters = arguments.pop(operation.filters, None)
            if isinstance(filters, dict):
                query += filters.items()
        if operation.payload:
            arguments = arguments.get(operation.payload)
        target = path
        if query:
            target += '?' + '&'.join(f'{_quoted(name)}={_quoted(_text(v))}' for name, v in query)
        body = json.dumps(arguments).encode() if arguments else b''
        media_type = (operation.media_types or ('application/json',))[0]
        self._connection.request(
            route.methods[0], target, body, {**self._headers, 'Content-Type': media_type}
        )
        response = self._connection.getresponse()
        response.read()
        return response.status

    def close(self) -> None:
        self._connection.close()


class WebSocket:
    """Over a WebSocket, in one of the envelopes and encodings."""

    def __init__(self, port: int, identity: Identity, *, compact: bool, binary: bool) -> None:
        self._headers = identity.headers()
        self._compact = compact
        self._binary = binary
        self._ids = itertools.count(1)
        self._socket = websocket.create_connection(
            f'ws://127.0.0.1:{port}/', timeout=60, subprotocols=['zaqar.v2'] if compact else []
        )

    def status(self, hostile: Hostile) -> int:
        return self.ask(hostile.operation.name, hostile.arguments, self._headers)

    def ask(self, action: str, body: dict[str, Any], headers: dict[str, str]) -> int:
        """The status of the answer to any request."""
        ident = next(self._ids)
        request = {'action': action, 'headers': headers, 'body': body}
        request |= {'id': ident} if self._compact else {}
        opcode = websocket.ABNF.OPCODE_BINARY if self._binary else websocket.ABNF.OPCODE_TEXT
        self._socket.send(self._encode(request), opcode)
        while True:
            answer = self._decode(self._socket.recv())
            # What is pushed meanwhile is no answer.
            if self._compact and 'status' in answer:
                assert answer['id'] in (ident, None)
                return int(answer['status'])
            if not self._compact and 'request' in answer:
                return int(answer['headers']['status'])

    def _encode(self, request: dict[str, Any]) -> bytes:
        if not self._binary:
            return json.dumps(request).encode()
        try:
            packed: bytes = msgpack.packb(request, unicode_errors='surrogatepass')
        except OverflowError:
            raise Unencodable from None
        return packed

    def _decode(self, received: str | bytes) -> dict[str, Any]:
        document: dict[str, Any] = (
            msgpack.unpackb(received) if isinstance(received, bytes) else json.loads(received)
        )
        return document

    def close(self) -> None:
        self._socket.close()


def connect(transport: str, port: int, identity: Identity) -> Caller:
    if transport == 'rest':
        return Rest(port, identity)
    return WebSocket(
        port, identity, compact=transport.startswith('v2'), binary=transport.endswith('msgpack')
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ','.join(map(_text, value))
    return json.dumps(value)


def _quoted(text: str) -> str:
    return urllib.parse.quote(text.encode(errors='surrogatepass'), safe='')


class Servers(NamedTuple):
    """One as it is and one with pools, on the same kind of store."""

    plain: ServerProcess
    pooled: ServerProcess
    pool_uri: str

    def serving(self, name: str) -> ServerProcess:
        return self.pooled if name.startswith(POOLED) else self.plain


@pytest.fixture(scope='module', params=STORES)
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    path = tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        on_store, pool_uri = '', f'sqlite:///{path}/pool.sqlite'
        if request.param == 'redis':
            redis = stack.enter_context(RedisProcess(path))
            on_store = ON_REDIS.format(redis=redis.patient_uri)
            pool_uri = f'{redis.patient_uri}&dbid=3'
        plain = ServerProcess(path / 'plain', config=f'{LOGGING}{on_store}{REST_OF_IT}')
        pooled = ServerProcess(path / 'pooled', config=f'{LOGGING}{POOLS}{on_store}{REST_OF_IT}')
        yield Servers(stack.enter_context(plain), stack.enter_context(pooled), pool_uri)


def known_to(server: ServerProcess, identity: Identity, pool_uri: str) -> dict[str, Any]:
    """Arguments that mean something: of what is made here."""
    caller = RestCaller(server.url, identity=identity)
    known: dict[str, Any] = {'uri': pool_uri}
    try:
        if caller.call('pool_create', pool_name='east', uri=pool_uri, weight=1).status == 201:
            caller.call('flavor_create', flavor_name='fast', pool_list=['east'])
            return known
        posted = caller.call(
            'message_post',
            queue_name='orders',
            messages=[{'body': n, 'ttl': 300} for n in range(9)],
        )
        caller.call('topic_message_post', topic_name='prices', messages=[{'body': 1}])
        let_nobody_wait(server, identity.project_id)
        claimed = caller.call('claim_create', queue_name='orders', ttl=300, grace=300, limit=1)
        subscribed = caller.call(
            'subscription_create', queue_name='orders', subscriber='http://127.0.0.1:1/', ttl=300
        )
        known['message_id'] = posted.body['message_ids'][0]
        known['message_ids'] = [posted.body['message_ids'][1]]
        known['claim_id'] = claimed.body['claim_id']
        known['subscription_id'] = subscribed.body['subscription_id']
    finally:
        caller.close()
    return known


def let_nobody_wait(server: ServerProcess, project_id: str) -> None:
    """Post as another client, so that lists find something whatever they are told to leave out."""
    other = RestCaller(server.url, identity=Identity(project_id))
    other.call('message_post', queue_name='orders', messages=[{'body': 'theirs'}])
    other.call('topic_message_post', topic_name='prices', messages=[{'body': 'theirs'}])
    other.close()


def failures_of(
    server: ServerProcess, transport: str, identity: Identity, requests: Iterable[Hostile]
) -> list[str]:
    """The requests that are not answered as they should be, and the errors logged meanwhile."""
    found = []
    logged = len(server.output)
    caller = connect(transport, server.port, identity)
    for hostile in requests:
        try:
            status = caller.status(hostile)
        except Unencodable:
            continue
        except (OSError, http.client.HTTPException, websocket.WebSocketException) as error:
            found.append(f'{transport} {hostile}: {error!r}')
            caller.close()
            caller = connect(transport, server.port, identity)
            continue
        if not 200 <= status < 500:
            found.append(f'{transport} {hostile}: {status}')
    caller.close()
    # The first line of each; its traceback repeats the prefix.
    errors = [line for line in server.output[logged:] if ' ERROR ' in line and ' [' in line]
    return found + errors


def try_all(servers: Servers, name: str, choose: Callable[[str, Hostile], bool]) -> None:
    """Send all requests of an operation, over each transport those that are chosen for it."""
    server = servers.serving(name)
    failures: list[str] = []
    for transport in TRANSPORTS:
        identity = new_identity()
        known = known_to(server, identity, servers.pool_uri)
        chosen = (one for one in requests_for(OPERATIONS[name], known) if choose(transport, one))
        failures += failures_of(server, transport, identity, chosen)
    assert not failures, f'{len(failures)}:\n' + '\n'.join(failures[:SHOWN])


def one_in_turn(transport: str, hostile: Hostile) -> bool:
    """Whether it is the transport's turn."""
    return zlib.crc32(str(hostile).encode()) % len(TRANSPORTS) == TRANSPORTS.index(transport)


def test_there_is_a_good_value_for_every_argument() -> None:
    members = {name for operation in OPERATIONS.values() for name in members_of(operation)}
    assert set(ARGUMENTS) == members


@pytest.mark.parametrize('name', OPERATIONS)
def test_no_value_of_any_argument_is_the_servers_fault(servers: Servers, name: str) -> None:
    try_all(servers, name, one_in_turn)


HEADERS = (
    *('X-Project-ID', 'X-Tenant-ID', 'X-User-ID', 'X-Roles', 'X-Auth-Token', 'Request-ID'),
    *('URL-Signature', 'URL-Expires', 'URL-Methods', 'URL-Paths', 'OpenStack-API-Version'),
)


@pytest.mark.parametrize('transport', [name for name in TRANSPORTS if name != 'rest'])
def test_no_value_of_any_header_is_the_servers_fault(servers: Servers, transport: str) -> None:
    server, logged = servers.plain, len(servers.plain.output)
    identity = new_identity()
    caller = connect(transport, server.port, identity)
    assert isinstance(caller, WebSocket)
    statuses = {}
    for name, value in itertools.product(HEADERS, TEXTS):
        for action in ('queue_create', 'queue_list'):
            body = {'queue_name': 'orders'}
            headers = {**identity.headers(), name: value}
            statuses[name, value, action] = caller.ask(action, body, headers)
    caller.close()
    assert {key: status for key, status in statuses.items() if not 200 <= status < 500} == {}
    assert [line for line in server.output[logged:] if ' ERROR ' in line] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize('name', OPERATIONS)
def test_nor_is_it_over_any_transport(servers: Servers, name: str) -> None:
    try_all(servers, name, lambda transport, hostile: True)
