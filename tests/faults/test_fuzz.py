"""Frames at random: bytes that mean nothing, and good requests with something changed."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.client import DIALECTS, Client, Dialect
from tests.faults.conftest import LOGGING
from tests.faults.frames import MASK, Opcode, frame
from tests.faults.light_load import PROMPT, LightLoad
from tests.faults.memory import MB, settled
from tests.server_process import ServerProcess
from zaqar_gevent.api import REGISTRY
from zaqar_gevent.websocket.engines import ENGINES

GROWTH = 5 * MB
PER_CONNECTION = 100
MARK = b'that was all'
MESSAGE = '0000000000000001'

# None subscribes anything but the connection itself, lest the server calls somewhere.
BODIES: list[dict[str, Any]] = [
    {'queue_name': 'fuzz', 'messages': [{'body': {'a': [1, 2.5, None, 'ß']}, 'ttl': 60}]},
    {'queue_name': 'fuzz', 'limit': 3, 'marker': MESSAGE, 'echo': True},
    {'queue_name': 'fuzz', 'message_id': MESSAGE, 'claim_id': 'a' * 32},
    {'queue_name': 'fuzz', 'message_ids': [MESSAGE, 'x'], 'pop': 2},
    {'queue_name': 'fuzz', 'metadata': {'_max_messages_post_size': 1000, 'x': {'y': []}}},
    {'queue_name': 'fuzz', 'changes': [{'op': 'add', 'path': '/metadata/x', 'value': 1}]},
    {'queue_name': 'fuzz', 'ttl': 60, 'grace': 60, 'limit': 2},
    {'queue_name': 'fuzz', 'subscriber': 'ftp://127.0.0.1/', 'ttl': 60, 'options': {}},
    {'queue_name': 'fuzz', 'ttl': 60},
    {'queue_name': 'fuzz', 'paths': ['messages'], 'methods': ['GET']},
    {},
]
ACTIONS = [*(operation.name for operation in REGISTRY), 'hello', 'ping', 'authenticate', 'nonsense']
CHARACTERS = '{}[]",:\\0159-+.eE \x00\x1f\x7fß☃🐘\ufeff\u2028'
BYTES = b'{}[]",:\x00\x7f\x80\x81\x90\xa0\xc0\xc1\xc4\xc7\xca\xcf\xd4\xd9\xdc\xdd\xdf\xe0\xff'


class Fuzzer:
    """Makes frames, the same ones for the same seed."""

    def __init__(self, seed: int, dialect: Dialect) -> None:
        self._random = random.Random(seed)
        self._dialect = dialect

    def harmless(self) -> bytes:
        """A frame, or several, after which the connection goes on."""
        return self._one_of(
            self._request,
            self._mutated,
            self._mutated,
            self._mutated,
            self._in_fragments,
            self._nothing_but_bytes,
            self._control,
        )

    def harmful(self) -> bytes:
        """What ends the connection, or may."""
        return self._one_of(self._noise, self._mutated_head, self._mutated_frame, self._no_text)

    def _one_of(self, *kinds: Callable[[], bytes]) -> bytes:
        return self._random.choice(kinds)()

    def _payload(self) -> bytes:
        document = {
            'id': self._random.randrange(1000),
            'action': self._random.choice(ACTIONS),
            'headers': {'Client-ID': '3381af92-2b9e-11e3-b191-71861300734c', 'X-Project-ID': 'f'},
            'body': self._random.choice(BODIES),
        }
        if self._dialect.binary:
            return self._dialect.encode(document)
        return json.dumps(document, ensure_ascii=False).encode()

    def _request(self) -> bytes:
        return frame(self._dialect.opcode, self._payload())

    def _mutated(self) -> bytes:
        """A request with something changed; text remains text."""
        payload = self._payload()
        if self._dialect.binary:
            return frame(Opcode.BINARY, self._mutate(payload))
        text = list(payload.decode())
        for _ in range(self._random.randrange(1, 4)):
            place = self._random.randrange(len(text) + 1)
            text[place : place + self._random.randrange(4)] = self._random.choices(
                CHARACTERS, k=self._random.randrange(4)
            )
        return frame(Opcode.TEXT, ''.join(text).encode())

    def _in_fragments(self) -> bytes:
        payload = self._payload()
        places = sorted(self._random.choices(range(len(payload)), k=self._random.randrange(1, 6)))
        pieces = [payload[a:b] for a, b in zip([0, *places], [*places, None], strict=True)]
        frames = [frame(self._dialect.opcode, pieces[0], fin=False)]
        for piece in pieces[1:-1]:
            frames += [frame(Opcode.CONTINUATION, piece, fin=False), self._control()]
        return b''.join([*frames, frame(Opcode.CONTINUATION, pieces[-1])])

    def _nothing_but_bytes(self) -> bytes:
        return frame(Opcode.BINARY, self._random.randbytes(self._random.randrange(200)))

    def _control(self) -> bytes:
        opcode = self._random.choice([Opcode.PING, Opcode.PONG])
        return frame(opcode, self._random.randbytes(self._random.randrange(126)))

    def _noise(self) -> bytes:
        return self._random.randbytes(self._random.randrange(1, 300))

    def _mutated_head(self) -> bytes:
        return self._mutate(self._request(), within=14)

    def _mutated_frame(self) -> bytes:
        first, second = self._random.randbytes(2)
        return bytes([first, second | MASK]) + self._random.randbytes(300)

    def _no_text(self) -> bytes:
        return frame(Opcode.TEXT, self._random.randbytes(self._random.randrange(1, 100)))

    def _mutate(self, data: bytes, within: int | None = None) -> bytes:
        changed = bytearray(data)
        for _ in range(self._random.randrange(1, 4)):
            place = self._random.randrange(min(len(changed), within or len(changed)))
            change = self._random.randrange(4)
            if change == 0:
                changed[place] ^= 1 << self._random.randrange(8)
            elif change == 1 and len(changed) > 20:
                del changed[place : place + self._random.randrange(1, 8)]
            elif change == 2:
                changed[place:place] = self._random.randbytes(self._random.randrange(1, 8))
            else:
                changed[place] = self._random.choice(BYTES)
        return bytes(changed)


def converse(server: ServerProcess, seed: int) -> None:
    """Send PER_CONNECTION frames, see that the server has read them all, and come to a bad end."""
    dialect = DIALECTS[seed % len(DIALECTS)]
    fuzzer = Fuzzer(seed, dialect)
    frames = [fuzzer.harmless() for _ in range(PER_CONNECTION - 1)]
    with Client(server.port, dialect) as client:
        client.send(b''.join(frames) + frame(Opcode.PING, MARK))
        received = client.receive()
        while received[:2] != (Opcode.PONG, MARK):
            assert received.opcode != Opcode.CLOSE, (seed, received)
            received = client.receive()
        client.send(fuzzer.harmful())
        with contextlib.suppress(OSError):
            client.socket.shutdown(socket.SHUT_WR)
            while client.socket.recv(65536):
                pass


def fuzz(server: ServerProcess, seeds: range) -> None:
    for seed in seeds:
        converse(server, seed)


@pytest.fixture(params=tuple(ENGINES))
def fuzzed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    config = f'{LOGGING}[drivers:transport:gevent]\nwebsocket_engine = {request.param}\n'
    with ServerProcess(tmp_path_factory.mktemp('fuzzed'), config=config) as process:
        yield process


@pytest.mark.parametrize('count', [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(3600)
def test_nothing_at_random_harms_the_server(fuzzed: ServerProcess, count: int) -> None:
    conversations = count // PER_CONNECTION
    with LightLoad(fuzzed.port) as rest:
        fuzz(fuzzed, range(conversations // 2))
        halfway = settled(fuzzed.pid)
        fuzz(fuzzed, range(conversations // 2, conversations))
    growth = settled(fuzzed.pid) - halfway
    print(f'the second half grows by {growth / MB:.1f} MB')
    assert growth < GROWTH
    assert rest.p99 < PROMPT
    with Client(fuzzed.port) as client:
        assert client.lives()
    assert fuzzed.stop() == 0
    assert 'Traceback' not in '\n'.join(fuzzed.output)
