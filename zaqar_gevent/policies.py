"""The policy rules of the server, for the generators of oslo.policy."""

from __future__ import annotations

from zaqar.common import policies


def list_rules() -> list[object]:
    """The rules and their defaults: upstream's, so that an operator's policy file stays valid."""
    return list(policies.list_rules())
