"""Threads that wait are woken: on whatever they wait, and when many wait at once."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from websockets.frames import Frame, Opcode
from websockets.sync.server import ServerConnection

from tests.stopwatch import Stopwatch
from tests.unit.client.scripted_server import ScriptedServer
from zaqar_gevent.client import Client, OutcomeUnknown
from zaqar_gevent.client.sync.waiters import MAX_FILE_WAITERS, Waiter, WaiterPool

SECONDS = 60.0
# More than can wait on files.
CROWD = MAX_FILE_WAITERS + 8

GREENLETS = """
from gevent import monkey
monkey.patch_all()
import threading
from zaqar_gevent.client.sync.waiters import WaiterPool
waiter = WaiterPool().take()
others = threading.Thread(target=waiter.wake)
others.start()
waiter.wait(60)
others.join()
print('woken')
"""

WITHOUT_FILES = """
import resource, threading
from zaqar_gevent.client.sync.waiters import WaiterPool
pool = WaiterPool()
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
waiter = pool.take()
others = threading.Thread(target=waiter.wake)
others.start()
waiter.wait(60)
pool.give_back(waiter)
print('woken')
"""


DESCRIPTORS = f"""
import os
from zaqar_gevent.client.sync.waiters import WaiterPool
before, pool, counts = len(os.listdir('/proc/self/fd')), WaiterPool(), []
def count():
    counts.append(len(os.listdir('/proc/self/fd')) - before)
for _ in range(3):
    taken = [pool.take() for _ in range({CROWD})]
    while taken:
        pool.give_back(taken.pop())
count()
last = pool.take()
pool.close()
count()
pool.give_back(last)
del last
count()
print(counts)
"""


def wakes_in_time(waiter: Waiter) -> bool:
    """Whether a thread that waits is woken by another."""
    other = threading.Thread(target=waiter.wake)
    watch = Stopwatch()
    other.start()
    waiter.wait(SECONDS)
    other.join()
    return watch.seconds() < SECONDS / 2


def run(script: str) -> str:
    finished = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, timeout=SECONDS
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_waiters_of_any_kind_are_woken_before_they_wait_or_while_they_do() -> None:
    pool = WaiterPool()
    waiters = [pool.take() for _ in range(CROWD)]
    assert len(set(map(id, waiters))) == CROWD
    for waiter in waiters:
        assert wakes_in_time(waiter)
        pool.give_back(waiter)
    assert all(wakes_in_time(pool.take()) for _ in range(CROWD))


def test_one_waits_no_longer_than_it_is_told() -> None:
    pool = WaiterPool()
    watch = Stopwatch()
    for waiter in [pool.take() for _ in range(CROWD)]:
        waiter.wait(0.001)
    assert watch.seconds() < SECONDS / 2


def test_files_are_used_again_and_closed_with_the_pool() -> None:
    assert json.loads(run(DESCRIPTORS)) == [2 * MAX_FILE_WAITERS, 2, 0]


def test_greenlets_do_not_wait_on_files() -> None:
    assert run(GREENLETS) == 'woken\n'


def test_a_process_without_another_file_waits_on_locks() -> None:
    assert run(WITHOUT_FILES) == 'woken\n'


def client_of(server: ScriptedServer) -> Client:
    return Client(server.url, project='demo', transport='websocket', encoding='json', timeout=60.0)


class Crowd:
    """The script of a server that waits until `CROWD` have asked, and deals with all at once."""

    def __init__(self, rounds: int) -> None:
        self._left = rounds
        self._asked: list[dict[str, Any]] = []

    def __call__(self, connection: ServerConnection, request: dict[str, Any]) -> None:
        self._asked.append(request)
        if len(self._asked) < CROWD:
            return
        if not self._left:
            connection.socket.close()
            return
        self._left -= 1
        answers = [
            {'id': one['id'], 'status': 200, 'body': {'name': one['body']['queue_name']}}
            for one in self._asked
        ]
        self._asked.clear()
        frames = [Frame(Opcode.TEXT, json.dumps(one).encode()) for one in answers]
        connection.socket.sendall(b''.join(one.serialize(mask=False) for one in frames))


def test_a_crowd_of_threads_gets_each_its_own_answers() -> None:
    rounds = 20

    def ask(client: Client, number: int) -> bool:
        names = [f'q{number}-{turn}' for turn in range(rounds)]
        return all(client.queue(name).get_metadata() == {'name': name} for name in names)

    with ScriptedServer(Crowd(rounds)) as server, client_of(server) as client:
        with ThreadPoolExecutor(CROWD) as pool:
            assert all(pool.map(ask, [client] * CROWD, range(CROWD)))
        assert len(server.requests) == 1


def test_each_thread_is_told_when_the_connection_dies() -> None:
    def ask(client: Client) -> None:
        client.queue('q').get_metadata()
        with pytest.raises(OutcomeUnknown):
            client.queue('q').claim()

    with ScriptedServer(Crowd(1)) as server, client_of(server) as client:
        watch = Stopwatch()
        with ThreadPoolExecutor(CROWD) as pool:
            list(pool.map(ask, [client] * CROWD))
        assert watch.seconds() < SECONDS / 2
