"""What one client sends over a connection, byte by byte, whatever it belongs to."""

from __future__ import annotations

import socket
import time

import gevent

from zaqar_gevent.greenlets import MOMENT
from zaqar_gevent.sockets.inbox import Inbox
from zaqar_gevent.sockets.turns import BREAK_SECONDS, TURN_SECONDS


class Stream:
    """Reads from `sock` in turns: a socket that always has something never waits.

    received: what was read and does not belong to anything yet.
    is_over: whether no more is to be read.
    """

    __slots__ = ('_inbox', '_next_turn', 'is_over', 'received')

    def __init__(self, sock: socket.socket) -> None:
        self._inbox = Inbox(sock)
        self._next_turn = time.monotonic() + TURN_SECONDS
        self.received = b''
        self.is_over = False

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
        """What comes behind `received`."""
        now = time.monotonic()
        if now >= self._next_turn:
            gevent.sleep(MOMENT)
            self._next_turn = now + TURN_SECONDS
        data = b'' if self.is_over else self._inbox.read(size)
        later = time.monotonic()
        if later - now > BREAK_SECONDS:
            self._next_turn = later + TURN_SECONDS
        return data

    def close(self) -> None:
        """Nothing is read any more; before the socket is closed."""
        self._inbox.close()
