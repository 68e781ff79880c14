"""Checks oslo.policy's rules, at most once a second for each kind of caller."""

from __future__ import annotations

import time
from collections.abc import Callable

from oslo_config import cfg
from oslo_policy import policy
from zaqar.context import RequestContext

from zaqar_gevent import policies
from zaqar_gevent.api.context import Caller

VERDICT_SECONDS = 1.0
# Roughly, of the callers that verdicts are kept for.
MAX_VERDICT_BYTES = 8 * 1024 * 1024
_BYTES = 256
_BYTES_OF_ROLE = 64


class Policy:
    """The verdicts of the operator's policy file on the server's rules.

    PERF: oslo.policy looks at its files and converts the credentials on every question, about
    90 µs. A verdict depends on nothing but the rule, the caller and those files, so it is kept for
    `VERDICT_SECONDS`; a changed file or role is seen after that.
    """

    def __init__(self, conf: cfg.ConfigOpts, clock: Callable[[], float] = time.monotonic) -> None:
        self._enforcer = policy.Enforcer(conf)
        self._enforcer.register_defaults(policies.list_rules())
        self._clock = clock
        self._verdicts: dict[tuple[str, Caller], bool] = {}
        self._verdict_bytes = 0
        self._renew_at = 0.0

    def allows(self, rule: str, caller: Caller) -> bool:
        """Whether `rule` lets the caller do it."""
        now = self._clock()
        if now >= self._renew_at or self._verdict_bytes >= MAX_VERDICT_BYTES:
            self._verdicts = {}
            self._verdict_bytes = 0
            self._renew_at = now + VERDICT_SECONDS
        verdict = self._verdicts.get((rule, caller))
        if verdict is None:
            verdict = self._verdicts[rule, caller] = self._ask(rule, caller)
            self._verdict_bytes += _BYTES + sum(len(role) + _BYTES_OF_ROLE for role in caller.roles)
        return verdict

    def _ask(self, rule: str, caller: Caller) -> bool:
        credentials = RequestContext(
            project_id=caller.project_id,
            user_id=caller.user_id,
            roles=list(caller.roles),
            client_id=caller.client_id,
            overwrite=False,
            **dict(caller.credentials),
        )
        known = {**credentials.to_dict(), **credentials.to_policy_values()}
        return bool(self._enforcer.enforce(rule, {}, known))
