"""What is read from one client."""

from __future__ import annotations

import os
import socket
import ssl

import gevent
from gevent.hub import Hub

_READABLE = 1


class Inbox:
    """Reads from `sock`, in the one greenlet that does.

    is_drained: whether nothing is expected to have come yet.

    PERF: a socket of gevent's tries to read before it waits, which fails for each message of a
    client that waits for the answer to the one before. Here it is waited first where nothing was
    left.
    """

    __slots__ = ('_hub', '_is_drained', '_socket', '_watcher')

    def __init__(self, sock: socket.socket, *, is_drained: bool = False) -> None:
        self._socket = sock
        self._is_drained = is_drained
        self._hub: Hub = gevent.get_hub()
        is_plain = not isinstance(sock, ssl.SSLSocket)
        self._watcher = self._hub.loop.io(sock.fileno(), _READABLE) if is_plain else None

    def read(self, size: int) -> bytes:
        """What has come, at most `size` bytes; waits for some. Nothing at the end of the stream.

        Raises `OSError` for a connection that is lost.
        """
        if self._watcher is None:
            # TLS may hold what the socket does not show.
            data: bytes = self._socket.recv(size)
            return data
        if self._is_drained:
            self._hub.wait(self._watcher)
        while True:
            try:
                data = os.read(self._socket.fileno(), size)
            except BlockingIOError:
                self._hub.wait(self._watcher)
            else:
                self._is_drained = len(data) < size
                return data

    def close(self) -> None:
        """Nothing is read any more; before the socket is closed."""
        if self._watcher is not None:
            self._watcher.close()
