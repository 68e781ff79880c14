"""A connected client: its socket, read and answered by one greenlet."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

import gevent
from oslo_log import log

from zaqar_gevent.websocket.frames import Frames

LOG = log.getLogger(__name__)

READ_BYTES = 64 * 1024
CLOSE_TIMEOUT_SECONDS = 5.0


class Receiver(Protocol):
    """Whoever answers messages."""

    def receive(self, payload: bytes, *, binary: bool) -> bytes: ...


class Connection:
    """Carries messages between a socket and a receiver, in order, until either side closes.

    buffered: reads what the HTTP server may have read ahead of the upgrade, then from the socket.
    """

    def __init__(
        self,
        sock: socket.socket,
        buffered: Callable[[int], bytes],
        frames: Frames,
        receiver: Receiver,
    ) -> None:
        self._socket = sock
        self._read = buffered
        self._frames = frames
        self._receiver = receiver

    def run(self) -> None:
        """Serve the client until the connection is over; returns, whatever the client does."""
        try:
            self._serve()
        except OSError as error:
            LOG.debug('A WebSocket connection was lost: %s', error)

    def _serve(self) -> None:
        self._flush()
        while self._frames.is_open:
            data = self._read(READ_BYTES)
            self._read = self._socket.recv
            for message in self._frames.receive(data):
                answer = self._receiver.receive(message.payload, binary=message.binary)
                self._frames.send(answer, binary=message.binary)
                self._flush()
            self._flush()
        self._await_end()

    def _await_end(self) -> None:
        """Read on until the peer hangs up too, so that it gets the close frame."""
        with gevent.Timeout(CLOSE_TIMEOUT_SECONDS, False):
            while not self._frames.is_over:
                for _ in self._frames.receive(self._socket.recv(READ_BYTES)):
                    pass

    def _flush(self) -> None:
        pieces = self._frames.outgoing()
        if not pieces:
            return
        data = b''.join(pieces)
        if data:
            self._socket.sendall(data)
        if not pieces[-1]:
            self._socket.shutdown(socket.SHUT_WR)
