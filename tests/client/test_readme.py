"""The pools of workers that the README shows, run as they stand there."""

from __future__ import annotations

import json
import pathlib
import re
import shlex
import subprocess
import sys

from tests.client.commands import SECONDS, WHOLE_LINES, Shell
from tests.client.waiting import wait_until

README = pathlib.Path(__file__).parents[2] / 'README.md'
# Charges what can be charged; of one in three the first attempt fails, and one never works.
CHARGE = """#!/bin/sh
sku=$(sed 's/.*"sku": \\([0-9]*\\).*/\\1/')
[ "$sku" = 13 ] && exit 1
[ $((sku % 3)) = 0 ] && [ "$ZAQAR_ATTEMPT" = 1 ] && exit 1
echo "$sku" >> charged
"""
ORDERS = 30


def test_a_pool_of_workers_retries_and_has_dead_letters(
    shell: Shell, tmp_path: pathlib.Path
) -> None:
    [command] = re.findall(r'^\$ zaqar-gevent (consume .*)$', README.read_text(), re.MULTILINE)
    script = tmp_path / 'charge.sh'
    script.write_text(CHARGE)
    script.chmod(0o755)
    charged = tmp_path / 'charged'
    charged.touch()
    shell.records('post', 'orders', *(json.dumps({'sku': sku}) for sku in range(ORDERS)))
    arguments = shlex.split(command.replace('--backoff 1', '--backoff 0.1'))
    assert '--backoff' in arguments
    workers = [shell.start(*arguments, cwd=tmp_path) for _ in range(2)]
    wait_until(
        lambda: len(charged.read_text().split()) == ORDERS - 1, SECONDS, 'all orders are charged'
    )
    wait_until(
        lambda: [one['name'] for one in shell.records('list')] == ['failed', 'orders'],
        SECONDS,
        'there is a dead letter',
    )
    for worker in workers:
        worker.terminate()
        worker.communicate(timeout=SECONDS)
    assert sorted(map(int, charged.read_text().split())) == [
        sku for sku in range(ORDERS) if sku != 13
    ]
    assert [one['body'] for one in shell.records('list', 'failed')] == [{'sku': 13}]
    assert shell.records('list', 'orders') == []


def test_a_pool_in_python_does_the_same_by_the_settings_of_the_queue(shell: Shell) -> None:
    text = README.read_text()
    [program] = re.findall(r'^```python\n(from .*?Worker.*?)^```', text, re.MULTILINE | re.DOTALL)
    commands = re.findall(r'^\$ zaqar-gevent (queue .*)$', text, re.MULTILINE)
    shell.records('post', 'orders', *('{"sku": 1}', '{"no sku": 2}', '{"sku": 3}'))
    assert len(commands) == 2
    for command in commands:
        shell.records(*shlex.split(command.replace('--retry-delay 1', '--retry-delay 0.1')))
    for old, new in (
        ('http://127.0.0.1:8888', shell.env['ZAQAR_URL']),
        ("project='demo'", f'project={shell.env["ZAQAR_PROJECT"]!r}'),
    ):
        assert old in program
        program = program.replace(old, new)
    with subprocess.Popen(
        [sys.executable, '-c', WHOLE_LINES + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        try:
            wait_until(lambda: shell.run('list', 'failed').stdout != '', SECONDS, 'a dead letter')
        finally:
            worker.terminate()
        output, errors = worker.communicate(timeout=SECONDS)
    assert sorted(output.splitlines()) == ['charged 1', 'charged 3']
    assert [one['body'] for one in shell.records('list', 'failed')] == [{'no sku': 2}]
    assert shell.records('list', 'orders') == []
    assert "KeyError: 'sku'" in errors
