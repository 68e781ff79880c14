"""Frames at random: bytes that mean nothing, and good requests with something changed."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.faults.client import DIALECTS, Client, Dialect
from tests.faults.frames import Opcode, closing, frame
from tests.server_process import ServerProcess
from zaqar_gevent.websocket.engines import ENGINES

MIB = 2**20
PER_CONNECTION = 50

BODIES = [
    {'queue_name': 'fuzz', 'messages': [{'body': {'a': [1, 2.5, None, 'ß']}, 'ttl': 60}]},
    {'queue_name': 'fuzz', 'limit': 3, 'marker': '0000000000000001'},
    {'queue_name': 'fuzz', 'message_id': '0000000000000001', 'claim_id': 'a' * 32},
    {'queue_name': 'fuzz', 'metadata': {'_max_messages_post_size': 1000}},
    {'queue_name': 'fuzz', 'ttl': 60, 'grace': 60, 'limit': 2},
    {'queue_name': 'fuzz', 'subscriber': 'http://a.example/', 'ttl': 60, 'options': {}},
]
ACTIONS = [
    *('message_post', 'message_list', 'message_get', 'message_delete', 'queue_create'),
    *('queue_list', 'queue_get_stats', 'claim_create', 'claim_delete', 'subscription_create'),
    *('subscription_delete', 'hello', 'ping', 'authenticate', 'queue_consume', 'get_versions'),
]


class Fuzzer:
    """Makes frames, the same ones for the same seed."""

    def __init__(self, seed: int, dialect: Dialect) -> None:
        self._random = random.Random(seed)
        self._dialect = dialect
        self._kinds: list[Callable[[], bytes]] = [
            self._noise,
            self._random_payload,
            self._mutated_payload,
            self._mutated_payload,
            self._mutated_frame,
            self._request,
        ]

    def frames(self, count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield self._random.choice(self._kinds)()

    def _noise(self) -> bytes:
        return self._random.randbytes(self._random.randrange(1, 40))

    def _random_payload(self) -> bytes:
        opcode = self._random.choice([*Opcode][:5])
        return frame(opcode, self._random.randbytes(self._random.randrange(120)))

    def _payload(self) -> bytes:
        return self._dialect.encode(
            {
                'id': self._random.randrange(1000),
                'action': self._random.choice(ACTIONS),
                'headers': {
                    'Client-ID': '3381af92-2b9e-11e3-b191-71861300734c',
                    'X-Project-ID': 'f',
                },
                'body': self._random.choice(BODIES),
            }
        )

    def _request(self) -> bytes:
        return frame(self._dialect.opcode, self._payload())

    def _mutated_payload(self) -> bytes:
        return frame(self._dialect.opcode, self._mutate(self._payload()))

    def _mutated_frame(self) -> bytes:
        return self._mutate(self._request(), most=14)

    def _mutate(self, data: bytes, most: int = 10_000) -> bytes:
        changed = bytearray(data)
        for _ in range(self._random.randrange(1, 4)):
            place = self._random.randrange(min(len(changed), most))
            match self._random.randrange(4):
                case 0:
                    changed[place] ^= 1 << self._random.randrange(8)
                case 1:
                    del changed[place : place + self._random.randrange(1, 8)]
                case 2:
                    changed[place:place] = self._random.randbytes(self._random.randrange(1, 8))
                case _:
                    changed[place] = self._random.choice(b'{}[]",:\x00\x7f\x80\x90\xc0\xdd\xdf\xff')
            if not changed:
                break
        return bytes(changed)


def fuzz(server: ServerProcess, seed: int, count: int) -> int:
    """Send `count` frames, over as many connections as that takes; how many were sent."""
    sent = 0
    number = 0
    while sent < count:
        dialect = DIALECTS[number % len(DIALECTS)]
        fuzzer = Fuzzer(seed + number, dialect)
        number += 1
        with Client(server.port, dialect) as client:
            pieces = list(fuzzer.frames(PER_CONNECTION))
            try:
                client.send(b''.join(pieces) + closing(1000))
                while client.receive().opcode != Opcode.CLOSE:
                    pass
            except OSError:
                # What is broken enough is cut; a frame that goes on is waited for in vain.
                pass
            sent += len(pieces)
    return sent


@pytest.fixture(params=tuple(ENGINES))
def server(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[ServerProcess]:
    lines = ['[DEFAULT]', 'use_stderr = True', '[drivers:transport:gevent]']
    lines += [f'websocket_engine = {request.param}', 'ping_interval = 1', 'ping_timeout = 0.5']
    with ServerProcess(tmp_path, config='\n'.join(lines)) as process:
        yield process


@pytest.mark.parametrize(
    ('count', 'growth'),
    [(6_000, 10 * MIB), pytest.param(1_000_000, 5 * MIB, marks=pytest.mark.slow)],
)
@pytest.mark.timeout(3600)
def test_nothing_at_random_harms_the_server(server: ServerProcess, count: int, growth: int) -> None:
    process = psutil.Process(server.pid)
    fuzz(server, 1, count // 2)
    halfway = process.memory_info().rss
    fuzz(server, 1_000_000, count // 2)
    assert process.memory_info().rss - halfway < growth
    with Client(server.port) as client:
        assert client.lives()
    assert server.stop() == 0
    assert 'Traceback' not in '\n'.join(server.output)
