"""The parser of heads is written in C: nothing that is sent makes it crash or leak."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults.memory import MB


@pytest.mark.parametrize('count', [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(1800)
def test_nothing_crashes_the_parser_or_makes_it_leak(count: int) -> None:
    command = [sys.executable, '-m', 'tests.unit.http.parser_fuzz', str(count)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    early, late = map(int, ran.stdout.split())
    print(f'{early / MB:.1f} MB, then {late / MB:.1f} MB')
    assert late - early < 2 * MB
