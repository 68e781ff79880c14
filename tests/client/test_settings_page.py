"""The examples of the page about settings do what they say."""

from __future__ import annotations

import pathlib
import re
import shlex
import subprocess

from tests.client.commands import SECONDS, Shell
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'settings.md'
EXAMPLES = dict(re.findall(r'^```(\w+)\n(.*?)^```$', PAGE.read_text(), re.MULTILINE | re.DOTALL))


def test_the_examples_set_what_they_say(server: ServerProcess, shell: Shell) -> None:
    project = shell.env['ZAQAR_PROJECT']
    expected = {
        '_max_claim_count': 5,
        '_dead_letter_queue': 'failed',
        '_retry_delay': {'initial': 2},
    }
    with Client(server.url, project=project) as zaqar:
        exec(EXAMPLES['python'], {'zaqar': zaqar})
        jobs = zaqar.queue('jobs')
        assert jobs.get_metadata().items() >= expected.items()
        first, second = EXAMPLES['console'].splitlines()
        for line, count in ((first, 5), (second, 6)):
            finished = shell.run(*shlex.split(line.removeprefix('$ zaqar-gevent ')))
            assert finished.returncode == 0
            assert jobs.get_metadata().items() >= {**expected, '_max_claim_count': count}.items()
        text = EXAMPLES['bash'].replace('http://127.0.0.1:8888', server.url)
        text = text.replace('X-Project-ID: demo', f'X-Project-ID: {project}')
        subprocess.run(['bash', '-ec', text], check=True, timeout=SECONDS, capture_output=True)
        assert jobs.get_metadata().items() >= expected.items()
