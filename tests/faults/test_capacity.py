"""As many WebSockets as there may be, and one more."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.faults.client import Client, HandshakeRefused
from tests.faults.conftest import LOGGING
from tests.faults.frames import frame
from tests.faults.gunicorn_process import GunicornProcess
from tests.faults.light_load import PROMPT, LightLoad
from tests.server_process import ServerProcess

MOST = 5
OF_ONE_ADDRESS = 3


def configuration(*options: str) -> str:
    return '\n'.join([f'{LOGGING}[drivers:transport:gevent]', *options, ''])


@pytest.fixture(scope='module')
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with room for few."""
    config = configuration(f'max_websockets = {MOST}')
    with ServerProcess(tmp_path_factory.mktemp('small'), config=config) as process:
        yield process
        process.stop()
    assert 'Traceback' not in '\n'.join(process.output)


@pytest.fixture(scope='module')
def fair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with room for few of one address."""
    config = configuration(f'max_websockets_per_address = {OF_ONE_ADDRESS}')
    with ServerProcess(tmp_path_factory.mktemp('fair'), config=config) as process:
        yield process


def assert_no_room(server: ServerProcess, source: str = '', code: str = 'at_capacity') -> None:
    """The next upgrade is refused with a complete answer that says when to try again."""
    with pytest.raises(HandshakeRefused) as refused:
        Client(server.port, source=source)
    answer = refused.value
    assert answer.status == 503
    assert int(answer.headers['retry-after']) > 0
    assert answer.headers['content-type'] == 'application/json'
    assert int(answer.headers['content-length']) == len(answer.body)
    document = json.loads(answer.body)
    assert set(document) == {'code', 'title', 'description'}
    assert document['code'] == code


def come_in(server: ServerProcess, source: str = '') -> Client:
    """Connect as soon as there is room: that somebody has left takes a moment to be known."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return Client(server.port, source=source)
        except HandshakeRefused:
            assert time.monotonic() < deadline, 'the room is not given back'


def test_past_the_most_there_is_503_and_rest_is_served(small: ServerProcess) -> None:
    with LightLoad(small.port) as rest, ExitStack() as stack:
        for _ in range(MOST):
            stack.enter_context(Client(small.port))
        for _ in rest.seconds(1):
            assert_no_room(small)
    assert rest.statuses == {204}
    assert rest.p99 < PROMPT


def closing(client: Client) -> None:
    client.close()


def hanging_up(client: Client) -> None:
    client.socket.close()


def breaking_a_rule(client: Client) -> None:
    client.send(frame(3))
    client.status_code()
    client.socket.close()


@pytest.mark.parametrize('leave', [closing, hanging_up, breaking_a_rule])
def test_after_one_has_left_the_next_comes_in(
    small: ServerProcess, leave: Callable[[Client], object]
) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(come_in(small)) for _ in range(MOST)]
        for client in clients:
            assert_no_room(small)
            leave(client)
            assert stack.enter_context(come_in(small)).lives()
        assert_no_room(small)


def test_refusals_take_up_no_room(small: ServerProcess) -> None:
    with ExitStack() as stack:
        for _ in range(3 * MOST):
            with pytest.raises(HandshakeRefused):
                Client(small.port, headers={'Origin': 'https://evil.example'})
            with pytest.raises(HandshakeRefused):
                Client(small.port, headers={'Sec-WebSocket-Version': '8'})
        for _ in range(MOST):
            stack.enter_context(come_in(small))


def test_past_the_most_of_one_address_there_is_503_for_it_alone(fair: ServerProcess) -> None:
    with ExitStack() as stack:
        for address in ('127.0.0.2', '127.0.0.3', '127.0.0.1'):
            mine = [
                stack.enter_context(Client(fair.port, source=address))
                for _ in range(OF_ONE_ADDRESS)
            ]
            assert_no_room(fair, address, 'address_at_capacity')
        mine[0].close()
        assert stack.enter_context(come_in(fair, address)).lives()
        assert_no_room(fair, address, 'address_at_capacity')
        assert_no_room(fair, '127.0.0.2', 'address_at_capacity')


def test_under_gunicorn_a_tenth_of_the_connections_is_left_to_rest(tmp_path: pathlib.Path) -> None:
    options = ('--worker-connections', '20')
    with (
        GunicornProcess(tmp_path, *options, config=LOGGING) as server,
        LightLoad(server.port) as rest,
        ExitStack() as stack,
    ):
        for _ in range(18):
            stack.enter_context(Client(server.port))
        for _ in rest.seconds(1):
            assert_no_room(server)
    assert rest.statuses == {204}
    assert rest.p99 < PROMPT
