"""Heads that RFC 9112 does not allow, and legal ones that are rare.

Nothing is done for a malformed head, and nothing that its body says is taken for another request.
"""

from __future__ import annotations

import json
import pathlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import pytest
import requests

from tests.callers import Identity, new_identity
from tests.faults.client import UPGRADE, read_head, read_to_end
from tests.faults.conftest import LOGGING
from tests.faults.frames import Opcode
from tests.faults.gunicorn_process import GunicornProcess
from tests.faults.heads import FIELDS, MALFORMED, URL_BYTES, Malformed, Scene, post
from tests.functional.test_gunicorn import STOCK_WORKER
from tests.server_process import ServerProcess

SECONDS = 10
CONFIG = (
    f'{LOGGING}[drivers:transport:gevent]\nheader_timeout = 30\n'
    'allowed_hosts = example.org,other.example\n'
)
IDENTITY = new_identity()
SAID = ''.join(f'{name}: {value}\r\n' for name, value in IDENTITY.headers().items()).encode()
PING = b'GET /v2/ping HTTP/1.1\r\nHost: localhost\r\n' + SAID + b'\r\n'
PONG = b'HTTP/1.1 204 No Content\r\n'
CONTINUE = b'HTTP/1.1 100 Continue\r\n\r\n'


def own(state: pathlib.Path) -> ServerProcess:
    return ServerProcess(state, config=CONFIG)


def worker(state: pathlib.Path) -> ServerProcess:
    return GunicornProcess(state, config=CONFIG)


@pytest.fixture(scope='module', params=[own, worker])
def strict(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that reads heads itself, and has nothing to complain of in the end."""
    make: Callable[[pathlib.Path], ServerProcess] = request.param
    with make(tmp_path_factory.mktemp('strict')) as process:
        yield process
        process.stop()
    assert 'Traceback' not in '\n'.join(process.output)


class Answer(NamedTuple):
    """One answer, taken apart."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def answers_of(received: bytes, *, is_head: bool = False) -> list[Answer]:
    """All that the server said, which is nothing but whole answers."""
    answers = []
    while received:
        head, end, rest = received.partition(b'\r\n\r\n')
        assert end, received
        first, *lines = head.decode('latin-1').split('\r\n')
        headers = {name.lower(): value for name, value in (line.split(': ', 1) for line in lines)}
        size = 0 if is_head else int(headers.get('content-length', 0))
        assert len(rest) >= size, received
        answers.append(Answer(int(first.split(' ')[1]), headers, rest[:size]))
        received = rest[size:]
    return answers


def connected(server: ServerProcess) -> socket.socket:
    connection = socket.create_connection(('127.0.0.1', server.port), timeout=SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def converse(server: ServerProcess, *parts: bytes) -> list[Answer]:
    """Send the parts and read until the server closes the connection, as it has to."""
    with connected(server) as connection:
        for part in parts:
            connection.sendall(part)
        return answers_of(read_to_end(connection))


def ask(server: ServerProcess, *parts: bytes) -> list[Answer]:
    """The same for requests that are served, behind which this side hangs up."""
    with connected(server) as connection:
        for part in parts:
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        return answers_of(read_to_end(connection))


@pytest.fixture
def scene(strict: ServerProcess) -> Iterator[Scene]:
    """A project whose only queue is there before and after."""
    scene = Scene()
    created = requests.put(
        strict.url + scene.target, headers=scene.identity.headers(), timeout=SECONDS
    )
    assert created.status_code == 201
    yield scene
    assert queues(strict, scene.identity) == [Scene.KEPT]


def queues(server: ServerProcess, identity: Identity) -> list[str]:
    listed = requests.get(
        f'{server.url}/v2/queues', headers=identity.headers(), timeout=SECONDS
    ).json()
    return [queue['name'] for queue in listed['queues']]


def assert_refused(answer: Answer, malformed: Malformed) -> None:
    """It is said why, in a whole document, and that the connection ends."""
    assert answer.status == malformed.status
    assert answer.headers['connection'] == 'close'
    assert answer.headers['content-type'] == 'application/json'
    assert answer.headers['x-openstack-request-id'].startswith('req-')
    document = json.loads(answer.body)
    assert set(document) == {'code', 'title', 'description'}
    assert all(document.values())


every_malformed_head = pytest.mark.parametrize('malformed', MALFORMED.values(), ids=MALFORMED)


@every_malformed_head
def test_a_malformed_head_is_refused(
    strict: ServerProcess, scene: Scene, malformed: Malformed
) -> None:
    [answer] = converse(strict, scene.request(malformed))
    assert_refused(answer, malformed)


@every_malformed_head
def test_a_malformed_head_is_refused_behind_others(
    strict: ServerProcess, scene: Scene, malformed: Malformed
) -> None:
    """The second of a connection, and the third together with it."""
    with connected(strict) as connection:
        connection.sendall(PING)
        assert connection.recv(65536).startswith(PONG)
        connection.sendall(PING + scene.request(malformed))
        pong, answer = answers_of(read_to_end(connection))
    assert pong.status == 204
    assert_refused(answer, malformed)


def test_a_client_that_speaks_tls_is_refused_as_such(strict: ServerProcess) -> None:
    hello, context = ssl.MemoryBIO(), ssl.create_default_context()
    secured = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname='localhost')
    with pytest.raises(ssl.SSLWantReadError):
        secured.do_handshake()
    [answer] = converse(strict, hello.read())
    assert 'speaks TLS' in json.loads(answer.body)['description']


def handshake(malformed: Malformed, scene: Scene) -> bytes:
    headers = {name: value for name, value in UPGRADE.items() if name != 'Host'}
    return malformed.request(
        'GET', '/v2/ws', {**headers, **scene.identity.headers()}, scene.smuggled
    )


@every_malformed_head
@pytest.mark.parametrize('before', [b'', PING], ids=['first', 'second'])
def test_a_malformed_handshake_is_refused(
    strict: ServerProcess, scene: Scene, malformed: Malformed, before: bytes
) -> None:
    *_, answer = converse(strict, before, handshake(malformed, scene))
    assert_refused(answer, malformed)


SPLIT = [
    'two projects',
    'space before the colon of the length',
    'folded coding',
    'CR in a value',
    'LF for the end of the head',
    'length and coding',
    'two hosts',
    'no version',
    'CONNECT',
]


@pytest.mark.parametrize('name', SPLIT)
def test_a_malformed_head_is_refused_wherever_it_is_cut(
    strict: ServerProcess, scene: Scene, name: str
) -> None:
    """Each connection sends the one part, and later the other."""
    request = scene.request(MALFORMED[name])
    connections = []
    try:
        for size in range(1, len(request)):
            connection = connected(strict)
            connections.append(connection)
            connection.sendall(request[:size])
        time.sleep(0.2)
        for size, connection in enumerate(connections, 1):
            connection.sendall(request[size:])
        for connection in connections:
            [answer] = answers_of(read_to_end(connection))
            assert_refused(answer, MALFORMED[name])
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.parametrize('name', SPLIT)
def test_a_malformed_head_is_refused_byte_by_byte(
    strict: ServerProcess, scene: Scene, name: str
) -> None:
    request = scene.request(MALFORMED[name])
    [answer] = converse(strict, *(request[n : n + 1] for n in range(len(request))))
    assert_refused(answer, MALFORMED[name])


CHUNKS = {
    'LF behind the size': b'30\n%b\r\n0\r\n\r\n',
    'size with a prefix': b'0x30\r\n%b\r\n0\r\n\r\n',
    'size below zero': b'-30\r\n%b\r\n0\r\n\r\n',
    'space behind the size': b'30 \r\n%b\r\n0\r\n\r\n',
    'no size': b'\r\n%b\r\n0\r\n\r\n',
    'size past all numbers': b'1' + b'0' * 16 + b'30\r\n%b\r\n0\r\n\r\n',
    'LF in an extension': b'30;a\n\r\n%b\r\n0\r\n\r\n',
    'chunk that is too long': b'2f\r\n%b\r\n0\r\n\r\n',
    'LF behind the chunk': b'30\r\n%b\n0\r\n\r\n',
    'nothing behind the chunk': b'30\r\n%b0\r\n\r\n',
    'LF behind the last chunk': b'30\r\n%b\r\n0\n\r\n',
    'space before the colon of a trailer': b'30\r\n%b\r\n0\r\nX-A : 1\r\n\r\n',
    'folded trailer': b'30\r\n%b\r\n0\r\nX-A: 1\r\n 2\r\n\r\n',
    'trailer without a colon': b'30\r\n%b\r\n0\r\nX-A\r\n\r\n',
    'coding for a trailer': b'30\r\n%b\r\n0\r\nTransfer-Encoding: identity\r\n\r\n',
    'LF behind a trailer': b'30\r\n%b\r\n0\r\nX-A: 1\n\r\n',
}
MESSAGES = b'{"messages": [{"body": "chunked!", "ttl": 300}]}'
assert len(MESSAGES) == 0x30


@pytest.mark.parametrize('chunks', CHUNKS.values(), ids=CHUNKS)
def test_nothing_is_done_for_broken_chunks(
    strict: ServerProcess, scene: Scene, chunks: bytes
) -> None:
    head = [
        'POST /v2/queues/chunked/messages HTTP/1.1',
        'Host: localhost',
        'Content-Type: application/json',
        'Transfer-Encoding: chunked',
        *(f'{name}: {value}' for name, value in scene.identity.headers().items()),
    ]
    request = '\r\n'.join([*head, '', '']).encode() + chunks % MESSAGES
    [answer] = converse(strict, request + scene.smuggled)
    assert answer.status == 400
    assert json.loads(answer.body)['title']


LIST = b'GET /v2/queues HTTP/1.1\r\nHost: localhost\r\n' + SAID


def posting(*fields: bytes, version: bytes = b'1.1') -> bytes:
    """The head of a request that posts a message."""
    line = b'POST /v2/queues/rare/messages HTTP/' + version + b'\r\n'
    lines = [b'Host: localhost', b'Content-Type: application/json', *fields]
    return line + b''.join(each + b'\r\n' for each in lines) + SAID + b'\r\n'


def statuses(answers: list[Answer]) -> list[int]:
    return [answer.status for answer in answers]


RARE = {
    'empty lines before it': b'\r\n\r\n' + LIST,
    'absolute target': LIST.replace(b' /v2', b' http://example.org/v2'),
    'absolute target in upper case': LIST.replace(b' /v2', b' HTTP://EXAMPLE.ORG:80/v2'),
    'no space behind the colons': LIST.replace(b': ', b':'),
    'spaces and tabs around values': LIST.replace(b': ', b': \t ')
    .replace(b'\r\n', b' \t\r\n')
    .replace(b'HTTP/1.1 \t', b'HTTP/1.1'),
    'names in another case': LIST.replace(b'Host', b'HOST').replace(b'Client', b'cLIENT'),
    'empty value': LIST + b'X-A:\r\n',
    'bytes over 127 in a value': LIST + b'Subject: caf\xc3\xa9 \xff\r\n',
    'odd name': LIST + b"!#$%&'*+-.^_`|~: 1\r\n",
    'as many headers as may be': LIST + b''.join(b'X-%d: 1\r\n' % n for n in range(FIELDS - 3)),
    'a body that nobody asked for': LIST + b'Content-Length: 4\r\n',
}


@pytest.mark.parametrize('head', RARE.values(), ids=RARE)
def test_a_rare_head_is_served(strict: ServerProcess, head: bytes) -> None:
    body = b'body' if b'Content-Length' in head else b''
    answers = ask(strict, head + b'\r\n' + body + PING)
    assert statuses(answers) == [200, 204]
    assert json.loads(answers[0].body)['queues'] == []


def test_the_authority_of_an_absolute_target_is_the_host(strict: ServerProcess) -> None:
    """By which the server tells whether a page is one of its own."""
    lines = [f'{name}: {value}' for name, value in UPGRADE.items()]

    def status(target: str, origin: str) -> int:
        request = '\r\n'.join([f'GET {target} HTTP/1.1', *lines, f'Origin: {origin}', '', ''])
        with connected(strict) as connection:
            connection.sendall(request.encode())
            return read_head(connection)[0]

    assert status('http://other.example/v2/ws', 'http://other.example') == 101
    assert status('http://other.example/v2/ws', 'http://localhost') == 403
    assert status('/v2/ws', 'http://other.example') == 403


def test_an_asterisk_asks_of_the_server_as_a_whole(strict: ServerProcess) -> None:
    answers = ask(strict, b'OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n' + PING)
    assert statuses(answers) == [200, 204]
    assert answers[0].headers['allow'] == 'GET'


@pytest.mark.parametrize(
    ('option', 'kept'),
    [(b'', False), (b'Connection: keep-alive\r\n', True), (b'Connection: close\r\n', False)],
)
def test_http_1_0_is_kept_only_if_it_says_so(
    strict: ServerProcess, option: bytes, kept: bool
) -> None:
    old = b'GET /v2/ping HTTP/1.0\r\n' + SAID + option + b'\r\n'
    answers = ask(strict, old + PING)
    assert statuses(answers) == ([204, 204] if kept else [204])
    assert answers[0].headers.get('connection') == ('keep-alive' if kept else 'close')


@pytest.mark.parametrize(('path', 'status'), [('/healthcheck', 204), ('/v2/queues', 405)])
def test_head_is_answered_without_a_body(strict: ServerProcess, path: str, status: int) -> None:
    request = f'HEAD {path} HTTP/1.1\r\nHost: localhost\r\n'.encode() + SAID + b'\r\n'
    with connected(strict) as connection:
        connection.sendall(request + PING)
        connection.shutdown(socket.SHUT_WR)
        first, second = answers_of(read_to_end(connection), is_head=True)
    assert [first.status, second.status] == [status, 204]
    got = requests.request('TRACE' if status == 405 else 'GET', strict.url + path, timeout=SECONDS)
    assert first.headers.get('content-length', '0') == got.headers['content-length']


def test_fifty_requests_at_once_are_answered_in_their_order(strict: ServerProcess) -> None:
    identity = new_identity()
    lines = [f'{name}: {value}' for name, value in identity.headers().items()]
    pairs = []
    for number in range(25):
        first = f'GET /v2/queues/q{number}/messages?echo=true HTTP/1.1'
        listing = '\r\n'.join([first, 'Host: localhost', *lines, '', '']).encode()
        pairs.append(post(f'q{number}', identity) + listing)
    answers = ask(strict, b''.join(pairs))
    assert statuses(answers) == [201, 200] * 25
    for number, answer in enumerate(answers[1::2]):
        [message] = json.loads(answer.body)['messages']
        assert message['href'].startswith(f'/v2/queues/q{number}/')


@pytest.mark.parametrize(
    'chunks',
    [
        b'30\r\n%b\r\n0\r\n\r\n',
        b'0000030\r\n%b\r\n0000\r\n\r\n',
        b'30;a=b;c="d e"\r\n%b\r\n0;last\r\n\r\n',
        b'30\r\n%b\r\n0\r\nX-Checksum: 1\r\nX-Empty:\r\n\r\n',
    ],
    ids=['plain', 'leading zeros', 'extensions', 'trailers'],
)
def test_a_body_in_chunks_is_one_body(strict: ServerProcess, chunks: bytes) -> None:
    request = posting(b'Transfer-Encoding: chunked') + chunks % MESSAGES
    assert statuses(ask(strict, request + PING)) == [201, 204]
    assert statuses(ask(strict, *(bytes([byte]) for byte in request + PING))) == [201, 204]


@pytest.mark.parametrize('size', [b'a', b'A', b'0A'])
def test_the_size_of_a_chunk_is_in_either_case(strict: ServerProcess, size: bytes) -> None:
    body = MESSAGES + b' ' * 2
    chunks = [size + b'\r\n' + body[n : n + 10] + b'\r\n' for n in range(0, len(body), 10)]
    request = posting(b'Transfer-Encoding: chunked') + b''.join(chunks) + b'0\r\n\r\n'
    assert statuses(ask(strict, request + PING)) == [201, 204]


def test_whoever_waits_to_be_asked_for_a_body_is_asked(strict: ServerProcess) -> None:
    head = posting(b'Expect: 100-continue', b'Content-Length: 48')
    with connected(strict) as connection:
        connection.sendall(head)
        assert connection.recv(65536) == CONTINUE
        connection.sendall(MESSAGES + PING)
        connection.shutdown(socket.SHUT_WR)
        assert statuses(answers_of(read_to_end(connection))) == [201, 204]


def test_whoever_does_not_wait_is_not_asked(strict: ServerProcess) -> None:
    head = posting(b'Expect: 100-continue', b'Content-Length: 48')
    assert statuses(ask(strict, head + MESSAGES + PING)) == [201, 204]


def test_whoever_is_refused_without_being_asked_is_disconnected(strict: ServerProcess) -> None:
    """Whether the body is still to come is not known, so no request is looked for behind."""
    body = post('swallowed', IDENTITY)
    with connected(strict) as connection:
        connection.sendall(refused_posting(len(body)))
        received = connection.recv(65536)
        connection.sendall(body)
        [answer] = answers_of(received + read_to_end(connection))
    assert answer.status == 404
    assert answer.headers['connection'] == 'close'
    assert 'swallowed' not in queues(strict, IDENTITY)


def test_a_body_that_came_with_its_head_is_no_request(strict: ServerProcess) -> None:
    """Where the refused request ends is known then, so the next one is answered."""
    body = post('swallowed', IDENTITY)
    assert statuses(ask(strict, refused_posting(len(body)) + body + PING)) == [404, 204]
    assert 'swallowed' not in queues(strict, IDENTITY)


def refused_posting(length: int) -> bytes:
    """The head of a request that nothing serves, whose body waits to be asked for."""
    head = f'PATCH /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n'
    return f'{head}Expect: 100-continue\r\n\r\n'.encode()


def test_what_else_is_expected_cannot_be_met(strict: ServerProcess) -> None:
    [answer] = converse(strict, posting(b'Expect: miracles', b'Content-Length: 48') + MESSAGES)
    assert answer.status == 417
    assert json.loads(answer.body)['code'] == 'expectation_failed'


def test_a_line_may_be_so_long_and_no_longer(strict: ServerProcess) -> None:
    start, end = b'GET /v2/queues?marker=', b' HTTP/1.1\r\n'
    rest = b'Host: localhost\r\n' + SAID + b'\r\n'
    longest = start + b'x' * (URL_BYTES + 2 - len(start + end)) + end
    assert statuses(ask(strict, longest + rest + PING)) == [200, 204]
    [answer] = converse(strict, longest.replace(b'?', b'?x') + rest + PING)
    assert answer.status == 414
    assert json.loads(answer.body)['code'] == 'uri_too_long'


def test_a_name_with_an_underscore_names_nobody(strict: ServerProcess) -> None:
    """Through it a client would pass a proxy that sets, or checks, the one with hyphens."""
    hidden = SAID.replace(b'X-Project-ID', b'X_Project_ID')
    request = b'GET /v2/queues HTTP/1.1\r\nHost: localhost\r\n' + hidden + b'\r\n'
    assert statuses(ask(strict, request)) == [400]
    other = f'X_Project_ID: {new_identity().project_id}\r\n'.encode()
    named = posting(b'Content-Length: 48') + MESSAGES
    assert statuses(ask(strict, named)) == [201]
    [answer] = ask(strict, LIST + other + b'\r\n')
    assert [queue['name'] for queue in json.loads(answer.body)['queues']] == ['rare']


@pytest.fixture(scope='module')
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """gevent-websocket's own worker, which reads heads before the application is asked."""
    state = tmp_path_factory.mktemp('stock')
    with GunicornProcess(state, worker=STOCK_WORKER, config=CONFIG) as process:
        yield process


TOLD = [
    *('no host', 'two hosts', 'a host twice', 'two hosts in one line', 'host with a path'),
    *('host with a user', 'host with a space', 'absolute target and two hosts'),
    *('space before a name', 'folded by a space', 'folded by a tab', 'folded length'),
    *('NUL in a value', 'control byte in a value', 'vertical tab in a value', 'CR in a value'),
    *('escape in a value', 'DEL in a value', 'length with a plus', 'length with an underscore'),
    *('byte over 127 in the length', 'a coding twice', 'coding and no coding', 'chunked twice'),
    *('gzip and chunked', 'chunked and gzip', 'chunked and identity', 'identity', 'no coding'),
    *('length and unknown coding', 'unknown coding', 'coding with a parameter'),
    *('coding in quotes', 'coding behind a comma', 'coding before a comma'),
    *('two projects', 'two projects, one empty', 'two clients', 'two tokens', 'a token twice'),
    *('two service tokens', 'two signatures', 'two expectations'),
]


@pytest.mark.parametrize('name', TOLD)
def test_what_can_be_told_behind_another_reader_is_refused(stock: ServerProcess, name: str) -> None:
    scene = Scene()
    headers = scene.identity.headers()
    assert requests.put(stock.url + scene.target, headers=headers, timeout=SECONDS).ok
    [answer] = converse(stock, scene.request(MALFORMED[name]))
    assert_refused(answer, MALFORMED[name])
    assert queues(stock, scene.identity) == [Scene.KEPT]


UPGRADES = {
    'connection': b'Connection: Upgrade\r\n',
    'connection of two': b'Connection: Upgrade\r\nConnection: x\r\n',
    'upgrade': b'Upgrade: websocket\r\n',
    'both': b'Connection: Upgrade\r\nUpgrade: websocket\r\n',
    'another protocol': b'Connection: Upgrade\r\nUpgrade: x\r\n',
}


@pytest.mark.parametrize('is_chunked', [False, True])
@pytest.mark.parametrize('upgrade', UPGRADES.values(), ids=UPGRADES)
def test_another_reader_does_not_take_the_next_request_for_a_body(
    stock: ServerProcess, upgrade: bytes, is_chunked: bool
) -> None:
    """It passes over the body of a request for an upgrade twice."""
    scene = Scene()
    said = ''.join(f'{name}: {value}\r\n' for name, value in scene.identity.headers().items())
    hidden = post(Scene.SMUGGLED, scene.identity)
    body = b'{"a": "%b"}' % (b'x' * len(hidden))
    length = b'Content-Length: %d\r\n\r\n' % len(body)
    if is_chunked:
        length = b'Transfer-Encoding: chunked\r\n\r\n'
        body = b'%x\r\n%b\r\n0\r\n\r\n' % (len(body), body)
    head = f'PUT {scene.target} HTTP/1.1\r\nHost: localhost\r\n{said}'.encode()
    answers = converse(stock, head + upgrade + length + body, hidden)
    # A server may also not care for what is no upgrade to a WebSocket.
    assert answers[0].status in (201, 400)
    if answers[0].status == 400:
        assert len(answers) == 1
        assert 'body' in json.loads(answers[0].body)['description']
        assert queues(stock, scene.identity) == []


@pytest.mark.parametrize('size', [b'', b'2\r\n{}\r\n', b'zz', b'-1', b'0x2'])
def test_another_reader_goes_on_behind_no_malformed_chunk(
    stock: ServerProcess, size: bytes
) -> None:
    scene = Scene()
    said = ''.join(f'{name}: {value}\r\n' for name, value in scene.identity.headers().items())
    head = f'PUT {scene.target} HTTP/1.1\r\nHost: localhost\r\n{said}'.encode()
    chunked = b'Transfer-Encoding: chunked\r\n\r\n' + size + b'\r\n0\r\n\r\n'
    [answer] = converse(stock, head + chunked + post(Scene.SMUGGLED, scene.identity))
    assert answer.status == 400
    assert json.loads(answer.body)['code'] == 'malformed_document'
    assert queues(stock, scene.identity) == []


@pytest.mark.parametrize('name', ['two hosts', 'two projects', 'CR in a value', 'folded by a tab'])
def test_a_handshake_that_another_reader_has_answered_is_closed(
    stock: ServerProcess, name: str
) -> None:
    with connected(stock) as connection:
        connection.sendall(handshake(MALFORMED[name], Scene()))
        status, _, early = read_head(connection)
        frame = early or connection.recv(65536)
    assert status == 101
    assert frame[0] == 0x80 | Opcode.CLOSE
    assert frame[2:4] == (1008).to_bytes(2)
    assert b'not a valid HTTP request' in frame
