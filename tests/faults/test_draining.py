"""A server that is told to stop lets its clients go."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack

import psutil
import pytest

from tests.callers import RestCaller
from tests.faults.client import COMPACT, DEFAULT, Client
from tests.faults.frames import Opcode, StatusCode, closing
from tests.faults.gunicorn_process import GunicornProcess
from tests.server_process import ServerProcess

CLIENTS = 1000
BUSY = 40
POSTS = 10
GRACE_SECONDS = 10
CONFIG = '[drivers:transport:gevent]\nmax_websockets_per_address = 2000\n'

Start = Callable[[pathlib.Path], ServerProcess]


def own(state: pathlib.Path) -> ServerProcess:
    return ServerProcess(state, config=CONFIG)


def under_gunicorn(state: pathlib.Path) -> ServerProcess:
    options = ('--graceful-timeout', str(GRACE_SECONDS), '--worker-connections', '2000')
    return GunicornProcess(state, *options, config=CONFIG)


class Farewell:
    """What a client was told in the end: answers by id, the push, and the close frame."""

    def __init__(self, client: Client) -> None:
        self.acknowledged = 0
        self.reconnect_after_ms: int | None = None
        self.close = self._listen(client)
        client.send(closing(1001))
        client.socket.close()

    def _listen(self, client: Client) -> StatusCode:
        while (received := client.receive()).opcode != Opcode.CLOSE:
            document = json.loads(received.payload)
            if 'push' in document:
                assert document['push'] == 'closing'
                self.reconnect_after_ms = document['reconnect_after_ms']
            else:
                assert self.reconnect_after_ms is None, 'an answer after the farewell'
                assert client.dialect.status(document) == 201
                self.acknowledged += 1
        return StatusCode.of(received.payload)


@pytest.mark.parametrize('start', [own, under_gunicorn], ids=['own', 'gunicorn'])
def test_every_client_is_answered_told_and_closed(tmp_path: pathlib.Path, start: Start) -> None:
    with start(tmp_path) as server, ExitStack() as stack:
        clients = [
            stack.enter_context(Client(server.port, COMPACT if number % 2 else DEFAULT))
            for number in range(CLIENTS)
        ]
        busy = clients[:BUSY]
        identity = busy[0].identity
        for client in busy:
            client.identity = identity
            posts = [client.request('message_post', **message()) for _ in range(POSTS)]
            client.send(b''.join(posts))
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        farewells = [Farewell(client) for client in clients]
        assert server.stop() == 0
        assert time.monotonic() - began < GRACE_SECONDS
        assert {farewell.close.code for farewell in farewells} == {1001}
        told = [one.reconnect_after_ms for one in farewells[1::2] if one.reconnect_after_ms]
        assert len(told) == CLIENTS // 2
        assert max(told) - min(told) > 1000
        assert all(one.reconnect_after_ms is None for one in farewells[::2])
        acknowledged = sum(farewell.acknowledged for farewell in farewells)
        server.start()
        caller = RestCaller(server.url, identity=identity)
        total = caller.call('queue_get_stats', queue_name='q').body['messages']['total']
        assert acknowledged <= total <= BUSY * POSTS
        caller.close()


def message() -> dict[str, object]:
    return {'queue_name': 'q', 'messages': [{'body': 'x', 'ttl': 300}]}


def test_what_was_received_before_the_signal_is_answered(tmp_path: pathlib.Path) -> None:
    with ServerProcess(tmp_path) as server, Client(server.port, COMPACT) as client:
        waiting = client.request('message_list', queue_name='empty', wait=20)
        client.send(waiting)
        assert client.ask('ping')['status'] == 200
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        answer = client.answer()
        assert (answer['status'], answer['body']['messages']) == (200, [])
        assert client.answer()['push'] == 'closing'
        assert client.status_code().code == 1001
        client.send(closing(1001))
        client.socket.close()
        assert server.stop() == 0
        assert time.monotonic() - began < 4


def test_a_client_that_does_not_answer_the_close_does_not_hold_the_server(
    tmp_path: pathlib.Path,
) -> None:
    config = '[drivers:transport:gevent]\nclose_timeout = 1\n'
    with ServerProcess(tmp_path, config=config) as server, Client(server.port) as client:
        assert client.lives()
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 4
        assert client.status_code().code == 1001


def test_after_a_reload_of_gunicorn_new_workers_serve_and_old_clients_are_told(
    tmp_path: pathlib.Path,
) -> None:
    with GunicornProcess(tmp_path, '--graceful-timeout', '5') as server:
        with Client(server.port, COMPACT) as client:
            assert client.lives()
            old = {child.pid for child in psutil.Process(server.pid).children()}
            os.kill(server.pid, signal.SIGHUP)
            assert client.answer()['push'] == 'closing'
            assert client.status_code().code == 1001
            client.send(closing(1001))
        psutil.wait_procs([psutil.Process(pid) for pid in old if psutil.pid_exists(pid)], 15)
        new = {child.pid for child in psutil.Process(server.pid).children()}
        assert new
        assert not new & old
        with Client(server.port, COMPACT) as client:
            assert client.lives()
