"""When a failed notification is sent again: upstream's `_retry_policy`, with bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Policy = Mapping[str, Any]

MAX_RETRIES = 100
"""Retries in one phase of a policy, and in all of them together."""

MAX_DELAY = 3600
"""Seconds between two tries."""

MAX_STEPS = 50
"""Retries of the phase in which the delay grows."""

INTERVAL = 5
"""Seconds by which upstream's linear function grows; it also gives the number of steps."""

_DEFAULTS = {
    'retries_with_no_delay': 3,
    'minimum_delay_retries': 3,
    'minimum_delay': 5,
    'maximum_delay': 30,
    'maximum_delay_retries': 3,
}
_BOUNDS = {name: MAX_DELAY if name.endswith('_delay') else MAX_RETRIES for name in _DEFAULTS}
_BOUNDS['retries_with_no_delay'] = MAX_RETRIES

WITHOUT_POLICY = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)
"""Seconds before each retry where no policy is given: exponential, three minutes in all."""

JITTER = 0.2
"""The most by which a delay is longer than the policy says, as a part of it."""


def choose_policy(own: Any, of_queue: Any) -> Policy:
    """The policy that holds: a subscription's own, unless it or its queue's says otherwise."""
    policy, queue_policy = _as_policy(own), _as_policy(of_queue)
    if any(each.get('ignore_subscription_override') for each in (policy, queue_policy)):
        return queue_policy
    return policy or queue_policy


def delays(policy: Policy) -> tuple[float, ...]:
    """Seconds before each retry, in the phases of upstream's policies.

    What is too large, or no number at all, in stored policies counts as the bound or the default.
    """
    if not policy:
        return WITHOUT_POLICY
    values = {name: _bounded(policy, name) for name in _DEFAULTS}
    lowest = values['minimum_delay']
    highest = max(lowest, values['maximum_delay'])
    growing = _growing(str(policy.get('retry_backoff_function') or 'linear'), lowest, highest)
    phases = (
        *[0.0] * values['retries_with_no_delay'],
        *[float(lowest)] * values['minimum_delay_retries'],
        *growing,
        *[float(highest)] * values['maximum_delay_retries'],
    )
    return phases[:MAX_RETRIES]


def _growing(function: str, lowest: int, highest: int) -> list[float]:
    """The delays between the lowest and the highest one, by the name of upstream's function."""
    count = min(max(1, (highest - lowest) // INTERVAL), MAX_STEPS)
    span = highest - lowest
    match function:
        case 'geometric' | 'exponential':
            start = max(lowest, 1)
            ratio = max(highest, 1) / start
            return [start * ratio ** (step / max(1, count - 1)) for step in range(count)]
        case 'arithmetic':
            whole = max(1, count * (count - 1))
            return [lowest + span * step * (step + 1) / whole for step in range(count)]
        case _:
            return [lowest + span * step / count for step in range(count)]


def _as_policy(value: Any) -> Policy:
    return value if isinstance(value, Mapping) else {}


def _bounded(policy: Policy, name: str) -> int:
    value = policy.get(name)
    if not isinstance(value, int):
        value = _DEFAULTS[name]
    return min(max(0, value), _BOUNDS[name])
