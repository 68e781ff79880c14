"""No descriptors left: who is connected is served, the log stays short, and it passes."""

from __future__ import annotations

import os
import pathlib
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from tests.callers import new_identity
from tests.client.waiting import wait_until
from tests.faults.conftest import LOGGING
from tests.faults.gunicorn_process import GunicornProcess
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch

LEFT = 10
TOO_MANY = 60
EXHAUSTED_SECONDS = 3.0
COMPLAINT = 'Cannot accept connections: Too many open files'


@pytest.fixture(params=['server', 'gunicorn'])
def server(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Any]:
    kinds: dict[str, Any] = {'server': ServerProcess, 'gunicorn': GunicornProcess}
    with kinds[request.param](tmp_path, config=LOGGING) as process:
        yield process


def worker_of(server: Any) -> int:
    """The id of the process that accepts connections."""
    if not isinstance(server, GunicornProcess):
        return int(server.pid)
    children = pathlib.Path(f'/proc/{server.pid}/task/{server.pid}/children')
    [worker] = children.read_text().split()
    return int(worker)


def limit_descriptors(pid: int, left: int) -> None:
    """Let a process open only so many more."""
    used = len(os.listdir(f'/proc/{pid}/fd'))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + left, used + left))


def answers(url: str) -> bool:
    try:
        headers = new_identity().headers()
        return requests.get(f'{url}/v2/ping', headers=headers, timeout=60).status_code == 204
    except requests.RequestException:
        return False


def test_who_is_connected_is_served_and_the_others_are_later(server: Any) -> None:
    session = requests.Session()
    session.headers.update(new_identity().headers())
    post = f'{server.url}/v2/queues/orders/messages'
    message = {'messages': [{'body': 1, 'ttl': 60}]}
    assert session.post(post, json=message, timeout=60).status_code == 201
    limit_descriptors(worker_of(server), LEFT)
    with ExitStack() as stack:
        for _ in range(TOO_MANY):
            stack.enter_context(socket.create_connection(('127.0.0.1', server.port), timeout=60))
        end = time.monotonic() + EXHAUSTED_SECONDS
        while time.monotonic() < end:
            watch = Stopwatch(worker_of(server))
            assert session.post(post, json=message, timeout=60).status_code == 201
            assert watch.seconds() < 3.0
            time.sleep(0.02)
    wait_until(lambda: answers(server.url), 10, 'new connections are accepted again')
    assert server.stop() == 0
    said = '\n'.join(server.output)
    assert 'Traceback' not in said
    assert 1 <= said.count(COMPLAINT) <= 2, said
