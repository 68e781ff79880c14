"""The engine on the framing of `ws4py`; it cannot compress.

What ws4py leaves open is checked here: masks, lengths, the order of fragments, UTF-8 and close
codes.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from typing import Any

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

from zaqar_gevent.client.engines import (
    ABNORMAL_CLOSURE,
    INVALID_PAYLOAD,
    MAX_FRAGMENTS,
    MESSAGE_TOO_BIG,
    NO_STATUS_RECEIVED,
    PROTOCOL_ERROR,
    Payload,
    shorten,
)

KEY_BYTES = 4

# What a close frame may say; the rest is reserved, unassigned, or never sent (RFC 6455, 7.4).
_STATUS_CODES = frozenset([*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)])
_MASKED = 0x80
_SHORT = 126
_LONG = 127
# The shortest payload for which a header is that long.
_LEAST_PAYLOAD = {2: 0, 4: 126, 10: 0x10000}

_utf8_decoder = codecs.getincrementaldecoder('utf-8')


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


class FrameEngine:
    """See `zaqar_gevent.client.engines.Engine`."""

    def __init__(self, max_message_bytes: int, extensions: Sequence[Any] = ()) -> None:
        self._max_message_bytes = max_message_bytes
        self._buffer = bytearray()
        self._frame: Frame | None = None
        self._payload_bytes = 0
        self._fragments: list[bytes] = []
        self._fragment_bytes = 0
        self._opcode: int | None = None
        self._utf8 = _utf8_decoder()
        self._has_closed = False
        self.replies: list[bytes] = []
        self.pongs = 0
        self.close_code: int | None = None
        self.close_reason = ''
        self.is_over = False
        self.has_failed = False

    @classmethod
    def offer(cls) -> list[Any]:
        return []

    def encode(self, data: bytes, *, binary: bool) -> bytes:
        return build(OPCODE_BINARY if binary else OPCODE_TEXT, data)

    def encode_ping(self) -> bytes:
        return build(OPCODE_PING, b'')

    def encode_close(self, code: int, reason: str = '') -> bytes:
        self._has_closed = True
        return _build_close(code, reason)

    def receive(self, data: bytes) -> list[Payload]:
        if not data:
            self._finish(ABNORMAL_CLOSURE, 'The connection ended without a close frame.')
            return []
        self._buffer += data
        messages: list[Payload] = []
        try:
            self._read(messages)
        except Failure as failure:
            self.has_failed = True
            self._reply(_build_close(failure.code, failure.reason))
            self._finish(failure.code, failure.reason)
        return messages

    def _finish(self, code: int, reason: str) -> None:
        if not self.is_over:
            self.is_over = True
            self.close_code, self.close_reason = code, reason
            self._buffer.clear()
            self._fragments.clear()

    def _read(self, messages: list[Payload]) -> None:
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

    def _complete(self, frame: Any, payload: bytes) -> Payload | None:
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

    def _take(self, opcode: int, payload: bytes, *, is_last: bool) -> Payload | None:
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
        message = Payload(b''.join(self._fragments), self._opcode == OPCODE_BINARY)
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
        if not self._has_closed:
            self.replies.append(frame)


def _header_bytes(buffer: bytearray, start: int) -> int:
    """The length of the header that begins at `start`, as far as it can be told yet.

    The key of a masked frame is left out: a server must not send one.
    """
    if len(buffer) < start + 2:
        return 2
    length = buffer[start + 1] & ~_MASKED
    return 2 if length < _SHORT else 4 if length == _SHORT else 10


def _build_close(code: int, reason: str) -> bytes:
    return build(OPCODE_CLOSE, CloseControlMessage(code, shorten(reason)).data)
