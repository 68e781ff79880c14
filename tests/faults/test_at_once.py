"""Many requests at once: of one client (RFC 9112, section 9.3.2), and of many clients."""

from __future__ import annotations

import json
import pathlib
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.faults.client import DIALECTS, UPGRADE, Client, read_to_end
from tests.faults.frames import Opcode, frame
from tests.faults.gunicorn_process import GunicornProcess
from tests.server_process import ServerProcess

HEADERS = 'Host: localhost\r\nClient-ID: 3381af92-2b9e-11e3-b191-71861300734c\r\nX-Project-ID: demo'
# Longer than what waits to be written with the answers to others.
LONG = 20_000
MANY = 100
# Of each kind; the answers to more than 16 clients are not all written together.
CLIENTS, ROUNDS = 25, 10

_STATUS = re.compile(rb'HTTP/1\.1 (\d{3}) ')
_REQUEST_ID = re.compile(rb'(?i)x-openstack-request-id: (\S+)')


@pytest.fixture(scope='module', params=[ServerProcess, GunicornProcess])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    make: Callable[[pathlib.Path], ServerProcess] = request.param
    with make(tmp_path_factory.mktemp('pipelining')) as process:
        yield process
        process.stop()
    assert 'Traceback' not in '\n'.join(process.output)


def request(method: str, path: str, document: object = None) -> bytes:
    body = b'' if document is None else json.dumps(document).encode()
    head = f'{method} {path} HTTP/1.1\r\n{HEADERS}\r\nContent-Length: {len(body)}\r\n\r\n'
    return head.encode() + body


def post(queue: str, body: object) -> bytes:
    document = {'messages': [{'body': body, 'ttl': 300}]}
    return request('POST', f'/v2/queues/{queue}/messages', document)


def exchange(server: ServerProcess, sent: bytes) -> bytes:
    """What is answered to a client that sends all at once and nothing more."""
    with socket.create_connection(('127.0.0.1', server.port), timeout=60) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        return read_to_end(connection)


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in _STATUS.findall(answers)]


def test_all_are_answered_in_order_and_once(server: ServerProcess) -> None:
    sent = [request('GET', '/v2/ping'), post('many', 1), request('GET', '/v2/queues/none/claims/1')]
    answers = exchange(server, b''.join(sent * MANY))
    assert statuses(answers) == [204, 201, 404] * MANY
    assert len(set(_REQUEST_ID.findall(answers))) == 3 * MANY


def test_short_and_long_answers_stay_in_order(server: ServerProcess) -> None:
    answers = exchange(
        server,
        post('long', 'x' * LONG)
        + request('GET', '/v2/queues/long/messages?echo=true')
        + request('GET', '/v2/ping')
        + request('GET', '/v2/queues/long/messages?echo=true')
        + request('GET', '/v2/ping'),
    )
    assert statuses(answers) == [201, 200, 204, 200, 204]
    assert answers.count(b'x' * LONG) == 2


def test_a_refused_one_is_answered_behind_those_before_it(server: ServerProcess) -> None:
    answers = exchange(
        server, request('GET', '/v2/ping') + post('refused', 1) + b'GET / HTTP/1.1\r\nA : 1\r\n\r\n'
    )
    assert statuses(answers) == [204, 201, 400]


def test_one_whose_client_goes_on_later_is_answered_meanwhile(server: ServerProcess) -> None:
    with socket.create_connection(('127.0.0.1', server.port), timeout=60) as connection:
        second = post('later', 1)
        connection.sendall(request('GET', '/v2/ping') + second[:20])
        assert statuses(connection.recv(4096)) == [204]
        connection.sendall(second[20:])
        assert statuses(connection.recv(4096)) == [201]


def test_an_upgrade_is_answered_behind_those_before_it(server: ServerProcess) -> None:
    lines = [f'{name}: {value}' for name, value in UPGRADE.items()]
    upgrade = '\r\n'.join(['GET /v2/ws HTTP/1.1', *lines, '', '']).encode()
    action = json.dumps({'action': 'get_capabilities', 'headers': {}, 'body': {}}).encode()
    answers = exchange(
        server,
        request('GET', '/v2/ping') + post('up', 1) + upgrade + frame(Opcode.TEXT, action),
    )
    assert statuses(answers) == [204, 201, 101]
    assert b'"max_in_flight"' in answers.partition(b' 101 ')[2]


def test_many_clients_that_ask_together_are_answered(server: ServerProcess) -> None:
    with ExitStack() as stack:
        webs = [
            stack.enter_context(Client(server.port, DIALECTS[number % len(DIALECTS)]))
            for number in range(2 * CLIENTS)
        ]
        rests = [
            stack.enter_context(socket.create_connection(('127.0.0.1', server.port), timeout=60))
            for _ in range(CLIENTS)
        ]
        for number in range(ROUNDS):
            for web in webs:
                web.send(web.request('message_post', queue_name='crowd', messages=[{'body': 1}]))
            for rest in rests:
                rest.sendall(post('crowd', 1) if number % 2 else request('GET', '/v2/ping'))
            assert [web.status() for web in webs] == [201] * len(webs)
            assert statuses(b''.join(rest.recv(4096) for rest in rests)) == [
                201 if number % 2 else 204
            ] * len(rests)
