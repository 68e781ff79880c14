"""A connected client: its socket, read and answered by one greenlet."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Protocol

import gevent
from oslo_log import log

from zaqar_gevent.websocket.frames import Frames

LOG = log.getLogger(__name__)

READ_BYTES = 64 * 1024
CLOSE_TIMEOUT_SECONDS = 5.0
AUTHENTICATION_EXPIRED = 4003


class Receiver(Protocol):
    """Whoever answers messages.

    expires_at: when to end the conversation, in seconds of `time.monotonic`; None for never.
    """

    expires_at: float | None

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
            data = self._receive(self._receiver.expires_at)
            if data is None:
                self._frames.close(AUTHENTICATION_EXPIRED, 'Authentication expired.')
            else:
                self._answer(data)
            self._flush()
        self._await_end()

    def _answer(self, data: bytes) -> None:
        for message in self._frames.receive(data):
            answer = self._receiver.receive(message.payload, binary=message.binary)
            self._frames.send(answer, binary=message.binary)
            self._flush()

    def _receive(self, expires_at: float | None) -> bytes | None:
        """What the client sends next; None where the time is over before.

        A timeout interrupts nothing but waiting: a request that has begun is answered.
        """
        if expires_at is None:
            return self._read_some()
        left = expires_at - time.monotonic()
        if left > 0:
            with gevent.Timeout(left, False):
                return self._read_some()
        return None

    def _read_some(self) -> bytes:
        data = self._read(READ_BYTES)
        self._read = self._socket.recv
        return data

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
