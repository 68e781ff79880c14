"""How many connections may be open whose clients have not authenticated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests
from oslo_config import cfg

from tests.callers import Identity
from tests.faults.client import Client
from tests.faults.gunicorn_process import GunicornProcess
from tests.faults.test_capacity import assert_no_room, come_in
from tests.functional.test_authentication import (
    IdentityService,
    configuration,
    identity_service,  # noqa: F401  (a fixture)
)
from tests.functional.test_gunicorn import STOCK_WORKER
from tests.server_process import ServerProcess
from zaqar_gevent import conf, options

MOST = 10
OF_ONE_ADDRESS = 2
UNKNOWN = 'authentication_at_capacity'


@pytest.fixture(scope='module')
def config(
    identity_service: IdentityService,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    policy = tmp_path_factory.mktemp('policy') / 'policy.yaml'
    policy.write_text('{}')
    section = f'[{options.GROUP}]\nmax_unauthenticated_websockets = {MOST}\n'
    return f'{configuration(identity_service, policy)}\n{section}'


@pytest.fixture(scope='module')
def guarded(config: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp('guarded'), config=config) as process:
        yield process


def crowd(server: ServerProcess, stack: ExitStack) -> list[Client]:
    """As many silent clients as there may be, of several addresses."""
    return [
        stack.enter_context(come_in(server, f'127.0.0.{2 + number // OF_ONE_ADDRESS}'))
        for number in range(MOST)
    ]


def authenticate(client: Client, token: str) -> None:
    headers = {**Identity('p').headers(), 'X-Auth-Token': token}
    client.send(client.frame({'action': 'authenticate', 'headers': headers}))
    assert client.status() == 200


def test_silent_clients_leave_room_for_those_with_a_token(
    guarded: ServerProcess,
    identity_service: IdentityService,  # noqa: F811
) -> None:
    with ExitStack() as stack:
        crowd(guarded, stack)
        assert_no_room(guarded, '127.0.0.99', UNKNOWN)
        headers = {'X-Auth-Token': identity_service.issue('p')}
        for _ in range(MOST):
            stack.enter_context(Client(guarded.port, headers=headers, source='127.0.0.99'))
        assert_no_room(guarded, '127.0.0.99', UNKNOWN)
        metrics = requests.get(f'{guarded.url}/metrics', timeout=60).text
        assert 'zaqar_websocket_refusals_total{reason="unauthenticated"} 2.0' in metrics


def test_one_address_may_hold_a_fifth(guarded: ServerProcess) -> None:
    with ExitStack() as stack:
        for _ in range(OF_ONE_ADDRESS):
            stack.enter_context(come_in(guarded, '127.0.0.42'))
        assert_no_room(guarded, '127.0.0.42', 'address_at_capacity')
        stack.enter_context(come_in(guarded, '127.0.0.43'))


def test_room_is_given_back_by_authenticating_and_by_leaving(
    guarded: ServerProcess,
    identity_service: IdentityService,  # noqa: F811
) -> None:
    with ExitStack() as stack:
        clients = crowd(guarded, stack)
        assert_no_room(guarded, '127.0.0.99', UNKNOWN)
        authenticate(clients[0], identity_service.issue('p'))
        stack.enter_context(Client(guarded.port, source='127.0.0.99'))
        assert_no_room(guarded, '127.0.0.99', UNKNOWN)
        clients[1].close()
        stack.enter_context(come_in(guarded, '127.0.0.99'))
        assert_no_room(guarded, '127.0.0.99', 'authentication_at_capacity')


def test_without_authentication_nobody_is_counted(tmp_path_factory: pytest.TempPathFactory) -> None:
    section = f'[{options.GROUP}]\nmax_unauthenticated_websockets = 1\n'
    path = tmp_path_factory.mktemp('open')
    with ServerProcess(path, config=section) as server, ExitStack() as stack:
        for _ in range(3):
            assert stack.enter_context(Client(server.port)).lives()


def test_under_the_stock_worker_they_are_closed_with_1013(
    config: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Which has answered the handshake before anybody can look."""
    path = tmp_path_factory.mktemp('stock')
    with (
        GunicornProcess(
            path, '--graceful-timeout', '1', worker=STOCK_WORKER, config=config
        ) as server,
        ExitStack() as stack,
    ):
        for number in range(MOST):
            stack.enter_context(Client(server.port, source=f'127.0.0.{2 + number // 2}'))
        late = stack.enter_context(Client(server.port, source='127.0.0.99'))
        assert late.status_code().code == 1013


def test_a_person_has_time_to_type_a_password() -> None:
    defaults = cfg.ConfigOpts()
    conf.register(defaults)
    assert defaults[options.GROUP].authentication_timeout == 60
    assert options.connection_limits(defaults).authentication_timeout == 60
