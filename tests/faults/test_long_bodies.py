"""Long bodies: however many come, and whatever ends their server, they leave nothing behind."""

from __future__ import annotations

import math
import pathlib
import sqlite3
import sys
import time
from contextlib import closing
from typing import Any

import pytest
import requests

from tests.callers import RestCaller, connect
from tests.faults.memory import MB, settled
from tests.server_process import ServerProcess
from zaqar_gevent.conf import STORE_FILE
from zaqar_gevent.storage.sqlite import staging

RECORD = {'event': 'BackupStarted', 'size': 1024, 'ratio': 0.5, 'tags': ['a', None, True]}
BODIES: list[Any] = [[RECORD] * 2000, 'snö ☃ ' * 10_000]
BODY_BYTES = 150_000
GROWTH = 12 * MB


class Traffic:
    """Two clients, each of whom reads and takes what the other has posted, in its own encoding."""

    def __init__(self, server: ServerProcess) -> None:
        self._callers = [
            connect(transport, server.url, server.websocket_url)
            for transport in ('ws-json', 'v2-msgpack', 'rest')
        ]
        for caller in self._callers:
            caller.identity = self._callers[0].identity
        self._turn = 0

    def carry(self, size: int) -> None:
        """Have bodies of this many bytes in all posted, listed, and taken."""
        while size > 0:
            self._turn += 1
            poster, reader, taker = (self._callers[(self._turn + one) % 3] for one in range(3))
            body = BODIES[self._turn % len(BODIES)]
            posted = poster.call(
                'message_post', queue_name='q', messages=[{'body': body, 'ttl': 300}]
            )
            assert posted.status == 201
            listed = reader.call('message_list', queue_name='q', echo=True)
            assert [message['body'] for message in listed.body['messages']] == [body]
            taken = taker.call('message_delete_many', queue_name='q', pop=1)
            assert [message['body'] for message in taken.body['messages']] == [body]
            size -= 3 * BODY_BYTES

    def close(self) -> None:
        for caller in self._callers:
            caller.close()


@pytest.mark.parametrize(
    'size',
    [30 * MB, pytest.param(10_000 * MB, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
)
def test_memory_is_flat_under_long_bodies(tmp_path: pathlib.Path, size: int) -> None:
    """What a server has after the first of them is what it has after the last."""
    with ServerProcess(tmp_path) as server:
        traffic = Traffic(server)
        traffic.carry(30 * MB)
        before = settled(server.pid)
        traffic.carry(size)
        after = settled(server.pid)
        traffic.close()
    assert after - before < GROWTH, (before, after)


# Of a text of three million characters, with its quotes.
PIECES = math.ceil(3_000_002 / staging.PIECE_BYTES)
CONFIG = '[transport]\nmax_messages_post_size = 11000000\n'
# Of the last piece it is said that its body may be removed at once.
KILLED = """
import os, signal, sys
from zaqar_gevent import cmd
from zaqar_gevent.storage.sqlite import staging, writer

sound = writer.Writer.commit
pieces = []

def commit(self, calls):
    pieces.extend(call for call in calls if call.work is staging.add)
    if len(pieces) == 3:
        staging.KEEP_SECONDS = -1.0
    sound(self, calls)
    if len(pieces) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

writer.Writer.commit = commit
sys.exit(cmd.main(sys.argv[1:]))
"""


# Of what a pop has taken it is said that it may be free again at once.
KILLED_IN_POP = """
import os, signal, sys
from zaqar_gevent import cmd
from zaqar_gevent.storage.sqlite import apart, removal

removal.HOLD_SECONDS = 0.1
apart._read = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.exit(cmd.main(sys.argv[1:]))
"""


class KilledServer(ServerProcess):
    """A server that is killed by what its program does, besides."""

    def __init__(self, state: pathlib.Path, program: str) -> None:
        super().__init__(state, config=CONFIG)
        self._command[1:3] = ['-c', program]
        assert self._command[0] == sys.executable


def count_pieces(state: pathlib.Path) -> int:
    query = 'SELECT (SELECT count(*) FROM body_pieces) + (SELECT count(*) FROM bodies_in_pieces)'
    with closing(sqlite3.connect(state / STORE_FILE, timeout=60)) as connection:
        return int(connection.execute(query).fetchone()[0])


def test_a_server_that_is_killed_between_pieces_leaves_none(tmp_path: pathlib.Path) -> None:
    long, whole = 'x' * 3_000_000, 'y' * 2_000_000

    def post(caller: RestCaller, body: str) -> int:
        return caller.call('message_post', queue_name='q', messages=[{'body': body, 'ttl': 300}])[0]

    with ServerProcess(tmp_path, config=CONFIG) as server:
        first = RestCaller(server.url)
        assert post(first, whole) == 201
        first.close()
        kept = count_pieces(tmp_path)
    killed = KilledServer(tmp_path, KILLED)
    killed.start()
    second = RestCaller(killed.url, identity=first.identity)
    with pytest.raises(requests.ConnectionError):
        post(second, long)
    killed.kill()
    second.close()
    assert count_pieces(tmp_path) == kept + 4
    with ServerProcess(tmp_path, config=CONFIG) as server:
        third = RestCaller(server.url, identity=first.identity)
        assert post(third, long) == 201
        listed = third.call('message_list', queue_name='q', echo=True)
        assert [message['body'] for message in listed.body['messages']] == [whole, long]
        now = count_pieces(tmp_path) - kept
        deadline = time.monotonic() + 60
        while now != PIECES + 1:
            assert time.monotonic() < deadline, now
            time.sleep(0.1)
            now = count_pieces(tmp_path) - kept
        third.close()


def test_a_pop_whose_server_is_killed_while_it_reads_loses_nothing(tmp_path: pathlib.Path) -> None:
    posted = ['x' * 300_000, 'short']
    killed = KilledServer(tmp_path, KILLED_IN_POP)
    killed.start()
    first = RestCaller(killed.url)
    messages = [{'body': body, 'ttl': 300} for body in posted]
    assert first.call('message_post', queue_name='q', messages=messages).status == 201
    with pytest.raises(requests.ConnectionError):
        first.call('message_delete_many', queue_name='q', pop=2)
    killed.kill()
    first.close()
    with ServerProcess(tmp_path, config=CONFIG) as server:
        second = RestCaller(server.url, identity=first.identity)
        taken: list[Any] = []
        deadline = time.monotonic() + 60
        while not taken:
            assert time.monotonic() < deadline
            answer = second.call('message_delete_many', queue_name='q', pop=2)
            taken = answer.body['messages'] if answer.body else []
        second.close()
    assert [(one['body'], one['claim_count']) for one in taken] == [(body, 0) for body in posted]
