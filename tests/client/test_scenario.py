"""Whatever a client is built on, it gets the same out of a queue."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid

import pytest

from tests.client.scenario import EXPECTED, scenario
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client

ENCODINGS = ('msgpack', 'json')


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_a_client_in_threads(server: ServerProcess, transport: str, encoding: str) -> None:
    project = uuid.uuid4().hex
    with Client(server.url, project=project, transport=transport, encoding=encoding) as client:
        assert scenario(client, 'scenario') == EXPECTED
        assert client.state == {'websocket': 'websocket', 'rest': 'polling'}[transport]


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_a_client_in_greenlets(server: ServerProcess, transport: str, encoding: str) -> None:
    command = [sys.executable, '-m', 'tests.client.scenario', server.url, '--gevent']
    options = ['--transport', transport, '--encoding', encoding, '--project', uuid.uuid4().hex]
    finished = subprocess.run([*command, *options], capture_output=True, text=True, timeout=180)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ''
    assert json.loads(finished.stdout) == EXPECTED
