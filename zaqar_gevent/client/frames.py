"""RFC 6455 from the client's side, without I/O: bytes in, messages out.

Frames are parsed and built by ws4py. What it leaves open is checked here: masks, lengths, the order
of fragments, UTF-8 and close codes.
"""

from __future__ import annotations

import codecs
import os
from typing import Any, NamedTuple

from ws4py.exc import FrameTooLargeException, ProtocolException
from ws4py.framing import (
    OPCODE_BINARY,
    OPCODE_CLOSE,
    OPCODE_CONTINUATION,
    OPCODE_PING,
    OPCODE_PONG,
    OPCODE_TEXT,
    Frame,
)
from ws4py.messaging import CloseControlMessage

NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
NO_STATUS_RECEIVED = 1005
ABNORMAL_CLOSURE = 1006
INVALID_PAYLOAD = 1007
MESSAGE_TOO_BIG = 1009

MAX_FRAGMENTS = 100_000
MAX_REASON_BYTES = 123
KEY_BYTES = 4

# What a close frame may say; the rest is reserved, unassigned, or never sent (RFC 6455, 7.4).
_STATUS_CODES = frozenset([*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)])
_MASKED = 0x80
_SHORT = 126
_LONG = 127
# The shortest payload for which a header is that long.
_LEAST_PAYLOAD = {2: 0, 4: 126, 10: 0x10000}

_utf8_decoder = codecs.getincrementaldecoder('utf-8')


class Message(NamedTuple):
    """A whole message; `binary` tells a binary one from text, which is valid UTF-8."""

    payload: bytes
    binary: bool


class Failure(Exception):
    """The server broke the protocol; the connection is to be closed with `code`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class MaskingFrame(Frame):
    """A frame whose payload is not masked byte by byte in Python."""

    def mask(self, data: bytes) -> bytes:
        size = len(data)
        keys = (self.masking_key * (size // KEY_BYTES + 1))[:size]
        number = int.from_bytes(data, 'little') ^ int.from_bytes(keys, 'little')
        return number.to_bytes(size, 'little')


def build(opcode: int, payload: bytes) -> bytes:
    """A whole frame, masked as a client's must be."""
    frame = MaskingFrame(opcode, payload, masking_key=os.urandom(KEY_BYTES), fin=1)
    built: bytes = frame.build()
    return built


def build_message(payload: bytes, *, binary: bool) -> bytes:
    """The frame of a message."""
    return build(OPCODE_BINARY if binary else OPCODE_TEXT, payload)


def build_ping(payload: bytes = b'') -> bytes:
    """The frame of a ping, of at most 125 bytes."""
    return build(OPCODE_PING, payload)


def build_close(code: int, reason: str = '') -> bytes:
    """The frame of a close; a reason that is too long is shortened."""
    shortened = reason.encode()[:MAX_REASON_BYTES].decode(errors='ignore')
    return build(OPCODE_CLOSE, CloseControlMessage(code, shortened).data)


class FrameReader:
    """Reads what a server sends.

    replies: frames to be sent because of what was read: pongs, and the answer to a close.
    pongs: how many pongs have come.
    close_code, close_reason: how the connection was closed, None while it is not.
    is_over: whether nothing that comes is read any more.
    has_failed: whether the server broke the protocol, so that the code is this side's.
    has_closed: to be set once a close frame was sent, after which nothing is replied.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._buffer = bytearray()
        self._frame: Frame | None = None
        self._payload_bytes = 0
        self._fragments: list[bytes] = []
        self._fragment_bytes = 0
        self._opcode: int | None = None
        self._utf8 = _utf8_decoder()
        self.replies: list[bytes] = []
        self.pongs = 0
        self.close_code: int | None = None
        self.close_reason = ''
        self.is_over = False
        self.has_failed = False
        self.has_closed = False

    def receive(self, data: bytes) -> list[Message]:
        """The messages that `data` completes; no data says that the server has ended.

        When the server breaks the protocol, or closes, the reply to that is in `replies`.
        """
        if not data:
            self._finish(ABNORMAL_CLOSURE, 'The connection ended without a close frame.')
            return []
        self._buffer += data
        messages: list[Message] = []
        try:
            self._read(messages)
        except Failure as failure:
            self.has_failed = True
            self._reply(build_close(failure.code, failure.reason))
            self._finish(failure.code, failure.reason)
        return messages

    def _finish(self, code: int, reason: str) -> None:
        if not self.is_over:
            self.is_over = True
            self.close_code, self.close_reason = code, reason
            self._buffer.clear()
            self._fragments.clear()

    def _read(self, messages: list[Message]) -> None:
        start = 0
        while not self.is_over:
            in_header = self._frame is None
            end = start + (_header_bytes(self._buffer, start) if in_header else self._payload_bytes)
            if end > len(self._buffer):
                break
            part, start = bytes(self._buffer[start:end]), end
            if in_header:
                self._begin(part)
            elif (message := self._complete(self._frame, part)) is not None:
                messages.append(message)
        del self._buffer[:start]

    def _begin(self, header: bytes) -> None:
        if header[1] & _MASKED:
            raise Failure(PROTOCOL_ERROR, 'A frame of the server is masked.')
        frame = Frame()
        try:
            self._payload_bytes = frame.parser.send(header) or 0
        except (ProtocolException, FrameTooLargeException):
            raise Failure(PROTOCOL_ERROR, 'The header of a frame is not valid.') from None
        if self._payload_bytes < _LEAST_PAYLOAD[len(header)]:
            raise Failure(PROTOCOL_ERROR, 'The length of a frame is not written the shortest way.')
        if frame.opcode < OPCODE_CLOSE:
            self._admit(frame)
        self._frame = frame

    def _admit(self, frame: Frame) -> None:
        """Check a data frame against those before it."""
        if (frame.opcode == OPCODE_CONTINUATION) != (self._opcode is not None):
            raise Failure(PROTOCOL_ERROR, 'A message is begun or continued out of turn.')
        if self._fragment_bytes + self._payload_bytes > self._max_message_bytes:
            limit = self._max_message_bytes
            raise Failure(MESSAGE_TOO_BIG, f'A message exceeds {limit} bytes.')
        if len(self._fragments) >= MAX_FRAGMENTS:
            raise Failure(MESSAGE_TOO_BIG, f'A message exceeds {MAX_FRAGMENTS} fragments.')

    def _complete(self, frame: Any, payload: bytes) -> Message | None:
        self._frame = None
        if frame.opcode < OPCODE_CLOSE:
            return self._take(frame.opcode, payload, is_last=bool(frame.fin))
        if frame.opcode == OPCODE_PING:
            self._reply(build(OPCODE_PONG, payload))
        elif frame.opcode == OPCODE_PONG:
            self.pongs += 1
        else:
            self._take_close(payload)
        return None

    def _take(self, opcode: int, payload: bytes, *, is_last: bool) -> Message | None:
        if self._opcode is None:
            self._opcode = opcode
        if self._opcode == OPCODE_TEXT:
            try:
                self._utf8.decode(payload, is_last)
            except UnicodeDecodeError:
                raise Failure(INVALID_PAYLOAD, 'A text message is not UTF-8.') from None
        self._fragments.append(payload)
        self._fragment_bytes += len(payload)
        if not is_last:
            return None
        message = Message(b''.join(self._fragments), self._opcode == OPCODE_BINARY)
        self._fragments.clear()
        self._fragment_bytes = 0
        self._opcode = None
        self._utf8.reset()
        return message

    def _take_close(self, payload: bytes) -> None:
        code, reason = NO_STATUS_RECEIVED, ''
        if payload:
            code = int.from_bytes(payload[:2], 'big')
            if len(payload) == 1 or code not in _STATUS_CODES:
                raise Failure(PROTOCOL_ERROR, 'The status code of a close frame is not valid.')
            try:
                reason = payload[2:].decode()
            except UnicodeDecodeError:
                raise Failure(INVALID_PAYLOAD, 'A reason is not UTF-8.') from None
        self._reply(build(OPCODE_CLOSE, payload[:2]))
        self._finish(code, reason)

    def _reply(self, frame: bytes) -> None:
        if not self.has_closed:
            self.replies.append(frame)


def _header_bytes(buffer: bytearray, start: int) -> int:
    """The length of the header that begins at `start`, as far as it can be told yet.

    The key of a masked frame is left out: a server must not send one.
    """
    if len(buffer) < start + 2:
        return 2
    length = buffer[start + 1] & ~_MASKED
    return 2 if length < _SHORT else 4 if length == _SHORT else 10
