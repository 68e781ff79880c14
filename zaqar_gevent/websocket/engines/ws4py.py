"""The engine on the streaming parser of ws4py; wsaccel beside it makes it fast."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import Any, ClassVar

from ws4py import streaming
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

from zaqar_gevent.websocket.engines import (
    ABSURD_LENGTH,
    FIN,
    NOT_SHORTEST,
    Compression,
    Failure,
    FrameLimits,
    WebSocketMessage,
    head,
    is_utf8,
    message_head,
    shorten,
)

try:
    from wsaccel.xormask import XorMaskerSimple
except ImportError:
    XorMaskerSimple = None

PROTOCOL_ERROR = 1002
NO_STATUS_RECEIVED = 1005
ABNORMAL_CLOSURE = 1006
INVALID_PAYLOAD = 1007
MESSAGE_TOO_BIG = 1009

# What a close frame may say; the rest is reserved, unassigned, or never sent (RFC 6455, 7.4).
STATUS_CODES = frozenset([*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)])

OPCODE = 0x0F
MASK = 0x80
KEY_BYTES = 4
END_OF_STREAM = b''

# The shortest payload for which a header is that long, masking-key included.
LEAST_PAYLOAD = {6: 0, 8: 126, 14: 0x10000}

MAX_SPARE_STREAMS = 64


class FrameEngine:
    """See `zaqar_gevent.websocket.engines.Engine`."""

    name = 'ws4py'
    frame_head = staticmethod(message_head)
    missing = 0

    __slots__ = (
        *('_buffer', '_fragment_bytes', '_fragments', '_header', '_is_receiving', '_limits'),
        *('_outgoing', '_payload_bytes', '_stream', 'close_code', 'is_open', 'is_over'),
    )

    def __init__(self, limits: FrameLimits, extensions: Sequence[Any] = ()) -> None:
        self._limits = limits
        self._is_receiving = True
        self._buffer: bytes | bytearray = b''
        self._header: bytes | bytearray = b''
        self._payload_bytes = 0
        self._fragments: list[bytes] = []
        self._fragment_bytes = 0
        self._stream: Stream | None = None
        self._outgoing: list[bytes] = []
        self.is_open = True
        self.is_over = False
        self.close_code: int | None = None

    @property
    def max_bytes(self) -> int:
        return self._limits.message_bytes

    @property
    def unfinished(self) -> int:
        return len(self._buffer) + self._fragment_bytes

    @classmethod
    def offer(cls, compression: Compression | None) -> list[Any]:  # noqa: ARG003
        return []

    def receive(self, data: bytes) -> Iterator[WebSocketMessage]:
        if not data:
            self._end()
            return iter(())
        was_open = self.is_open
        messages = self._read(data)
        return iter(messages if was_open else ())

    def send(self, payload: bytes, *, binary: bool) -> None:
        if self.is_open:
            self._queue(OPCODE_BINARY if binary else OPCODE_TEXT, payload)

    def ping(self) -> None:
        if self.is_open:
            self._queue(OPCODE_PING, b'')

    def close(self, code: int, reason: str = '') -> None:
        if self.is_open:
            self._start_closing(code, CloseControlMessage(code, shorten(reason)).data)

    def outgoing(self) -> list[bytes]:
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def _read(self, data: bytes) -> list[WebSocketMessage]:
        messages: list[WebSocketMessage] = []
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while self._is_receiving:
                end = start + (self._payload_bytes if self._header else header_bytes(buffer, start))
                if end > len(buffer):
                    break
                part, start = buffer[start:end], end
                if not self._header:
                    self._begin_frame(part)
                elif message := self._finish_frame(part):
                    messages.append(message)
        except Failure as failure:
            self.close(failure.code, failure.reason)
            self._stop()
        self._buffer = rest(buffer, start) if self._is_receiving else b''
        return messages

    def _begin_frame(self, header: bytes | bytearray) -> None:
        if header[1] < MASK:
            raise Failure(PROTOCOL_ERROR, 'A frame is not masked.')
        stream = self._parsing()
        length: int = stream.feed(header)
        if stream.errors:
            raise Failure(PROTOCOL_ERROR, 'The header of a frame is not valid.')
        if header[1] == MASK:
            # With nothing left to read of this frame, the parser asks for the next one's.
            length = 0
        if length < LEAST_PAYLOAD[len(header)]:
            raise Failure(PROTOCOL_ERROR, NOT_SHORTEST)
        if length >= ABSURD_LENGTH:
            raise Failure(PROTOCOL_ERROR, 'The length of a frame is absurd.')
        if header[0] & OPCODE < OPCODE_CLOSE:
            self._admit(header[0], length)
        self._header = header
        self._payload_bytes = length

    def _admit(self, first: int, length: int) -> None:
        """Check a data frame against those before it; `first` is the first byte of its header."""
        limits = self._limits
        if (first & OPCODE == OPCODE_CONTINUATION) != bool(self._fragments):
            raise Failure(PROTOCOL_ERROR, 'A message is begun or continued out of turn.')
        if length > limits.frame_bytes:
            raise Failure(MESSAGE_TOO_BIG, f'A frame exceeds {limits.frame_bytes} bytes.')
        if length + self._fragment_bytes > limits.message_bytes:
            raise Failure(MESSAGE_TOO_BIG, f'A message exceeds {limits.message_bytes} bytes.')
        if first < FIN and len(self._fragments) + 1 >= limits.fragments:
            raise Failure(MESSAGE_TOO_BIG, f'A message exceeds {limits.fragments} fragments.')

    def _finish_frame(self, payload: bytes | bytearray) -> WebSocketMessage | None:
        """The message that a frame's payload completes, if it is that of a message's last frame."""
        header, self._header = self._header, b''
        opcode = header[0] & OPCODE
        if opcode == OPCODE_CLOSE:
            # ws4py knows fewer status codes than there are and replaces the others.
            self._receive_close(unmask(payload, header[-KEY_BYTES:]))
            return None
        stream = self._parsing()
        if payload:
            stream.feed(payload)
        if stream.errors:
            raise Failure(INVALID_PAYLOAD, 'A text message is not UTF-8.')
        message = None
        if opcode < OPCODE_CLOSE:
            message = self._assemble(stream)
        else:
            self._answer_pings(stream)
        if stream.message is None:
            self._stream = None
            stream.give_back()
        return message

    def _assemble(self, stream: Stream) -> WebSocketMessage | None:
        message = stream.message
        payload: bytes = message.data
        if not message.completed:
            self._fragments.append(payload)
            self._fragment_bytes += len(payload)
            # ws4py would copy what it has for each further fragment.
            message.data = b''
            return None
        stream.message = None
        if self._fragments:
            payload = self._join(payload, binary=message.is_binary)
        return WebSocketMessage(payload, message.is_binary)

    def _join(self, last: bytes, *, binary: bool) -> bytes:
        payload = b''.join([*self._fragments, last])
        self._fragments.clear()
        self._fragment_bytes = 0
        # ws4py does not validate an empty fragment, so not that a code point is complete by then.
        if not last and not binary and not is_utf8(payload):
            raise Failure(INVALID_PAYLOAD, 'A text message is not UTF-8.')
        return payload

    def _answer_pings(self, stream: Stream) -> None:
        for ping in stream.pings:
            self._queue(OPCODE_PONG, ping.data)
        stream.pings.clear()
        stream.pongs.clear()

    def _receive_close(self, payload: bytes) -> None:
        code = status_code(payload)
        if self.is_open:
            self._start_closing(code, payload)
        self._stop()

    def _start_closing(self, code: int, payload: bytes) -> None:
        self._queue(OPCODE_CLOSE, payload)
        self.is_open = False
        self.close_code = code

    def _stop(self) -> None:
        """Receive no more, and say that nothing follows."""
        if self._is_receiving:
            self._is_receiving = False
            self._outgoing.append(END_OF_STREAM)
            self._fragments.clear()
            if self._stream is not None:
                self._stream.parser.close()
                self._stream = None

    def _end(self) -> None:
        if self.is_open:
            self.is_open = False
            self.close_code = ABNORMAL_CLOSURE
        self._stop()
        self._buffer = b''
        self.is_over = True

    def _parsing(self) -> Stream:
        if self._stream is None:
            self._stream = Stream.take()
        return self._stream

    def _queue(self, opcode: int, payload: bytes) -> None:
        self._outgoing.append(head(opcode, len(payload)) + payload)


def header_bytes(buffer: bytes | bytearray, start: int) -> int:
    """The length of the header that begins at `start`, as far as it can be told yet."""
    if len(buffer) < start + 2:
        return 2
    length = buffer[start + 1] - MASK
    if length < 0:
        return 2
    return 6 if length < 126 else 8 if length == 126 else 14


def rest(buffer: bytes | bytearray, start: int) -> bytes | bytearray:
    """What begins at `start`, so that appending to it does not copy it."""
    if start == len(buffer):
        return b''
    if not isinstance(buffer, bytearray):
        return bytearray(buffer[start:])
    del buffer[:start]
    return buffer


def status_code(payload: bytes) -> int:
    """The code and reason of a close frame; raises Failure for invalid ones."""
    if not payload:
        return NO_STATUS_RECEIVED
    if not is_utf8(payload[2:]):
        raise Failure(INVALID_PAYLOAD, 'The reason of a close frame is not UTF-8.')
    code = int.from_bytes(payload[:2], 'big')
    if code not in STATUS_CODES:
        raise Failure(PROTOCOL_ERROR, 'The status code of a close frame is not valid.')
    return code


def xor_in_c(payload: bytes | bytearray, key: bytes | bytearray) -> bytes:
    """Mask or unmask a payload (RFC 6455, 5.3), by wsaccel."""
    unmasked: bytes = XorMaskerSimple(key).process(payload)
    return unmasked


def xor_as_number(payload: bytes | bytearray, key: bytes | bytearray) -> bytes:
    """The same without wsaccel: slower, but still many times as fast as byte by byte."""
    size = len(payload)
    keys = (key * (size // KEY_BYTES + 1))[:size]
    number = int.from_bytes(payload, 'little') ^ int.from_bytes(keys, 'little')
    return number.to_bytes(size, 'little')


unmask = xor_as_number if XorMaskerSimple is None else xor_in_c


class MaskedFrame(Frame):
    """A frame whose payload is not unmasked byte by byte in Python."""

    def unmask(self, data: bytes | bytearray) -> bytes:
        return unmask(data, self.masking_key)


class Utf8Validator:
    """A validator for ws4py that uses the codec: many times faster even than wsaccel's."""

    __slots__ = ('_incomplete',)

    def __init__(self) -> None:
        self._incomplete = b''

    def reset(self) -> None:
        self._incomplete = b''

    def validate(self, data: bytes) -> tuple[bool, bool, int, int]:
        """Whether the text is valid as far as it goes, and ends on a code point; then fillers."""
        data = self._incomplete + data
        try:
            _, length = codecs.utf_8_decode(data)
        except UnicodeDecodeError:
            return False, False, 0, 0
        self._incomplete = data[length:]
        return True, not self._incomplete, 0, 0


class Stream(streaming.Stream):
    """ws4py's parser, which is fed whole headers and whole payloads.

    A connection has one only while it receives a message, for it is several times as large as the
    rest of an engine.
    """

    # Other users of ws4py in the process keep their classes, so what wsaccel would patch is not.
    receiver = FunctionType(
        streaming.Stream.receiver.__code__,
        {**vars(streaming), 'Frame': MaskedFrame, 'Utf8Validator': Utf8Validator},
    )

    _spare: ClassVar[list[Stream]] = []

    def __init__(self) -> None:
        super().__init__()
        self.feed = self.parser.send

    @classmethod
    def take(cls) -> Stream:
        return cls._spare.pop() if cls._spare else cls()

    def give_back(self) -> None:
        """Leave the stream, which is between messages and without errors, to any connection."""
        if len(self._spare) < MAX_SPARE_STREAMS:
            self._spare.append(self)
        else:
            self.parser.close()
