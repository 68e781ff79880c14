"""Autobahn's fuzzing client against every engine on every server.

WSTEST is the path of its command, which needs Python 2.7.

The results go to the file that AUTOBAHN_RESULTS names, for the table in the documentation.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from tests.autobahn.echo_server import ENGINES, SERVERS
from tests.server_process import start_process

WSTEST = os.environ['WSTEST']
CASES = ['1.*', '2.*', '3.*', '4.*', '5.*', '6.*', '7.*', '9.*', '10.*', '12.*', '13.*']
# Of gunicorn's worker, on a machine that may be busy.
START_SECONDS = 300
PASSED = {'OK', 'NON-STRICT', 'INFORMATIONAL'}
COMPRESSION = {'12.*', '13.*'}
# gevent-websocket has answered the handshake before compression could be agreed to.
COMPRESSING = {('own', 'websockets'), ('worker', 'websockets')}


@contextmanager
def echo_server(server: str, engine: str) -> Iterator[int]:
    """The echo server on a free port; gives the port."""
    command = [sys.executable, '-m', 'tests.autobahn.echo_server', '--port', '0']
    process = start_process([*command, '--server', server, '--engine', engine], dict(os.environ))
    try:
        port = _port(process)
        # gunicorn listens before its worker can answer, and the fuzzing client waits five seconds.
        requests.get(f'http://127.0.0.1:{port}/', timeout=START_SECONDS)
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        match = re.search(r'Listening at: http://127\.0\.0\.1:(\d+)', line)
        if match:
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return int(match[1])
    raise AssertionError('the echo server did not start')


@pytest.mark.timeout(3600)
@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('server', SERVERS)
def test_no_case_fails(server: str, engine: str, tmp_path: pathlib.Path) -> None:
    compresses = (server, engine) in COMPRESSING
    cases = [case for case in CASES if compresses or case not in COMPRESSION]
    with echo_server(server, engine) as port:
        specification = tmp_path / 'fuzzingclient.json'
        specification.write_text(
            json.dumps(
                {
                    'outdir': str(tmp_path / 'report'),
                    'servers': [{'agent': 'zaqar', 'url': f'ws://127.0.0.1:{port}/'}],
                    'cases': cases,
                    'exclude-cases': [],
                    'exclude-agent-cases': {},
                }
            )
        )
        command = [WSTEST, '-m', 'fuzzingclient', '-s', str(specification)]
        subprocess.run(command, check=True, capture_output=True, timeout=3500)
    results = json.loads((tmp_path / 'report' / 'index.json').read_text())['zaqar']
    keep(server, engine, results)
    failed = {
        case: result
        for case, result in results.items()
        if result['behavior'] not in PASSED or result['behaviorClose'] not in PASSED
    }
    assert not failed, failed
    assert {case.split('.')[0] for case in results} == {case.split('.')[0] for case in cases}


def keep(server: str, engine: str, results: dict[str, dict[str, str]]) -> None:
    """Add a line to the table: how many cases of each group had which result."""
    target = os.environ.get('AUTOBAHN_RESULTS')
    if target is None:
        return
    groups: dict[str, collections.Counter[str]] = {}
    for case, result in results.items():
        groups.setdefault(case.split('.')[0], collections.Counter())[result['behavior']] += 1
    with pathlib.Path(target).open('a') as file:
        file.write(json.dumps({'server': server, 'engine': engine, 'groups': groups}) + '\n')
