"""Clients that hang up before they are answered: what was taken for them is taken by others."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from tests.callers import Identity, RestCaller
from tests.faults.client import DIALECTS, Client, Dialect
from tests.faults.conftest import LOGGING
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import ServerProcess

LEASE = 43_200
PROMPT = 30.0
RECEIVE_BUFFER = 8192
LONG = 'x' * 200_000
PAGE = 20


@pytest.fixture(scope='module', params=['sqlite', 'redis'])
def serving(
    request: pytest.FixtureRequest,
    redis: RedisProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    """A server on each store, which has nothing to complain of in the end."""
    redis.client.flushall()
    store = '' if request.param == 'sqlite' else ON_REDIS.format(redis=redis.patient_uri)
    config = f'{LOGGING}{store}'
    with ServerProcess(tmp_path_factory.mktemp('serving'), config=config) as process:
        yield process
        assert process.stop() == 0
    assert 'Traceback' not in '\n'.join(process.output)


@pytest.fixture
def rest(serving: ServerProcess) -> Iterator[RestCaller]:
    """Another client, of the same project."""
    caller = RestCaller(serving.url)
    yield caller
    caller.close()


class Goer(Protocol):
    """A client that asks for something and does not stay."""

    socket: socket.socket

    def begin(self, action: str, **arguments: Any) -> None: ...


class RestGoer:
    """The same over REST."""

    def __init__(self, server: ServerProcess, identity: Identity) -> None:
        self._identity = identity
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.socket.connect(('127.0.0.1', server.port))

    def begin(self, action: str, **arguments: Any) -> None:
        if action == 'message_delete_many':
            line, body = f'DELETE /v2/queues/orders/messages?pop={arguments["pop"]}', b''
        else:
            query = '&'.join(
                f'{name}={arguments[name]}' for name in ('limit', 'wait') if name in arguments
            )
            line = f'POST /v2/queues/orders/claims?{query}'
            body = f'{{"ttl": {arguments["ttl"]}, "grace": 60}}'.encode()
        headers = {'Host': 'localhost', 'Content-Length': len(body), **self._identity.headers()}
        lines = [f'{line} HTTP/1.1', *(f'{name}: {value}' for name, value in headers.items())]
        self.socket.sendall('\r\n'.join([*lines, '', '']).encode() + body)


class WebSocketGoer:
    """The same over WebSocket."""

    def __init__(self, server: ServerProcess, identity: Identity, dialect: Dialect) -> None:
        self._client = Client(
            server.port, dialect, receive_buffer=RECEIVE_BUFFER, identity=identity
        )
        self.socket = self._client.socket

    def begin(self, action: str, **arguments: Any) -> None:
        self._client.send(self._client.request(action, queue_name='orders', **arguments))


@pytest.fixture(params=['rest', *DIALECTS], ids=str)
def goer(
    request: pytest.FixtureRequest, serving: ServerProcess, rest: RestCaller
) -> Iterator[Goer]:
    if request.param == 'rest':
        going: Goer = RestGoer(serving, rest.identity)
    else:
        going = WebSocketGoer(serving, rest.identity, request.param)
    yield going
    going.socket.close()


def hang_up(goer: Goer) -> None:
    goer.socket.close()


def reset(goer: Goer) -> None:
    goer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    goer.socket.close()


def stop_sending(goer: Goer) -> None:
    goer.socket.shutdown(socket.SHUT_WR)


GOING = [hang_up, reset, stop_sending]


def post(rest: RestCaller, *bodies: Any) -> None:
    for body in bodies:
        messages = [{'ttl': 3600, 'body': body}]
        assert rest.call('message_post', queue_name='orders', messages=messages).status == 201


def take(rest: RestCaller, count: int) -> list[Any]:
    """The bodies that another client can claim, as soon as there are as many."""
    deadline = time.monotonic() + PROMPT
    bodies: list[Any] = []
    while len(bodies) < count and time.monotonic() < deadline:
        limit = min(PAGE, count - len(bodies))
        found = rest.call('claim_create', queue_name='orders', limit=limit, ttl=60, grace=60)
        if found.status == 201:
            bodies += [message['body'] for message in found.body['messages']]
        else:
            time.sleep(0.02)
    return bodies


def wait_for_the_answer(goer: Goer) -> None:
    """Wait until the server has begun to write it, which it cannot end."""
    goer.socket.settimeout(60)
    assert goer.socket.recv(1, socket.MSG_PEEK)


@pytest.mark.parametrize('go', GOING)
def test_a_claim_that_waits_takes_nothing_for_a_client_that_has_gone(
    rest: RestCaller, goer: Goer, go: Callable[[Goer], None]
) -> None:
    post(rest, 'warm')
    assert take(rest, 1) == ['warm']
    goer.begin('claim_create', limit=1, ttl=LEASE, grace=60, wait=20)
    time.sleep(0.2)
    go(goer)
    post(rest, 'for somebody who is there')
    assert take(rest, 1) == ['for somebody who is there']


def test_what_was_claimed_for_a_client_that_does_not_read_is_free_when_it_has_gone(
    rest: RestCaller, goer: Goer
) -> None:
    bodies = [f'{number}{LONG}' for number in range(PAGE)]
    post(rest, *bodies)
    goer.begin('claim_create', limit=PAGE, ttl=LEASE, grace=60)
    wait_for_the_answer(goer)
    reset(goer)
    assert take(rest, PAGE) == bodies


def test_what_was_popped_for_a_client_that_does_not_read_is_there_again_when_it_has_gone(
    rest: RestCaller, goer: Goer
) -> None:
    bodies = [f'{number}{LONG}' for number in range(PAGE)]
    post(rest, *bodies)
    goer.begin('message_delete_many', pop=PAGE)
    wait_for_the_answer(goer)
    reset(goer)
    assert take(rest, PAGE) == bodies


@pytest.mark.parametrize('request_', ['claim_create', 'message_delete_many'])
def test_nothing_is_taken_for_a_client_that_has_gone_before_its_turn(
    serving: ServerProcess, rest: RestCaller, goer: Goer, request_: str
) -> None:
    post(rest, 'first', 'second')
    os.kill(serving.pid, signal.SIGSTOP)
    try:
        asked = {'pop': 2} if request_ == 'message_delete_many' else {'ttl': LEASE, 'grace': 60}
        goer.begin(request_, **asked)
        hang_up(goer)
    finally:
        os.kill(serving.pid, signal.SIGCONT)
    assert take(rest, 2) == ['first', 'second']


def test_popped_messages_go_back_to_their_places(tmp_path: pathlib.Path) -> None:
    """On the embedded store, which can: with their ids, before what came behind them."""
    with ServerProcess(tmp_path) as server:
        rest = RestCaller(server.url)
        bodies = [f'{number}{LONG}' for number in range(PAGE)]
        post(rest, *bodies, 'last')
        listed = rest.call('message_list', queue_name='orders', echo=True, limit=PAGE).body
        goer = RestGoer(server, rest.identity)
        goer.begin('message_delete_many', pop=PAGE)
        wait_for_the_answer(goer)
        reset(goer)
        deadline = time.monotonic() + PROMPT
        again: dict[str, Any] = {}
        while again != listed and time.monotonic() < deadline:
            again = rest.call('message_list', queue_name='orders', echo=True, limit=PAGE).body
            for one, before in zip(again['messages'], listed['messages'], strict=False):
                one['age'] = before['age']
        assert again == listed
        rest.close()
