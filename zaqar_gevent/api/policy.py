"""Who may do what: oslo.policy's rules, asked once a second for each kind of caller."""

from __future__ import annotations

import time
from collections.abc import Callable

from oslo_config import cfg
from oslo_policy import policy
from zaqar import context as zaqar_context
from zaqar.common import policies

from zaqar_gevent.api.context import Context

VERDICT_SECONDS = 1.0

Caller = tuple[str, str | None, str | None, tuple[str, ...]]


class Policy:
    """The verdicts of the operator's policy file on Zaqar's rules.

    PERF: oslo.policy looks at its files and converts the credentials on every question, about
    90 µs. A verdict depends on nothing but the rule, the caller and those files, so it is kept for
    `VERDICT_SECONDS`; a changed file or role is seen after that.
    """

    def __init__(self, conf: cfg.ConfigOpts, clock: Callable[[], float] = time.monotonic) -> None:
        self._enforcer = policy.Enforcer(conf)
        self._enforcer.register_defaults(policies.list_rules())
        self._clock = clock
        self._verdicts: dict[Caller, bool] = {}
        self._renew_at = 0.0

    def allows(self, rule: str, context: Context) -> bool:
        """Whether `rule` lets the context's user do it."""
        now = self._clock()
        if now >= self._renew_at:
            self._verdicts = {}
            self._renew_at = now + VERDICT_SECONDS
        caller = (rule, context.project_id, context.user_id, context.roles)
        verdict = self._verdicts.get(caller)
        if verdict is None:
            verdict = self._verdicts[caller] = self._ask(rule, context)
        return verdict

    def _ask(self, rule: str, context: Context) -> bool:
        credentials = zaqar_context.RequestContext(
            project_id=context.project_id,
            user_id=context.user_id,
            roles=list(context.roles),
            client_id=context.client_id,
            overwrite=False,
        )
        return bool(self._enforcer.enforce(rule, {}, credentials.to_dict()))
