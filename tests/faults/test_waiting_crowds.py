"""Very many requests that wait on one queue: others have their turn while they are answered."""

from __future__ import annotations

import pathlib
from contextlib import ExitStack
from typing import Any

import psutil

from tests.callers import Identity, RestCaller
from tests.faults.client import Client, Dialect
from tests.faults.light_load import LightLoad
from tests.readiness import readable
from tests.server_process import ServerProcess

CONNECTIONS, EACH = 16, 60
POSTS = 4
WAIT_SECONDS = 20
ANSWERED = b'"status":200'
# The part of the processor time for answering all that others wait for. Where all are answered in
# one go, they wait for nearly all of it; here they wait for what a few connections ask at a time.
MOST = 0.6


class Crowd:
    """Connections with lists that wait for messages of a queue, again and again."""

    def __init__(self, port: int, identity: Identity, stack: ExitStack) -> None:
        dialect = Dialect('zaqar.v2', binary=False)
        self._clients = [
            stack.enter_context(Client(port, dialect, identity=identity))
            for _ in range(CONNECTIONS)
        ]
        self._received = {each.socket: b'' for each in self._clients}

    def ask(self, marker: str | None) -> None:
        """Ask on one connection after the other, until the server has begun with all requests."""
        more: dict[str, Any] = {} if marker is None else {'marker': marker}
        for client in self._clients:
            frames = [
                client.request('message_list', queue_name='q', echo=True, wait=WAIT_SECONDS, **more)
                for _ in range(EACH)
            ]
            # It is answered at once, after those before it have been begun.
            client.send(b''.join([*frames, client.request('ping')]))
            self.receive(1, [client])

    def receive(self, count: int, clients: list[Client] | None = None) -> None:
        """Wait until so many answers have come on each of some connections, or of all."""
        left = {each.socket: count for each in clients or self._clients}
        while left:
            ready = readable(left, WAIT_SECONDS)
            assert ready, left
            for one in ready:
                parts = (self._received[one] + one.recv(1 << 20)).split(ANSWERED)
                left[one] -= len(parts) - 1
                self._received[one] = parts[-1]
                if not left[one]:
                    del left[one]


def cpu_seconds(server: ServerProcess) -> float:
    times = psutil.Process(server.pid).cpu_times()
    return times.user + times.system


def test_others_do_not_wait_for_all_who_wait(tmp_path: pathlib.Path) -> None:
    with ServerProcess(tmp_path) as server, ExitStack() as stack:
        poster = RestCaller(server.url)
        crowd = Crowd(server.port, poster.identity, stack)
        marker = None
        used = 0.0
        with LightLoad(server.port) as others:
            for number in range(POSTS):
                crowd.ask(marker)
                began = cpu_seconds(server)
                posted = poster.call('message_post', queue_name='q', messages=[{'body': number}])
                assert posted.status == 201
                crowd.receive(EACH)
                used += cpu_seconds(server) - began
                page = poster.call('message_list', queue_name='q', echo=True, limit=10)
                marker = page.body['marker']
        assert server.stop() == 0
    print(f'{used / POSTS * 1000:.0f} ms of processor time to answer {CONNECTIONS * EACH} lists')
    assert others.longest < MOST * used / POSTS
