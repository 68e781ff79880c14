"""Bytes that wait to be written to one client.

Whoever sends, frames reach the socket whole and in the order in which they were put here: at any
time at most one greenlet writes. It exists only while a client does not take what it is sent.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import socket
import ssl
import sys
import termios
import time
from collections.abc import Callable

import gevent
from gevent.event import Event

from zaqar_gevent.greenlets import MOMENT
from zaqar_gevent.sockets.unsent import Unsent

_NUMBER = bytes(4)
# Pieces of this length are not copied.
_LONG_BYTES = 1024 * 1024
_A_FEW_BYTES = 1024
# Of what waits, so much is written at once, and then others have their turn: a client on the same
# machine may take it as fast as it comes.
_AT_ONCE_BYTES = 256 * 1024


class Outbox:
    """Writes to `sock` without ever making a sender wait.

    max_bytes, max_messages: past either the outbox is full. It takes what it is given all the
        same; it is up to the senders to ask, and to `wait_for_room`.
    unsent: what waits for all clients of the process; None where nobody counts it.
    size: bytes that wait.
    is_lost: whether nothing can be written any more.
    moved_at: when the client last took some of what waited, in seconds of `time.monotonic`.
    """

    __slots__ = (
        *(
            '_ends',
            '_fd',
            '_undo',
            '_max_bytes',
            '_max_messages',
            '_progress',
            '_socket',
            '_taken',
        ),
        *('_total', '_unacknowledged', '_waiting', 'is_lost', 'moved_at', 'size'),
    )

    def __init__(
        self,
        sock: socket.socket,
        max_bytes: int,
        max_messages: int,
        unsent: Unsent | None = None,
    ) -> None:
        self._socket = sock
        # Written to without waiting, which TLS has no way of.
        self._fd = None if isinstance(sock, ssl.SSLSocket) else sock.fileno()
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._waiting: collections.deque[bytes | memoryview] | None = None
        self._progress: Event | None = None
        self._ends = False
        self._undo: collections.deque[tuple[int, Callable[[], None]]] | None = None
        self._taken = 0
        self._total = unsent
        self._unacknowledged = 0
        self.is_lost = False
        self.size = 0
        self.moved_at = 0.0

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._waiting or ())

    @property
    def is_full(self) -> bool:
        """Whether more waits than should."""
        return self.size > self._max_bytes or len(self) > self._max_messages

    def put(self, pieces: list[bytes]) -> None:
        """Write the pieces, or keep them until they can be; an empty one says that none follows.

        Never waits and never fails: that a client is gone is for its reader to find out.
        """
        if self.is_lost:
            return
        self._ends = self._ends or not pieces[-1]
        # PERF: nearly always it is one.
        for data in pieces if len(pieces) == 1 else _join_short(pieces):
            self.write(data)
        if self._ends and not self._waiting:
            self._end()

    def write(self, data: bytes) -> None:
        """The same with `data` in one piece, after which more may follow.

        PERF: a socket's own `send` would wait, and look for its descriptor each time. Until the
        outbox is closed, which comes first, the socket has it.
        """
        if self.is_lost or not data:
            return
        rest: bytes | memoryview = data
        if self._fd is not None and not self._waiting:
            try:
                written = os.write(self._fd, _beginning(data, _LONG_BYTES))
            except BlockingIOError:
                pass
            except OSError:
                self.close()
                return
            else:
                # A copy, so that of a long answer only this is kept; to copy more takes longer.
                rest = (data if len(data) <= _LONG_BYTES else memoryview(data))[written:]
        if rest:
            self._keep(rest)

    def unless_written(self, undo: Callable[[], None]) -> None:
        """Call `undo`, in a greenlet of its own, where what was put last cannot be written."""
        if self.is_lost:
            gevent.spawn(undo)
        elif self.size:
            if self._undo is None:
                self._undo = collections.deque()
            self._undo.append((self.size, undo))

    def wait_for_room(self) -> None:
        """Wait until the outbox is no longer full, or the client is gone."""
        while self.is_full and not self.is_lost:
            self._await_progress()

    def wait_until_empty(self) -> None:
        """Wait until nothing waits any more, or the client is gone."""
        while self.size and not self.is_lost:
            self._await_progress()

    def look(self, now: float) -> None:
        """Notice whether the client has taken anything, be it of what the system holds for it.

        A few bytes are none: a ping is taken in by the system of a client that is long gone.
        """
        try:
            answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, _NUMBER)
        except OSError:
            return
        unacknowledged = self.size + int.from_bytes(answer, sys.byteorder)
        if unacknowledged < self._unacknowledged and self._unacknowledged > _A_FEW_BYTES:
            self.moved_at = now
        self._unacknowledged = unacknowledged

    def close(self) -> None:
        """Forget what waits; nothing is written from here on."""
        self.is_lost = True
        self._waiting = None
        forgotten, self.size = self.size, 0
        if self._total is not None and forgotten:
            self._total.remove(self, forgotten)
        if self._undo is not None:
            for _, undo in self._undo:
                gevent.spawn(undo)
            self._undo = None
        if self._progress is not None:
            self._progress.set()

    def cut(self) -> None:
        """End the connection; readers and writers find it ended."""
        self.close()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _await_progress(self) -> None:
        if self._progress is None:
            self._progress = Event()
        self._progress.clear()
        self._progress.wait()

    def _keep(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        if self._total is not None:
            self._total.add(self, len(data))
        if self._waiting:
            self._waiting.append(data)
        else:
            self._waiting = collections.deque([data])
            self.moved_at = time.monotonic()
            gevent.spawn_raw(self._write_on)

    def _write_on(self) -> None:
        """Write what waits as fast as the client takes it."""
        while self._waiting:
            try:
                written = self._socket.send(_beginning(self._waiting[0], _AT_ONCE_BYTES))
            except OSError:
                self.close()
                return
            if self._waiting:
                self._took(self._waiting, written)
            if self._waiting and written == _AT_ONCE_BYTES:
                gevent.sleep(MOMENT)
        self._waiting = None
        if self._ends:
            self._end()

    def _took(self, waiting: collections.deque[bytes | memoryview], written: int) -> None:
        self._taken += written
        if self._taken > _A_FEW_BYTES or written == self.size:
            self._taken = 0
            self.moved_at = time.monotonic()
        self.size -= written
        if self._total is not None:
            self._total.remove(self, written)
        if self._undo is not None:
            self._settle(written)
        first = waiting.popleft()
        if written < len(first):
            waiting.appendleft(memoryview(first)[written:])
        if self._progress is not None:
            self._progress.set()

    def _settle(self, written: int) -> None:
        """`written` bytes more need not be undone."""
        left = ((ahead - written, undo) for ahead, undo in self._undo or ())
        self._undo = collections.deque((ahead, undo) for ahead, undo in left if ahead > 0) or None

    def _end(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()


def _beginning(data: bytes | memoryview, most: int) -> bytes | memoryview:
    """The first `most` bytes, not copied."""
    return data if len(data) <= most else memoryview(data)[:most]


def _join_short(pieces: list[bytes]) -> list[bytes]:
    """The pieces to write by one call each: short ones joined, long ones by themselves."""
    if sum(map(len, pieces)) <= _LONG_BYTES:
        data = b''.join(pieces)
        return [data] if data else []
    return [piece for piece in pieces if piece]
