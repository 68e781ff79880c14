"""The README's commands are those that are run."""

from __future__ import annotations

import pathlib
import re
from importlib.metadata import metadata

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


def test_whatever_is_started_listens_where_all_else_says() -> None:
    text = (ROOT / 'README.md').read_text()
    [gunicorn] = [command for command in commands() if 'bin/gunicorn' in command]
    assert '-b 127.0.0.1:8888' in gunicorn
    # The page is served at a port of its own.
    assert set(re.findall(r'127\.0\.0\.1:(\d+)', text)) - {'5173'} == {'8888'}


def test_the_extras_that_the_documents_name_exist() -> None:
    offered = set(metadata('zaqar_gevent').get_all('Provides-Extra') or ())
    documents = [ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')]
    named = {
        extra
        for document in documents
        for extras in re.findall(r"(?:\.|zaqar_gevent)\[([a-z0-9,]+)\]'", document.read_text())
        for extra in extras.split(',')
    }
    assert {'gunicorn', 'mongodb', 'redis'} <= named
    assert named <= offered
