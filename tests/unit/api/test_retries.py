"""When failed notifications are sent again."""

from __future__ import annotations

import time
from typing import Any

import pytest

from zaqar_gevent.api import retries

QUEUE = {'minimum_delay': 7}
OWN = {'minimum_delay': 9}


def test_without_a_policy_the_delays_double() -> None:
    assert retries.delays({}) == (1, 2, 4, 8, 16, 32, 60, 60)


def test_a_policy_has_upstreams_phases() -> None:
    policy = {
        'retries_with_no_delay': 2,
        'minimum_delay_retries': 1,
        'minimum_delay': 10,
        'maximum_delay': 30,
        'maximum_delay_retries': 2,
    }
    assert retries.delays(policy) == (0, 0, 10, 10, 15, 20, 25, 30, 30)


def test_what_a_policy_leaves_out_is_upstreams_default() -> None:
    assert retries.delays({'retries_with_no_delay': 0}) == (
        *(5, 5, 5),
        *(5, 10, 15, 20, 25),
        *(30, 30, 30),
    )


@pytest.mark.parametrize(
    ('function', 'growing'),
    [
        ('linear', [10, 15, 20, 25]),
        ('arithmetic', [10, 13.33, 20, 30]),
        ('geometric', [10, 14.42, 20.8, 30]),
        ('exponential', [10, 14.42, 20.8, 30]),
    ],
)
def test_the_delay_grows_as_the_function_says(function: str, growing: list[float]) -> None:
    policy = {
        'retries_with_no_delay': 0,
        'minimum_delay_retries': 0,
        'minimum_delay': 10,
        'maximum_delay': 30,
        'maximum_delay_retries': 0,
        'retry_backoff_function': function,
    }
    assert retries.delays(policy) == pytest.approx(growing, abs=0.01)


@pytest.mark.parametrize('function', ['linear', 'arithmetic', 'geometric', 'exponential'])
@pytest.mark.parametrize(
    'policy',
    [
        {'maximum_delay': 400_000_000},
        {'minimum_delay': 0, 'maximum_delay': 10**30},
        {'minimum_delay': 10**30, 'maximum_delay': 1},
        {'minimum_delay': -(10**9), 'maximum_delay': -5},
        {'retries_with_no_delay': 10**12, 'maximum_delay_retries': 10**12},
        {'minimum_delay': 'soon', 'maximum_delay': None, 'retries_with_no_delay': []},
        {'minimum_delay': 30, 'maximum_delay': 30},
        {'minimum_delay': 1, 'maximum_delay': 12},
    ],
)
def test_stored_policies_are_bounded(function: str, policy: dict[str, Any]) -> None:
    began = time.process_time()
    found = retries.delays({**policy, 'retry_backoff_function': function})
    assert time.process_time() - began < 0.05
    assert 0 < len(found) <= retries.MAX_RETRIES
    assert all(0 <= each <= retries.MAX_DELAY for each in found)


@pytest.mark.parametrize('own', [None, {}, 'wrong', [], OWN])
def test_a_subscriptions_policy_counts_before_the_queues(own: Any) -> None:
    assert retries.choose_policy(own, QUEUE) == (own if own == OWN else QUEUE)


@pytest.mark.parametrize('says', [OWN, QUEUE])
def test_either_can_say_that_the_queues_counts(says: dict[str, Any]) -> None:
    own, of_queue = ({**each, **({_IGNORE: True} if each is says else {})} for each in (OWN, QUEUE))
    assert retries.choose_policy(own, of_queue) == of_queue


def test_there_may_be_none() -> None:
    assert retries.choose_policy(None, None) == {}


_IGNORE = 'ignore_subscription_override'
