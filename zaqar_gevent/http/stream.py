"""The bytes that one client sends over its connection."""

from __future__ import annotations

import socket
import time

import gevent

from zaqar_gevent.greenlets import MOMENT
from zaqar_gevent.sockets.inbox import Inbox
from zaqar_gevent.sockets.time_slice import BREAK_SECONDS, TIME_SLICE_SECONDS


class Stream:
    """Reads from `sock`, and lets other greenlets run if it never has to wait.

    received: bytes that were read and not used yet.
    is_over: whether reading has been stopped.
    is_late: whether it has been stopped because the client was too slow.
    """

    __slots__ = ('_inbox', '_slice_end', 'is_late', 'is_over', 'received')

    def __init__(self, sock: socket.socket) -> None:
        self._inbox = Inbox(sock)
        self._slice_end = time.monotonic() + TIME_SLICE_SECONDS
        self.received = b''
        self.is_over = False
        self.is_late = False

    def fill(self, size: int) -> bool:
        """Read at most `size` bytes more; False at the end of the stream.

        Raises `OSError` for a connection that is lost.
        """
        data = self.read(size)
        self.received = self.received + data if self.received else data
        return bool(data)

    def take(self, size: int) -> bytes:
        """Some of what comes next, at most `size` bytes; nothing at the end of the stream."""
        if not self.received:
            return self.read(size)
        taken = self.received[:size]
        self.received = self.received[size:]
        return taken

    def read(self, size: int) -> bytes:
        """The bytes that follow `received`, at most `size`."""
        now = time.monotonic()
        if now >= self._slice_end:
            if not self._inbox.is_drained:
                gevent.sleep(MOMENT)
            self._slice_end = now + TIME_SLICE_SECONDS
        data = b'' if self.is_over else self._inbox.read(size)
        later = time.monotonic()
        if later - now > BREAK_SECONDS:
            self._slice_end = later + TIME_SLICE_SECONDS
        return data

    def close(self) -> None:
        """Nothing is read any more; before the socket is closed."""
        self._inbox.close()
