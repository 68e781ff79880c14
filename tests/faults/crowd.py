"""Many sockets at once, in one thread."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from types import TracebackType

PER_ADDRESS = 500


class Crowd:
    """Connections of which something is to be seen.

    received: by socket, what has come. closed: by socket, when the server has ended the stream, in
        seconds since it was connected.
    """

    def __init__(self, port: int, count: int) -> None:
        self.received: dict[socket.socket, bytes] = {}
        self.closed: dict[socket.socket, float] = {}
        self._selector = selectors.DefaultSelector()
        self._connected_at: dict[socket.socket, float] = {}
        for number in range(count):
            address = f'127.0.1.{1 + number // PER_ADDRESS}'
            member = socket.create_connection(('127.0.0.1', port), 30, (address, 0))
            self._connected_at[member] = time.monotonic()
            self.received[member] = b''
            self._selector.register(member, selectors.EVENT_READ)

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for member in self.received:
            member.close()
        self._selector.close()

    def __len__(self) -> int:
        return len(self.received)

    @property
    def open(self) -> Iterator[socket.socket]:
        return (member for member in self.received if member not in self.closed)

    def say(self, data: bytes) -> None:
        """Send it from every connection that is open; who is cut is found by listening."""
        for member in self.open:
            with contextlib.suppress(OSError):
                member.sendall(data)

    def listen(self, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """Receive for that long, or until something is so, or nobody is left."""
        deadline = time.monotonic() + seconds
        while len(self.closed) < len(self) and not (until and until()):
            left = deadline - time.monotonic()
            if left <= 0:
                return
            for key, _ in self._selector.select(left):
                member = key.fileobj
                assert isinstance(member, socket.socket)
                self._receive(member)

    def _receive(self, member: socket.socket) -> None:
        data = b''
        with contextlib.suppress(OSError):
            data = member.recv(65536)
        if data:
            self.received[member] += data
        else:
            self.closed[member] = time.monotonic() - self._connected_at[member]
            self._selector.unregister(member)
