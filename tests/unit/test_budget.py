"""No operation costs the server more than a quarter above what it may."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from perf.budget import BUDGET, overruns

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_every_operation_keeps_to_its_budget() -> None:
    command = [sys.executable, '-m', 'perf.budget', '--check']
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr + run.stdout


def test_growth_of_more_than_a_quarter_is_told() -> None:
    budget = json.loads(BUDGET.read_text())
    dearer = {name: cost * 1.3 for name, cost in budget.items()}
    assert len(overruns(dearer, budget)) == len(budget)
    assert not overruns({name: cost * 1.2 for name, cost in budget.items()}, budget)
