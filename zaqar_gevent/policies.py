"""The policy rules of the server, for the generators of oslo.policy."""

from __future__ import annotations

from oslo_policy import policy
from zaqar.common import policies

_OWN = [
    policy.DocumentedRuleDefault(
        name='quotas:get',
        check_str='',
        description='Get what the project uses of its quotas.',
        operations=[{'path': '/v2/quotas', 'method': 'GET'}],
    ),
]


def list_rules() -> list[policy.RuleDefault]:
    """The rules and their defaults: upstream's, so that an operator's policy file stays valid, and
    those of operations that upstream does not have.
    """
    return [*policies.list_rules(), *_OWN]
