"""When the wall clock has moved against the steady one, by clocks that the tests move."""

from __future__ import annotations

from typing import Any

import pytest

from zaqar_gevent.push import tail
from zaqar_gevent.push.clock_steps import ClockStepDetector
from zaqar_gevent.storage.features import MarkerKind, StoreFeatures


class Moved:
    """Two clocks."""

    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.steady = 5.0

    def clock_steps(self) -> ClockStepDetector:
        return ClockStepDetector(lambda: self.wall, lambda: self.steady)


@pytest.mark.parametrize('step', [3600.0, -3600.0, 0.6, -0.6])
def test_a_step_is_noticed_once(step: float) -> None:
    moved = Moved()
    clock_steps = moved.clock_steps()
    assert not clock_steps.has_stepped()
    moved.wall += step
    assert clock_steps.has_stepped()
    assert not clock_steps.has_stepped()


def test_time_that_passes_for_both_is_none() -> None:
    moved = Moved()
    clock_steps = moved.clock_steps()
    for _ in range(1000):
        moved.wall += 1.0001
        moved.steady += 1
        assert not clock_steps.has_stepped()


def test_a_suspended_machine_is_noticed() -> None:
    """Only the wall clock goes on meanwhile."""
    moved = Moved()
    clock_steps = moved.clock_steps()
    moved.wall += 8 * 3600
    moved.steady += 0.1
    assert clock_steps.has_stepped()


def test_a_slow_drift_adds_up_to_a_step() -> None:
    moved = Moved()
    clock_steps = moved.clock_steps()
    noticed = 0
    for _ in range(100):
        moved.wall += 1.01
        moved.steady += 1
        noticed += clock_steps.has_stepped()
    assert noticed in (1, 2)


class Store:
    """A store that begins anew after a message that is gone, as upstream's Redis driver."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def list(self, *args: Any, marker: str, limit: int, **options: Any) -> Any:
        ids = [message['id'] for message in self.messages]
        start = ids.index(marker) + 1 if marker in ids else 0
        found = self.messages[start : start + limit]
        return iter((iter(found), found and found[-1]['id']))

    def bulk_get(self, name: str, ids: list[str], project: str | None) -> Any:
        return [message for message in self.messages if message['id'] in ids]

    def first(self, *args: Any, **options: Any) -> dict[str, Any]:
        return self.messages[-1]


def test_a_follower_skips_nothing_that_is_posted_after_the_clock_was_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved, store = Moved(), Store()
    monkeypatch.setattr(tail.time, 'time', lambda: moved.wall)
    monkeypatch.setattr(tail, 'ClockStepDetector', moved.clock_steps)
    monkeypatch.setattr(tail, 'present_all', lambda broker, found, project: found)
    features = StoreFeatures(MarkerKind.MESSAGE_ID)
    broker: Any = type('Broker', (), {'messages': store, 'features': features})
    follower = tail.ForgetfulTail(broker, tail.Source('demo', 'orders'))
    store.messages = [{'id': 'seen', 'age': 0}]
    assert [entry.marker for entry in follower.after(None)] == ['seen']
    assert follower.after('seen') == []
    moved.wall -= 3600
    # The message of the marker is gone, so that the list begins anew.
    store.messages = [{'id': 'new', 'age': 0}]
    assert [entry.marker for entry in follower.after('seen')] == ['new']
