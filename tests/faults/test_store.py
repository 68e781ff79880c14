"""A server whose embedded store cannot work: told at once, recovered from, always ended."""

from __future__ import annotations

import contextlib
import pathlib
import resource
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import requests

from tests.callers import TRANSPORTS, RestCaller, connect
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch
from zaqar_gevent.client import Client

SECONDS = 60

FAULTY = """
import os, sys
from gevent import monkey
sleep = monkey.get_original('time', 'sleep')
from zaqar_gevent import cmd
from zaqar_gevent.storage.sqlite import {module} as module

switch = sys.argv.pop(1)
sound = module.{server}.{method}

def faulty(*arguments):
    while os.path.exists(switch):
        {fault}
    return sound(*arguments)

module.{server}.{method} = faulty
sys.exit(cmd.main(sys.argv[1:]))
"""


class FaultyServer(ServerProcess):
    """A server whose thread fails while the file `switch` exists."""

    def __init__(self, state: pathlib.Path, module: str, server: str, method: str, fault: str):
        super().__init__(state, config='[drivers:transport:gevent]\ngraceful_timeout = 1\n')
        program = FAULTY.format(module=module, server=server, method=method, fault=fault)
        self.switch = state.parent / 'switch'
        self._command[1:3] = ['-c', program, str(self.switch)]


def is_healthy(server: ServerProcess) -> bool:
    answer = requests.get(f'{server.url}/healthcheck', timeout=60)
    assert answer.status_code in (200, 503)
    return answer.status_code == 200


def eventually(condition: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def post(caller: Any, body: object) -> int:
    answer = caller.call('message_post', queue_name='q', messages=[{'body': body, 'ttl': 3600}])
    return int(answer.status)


def bodies(caller: Any) -> list[Any] | int:
    answer = caller.call('message_list', queue_name='q', echo=True, limit=20)
    if answer.status != 200:
        return int(answer.status)
    return [message['body'] for message in answer.body['messages']]


FAULTS = [
    pytest.param('writer', 'Writer', 'execute', 'raise MemoryError', id='writer out of memory'),
    pytest.param('writer', 'Writer', 'execute', 'raise SystemExit', id='writer exits'),
    pytest.param('writer', 'Writer', 'on_idle', 'raise KeyboardInterrupt', id='writer interrupted'),
    pytest.param('writer', 'Writer', 'commit', 'raise MemoryError', id='commit out of memory'),
    pytest.param('collector', 'CollectionSchedule', 'run', 'raise MemoryError', id='collector'),
]


@pytest.mark.parametrize(('module', 'server_name', 'method', 'fault'), FAULTS)
def test_a_thread_that_fails_is_told_and_replaced(
    tmp_path: pathlib.Path, module: str, server_name: str, method: str, fault: str
) -> None:
    with FaultyServer(tmp_path / 'state', module, server_name, method, fault) as server:
        caller = RestCaller(server.url)
        assert post(caller, 'before') == 201
        server.switch.touch()
        watch = Stopwatch(server.pid)
        statuses = {post(caller, 'meanwhile') for _ in range(10)}
        assert watch.seconds() < 10
        if method in ('execute', 'commit'):
            assert statuses == {503}
            eventually(lambda: not is_healthy(server))
            listed = bodies(caller)
            assert listed == ['before']
        server.switch.unlink()
        eventually(lambda: is_healthy(server))
        assert post(caller, 'after') == 201
        assert 'after' in bodies(caller)
        caller.close()
        assert server.stop() == 0
    assert sum('unavailable' in line for line in server.output) <= 2


@pytest.mark.parametrize('transport', ['rest', 'ws-json', 'v2-msgpack'])
def test_a_thread_that_hangs_keeps_nobody_waiting_for_ever(
    tmp_path: pathlib.Path, transport: str
) -> None:
    """Nor the server from ending."""
    with FaultyServer(tmp_path / 'state', 'writer', 'Writer', 'execute', 'sleep(0.1)') as server:
        caller = connect(transport, server.url, server.websocket_url)
        assert post(caller, 'before') == 201
        server.switch.touch()
        watch = Stopwatch(server.pid)
        with contextlib.suppress(requests.Timeout):
            is_healthy_at_once(server)
        eventually(lambda: not is_healthy_at_once(server))
        assert watch.seconds() < 10
        assert bodies(caller) == ['before']
        watch = Stopwatch(server.pid)
        assert server.stop() == 0
        assert watch.seconds() < 20


def is_healthy_at_once(server: ServerProcess) -> bool:
    """Without the patience to wait for what another is waiting for."""
    try:
        return requests.get(f'{server.url}/healthcheck', timeout=0.5).status_code == 200
    except requests.Timeout:
        return True


@contextlib.contextmanager
def without_memory_for_threads(server: ServerProcess) -> Iterator[None]:
    """Leave the server less than the stack of a thread takes."""
    before = resource.prlimit(server.pid, resource.RLIMIT_AS)
    size = psutil.Process(server.pid).memory_info().vms
    resource.prlimit(server.pid, resource.RLIMIT_AS, (size + (4 << 20), before[1]))
    yield
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(server.pid, resource.RLIMIT_AS, before)


def test_threads_that_cannot_be_started_are_told_until_they_can(tmp_path: pathlib.Path) -> None:
    with ServerProcess(tmp_path / 'state') as server:
        caller = RestCaller(server.url)
        assert caller.call('get_versions').status == 300
        with without_memory_for_threads(server):
            # The writing thread runs from the start, those that read for long do not yet.
            assert {caller.call('queue_list').status for _ in range(3)} == {503}
            assert post(caller, 'before') == 201
            assert not is_healthy(server)
            assert caller.call('ping_node').status == 503
        eventually(lambda: is_healthy(server))
        assert post(caller, 'after') == 201
        assert bodies(caller) == ['before', 'after']
        caller.close()
        assert server.stop() == 0
    told = [line for line in server.output if "can't start new thread" in line]
    assert 1 <= len(told) <= 2


def test_a_server_without_threads_ends_when_it_is_told_to(tmp_path: pathlib.Path) -> None:
    with ServerProcess(tmp_path / 'state') as server, without_memory_for_threads(server):
        caller = RestCaller(server.url)
        assert caller.call('queue_list').status == 503
        caller.close()
        watch = Stopwatch(server.pid)
        assert server.stop() == 0
        assert watch.seconds() < 10


@pytest.mark.parametrize('transport', TRANSPORTS)
@pytest.mark.parametrize('deed', ['moved', 'deleted', 'replaced'])
def test_a_file_that_is_not_there_any_more_is_told(
    tmp_path: pathlib.Path, transport: str, deed: str
) -> None:
    state = tmp_path / 'state'
    file = state / 'zaqar.sqlite'
    with ServerProcess(state) as server:
        caller = connect(transport, server.url, server.websocket_url)
        assert post(caller, 'before') == 201
        if deed == 'deleted':
            file.unlink()
        else:
            file.rename(state / 'moved.sqlite')
        if deed == 'replaced':
            file.write_bytes((state / 'moved.sqlite').read_bytes())
        time.sleep(1)
        assert post(caller, 'refused') == 503
        assert bodies(caller) == 503
        assert not is_healthy(server)
        if deed == 'moved':
            (state / 'moved.sqlite').rename(file)
            eventually(lambda: is_healthy(server))
            assert post(caller, 'after') == 201
        caller.close()
        assert server.stop() == 0
    assert sum('zaqar.sqlite' in line and 'unavailable' in line for line in server.output) == 1
    with ServerProcess(state) as server:
        again = connect('rest', server.url, server.websocket_url, caller.identity)
        kept = {'moved': ['before', 'after'], 'deleted': [], 'replaced': []}[deed]
        found = bodies(again)
        assert found == kept or (deed == 'replaced' and found in ([], ['before']))
        assert post(again, 'again') == 201
        again.close()


@pytest.mark.parametrize('how', ['subscribe', 'consume'])
def test_followers_go_on_when_the_store_is_back(tmp_path: pathlib.Path, how: str) -> None:
    state = tmp_path / 'state'
    file = state / 'zaqar.sqlite'
    seen: list[Any] = []
    with ServerProcess(state) as server, Client(server.url, project='demo') as client:
        queue = client.queue('q')
        queue.post('before', ttl=3600)

        def follow() -> None:
            for message in queue.subscribe(marker='') if how == 'subscribe' else queue.consume():
                seen.append(message.body)
                if how == 'consume':
                    message.delete()
                if message.body == 'after':
                    return

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        queue.post('first', ttl=3600)
        eventually(lambda: 'first' in seen)
        file.rename(state / 'moved.sqlite')
        eventually(lambda: not is_healthy(server))
        time.sleep(2)
        (state / 'moved.sqlite').rename(file)
        eventually(lambda: is_healthy(server))
        queue.post('after', ttl=3600)
        follower.join(SECONDS)
        assert not follower.is_alive()
        assert seen == ['before', 'first', 'after']
        assert sum('has been moved' in line for line in server.output) == 1


def test_what_nobody_asks_for_is_logged_all_the_same(tmp_path: pathlib.Path) -> None:
    state = tmp_path / 'state'
    with ServerProcess(state) as server:
        caller = RestCaller(server.url)
        assert post(caller, 'before') == 201
        (state / 'zaqar.sqlite').rename(state / 'moved.sqlite')
        eventually(lambda: any('has been moved' in line for line in server.output))
        time.sleep(1)
        assert sum('has been moved' in line for line in server.output) == 1
        caller.close()
