"""The fallback does what the vectors say, which the JavaScript client runs as well."""

from __future__ import annotations

import inspect
import itertools
import json
import pathlib
from typing import Any

import pytest

from zaqar_gevent.client import fallback
from zaqar_gevent.client.fallback import Fallback, Pace

VECTORS: dict[str, Any] = json.loads(
    (pathlib.Path(__file__).parents[2] / 'client' / 'fallback_vectors.json').read_text()
)


def ours(kind: str) -> list[Any]:
    """The cases of a kind that concern Python."""
    cases = [case for case in VECTORS[kind] if case.get('only', 'python') == 'python']
    return [pytest.param(case, id=case['name']) for case in cases]


def check(returned: Any, step: dict[str, Any]) -> None:
    if 'returns' in step:
        assert returned == pytest.approx(step['returns'], abs=1e-6), step


@pytest.mark.parametrize('case', ours('fallback'))
def test_when_to_try_the_websocket_and_when_to_use_rest(case: dict[str, Any]) -> None:
    now = 0.0
    numbers = itertools.cycle(case['random'])
    machine = Fallback(case['transport'], lambda: now, lambda: next(numbers), case['retry_seconds'])
    for step in case['steps']:
        now += step.get('after', 0)
        if 'event' in step:
            arguments = [step['argument']] if 'argument' in step else []
            check(getattr(machine, step['event'])(*arguments), step)
        assert machine.state == step['state'], step
        expected = None if step['wait'] is None else pytest.approx(step['wait'], abs=1e-6)
        assert machine.wait_seconds() == expected, step


@pytest.mark.parametrize('case', ours('pace'))
def test_how_to_ask_for_what_is_new(case: dict[str, Any]) -> None:
    pace = Pace(case['longest'])
    for step in case['steps']:
        arguments = [step['argument']] if 'argument' in step else []
        check(getattr(pace, step['event'])(*arguments), step)


def test_the_constants_are_those_of_the_vectors() -> None:
    own = {
        name: value
        for place in (fallback, Pace)
        for name, value in vars(place).items()
        if name.isupper()
    }
    [difference] = VECTORS['differences']
    assert difference['name'] == 'MAX_WAIT_SECONDS'
    assert own == {**VECTORS['constants'], 'MAX_WAIT_SECONDS': difference['python']}


@pytest.mark.parametrize(('kind', 'machine'), [('fallback', Fallback), ('pace', Pace)])
def test_every_event_is_in_the_vectors(kind: str, machine: type) -> None:
    events = {
        name
        for name, _ in inspect.getmembers(machine, inspect.isfunction)
        if not name.startswith('_') and name != 'wait_seconds'
    }
    used = {step.get('event') for case in VECTORS[kind] for step in case['steps']}
    assert used - {None} == events
