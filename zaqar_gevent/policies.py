"""The policy rules of the server, for itself and for the generators of oslo.policy."""

from __future__ import annotations

from oslo_policy import policy
from zaqar.common import policies
from zaqar.common.policies import base

_REDRIVES = '/v2/queues/{queue_name}/redrives'
_REDRIVE = f'{_REDRIVES}/{{redrive_id}}'


def _rule(name: str, description: str, method: str, path: str) -> policy.DocumentedRuleDefault:
    """A rule that, as upstream's for messages and claims, lets everybody of the project."""
    return policy.DocumentedRuleDefault(
        name=name,
        check_str=base.UNPROTECTED,
        description=description,
        operations=[{'path': path, 'method': method}],
    )


_OWN = (
    _rule('quotas:get', 'Get what the project uses of its quotas.', 'GET', '/v2/quotas'),
    _rule('redrives:create', 'Moves dead letters of a queue back.', 'POST', _REDRIVES),
    _rule('redrives:get_all', 'Lists the redrives of a queue.', 'GET', _REDRIVES),
    _rule('redrives:get', 'Gets the state of a redrive.', 'GET', _REDRIVE),
    _rule('redrives:delete', 'Cancels a redrive.', 'DELETE', _REDRIVE),
)


def list_rules() -> list[policy.RuleDefault]:
    """The rules and their defaults: upstream's, so that an operator's policy file stays valid, and
    those of operations that upstream does not have.
    """
    return [*policies.list_rules(), *_OWN]
