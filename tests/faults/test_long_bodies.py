"""Long bodies: however many come, they leave nothing behind."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.callers import connect
from tests.faults.memory import MB, settled
from tests.server_process import ServerProcess

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
