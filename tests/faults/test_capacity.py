"""As many WebSockets as there may be: the next is refused, and REST does not notice."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.faults.client import COMPACT, Client, HandshakeRefused
from tests.faults.gunicorn_process import GunicornProcess
from tests.faults.light_load import PROMPT, LightLoad
from tests.server_process import ServerProcess

CONFIG = '[drivers:transport:gevent]\nmax_websockets = 5\nmax_websockets_per_address = 3\n'


@pytest.fixture(scope='module')
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp('small'), config=CONFIG) as server:
        yield server


def refusal(port: int, source: str) -> HandshakeRefused:
    with pytest.raises(HandshakeRefused) as caught:
        Client(port, COMPACT, source=source)
    return caught.value


def assert_is_complete(refused: HandshakeRefused) -> None:
    assert refused.status == 503
    assert int(refused.headers['retry-after']) > 0
    assert int(refused.headers['content-length']) == len(refused.body)
    assert set(json.loads(refused.body)) == {'code', 'title', 'description'}


def test_past_the_capacity_an_upgrade_is_refused_until_somebody_leaves(
    small: ServerProcess,
) -> None:
    with ExitStack() as stack:
        sources = [f'127.0.2.{number // 2 + 1}' for number in range(5)]
        clients = [stack.enter_context(Client(small.port, source=one)) for one in sources]
        with LightLoad(small.port) as rest:
            for _ in rest.seconds(1):
                refused = refusal(small.port, '127.0.2.9')
                assert_is_complete(refused)
                assert b'at_capacity' in refused.body
        assert rest.statuses == {204}
        assert rest.p99 < PROMPT
        clients[0].close()
        newcomer = stack.enter_context(Client(small.port, source='127.0.2.9'))
        assert newcomer.lives()
        assert clients[1].lives()


def test_past_the_capacity_of_an_address_only_that_address_is_refused(
    small: ServerProcess,
) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(small.port, source='127.0.3.1')) for _ in range(3)]
        refused = refusal(small.port, '127.0.3.1')
        assert_is_complete(refused)
        assert b'address_at_capacity' in refused.body
        assert stack.enter_context(Client(small.port, source='127.0.3.2')).lives()
        clients[0].close()
        assert stack.enter_context(Client(small.port, source='127.0.3.1')).lives()


def test_a_refused_handshake_takes_no_room(small: ServerProcess) -> None:
    for _ in range(10):
        with pytest.raises(HandshakeRefused) as caught:
            Client(small.port, source='127.0.4.1', headers={'Origin': 'https://evil.example'})
        assert caught.value.status == 403
    with Client(small.port, source='127.0.4.1') as client:
        assert client.lives()


def test_under_gunicorn_a_tenth_of_its_connections_is_left_to_rest(tmp_path: pathlib.Path) -> None:
    with GunicornProcess(tmp_path, '--worker-connections', '20') as server, ExitStack() as stack:
        for _ in range(18):
            stack.enter_context(Client(server.port))
        assert_is_complete(refusal(server.port, ''))
        with LightLoad(server.port) as rest:
            for _ in rest.seconds(0.5):
                assert refusal(server.port, '').status == 503
        assert rest.statuses == {204}
        assert rest.p99 < PROMPT
