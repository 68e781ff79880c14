"""The measuring programs run, and what they find is judged rightly."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from perf import profiles, scaling, targets
from perf.usual_client import request_bytes

ROOT = pathlib.Path(__file__).parents[2]


def found_by(name: str, out: pathlib.Path, *options: str) -> Any:
    """What `python -m perf.<name>` writes in as little time as it can."""
    command = [sys.executable, '-m', f'perf.{name}', '--rounds', '1', '--seconds', '0.1']
    subprocess.run([*command, '--out', str(out), *options], cwd=ROOT, check=True)
    return json.loads((out / f'{name}.json').read_text())['found']


@pytest.mark.timeout(240)
def test_servers_are_compared(tmp_path: pathlib.Path) -> None:
    names = ('upstream WebSocket JSON', 'ours WebSocket JSON', 'ours REST, gunicorn')
    options = ['--operations', 'queue get', '--only', *names]
    found = found_by('compare', tmp_path, *options)
    assert found['left_out'] == []
    rates = {row['variant']: row['rate']['median'] for row in found['cells']}
    assert set(names) < set(rates)
    assert all(rate > 0 for rate in rates.values())


@pytest.mark.timeout(240)
def test_a_post_is_taken_apart(tmp_path: pathlib.Path) -> None:
    rows = found_by('anatomy', tmp_path)
    for way in ('WebSocket JSON', 'zaqar.v2 JSON, 16 in flight', 'REST'):
        steps = [row['us'] for row in rows if row['way'] == way and not row.get('is_part')]
        assert len(steps) > 2
        assert sum(steps) > steps[0] > 0


@pytest.mark.timeout(240)
def test_what_operations_do_is_counted() -> None:
    [alone] = [case for case in profiles.CASES if case.name == 'post 100 B, one connection']
    counts = profiles.count_apart(alone)
    assert counts['commits'] >= 1
    assert counts['pages'] >= counts['commits']
    assert counts['statements'] > counts['commits']
    assert min(counts['serving_calls'], counts['writing_calls']) > 1


def test_what_is_in_the_way_of_missed_targets_is_said() -> None:
    row = {
        'case': 'post',
        'asked_us': 45.0,
        'server_us': 74.0,
        'serving_user': 38.0,
        'serving_system': 12.0,
        'other_user': 15.0,
        'other_system': 9.0,
        'serving_calls': 94.0,
        'serving_c_calls': 88.0,
        'commits': 0.07,
        'pages': 0.5,
    }
    met = {**row, 'case': 'list', 'server_us': 44.0}
    free = {**row, 'case': 'claim', 'asked_us': None}
    found = {'cases': [row, met, free], 'syncs': [{'overwritten_us': 100.0}]}
    said = targets.obstacles(found)
    assert said.count('**') == 2
    assert '**post** takes 74 µs, asked for 45' in said
    assert '7 µs of that the syncs' in said


def test_what_the_usual_client_sends_is_measured() -> None:
    short, long = (request_bytes('q', 'x' * length) for length in (10, 110))
    assert long - short == 101
    assert short > 200


def figures(**changes: float) -> targets.Figures:
    """Figures that meet two targets, but for the changes."""
    ours = {'rate': 18_000.0, 'server_us': 44.0, 'idle': 17.0, **changes}
    cells = [
        {
            'variant': variant,
            'cell': targets.POST,
            'rate': {'median': rate},
            'server_us': {'median': used},
        }
        for variant, rate, used in (
            ('ours WebSocket JSON', ours['rate'], ours['server_us']),
            (targets.UPSTREAM, 1000.0, 777.0),
        )
    ]
    idle = [{'kind': 'ours, just opened', 'each_kb': ours['idle'], 'connections': 1000}]
    return targets.Figures({'compare': {'cells': cells}, 'connections': idle})


@pytest.mark.parametrize(
    ('changes', 'post_met', 'idle_met'),
    [
        ({}, True, True),
        ({'rate': 16_900.0}, False, True),
        ({'server_us': 45.5}, False, True),
        ({'idle': 18.1}, True, False),
    ],
)
def test_targets_are_judged(changes: dict[str, float], post_met: bool, idle_met: bool) -> None:
    judged = {
        target.what: target.judge(figures(**changes)).is_met
        for target in targets.TARGETS
        if target.what in ('WebSocket `message_post`, 16 connections', 'idle connection')
    }
    assert list(judged.values()) == [post_met, idle_met]
    assert targets.table(figures(**changes)).count('**no**') == 2 - post_met - idle_met


def test_what_was_not_measured_is_said() -> None:
    table = targets.table(targets.Figures({}))
    assert table.count('not measured') == len(targets.TARGETS)


@pytest.mark.timeout(240)
def test_shards_and_servers_are_predicted_and_measured(tmp_path: pathlib.Path) -> None:
    rows = found_by('scaling', tmp_path, '--quick', '--stores', 'embedded')
    assert [(row['servers'], row['shards']) for row in rows] == [(1, 1), (2, 2)]
    assert all(row['predicted'] > 0 and row['measured'] > 0 for row in rows)
    assert rows[0]['dearer'] == 1


@pytest.mark.parametrize(
    ('deployment', 'rate', 'limit'),
    [
        (scaling.Deployment(1, 1), 10_000, 'servers'),
        (scaling.Deployment(4, 1), 20_000, 'shards'),
        (scaling.Deployment(4, 2), 40_000, 'servers'),
        (scaling.Deployment(4, 1, store_cores=8), 40_000, 'servers'),
        (scaling.Deployment(1, 1, bits=8e6), 1_000, 'network'),
    ],
)
def test_what_is_used_up_first_is_the_limit(
    deployment: scaling.Deployment, rate: float, limit: str
) -> None:
    assert scaling.predict(scaling.Cost(100, 50, 1000), deployment) == (rate, limit)


def test_a_million_messages_take_many_cores() -> None:
    servers, shards = scaling.count_for(1_000_000, scaling.Cost(60, 12))
    assert (servers, shards) == (100, 20)
    assert scaling.count_for(1, scaling.Cost(60, 0)) == (1, 1)
