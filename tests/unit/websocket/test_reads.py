"""How much a connection reads at once."""

from __future__ import annotations

from contextlib import closing

import gevent
import pytest
from gevent import socket

from tests.autobahn.echo_server import Echo
from tests.unit.websocket.test_plain_messages import BINARY, frame
from zaqar_gevent.sockets.inbox import Inbox
from zaqar_gevent.websocket.connection import READ_BYTES, WebSocketConnection
from zaqar_gevent.websocket.engines import FrameLimits
from zaqar_gevent.websocket.engines.websockets import FrameEngine
from zaqar_gevent.websocket.limits import Limits

SECONDS = 20


def _received(client: socket.socket, size: int) -> bytes:
    data = b''
    while len(data) < size:
        data += client.recv(size - len(data))
    return data


@pytest.mark.parametrize('length', [READ_BYTES - 100, READ_BYTES + 2000])
def test_messages_behind_each_other_are_read_several_at_a_time(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    message, count, reads, read = bytes(length), 12, [0], Inbox.read

    def counted(inbox: Inbox, size: int) -> bytes:
        reads[0] += 1
        return read(inbox, size)

    monkeypatch.setattr(Inbox, 'read', counted)
    ours, theirs = socket.socketpair()
    engine = FrameEngine(FrameLimits(2**20, 2**20, 8))
    with closing(theirs), gevent.Timeout(SECONDS):
        sent = gevent.spawn(theirs.sendall, frame(BINARY, message) * count)
        connection = WebSocketConnection(ours, engine, Echo(), Limits())
        served = gevent.spawn(connection.run)
        answers = _received(theirs, count * (4 + length))
        sent.join()
    served.join()
    assert answers.count(message) == count
    # The last one finds the end.
    assert reads[0] - 1 <= count * 2 // 3
