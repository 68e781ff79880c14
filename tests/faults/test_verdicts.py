"""Every rule of the policy by itself: whom it lets in, and whom not, is the same everywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.callers import TRANSPORTS, connect
from tests.faults.conftest import LOGGING
from tests.server_process import ServerProcess
from zaqar_gevent import policies
from zaqar_gevent.api import REGISTRY

RULED = [operation for operation in REGISTRY if operation.policy is not None]
FORBIDDEN = 403


def role_of(rule: str) -> str:
    """The one role that a rule asks for."""
    return 'may-' + re.sub(r'\W', '-', rule)


ROLES = {rule.name: role_of(rule.name) for rule in policies.list_rules()}


@pytest.fixture(scope='module')
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose rules have a role each."""
    state = tmp_path_factory.mktemp('strict')
    file = state / 'policy.json'
    file.write_text(json.dumps({rule: f'role:{role}' for rule, role in ROLES.items()}))
    config = f"""{LOGGING}
admin_mode = True
pooling = True
[oslo_policy]
policy_file = {file}
"""
    with ServerProcess(state, config=config) as process:
        yield process


@pytest.fixture(scope='module')
def callers(strict: ServerProcess) -> Iterator[list[Any]]:
    """A client over each transport."""
    callers = [connect(name, strict.url, strict.websocket_url) for name in TRANSPORTS]
    yield callers
    for caller in callers:
        caller.close()


def statuses(callers: list[Any], operation: Any, roles: list[str]) -> dict[str, int]:
    """What somebody with these roles is answered, by transport."""
    path = {part[1:-1]: 'x' for part in operation.route.path.split('/') if part.startswith('{')}
    answers = {}
    for transport, caller in zip(TRANSPORTS, callers, strict=True):
        headers = {**caller.identity.headers(), 'X-Roles': ','.join(roles)}
        answers[transport] = caller.call(operation.name, headers=headers, **path).status
    return answers


@pytest.mark.parametrize('operation', RULED, ids=lambda operation: operation.name)
def test_the_one_role_is_let_in_everywhere(callers: list[Any], operation: Any) -> None:
    allowed = statuses(callers, operation, ['member', role_of(operation.policy)])
    assert FORBIDDEN not in allowed.values(), allowed


@pytest.mark.parametrize('operation', RULED, ids=lambda operation: operation.name)
def test_all_other_roles_together_are_let_in_nowhere(callers: list[Any], operation: Any) -> None:
    others = ['admin', 'member', *(set(ROLES.values()) - {role_of(operation.policy)})]
    denied = statuses(callers, operation, others)
    assert set(denied.values()) == {FORBIDDEN}, denied


def test_there_are_rules_for_all_that_concerns_data() -> None:
    unruled = {operation.name for operation in REGISTRY} - {operation.name for operation in RULED}
    free = {'get_versions', 'get_openapi', 'get_asyncapi', 'get_home_doc', 'get_capabilities'}
    assert unruled <= free
