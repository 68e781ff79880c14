"""The README's commands are those that are run."""

from __future__ import annotations

import pathlib

ROOT = pathlib.Path(__file__).parents[2]


def commands() -> list[str]:
    """The command lines of the README's console sessions."""
    lines = (ROOT / 'README.md').read_text().splitlines()
    return [line.removeprefix('$ ') for line in lines if line.startswith('$ ')]


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    [test_command] = [command for command in commands() if command.endswith('/tox')]
    assert test_command in (ROOT / '.ci' / 'run').read_text().splitlines()


def test_one_command_starts_the_server() -> None:
    [start] = [command for command in commands() if command.endswith('bin/zaqar-gevent')]
    assert 'pip install --quiet .' in start


def test_every_link_of_the_readme_leads_somewhere() -> None:
    text = (ROOT / 'README.md').read_text()
    for part in text.split('](')[1:]:
        target = part.split(')')[0].split('#')[0]
        assert target.startswith('https://') or (ROOT / target).exists(), target
