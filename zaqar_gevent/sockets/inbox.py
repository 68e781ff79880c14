"""Reads from one client."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any

import gevent
from gevent import getcurrent
from gevent.hub import Hub

_READABLE = 1


class Inbox:
    """Reads from `sock`, in the one greenlet that does.

    is_drained: whether nothing is expected to have come yet; then the next read waits for the loop
        to look at the socket, so that others run, except over TLS.

    PERF: a socket of gevent's tries to read before it waits, which fails for each message of a
    client that waits for the answer to the one before. Here it is waited first where nothing was
    left. The watcher is not stopped after each wait: to start it again takes two system calls.
    """

    __slots__ = ('_fd', '_hub', '_is_watching', '_reader', '_socket', '_watcher', 'is_drained')

    def __init__(self, sock: socket.socket, *, is_drained: bool = False) -> None:
        self._socket = sock
        self._fd = sock.fileno()
        self.is_drained = is_drained
        self._is_watching = False
        self._reader: Any = None
        self._hub: Hub = gevent.get_hub()
        is_plain = not isinstance(sock, ssl.SSLSocket)
        self._watcher = self._hub.loop.io(self._fd, _READABLE) if is_plain else None

    def read(self, size: int) -> bytes:
        """The received bytes, at most `size`; waits for some. Empty at the end of the stream.

        Raises `OSError` for a connection that is lost.
        """
        if self._watcher is None:
            # TLS may hold what the socket does not show.
            self.is_drained = False
            data: bytes = self._socket.recv(size)
            return data
        if self.is_drained:
            self._wait()
        while True:
            try:
                data = os.read(self._fd, size)
            except BlockingIOError:
                self._wait()
            else:
                self.is_drained = len(data) < size
                return data

    def close(self) -> None:
        """Nothing is read any more; before the socket is closed."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
        # The number may soon be another socket's.
        self._fd = -1

    def _wait(self) -> None:
        """Wait until something has come."""
        if not self._is_watching and self._watcher is not None:
            self._watcher.start(self._wake)
            self._is_watching = True
        current = self._reader = getcurrent()
        try:
            # Others may switch to this greenlet, too.
            while self._reader is current:
                self._hub.switch()
        finally:
            self._reader = None

    def _wake(self) -> None:
        """In the hub: something has come."""
        reader = self._reader
        if reader is not None:
            self._reader = None
            reader.switch()
        elif self._watcher is not None:
            # Nobody reads now: the loop would come back at once, again and again.
            self._watcher.stop()
            self._is_watching = False
