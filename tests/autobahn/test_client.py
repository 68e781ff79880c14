"""Autobahn's fuzzing server against the Python client's WebSocket.

The environment is that of `test_suite`.
"""

from __future__ import annotations

import json
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.autobahn.test_suite import CASES, PASSED, WSTEST, keep
from tests.ports import free_port

START_SECONDS = 30
KINDS = {
    'threads': ['--compression'],
    'gevent': ['--gevent', '--compression'],
    'asyncio': ['--asyncio', '--compression'],
    'threads-ws4py': ['--engine', 'ws4py'],
    'asyncio-ws4py': ['--asyncio', '--engine', 'ws4py'],
}


@pytest.fixture
def report(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / 'report'


@pytest.fixture
def fuzzing_server(tmp_path: pathlib.Path, report: pathlib.Path) -> Iterator[str]:
    """The fuzzing server on a free port; gives its URL."""
    port = free_port()
    url = f'ws://127.0.0.1:{port}'
    excluded: dict[str, object] = {'exclude-cases': [], 'exclude-agent-cases': {}}
    specification = tmp_path / 'fuzzingserver.json'
    specification.write_text(
        json.dumps({'url': url, 'outdir': str(report), 'cases': CASES, **excluded})
    )
    command = [WSTEST, '-m', 'fuzzingserver', '-u', '0', '-s', str(specification)]
    with (tmp_path / 'fuzzingserver.log').open('w') as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:
        _wait_for(port, process)
        yield url
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(('127.0.0.1', port)) == 0:
                return
        assert process.poll() is None
        assert time.monotonic() < deadline, 'the fuzzing server did not start'
        time.sleep(0.1)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize('kind', KINDS)
def test_no_case_fails(fuzzing_server: str, report: pathlib.Path, kind: str) -> None:
    command = [sys.executable, '-m', 'tests.autobahn.echo_client', fuzzing_server, kind]
    subprocess.run([*command, *KINDS[kind]], check=True, timeout=3500)
    results = json.loads((report / 'index.json').read_text())[kind]
    keep('client', kind, results)
    expected = PASSED if '--compression' in KINDS[kind] else PASSED | {'UNIMPLEMENTED'}
    failed = {
        case: result
        for case, result in results.items()
        if result['behavior'] not in expected or result['behaviorClose'] not in expected
    }
    assert not failed, failed
    ran = {case.split('.')[0] for case in results}
    assert ran == {case.split('.')[0] for case in CASES}
