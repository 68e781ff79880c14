"""Every rule of the policy counts on every transport, for every operation it is for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.callers import TRANSPORTS, connect
from tests.server_process import ServerProcess
from zaqar_gevent import policies
from zaqar_gevent.api import REGISTRY
from zaqar_gevent.api.policy import VERDICT_SECONDS

RULED = [operation for operation in REGISTRY if operation.policy is not None]
CONFIG = """
    [DEFAULT]
    admin_mode = True
    pooling = True
    [oslo_policy]
    policy_file = {file}
    """


def write_policy(file: Any, role: str) -> None:
    """A policy in which every rule asks for `role`."""
    file.write_text(json.dumps({rule.name: f'role:{role}' for rule in policies.list_rules()}))


@pytest.fixture(scope='module')
def policy_file(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp('policy') / 'policy.json'
    write_policy(file, 'tester')
    return file


@pytest.fixture(scope='module')
def ruled(policy_file: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    config = CONFIG.format(file=policy_file)
    with ServerProcess(tmp_path_factory.mktemp('ruled'), config=config) as process:
        yield process


@pytest.fixture(params=TRANSPORTS, scope='module')
def caller(request: pytest.FixtureRequest, ruled: ServerProcess) -> Iterator[Any]:
    caller = connect(request.param, ruled.url, ruled.websocket_url)
    yield caller
    caller.close()


def status(caller: Any, operation: Any, roles: str) -> int:
    """The status of an operation called by somebody with these roles."""
    path = {part[1:-1]: 'x' for part in operation.route.path.split('/') if part.startswith('{')}
    headers = {**caller.identity.headers(), 'X-Roles': roles}
    answer: int = caller.call(operation.name, headers=headers, **path).status
    return answer


@pytest.mark.parametrize('operation', RULED, ids=lambda operation: operation.name)
def test_a_rule_decides_over_every_transport(caller: Any, operation: Any) -> None:
    assert status(caller, operation, 'member, reader') == 403
    assert status(caller, operation, 'member, tester') != 403


def test_every_rule_of_upstream_is_asked_by_some_operation() -> None:
    asked = {operation.policy for operation in RULED}
    named = {rule.name for rule in policies.list_rules()}
    assert asked <= named
    unasked = {'ping:get', *named} - asked
    assert unasked <= {'context_is_admin', 'admin_or_owner', 'rule:admin_or_owner', 'health:get'}


def test_a_changed_policy_counts_without_a_restart(caller: Any, policy_file: Any) -> None:
    ping = next(operation for operation in RULED if operation.name == 'ping_node')
    assert status(caller, ping, 'tester') == 204
    write_policy(policy_file, 'newcomer')
    try:
        deadline = time.monotonic() + 5 * VERDICT_SECONDS
        while status(caller, ping, 'tester') != 403:
            assert time.monotonic() < deadline, 'the old policy still counts'
            time.sleep(0.1)
        assert status(caller, ping, 'newcomer') == 204
    finally:
        write_policy(policy_file, 'tester')
        time.sleep(2 * VERDICT_SECONDS)
