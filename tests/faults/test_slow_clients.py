"""Clients that take their time, with or without a reason."""

from __future__ import annotations

import itertools
import json
import pathlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import psutil
import pytest

from tests.callers import Identity
from tests.faults.client import DIALECTS, Client, read_head, read_to_end
from tests.faults.conftest import LOGGING
from tests.faults.crowd import Crowd
from tests.faults.frames import Opcode, frame
from tests.faults.gunicorn_process import GunicornProcess
from tests.faults.light_load import PROMPT, LightLoad
from tests.functional.test_authentication import IdentityService, configuration
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch
from zaqar_gevent import options
from zaqar_gevent.websocket.limits import Limits

POLICY_VIOLATION = 1008
HEAD = ''.join(f'{name}: {value}\r\n' for name, value in Identity().headers().items()).encode()
POST = b'POST /v2/queues/q/messages HTTP/1.1\r\nHost: localhost\r\n' + HEAD
PATIENCE = 1.0
# The server's timers count from the turn of the loop in which they are set, which began earlier.
LEAST = 0.8 * PATIENCE
GRACE = 4.0
"""Less than it takes by default."""
IMPATIENT = f"""{LOGGING}
[drivers:transport:gevent]
header_timeout = {PATIENCE}
body_timeout = {PATIENCE}
keepalive_timeout = {PATIENCE}
"""


def own(state: pathlib.Path) -> ServerProcess:
    return ServerProcess(state, config=IMPATIENT)


def worker(state: pathlib.Path) -> ServerProcess:
    return GunicornProcess(state, config=IMPATIENT)


@pytest.fixture(scope='module', params=[own, worker])
def impatient(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that waits a moment for everything."""
    make: Callable[[pathlib.Path], ServerProcess] = request.param
    with make(tmp_path_factory.mktemp('impatient')) as process:
        yield process
        process.stop()
    assert 'Traceback' not in '\n'.join(process.output)


class Told(NamedTuple):
    """What the server has to say, and after how many seconds it ends the connection."""

    answer: bytes
    seconds: float


def wait_out(server: ServerProcess, *parts: bytes, pause: float = 0) -> Told:
    """Send the parts, each after a pause, and wait for the server to end the connection."""
    began = time.monotonic()
    with socket.create_connection(('127.0.0.1', server.port), timeout=60) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            answer = read_to_end(connection)
        except ConnectionError:
            answer = b''
        return Told(answer, time.monotonic() - began)


def test_a_thousand_clients_that_dribble_a_head_are_gone_soon(tmp_path: pathlib.Path) -> None:
    """Each sends a header every four seconds, for ever, were it not for the server."""
    with ServerProcess(tmp_path, config=LOGGING) as server:
        process = psutil.Process(server.pid)
        with LightLoad(server.port) as rest:
            files = process.num_fds()
            with Crowd(server.port, 1000) as crowd:
                crowd.say(b'GET /v2/queues HTTP/1.1\r\nHost: localhost\r\n')
                for number in range(15):
                    crowd.say(f'X-Header-{number}: dribble\r\n'.encode())
                    crowd.listen(4)
                assert len(crowd.closed) == 1000
                assert min(crowd.closed.values()) > 4.5
                answers = {answer.split(b'\r\n')[0] for answer in crowd.received.values()}
                assert answers == {b'HTTP/1.1 408 Request Timeout'}
            assert process.num_fds() < files + 10
        assert rest.statuses == {204}
        # All come, and are let go, in two moments.
        assert rest.p99 < 2 * PROMPT
        assert server.stop() == 0
    assert 'Traceback' not in '\n'.join(server.output)


def test_whoever_says_nothing_is_gone_soon(impatient: ServerProcess) -> None:
    answer, seconds = wait_out(impatient)
    assert answer == b''
    assert LEAST <= seconds < PATIENCE + GRACE


@pytest.mark.parametrize('first', [b'GET /v2/ping HTTP/1.1\r\n', b'GET /v2/pi'])
def test_a_head_that_comes_byte_by_byte_is_not_waited_for(
    impatient: ServerProcess, first: bytes
) -> None:
    slowly = [bytes([byte]) for byte in first + b'Host: localhost\r\n' * 100]
    _, seconds = wait_out(impatient, *slowly, pause=0.05)
    assert LEAST <= seconds < PATIENCE + GRACE


def test_a_head_that_is_late_is_408(impatient: ServerProcess) -> None:
    answer, seconds = wait_out(impatient, POST)
    head, _, body = answer.partition(b'\r\n\r\n')
    assert head.startswith(b'HTTP/1.1 408 Request Timeout\r\n')
    assert json.loads(body)['code'] == 'request_timeout'
    assert LEAST <= seconds < PATIENCE + GRACE


def test_a_head_that_is_cut_short_is_not_acted_upon(impatient: ServerProcess) -> None:
    """What it asks for, and of which project, may have been cut short as well."""
    name = f'cut-short-{impatient.pid}'
    with socket.create_connection(('127.0.0.1', impatient.port), timeout=60) as connection:
        connection.sendall(f'PUT /v2/queues/{name} HTTP/1.1\r\nHost: localhost\r\n'.encode() + HEAD)
        connection.shutdown(socket.SHUT_WR)
        assert read_to_end(connection).startswith(b'HTTP/1.1 400 ')
    with socket.create_connection(('127.0.0.1', impatient.port), timeout=60) as connection:
        connection.sendall(b'GET /v2/queues HTTP/1.1\r\nHost: localhost\r\n' + HEAD + b'\r\n')
        status, headers, body = read_head(connection)
        while len(body) < int(headers['content-length']):
            body += connection.recv(65536)
    assert status == 200
    assert name not in [queue['name'] for queue in json.loads(body)['queues']]


def test_a_connection_that_is_kept_for_nothing_is_closed(impatient: ServerProcess) -> None:
    answer, seconds = wait_out(
        impatient, b'GET /v2/ping HTTP/1.1\r\nHost: localhost\r\n' + HEAD + b'\r\n'
    )
    assert answer.startswith(b'HTTP/1.1 204 ')
    assert answer.count(b'HTTP/1.1 ') == 1
    assert LEAST <= seconds < PATIENCE + GRACE


def test_a_connection_is_kept_as_long_as_it_is_used(impatient: ServerProcess) -> None:
    request = b'GET /v2/ping HTTP/1.1\r\nHost: localhost\r\n' + HEAD + b'\r\n'
    answer, seconds = wait_out(impatient, *[request] * 10, pause=PATIENCE / 4)
    assert answer.count(b'HTTP/1.1 204 ') == 10
    assert seconds > 2 * LEAST


# Clients that do not say who they are.


@pytest.fixture(scope='module')
def identity_service() -> Iterator[IdentityService]:
    with IdentityService() as service:
        yield service


def guarded(state: pathlib.Path, service: IdentityService, *options: str) -> ServerProcess:
    """A server that wants tokens."""
    policy = state / 'policy.yaml'
    policy.write_text('{}')
    transport = '\n'.join(['[drivers:transport:gevent]', *options, ''])
    return ServerProcess(state, config=f'{configuration(service, policy)}\n{transport}')


@pytest.fixture(scope='module')
def curious(
    identity_service: IdentityService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that wants a token within three seconds."""
    state = tmp_path_factory.mktemp('curious')
    with guarded(state, identity_service, 'authentication_timeout = 3') as process:
        yield process


def silent(client: Client) -> None:
    """Says nothing."""


def pinging(client: Client) -> None:
    client.send(frame(Opcode.PING) * 10)


def asking(client: Client) -> None:
    assert client.dialect.status(client.ask('queue_list')) == 403


def authenticating_in_vain(client: Client) -> None:
    headers = {'X-Auth-Token': 'no such token'}
    client.send(client.frame({'id': 0, 'action': 'authenticate', 'headers': headers}))
    assert client.status() == 401


def test_whoever_does_not_authenticate_in_time_is_closed_on(curious: ServerProcess) -> None:
    watch = Stopwatch(curious.pid)
    began = time.monotonic()
    with ExitStack() as stack:
        for dialect, behave in itertools.product(
            DIALECTS, (silent, pinging, asking, authenticating_in_vain)
        ):
            behave(client := stack.enter_context(Client(curious.port, dialect)))
            stack.callback(assert_closed_on, client, began, watch)


def assert_closed_on(client: Client, began: float, watch: Stopwatch) -> None:
    assert client.status_code().code == POLICY_VIOLATION
    assert time.monotonic() - began > 2.9
    assert watch.seconds() < 3 + GRACE


def test_whoever_authenticates_in_time_stays(
    curious: ServerProcess, identity_service: IdentityService
) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(curious.port, dialect)) for dialect in DIALECTS]
        for client in clients:
            headers = {'X-Auth-Token': identity_service.issue(client.identity.project_id)}
            client.send(client.frame({'id': 0, 'action': 'authenticate', 'headers': headers}))
            assert client.status() == 200
        clients[0].socket.settimeout(4)
        with pytest.raises(TimeoutError):
            clients[0].receive()
        clients[0].socket.settimeout(60)
        assert all(client.lives() for client in clients)


def test_by_default_a_minute_is_given_to_authenticate() -> None:
    """People type their passwords meanwhile."""
    [option] = [one for one in options.ALL_OPTS if one.name == 'authentication_timeout']
    assert option.default == Limits().authentication_timeout == 60
