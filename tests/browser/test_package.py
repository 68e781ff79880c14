"""The tests of the package of the browser client, by Node's own test runner."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.browser.files import ROOT
from tests.server_process import ServerProcess

CLIENT = ROOT / 'zaqar_gevent' / 'client' / 'js'
TRANSCRIPT = ROOT / 'tests' / 'client' / 'scenario.json'
SECRET = '[signed_url]\nsecret_key = a secret of the tests\n'


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    config = f'[DEFAULT]\nadmin_mode = true\n{SECRET}'
    with ServerProcess(tmp_path_factory.mktemp('server'), config=config) as process:
        yield process


@pytest.mark.timeout(300)
def test_the_tests_of_the_package_pass(
    server: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = os.environ.get('NODE') or shutil.which('node') or shutil.which('nodejs')
    assert path, 'Node.js is needed (package nodejs, or https://nodejs.org)'
    config = f'[DEFAULT]\nadmin_mode = true\npooling = true\n{SECRET}'
    pools: pathlib.Path = tmp_path_factory.mktemp('pools')
    with ServerProcess(tmp_path_factory.mktemp('pooled'), config=config) as pooled:
        env = {
            **os.environ,
            'ZAQAR_URL': server.url,
            'ZAQAR_POOLED_URL': pooled.url,
            'ZAQAR_POOLS': str(pools),
            'ZAQAR_TRANSCRIPT': str(TRANSCRIPT),
        }
        tests = sorted(str(file) for file in (CLIENT / 'test').glob('*.test.js'))
        command = [path, '--test', '--test-concurrency=4', '--test-reporter=spec', *tests]
        finished = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stdout + finished.stderr
