"""A WebSocket client for load tests: ws4py's, in greenlets, speaking `zaqar.v2`."""

from __future__ import annotations

import itertools
import json
from typing import Any

import gevent
import msgpack
import wsaccel
from gevent.event import AsyncResult
from gevent.queue import Queue
from ws4py.client import WebSocketBaseClient

SUBPROTOCOL = 'zaqar.v2'

wsaccel.patch_ws4py()


class Disconnected(Exception):
    """The connection has ended."""


class Client(WebSocketBaseClient):  # type: ignore[misc]
    """One connection. Answers go to whoever asked, pushes into `pushes`.

    binary: whether to speak MsgPack. Raises what ws4py and sockets raise when it cannot connect.
    """

    def __init__(self, url: str, headers: dict[str, str], *, binary: bool, timeout: float) -> None:
        super().__init__(
            url,
            protocols=[SUBPROTOCOL],
            headers=list(headers.items()),
            # Only a browser's page comes from somewhere.
            exclude_headers=['origin'],
        )
        self.pushes: Queue[dict[str, Any]] = Queue()
        self._binary = binary
        self._timeout = timeout
        self._ids = itertools.count(1)
        self._awaited: dict[int, AsyncResult[tuple[dict[str, Any], int]]] = {}
        self._reader = gevent.Greenlet(self.run)
        self.connect()

    def handshake_ok(self) -> None:
        self._reader.start()

    def received_message(self, message: Any) -> None:
        document = msgpack.unpackb(message.data) if self._binary else json.loads(message.data)
        if 'push' in document:
            self.pushes.put(document)
        else:
            self._awaited.pop(document['id']).set((document, len(message.data)))

    def closed(self, code: int, reason: Any = None) -> None:
        for awaited in self._awaited.values():
            awaited.set_exception(Disconnected(f'{code} {reason}'))
        self._awaited.clear()

    def call(self, action: str, **body: Any) -> tuple[dict[str, Any], int]:
        """Ask, wait for the answer; gives it and its size in bytes.

        Raises `Disconnected`, and `gevent.Timeout` when the answer does not come in time.
        """
        if self.terminated:
            raise Disconnected('the connection has ended')
        ident = next(self._ids)
        awaited = self._awaited[ident] = AsyncResult()
        document = {'id': ident, 'action': action, 'body': body}
        payload = msgpack.packb(document) if self._binary else json.dumps(document).encode()
        self.send(payload, binary=self._binary)
        return awaited.get(timeout=self._timeout)

    def leave(self) -> None:
        """Close, and wait until the reader has ended."""
        if not self.terminated:
            self.close(1000)
        self._reader.join(timeout=2)
        self._reader.kill(block=False)
