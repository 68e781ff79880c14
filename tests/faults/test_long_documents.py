"""Many long documents at once: what others wait for is one of them, not all."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import msgpack
import psutil
import pytest

from tests.callers import Identity
from tests.faults.client import Client, Dialect
from tests.faults.frames import frame
from tests.faults.light_load import LightLoad
from tests.server_process import ServerProcess

POSTERS = 50
SECONDS = 1.5
ALONE = 10
# Of the processor time that one such post takes. Others wait for less than one where posts take
# turns, and for fifteen or more where they do not.
MOST = 3


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp('long')) as process:
        yield process
        assert process.stop() == 0
    assert 'Traceback' not in '\n'.join(process.output)


def wide_messages() -> list[Any]:
    """A message whose values take long to read; the integer has to be looked for among them."""
    return [{'ttl': 60, 'body': [*([{}] * 60_000), 2**63 - 1]}]


def cpu_seconds(server: ServerProcess) -> float:
    times = psutil.Process(server.pid).cpu_times()
    return times.user + times.system


class Rest:
    """Posts over REST."""

    def __init__(self, server: ServerProcess, stack: ExitStack) -> None:
        self._socket = stack.enter_context(
            socket.create_connection(('127.0.0.1', server.port), timeout=60)
        )
        body = json.dumps({'messages': wide_messages()}, separators=(',', ':')).encode()
        headers = {'Host': 'localhost', 'Content-Length': len(body), **Identity().headers()}
        lines = ''.join(f'{name}: {value}\r\n' for name, value in headers.items())
        self._sent = f'POST /v2/queues/wide/messages HTTP/1.1\r\n{lines}\r\n'.encode() + body

    def post(self) -> int:
        self._socket.sendall(self._sent)
        return int(self._socket.recv(65_536).split()[1])


class WebSocket:
    """Posts in MsgPack over WebSocket."""

    def __init__(self, server: ServerProcess, stack: ExitStack, subprotocol: str | None) -> None:
        dialect = Dialect(subprotocol, binary=True)
        self._client = stack.enter_context(Client(server.port, dialect))
        request = {
            'id': 1,
            'action': 'message_post',
            'headers': Identity().headers(),
            'body': {'queue_name': 'wide', 'messages': wide_messages()},
        }
        self._sent = frame(dialect.opcode, msgpack.packb(request))

    def post(self) -> int:
        self._client.send(self._sent)
        return self._client.status()


@pytest.mark.parametrize('transport', ['rest', 'default', 'zaqar.v2'])
def test_others_wait_for_one_long_document(server: ServerProcess, transport: str) -> None:
    def connect(stack: ExitStack) -> Rest | WebSocket:
        if transport == 'rest':
            return Rest(server, stack)
        return WebSocket(server, stack, None if transport == 'default' else transport)

    def go_on_posting(poster: Rest | WebSocket) -> None:
        while time.monotonic() < deadline:
            answers.append(poster.post())

    answers: list[int] = []
    with ExitStack() as stack:
        posters = [connect(stack) for _ in range(POSTERS)]
        began = cpu_seconds(server)
        answers += [posters[0].post() for _ in range(ALONE)]
        each = (cpu_seconds(server) - began) / ALONE
        with LightLoad(server.port) as others:
            deadline = time.monotonic() + SECONDS
            threads = [threading.Thread(target=go_on_posting, args=(one,)) for one in posters]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert set(answers) == {201}
    assert len(answers) >= ALONE + POSTERS
    print(f'{each * 1000:.1f} ms each, {len(answers)} posts')
    assert statistics.median(others.durations) < MOST * each
