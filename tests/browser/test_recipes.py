"""Every recipe of docs/recipes.md does what it says, in Python, in Node and in bash."""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import uuid

import pytest

from tests.browser.files import ROOT
from tests.client.commands import WHOLE_LINES
from tests.client.waiting import wait_until
from tests.server_process import ServerProcess

TEXT = (ROOT / 'docs' / 'recipes.md').read_text()
LANGUAGES = {'python': '.py', 'js': '.mjs', 'bash': '.sh'}
SECONDS = 60

_BLOCK = re.compile(r'^```(\w+)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_BEGINNING, *_SECTIONS = re.split(r'^## ', TEXT, flags=re.MULTILINE)
BEGINNINGS = dict(_BLOCK.findall(_BEGINNING))
RECIPES = {
    title.strip(): _BLOCK.findall(section)
    for title, _, section in (one.partition('\n') for one in _SECTIONS)
}


def command(language: str, program: pathlib.Path) -> list[str]:
    """What runs a program."""
    match language:
        case 'python':
            return [sys.executable, str(program)]
        case 'js':
            return ['node', str(program)]
        case _:
            return ['bash', '-e', str(program)]


def modules(directory: pathlib.Path) -> None:
    """Install what a program in JavaScript imports."""
    tools = os.environ.get('NODE_DEPENDENCIES')
    assert tools, 'the package ws is needed: run `tox -e browser`'
    package = directory / 'zaqar-gevent'
    package.mkdir(parents=True)
    for name in ('package.json', 'zaqar.js'):
        shutil.copy(ROOT / 'zaqar_gevent' / 'client' / 'js' / name, package)
    (directory / 'ws').symlink_to(pathlib.Path(tools) / 'node_modules' / 'ws')


def adapted(text: str, server: ServerProcess, project: str) -> str:
    """A program that asks this server, in a project of its own."""
    for old, new in (
        ('http://127.0.0.1:8888', server.url),
        ("project='demo'", f"project='{project}'"),
        ("project: 'demo'", f"project: '{project}'"),
        ('X-Project-ID: demo', f'X-Project-ID: {project}'),
    ):
        text = text.replace(old, new)
    assert '8888' not in text
    assert 'demo' not in text
    return text


def test_each_recipe_is_in_every_language() -> None:
    assert set(BEGINNINGS) == set(LANGUAGES)
    assert len(RECIPES) >= 6
    for title, blocks in RECIPES.items():
        counted = collections.Counter(language for language, _ in blocks)
        assert counted.pop('text') == 1, title
        assert set(counted) == set(LANGUAGES), title


@pytest.mark.parametrize('language', LANGUAGES)
@pytest.mark.parametrize('title', RECIPES)
def test_a_recipe_prints_what_it_says(
    title: str, language: str, server: ServerProcess, tmp_path: pathlib.Path
) -> None:
    blocks = RECIPES[title]
    [expected] = [text for kind, text in blocks if kind == 'text']
    beginning = BEGINNINGS[language]
    if language == 'js':
        modules(tmp_path / 'node_modules')
    elif language == 'python':
        beginning += WHOLE_LINES
    project = uuid.uuid4().hex
    shown = tmp_path / 'shown'
    shown.touch()
    running = []
    try:
        for number, (kind, text) in enumerate(blocks):
            if kind == language:
                program = tmp_path / f'program{number}{LANGUAGES[language]}'
                program.write_text(adapted(f'{beginning}\n{text}', server, project))
                with shown.open('a') as output, (tmp_path / 'told').open('a') as told:
                    running.append(
                        subprocess.Popen(
                            command(language, program),
                            cwd=tmp_path,
                            env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
                            stdout=output,
                            stderr=told,
                            start_new_session=True,
                        )
                    )

        def is_shown() -> bool:
            failed = [one.args for one in running if one.poll()]
            assert not failed, (tmp_path / 'told').read_text()
            return shown.read_text().count('\n') >= expected.count('\n')

        wait_until(is_shown, SECONDS, 'it prints what it says')
    finally:
        for process in running:
            # With what it has started: some work until they are stopped.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    # What goes on for ever may have printed more.
    seen = shown.read_text().splitlines()[: expected.count('\n')]
    assert sorted(seen) == sorted(expected.splitlines())
