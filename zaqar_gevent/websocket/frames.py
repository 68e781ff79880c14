"""RFC 6455 without sockets: bytes in, messages out, and back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

from websockets.datastructures import Headers
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

# The protocol engine reports every connection at INFO; the server has a log of its own.
_LOG = logging.getLogger('websockets.server')
_LOG.setLevel(logging.WARNING)


class Message(NamedTuple):
    """A whole message as it was received."""

    payload: bytes
    binary: bool


class Frames:
    """The frames of one connection, whose opening handshake has been done already.

    max_message_bytes: a longer message, fragmented or not, fails the connection with 1009.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._protocol = ServerProtocol(state=State.OPEN, max_size=max_message_bytes, logger=_LOG)
        self._fragments: list[bytes] = []
        self._binary = False

    @property
    def is_open(self) -> bool:
        """Whether messages may still be sent and received."""
        return self._protocol.state is State.OPEN

    @property
    def is_over(self) -> bool:
        """Whether the peer has nothing more to say either."""
        return self._protocol.state is State.CLOSED

    def receive(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes; empty `data` is the end of the stream."""
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for frame in self._protocol.events_received():
            if isinstance(frame, Frame) and frame.opcode in (
                Opcode.TEXT,
                Opcode.BINARY,
                Opcode.CONT,
            ):
                yield from self._assemble(frame)

    def send(self, payload: bytes, *, binary: bool) -> None:
        """Queue a message; without effect on a connection that is closing."""
        try:
            if binary:
                self._protocol.send_binary(payload)
            else:
                self._protocol.send_text(payload)
        except InvalidState:
            return

    def close(self, code: int, reason: str = '') -> None:
        """Start the closing handshake; without effect on a connection that is closing."""
        if self.is_open:
            self._protocol.fail(code, reason)

    def outgoing(self) -> list[bytes]:
        """What to write to the peer now; an empty element means that nothing follows."""
        return self._protocol.data_to_send()

    def _assemble(self, frame: Frame) -> Iterator[Message]:
        if frame.opcode is not Opcode.CONT:
            self._binary = frame.opcode is Opcode.BINARY
        self._fragments.append(bytes(frame.data))
        if not frame.fin:
            return
        payload = b''.join(self._fragments)
        self._fragments.clear()
        if self._binary or _is_utf8(payload):
            yield Message(payload, self._binary)
        else:
            self.close(CloseCode.INVALID_DATA, 'a text message is not UTF-8')


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def answer_handshake(path: str, headers: list[tuple[str, str]]) -> Response:
    """Answer an upgrade request as RFC 6455 section 4.2 asks: 101, or why not."""
    return ServerProtocol(logger=_LOG).accept(Request(path, Headers(headers)))
