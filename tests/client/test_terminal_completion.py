"""What shells complete, and the commands that need no server."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from importlib.metadata import version

import pytest

from tests.client.commands import COMMAND, Shell

SECONDS = 60
# As bash calls the function that was registered for the command, with the words typed so far.
ASK_BASH = """
eval "$(zaqar-gevent completion bash)"
COMP_LINE="$1"; COMP_POINT=${#1}; COMP_TYPE=9
read -ra COMP_WORDS <<< "$COMP_LINE"
[[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
function_of=$(complete -p zaqar-gevent | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function_of" zaqar-gevent "${COMP_WORDS[COMP_CWORD]}" ''
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    """A PATH in which the command is found."""
    program = tmp_path / 'zaqar-gevent'
    program.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    program.chmod(0o755)
    return f'{tmp_path}:{os.environ["PATH"]}'


def test_bash_completes_commands_options_and_names_of_queues(shell: Shell, path: str) -> None:
    shell.records('queue', 'create', 'orders')
    shell.records('queue', 'create', 'others')
    for typed, expected in (
        ('zaqar-gevent que', {'queue'}),
        ('zaqar-gevent queue cr', {'create'}),
        (
            'zaqar-gevent queue create jobs --dead-letter-',
            {'--dead-letter-queue', '--dead-letter-ttl'},
        ),
        ('zaqar-gevent list --transport we', {'websocket'}),
        ('zaqar-gevent post o', {'orders', 'others'}),
        ('zaqar-gevent queue delete ord', {'orders'}),
    ):
        finished = subprocess.run(
            ['bash', '-c', ASK_BASH, 'bash', typed],
            env={**shell.env, 'PATH': path},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert {word.strip() for word in finished.stdout.split()} == expected, finished.stderr


@pytest.mark.parametrize(
    ('name', 'check'), [('bash', ('bash', '-n')), ('zsh', ('zsh', '-n')), ('fish', ('fish', '-n'))]
)
def test_the_script_for_a_shell_is_one(
    name: str, check: tuple[str, ...], tmp_path: pathlib.Path, shell: Shell
) -> None:
    script = shell.run('completion', name).stdout
    assert 'zaqar-gevent' in script
    if shutil.which(name):
        file = tmp_path / 'script'
        file.write_text(script)
        subprocess.run([*check, str(file)], check=True, timeout=SECONDS)


def test_completing_without_a_server_is_quiet(shell: Shell, path: str) -> None:
    finished = subprocess.run(
        ['bash', '-c', ASK_BASH, 'bash', 'zaqar-gevent queue delete o'],
        env={**shell.env, 'PATH': path, 'ZAQAR_URL': 'http://127.0.0.1:1'},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (finished.stdout.strip(), finished.stderr) == ('', '')


def test_help_lists_all_commands_and_explains_each(shell: Shell) -> None:
    told = shell.run('help').stdout
    assert told == shell.run('--help').stdout
    assert told == shell.run('help', '--help').stdout
    for command in ('serve', 'check', 'post', 'queue', 'subscription', 'completion'):
        assert f'\n  {command} ' in told
    explained = shell.run('help', 'queue', 'create').stdout
    assert explained == shell.run('queue', 'create', '--help').stdout
    for expected in ('--max-claims N', '(default: 3600)', 'SECONDS', 'exit status'):
        assert expected in explained


def test_the_version_is_a_command(shell: Shell) -> None:
    assert shell.run('version').stdout == f'zaqar-gevent {version("zaqar_gevent")}\n'
