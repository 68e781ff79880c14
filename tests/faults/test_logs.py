"""What may be in no log, however a client behaves: its messages and its tokens."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import sqlite3
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import pytest
import requests

from tests.callers import TRANSPORTS, Identity, connect, new_identity
from tests.faults.client import DIALECTS, UPGRADE, Client, Dialect, HandshakeRefused, read_to_end
from tests.faults.frames import Opcode, closing, frame
from tests.faults.gunicorn_process import GunicornProcess
from tests.functional.test_authentication import IdentityService, configuration
from tests.functional.test_push import Subscriber, post
from tests.internal_urls import in_sqlite
from tests.server_process import ServerProcess

# Told apart from everything else in a log, and long enough to be recognized in pieces.
BODY = 'a-message-body-that-must-not-be-logged'
TOKEN = 'a-token-that-must-not-be-logged'
HEADERS = {'X-Auth-Token': TOKEN, 'X-Service-Token': TOKEN}
SIGNED = {
    'URL-Signature': TOKEN,
    'URL-Expires': '2999-01-01T00:00:00',
    'URL-Methods': 'GET',
    'URL-Paths': '/v2/queues/q/messages',
}


class Watched(NamedTuple):
    """A server and its logs: of what it does, at INFO and above of every module, and of access."""

    process: ServerProcess
    access_log: pathlib.Path
    identity_service: IdentityService | None

    def logs(self, line: int = 0, character: int = 0) -> str:
        """What is in them, from that line and character on."""
        return '\n'.join([*self.process.output[line:], self.access_log.read_text()[character:]])

    @property
    def tokens(self) -> list[str]:
        """The valid ones that were issued."""
        issued = self.identity_service.tokens if self.identity_service else {}
        return [name for name in issued if name != 'service']

    def headers(self, identity: Identity) -> dict[str, str]:
        """What lets a request in, where something has to."""
        if self.identity_service is None:
            return {**identity.headers(), **HEADERS}
        token = self.identity_service.issue(identity.project_id, name=TOKEN)
        return {**identity.headers(), 'X-Auth-Token': token}


def everything(access_log: pathlib.Path) -> str:
    """Options that have every module log at INFO."""
    return f"""
[DEFAULT]
use_stderr = True
default_log_levels = root=INFO
[drivers:transport:gevent]
access_log = {access_log}
header_timeout = 0.3
body_timeout = 0.3
keepalive_timeout = 0.3
"""


@pytest.fixture(scope='module')
def identity_service() -> Iterator[IdentityService]:
    with IdentityService() as service:
        yield service


@pytest.fixture(scope='module', params=['own', 'worker', 'guarded'])
def watched(
    request: pytest.FixtureRequest,
    identity_service: IdentityService,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watched]:
    state = tmp_path_factory.mktemp('watched')
    access_log = state / 'access.log'
    config = everything(access_log)
    service = None
    if request.param == 'guarded':
        policy = state / 'policy.yaml'
        policy.write_text('{}')
        config = configuration(identity_service, policy) + config
        service = identity_service
    make: Callable[..., ServerProcess]
    make = GunicornProcess if request.param == 'worker' else ServerProcess
    with make(state, config=config) as process:
        watched = Watched(process, access_log, service)
        yield watched
    assert_nothing_in(watched.logs(), watched.tokens)


@pytest.fixture(autouse=True)
def nothing_gets_out(watched: Watched) -> Iterator[None]:
    before = len(watched.process.output), len(watched.access_log.read_text())
    yield
    assert_nothing_in(watched.logs(*before), watched.tokens)


def assert_nothing_in(logs: str, tokens: Iterable[str]) -> None:
    """Neither bodies nor tokens, nor pieces of them."""
    for secret in (BODY, TOKEN, *tokens):
        for piece in (secret[at : at + 12] for at in range(0, len(secret) - 11, 6)):
            lines = [line for line in logs.splitlines() if piece in line]
            assert not lines, lines[:3]


def test_the_logs_are_watched(watched: Watched) -> None:
    """What is asserted of them would otherwise be true of no logs at all."""
    requests.get(f'{watched.process.url}/v2/nowhere', timeout=60)
    talk(watched, b'NONSENSE\r\n\r\n')
    deadline = time.monotonic() + 5
    while ' INFO zaqar_gevent' not in watched.logs():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert '/v2/nowhere' in watched.access_log.read_text()


def talk(watched: Watched, data: bytes, *, hang_up: bool = True) -> bytes:
    """Send bytes and read to the end of the connection."""
    with socket.create_connection(('127.0.0.1', watched.process.port), timeout=60) as connection:
        try:
            connection.sendall(data)
            if hang_up:
                connection.shutdown(socket.SHUT_WR)
            return read_to_end(connection)
        except OSError:
            return b''


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_in_good_and_bad_requests(watched: Watched, transport: str) -> None:
    identity = new_identity()
    url = f'ws://127.0.0.1:{watched.process.port}/'
    caller = connect(transport, watched.process.url, url, identity=identity)
    headers = watched.headers(identity)
    if transport != 'rest' and watched.identity_service is not None:
        caller.call('authenticate', headers=headers)
    good = {'body': {BODY: [BODY]}, 'ttl': 300}
    for messages in (
        [good],
        [{**good, 'ttl': BODY}],
        [{**good, BODY: BODY}],
        [good, {'ttl': 60}],
        [BODY],
        BODY,
        [{**good, 'body': BODY * 7000}],
    ):
        caller.call('message_post', headers=headers, queue_name='q', messages=messages)
    listed = caller.call('message_list', headers=headers, queue_name='q', echo=True)
    assert {BODY: [BODY]} in [message['body'] for message in listed.body['messages']]
    caller.call('claim_create', headers=headers, queue_name='q')
    caller.call('queue_create', headers=headers, queue_name='q', metadata={'x': BODY})
    caller.call(
        'queue_create', headers=headers, queue_name='q', metadata={'_default_message_ttl': BODY}
    )
    for broken in ('X-Auth-Token', 'X-Service-Token'):
        caller.call('queue_list', headers={**identity.headers(), broken: TOKEN})
    caller.close()


@pytest.mark.parametrize('dialect', DIALECTS, ids=str)
def test_in_the_ways_to_authenticate(watched: Watched, dialect: Dialect) -> None:
    identity = new_identity()
    wrong = {**identity.headers(), **HEADERS}
    for headers in (watched.headers(identity), wrong, {**wrong, **SIGNED}):
        for action in ('authenticate', 'hello', 'queue_list', TOKEN):
            with Client(watched.process.port, dialect, identity=identity) as client:
                document = {'id': 1, 'action': action, 'headers': headers, 'body': {'token': TOKEN}}
                for changes in ({}, {'id': TOKEN}, {'body': BODY}, {'headers': TOKEN}):
                    client.send(client.frame({**document, **changes}))
                    client.answer()
        with (
            contextlib.suppress(HandshakeRefused),
            Client(watched.process.port, dialect, headers=headers) as client,
        ):
            client.ask('queue_list')
            client.close()


@pytest.mark.parametrize('dialect', DIALECTS, ids=str)
def test_in_what_is_pushed(watched: Watched, dialect: Dialect) -> None:
    """Nor the secret by which other servers reach a connection."""
    before = len(watched.process.output), len(watched.access_log.read_text())
    with Subscriber(watched.process.port, dialect) as client:
        headers = watched.headers(client.identity)
        client.send(client.frame({'id': 0, 'action': 'authenticate', 'headers': headers}))
        assert client.status() == (400 if watched.identity_service is None else 200)
        client.subscribe('q')
        url = in_sqlite(watched.process.state_path)()[client.subscription_id]
        post(client, BODY, {BODY: BODY}, queue_name='q')
        assert client.bodies(2) == [BODY, {BODY: BODY}]
        if dialect.subprotocol:
            assert client.call('queue_consume', queue_name='q', credit=5).status == 201
            leased = client.push()
            target = {'consumer_id': leased['consumer_id'], 'message_ids': [BODY]}
            assert client.call('message_ack', **target).status == 404
            client.call('subscription_resume', subscription_id=TOKEN, marker=TOKEN)
        for target_url, body in (
            (url, {'queue_name': 'q', 'body': BODY}),
            (url, BODY),
            (url[:-1], {'queue_name': 'q', 'body': BODY}),
            (url.replace('/push/', '/nowhere/'), {'queue_name': BODY}),
        ):
            requests.post(target_url, json=body, timeout=60)
        client.reset()
    assert_nothing_in(watched.logs(*before), [url.rpartition('-')[2]])


BROKEN_FRAMES = {
    'text-unmasked': frame(Opcode.TEXT, BODY.encode(), masked=False),
    'reserved-opcode': frame(3, BODY.encode()),
    'reserved-bits': frame(Opcode.TEXT, BODY.encode(), rsv=0x70),
    'long-ping': frame(Opcode.PING, (BODY * 5).encode()),
    'continuation-of-nothing': frame(Opcode.CONTINUATION, BODY.encode()),
    'no-utf8': frame(Opcode.TEXT, BODY.encode() + b'\xff'),
    'no-json': frame(Opcode.TEXT, BODY.encode()),
    'no-msgpack': frame(Opcode.BINARY, BODY.encode()),
    'cut-short': frame(Opcode.TEXT, BODY.encode())[:-5],
    'close-with-a-bad-code': closing(999, BODY.encode()),
    'close-with-a-reason': closing(4000, BODY.encode()),
    'too-many-fragments': frame(Opcode.TEXT, BODY.encode(), fin=False)
    + frame(Opcode.CONTINUATION, BODY.encode(), fin=False) * 2000,
    'bytes': BODY.encode(),
}


@pytest.mark.parametrize('data', BROKEN_FRAMES.values(), ids=BROKEN_FRAMES)
def test_in_broken_frames(watched: Watched, data: bytes) -> None:
    with Client(
        watched.process.port, headers=HEADERS if not watched.identity_service else {}
    ) as client:
        client.send(data)
        client.socket.shutdown(socket.SHUT_WR)
        read_to_end(client.socket)


def post_of(*lines: str, body: bytes = b'') -> bytes:
    head = ['POST /v2/queues/q/messages HTTP/1.1', 'Host: localhost']
    head += [f'{name}: {value}' for name, value in Identity().headers().items()]
    head += ['Content-Type: application/json', f'X-Auth-Token: {TOKEN}', *lines, '', '']
    return '\r\n'.join(head).encode() + body


BROKEN_REQUESTS = {
    'longer-than-announced': post_of('Content-Length: 5', body=BODY.encode() + b'\r\n\r\n'),
    'longer-than-announced-in-words': post_of(
        'Content-Length: 5', body=f'1234 {BODY} HTTP/9.9\r\n\r\n'.encode()
    ),
    'shorter-than-announced': post_of('Content-Length: 500', body=BODY.encode()),
    'length-of-words': post_of(f'Content-Length: {TOKEN}', body=BODY.encode()),
    'negative-length': post_of('Content-Length: -5', body=BODY.encode()),
    'broken-chunk': post_of('Transfer-Encoding: chunked', body=BODY.encode()),
    'chunk-longer-than-announced': post_of(
        'Transfer-Encoding: chunked', body=b'5\r\n' + BODY.encode()
    ),
    'another-transfer-encoding': post_of(f'Transfer-Encoding: {TOKEN}', body=BODY.encode()),
    'too-many-headers': post_of(*(f'X-{number}: {TOKEN}' for number in range(200))),
    'long-header': post_of(f'X-Auth-Token: {TOKEN * 3000}'),
    'no-header': post_of(TOKEN),
    'no-head': post_of().replace(b'\r\n\r\n', b'\r\n'),
    'no-request': BODY.encode() + b'\r\n\r\n',
    'no-version': f'POST /v2/queues {BODY}\r\n\r\n'.encode(),
    'token-for-a-version': f'GET /v2/queues {TOKEN}\r\n\r\n'.encode(),
    'nested': post_of('Content-Length: 100000', body=b'[' * 99_000 + (BODY * 30)[:1000].encode()),
    'not-utf8': post_of(f'Content-Length: {len(BODY) + 1}', body=BODY.encode() + b'\xff'),
    'upgrade-with-a-body': '\r\n'.join(
        [
            'GET / HTTP/1.1',
            *(f'{n}: {v}' for n, v in UPGRADE.items()),
            'Content-Length: 99',
            '',
            BODY,
        ]
    ).encode(),
    'upgrade-with-a-token': '\r\n'.join(
        ['GET / HTTP/1.1', f'X-Auth-Token: {TOKEN}', 'Upgrade: websocket', '', '']
    ).encode(),
    'tls': b'\x16\x03\x01' + struct.pack('>H', 500) + BODY.encode(),
}


@pytest.mark.parametrize('data', BROKEN_REQUESTS.values(), ids=BROKEN_REQUESTS)
@pytest.mark.parametrize('hang_up', [True, False], ids=['hanging-up', 'waiting'])
def test_in_broken_requests(watched: Watched, data: bytes, hang_up: bool) -> None:
    talk(watched, data, hang_up=hang_up)


def test_in_queries(watched: Watched) -> None:
    """Access is logged without the query, in which a token does not belong, but is found."""
    identity = new_identity()
    for path in ('/v2/queues', '/v2/queues/q/messages', '/v2/nowhere'):
        requests.get(
            f'{watched.process.url}{path}',
            params={'token': TOKEN, 'marker': TOKEN, 'limit': TOKEN},
            headers=watched.headers(identity),
            timeout=60,
        )


@pytest.mark.parametrize('watched', ['own'], indirect=True)
def test_while_the_store_does_not_work(watched: Watched, tmp_path: pathlib.Path) -> None:
    """What fails is logged with its reason, which quotes no values."""
    store = next(iter(watched.access_log.parent.rglob('zaqar.sqlite')))
    identity = new_identity()
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as program:
        program.execute('BEGIN IMMEDIATE')
        answer = requests.post(
            f'{watched.process.url}/v2/queues/q/messages',
            json={'messages': [{'body': BODY, 'ttl': 60}]},
            headers=watched.headers(identity),
            timeout=60,
        )
    assert answer.status_code == 503
    assert 'locked' in watched.logs()
    assert json.loads(answer.content)['code'] == 'service_unavailable'
