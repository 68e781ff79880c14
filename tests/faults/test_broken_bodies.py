"""Bodies of REST requests that never become whole."""

from __future__ import annotations

import functools
import json
import pathlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.callers import Identity
from tests.faults.client import read_to_end
from tests.faults.conftest import LOGGING
from tests.faults.gunicorn_process import GunicornProcess
from tests.server_process import ServerProcess

PATIENCE = 0.4
GRACE = 4.0
"""Less than it takes by default."""
CONFIG = f'{LOGGING}[drivers:transport:gevent]\nbody_timeout = {PATIENCE}\n'
HEADERS = {'Host': 'localhost', 'Content-Type': 'application/json', **Identity().headers()}
CONTINUE = b'HTTP/1.1 100 Continue\r\n\r\n'
POST = '\r\n'.join(
    [
        'POST /v2/queues/q/messages HTTP/1.1',
        *(f'{name}: {value}' for name, value in HEADERS.items()),
        '',
    ]
).encode()


@pytest.fixture(scope='module')
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that waits a moment for a body."""
    with ServerProcess(tmp_path_factory.mktemp('impatient'), config=CONFIG) as process:
        yield process


def post(server: ServerProcess, body: bytes, *, hang_up: bool = False) -> bytes:
    """What a post is answered at last, up to the end of the connection."""
    with socket.create_connection(('127.0.0.1', server.port), timeout=60) as connection:
        connection.sendall(POST + body)
        if hang_up:
            connection.shutdown(socket.SHUT_WR)
        return read_to_end(connection).removeprefix(CONTINUE)


PARTS = {
    'length': b'Content-Length: 1000\r\n\r\n{"messages": [',
    'after-100-continue': b'Content-Length: 9\r\nExpect: 100-continue\r\n\r\n',
    'within-a-chunk': b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"mes',
    'between-chunks': b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"mes\r\n',
    'within-trailers': b'Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-A: 1\r\n',
}


@pytest.mark.parametrize('part', PARTS.values(), ids=PARTS)
def test_a_body_that_does_not_come_is_not_waited_for(impatient: ServerProcess, part: bytes) -> None:
    began = time.monotonic()
    assert post(impatient, part).count(b'HTTP/1.1 ') == 1
    assert PATIENCE <= time.monotonic() - began < PATIENCE + GRACE


@pytest.mark.parametrize('part', PARTS.values(), ids=PARTS)
def test_a_body_that_does_not_come_is_408(impatient: ServerProcess, part: bytes) -> None:
    lines = len(impatient.output)
    head, _, document = post(impatient, part).partition(b'\r\n\r\n')
    assert head[9:12] == b'408'
    assert b'\r\nconnection: close' in head.lower()
    assert json.loads(document)['code'] == 'request_timeout'
    assert 'Traceback' not in '\n'.join(impatient.output[lines:])


@pytest.mark.parametrize('part', PARTS.values(), ids=PARTS)
def test_a_body_that_is_given_up_is_the_clients_fault(server: ServerProcess, part: bytes) -> None:
    """The server waits for bodies as long as by default, so that the client is never too slow."""
    lines = len(server.output)
    assert post(server, part, hang_up=True)[9:12] == b'400'
    assert 'Traceback' not in '\n'.join(server.output[lines:])


def test_a_body_that_does_not_come_is_408_from_our_worker_too(tmp_path: pathlib.Path) -> None:
    with GunicornProcess(tmp_path, config=CONFIG) as worker, ThreadPoolExecutor() as threads:
        answers = list(threads.map(functools.partial(post, worker), PARTS.values()))
    assert [answer[9:12] for answer in answers] == [b'408'] * len(PARTS)


@pytest.mark.parametrize(
    'chunk', [b'z\r\n', b'-1\r\n', b'0x5\r\n', b'f' * 17 + b'\r\n', b'5 {\r\n']
)
def test_a_chunk_that_is_none_is_the_clients_fault(impatient: ServerProcess, chunk: bytes) -> None:
    lines = len(impatient.output)
    answer = post(impatient, b'Transfer-Encoding: chunked\r\n\r\n' + chunk)
    assert answer.startswith(b'HTTP/1.1 400 ')
    assert 'Traceback' not in '\n'.join(impatient.output[lines:])


@pytest.mark.parametrize('chunk', [b'z', b'z\r\n', b'f' * 17, b'5\r\n{"mes!'])
def test_what_comes_behind_a_broken_chunk_is_no_request(
    impatient: ServerProcess, chunk: bytes
) -> None:
    """Where a body ends is not known any more, so neither is where the next request begins."""
    behind = b'GET /v2/ping HTTP/1.1\r\nHost: localhost\r\n\r\n'
    answer = post(impatient, b'Transfer-Encoding: chunked\r\n\r\n' + chunk + behind)
    assert answer.count(b'HTTP/1.1 ') == 1


def test_what_comes_behind_a_body_is_not_taken_for_a_part_of_it(impatient: ServerProcess) -> None:
    messages = b'{"messages": [{"body": 1, "ttl": 60}]}'
    length = f'Content-Length: {len(messages)}\r\n\r\n'.encode()
    answer = post(impatient, length + messages + b'{"more": 1}\r\n\r\n')
    first, second = answer.split(b'HTTP/1.1 ')[1:]
    assert first.startswith(b'201 ')
    assert second.startswith(b'400 ')


AMBIGUOUS = [
    (b'Content-Length: 2', b'Content-Length: 38'),
    (b'Content-Length: 38', b'Content-Length: 38'),
    (b'Content-Length: 38', b'Transfer-Encoding: chunked'),
    (b'Transfer-Encoding: chunked', b'Content-Length: 38'),
    (b'Transfer-Encoding: chunked', b'Transfer-Encoding: identity'),
    (b'Transfer-Encoding: gzip, chunked',),
    (b'Transfer-Encoding: identity', b'Content-Length: 38'),
    (b'Content-Length: 3_8',),
    (b'Content-Length: +38',),
    (b'Content-Length: 38, 38',),
]


@pytest.mark.parametrize('fields', AMBIGUOUS, ids=lambda fields: b' and '.join(fields).decode())
def test_a_body_whose_end_is_not_certain_is_refused(
    impatient: ServerProcess, fields: tuple[bytes, ...]
) -> None:
    """A proxy in front may see another end of it, and so other requests behind it."""
    messages = b'{"messages": [{"body": 1, "ttl": 60}]}'
    behind = b'GET /v2/ping HTTP/1.1\r\nHost: localhost\r\n\r\n'
    answer = post(impatient, b'\r\n'.join(fields) + b'\r\n\r\n' + messages + behind)
    assert answer.startswith(b'HTTP/1.1 400 ')
    assert answer.count(b'HTTP/1.1 ') == 1
