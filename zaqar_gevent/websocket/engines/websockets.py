"""The engine on the protocol core of `websockets`, with permessage-deflate."""

from __future__ import annotations

import codecs
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, ClassVar, cast

from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

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

NOT_UTF8 = 'A text message is not UTF-8.'

_new_decoder = codecs.getincrementaldecoder('utf-8')

# It reports every connection at INFO; the server has a log of its own.
LOG = logging.getLogger('websockets.server')
LOG.setLevel(logging.WARNING)

_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
_TEXT, _BINARY, _CLOSE = int(Opcode.TEXT), int(Opcode.BINARY), int(Opcode.CLOSE)
# By their payloads, the codes of close frames that are no errors.
_PLAIN_CLOSES = {
    b'': int(CloseCode.NO_STATUS_RCVD),
    **{code.to_bytes(2): int(code) for code in (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY)},
}
_MASKED = 0x80
_LONG = 1024 * 1024
_LENGTH_16, _LENGTH_64 = 126, 127
# A masked frame without a payload.
_SHORTEST = 6
# Those that wait for a connection to need them.
MAX_SPARE_PROTOCOLS = 16
_ABNORMAL = Close(CloseCode.ABNORMAL_CLOSURE, '')


def plain_payload(data: bytes, start: int, max_bytes: int) -> tuple[int, int] | None:
    """Where the payload of a message in one frame, which begins at `start`, begins and ends; the
    end may still be to come.

    None for anything else: less than a head, another kind of frame, a longer message, one that is
    not masked, a length that is not in the shortest form.
    """
    if len(data) - start < _SHORTEST or data[start] not in (FIN | _TEXT, FIN | _BINARY):
        return None
    begin = start + _SHORTEST
    length = data[start + 1] - _MASKED
    if length >= _LENGTH_16:
        size, least = (2, _LENGTH_16) if length == _LENGTH_16 else (8, 0x10000)
        begin += size
        length = int.from_bytes(data[start + 2 : start + 2 + size])
        if length < least or begin > len(data):
            return None
    return (begin, begin + length) if 0 <= length <= max_bytes else None


def plain_message(data: bytes, start: int, max_bytes: int) -> tuple[bool, bytes, int] | None:
    """The message in one frame that stands whole at `start`: whether it is binary, its payload, and
    where it ends.

    None for anything else, see `plain_payload`, and for a text that is not UTF-8.
    """
    place = plain_payload(data, start, max_bytes)
    if place is None or place[1] > len(data):
        return None
    begin, end = place
    binary = data[start] == FIN | _BINARY
    payload = apply_mask(data[begin:end], data[begin - 4 : begin])
    return (binary, payload, end) if binary or is_utf8(payload) else None


def plain_close(data: bytes) -> bytes | None:
    """The payload of a close frame, which is all of `data`.

    None for anything else: another frame, one with a reason or with a code that clients seldom use.
    """
    size = len(data) - _SHORTEST
    if size not in (0, 2) or data[0] != FIN | _CLOSE or data[1] != _MASKED | size:
        return None
    payload = apply_mask(data[_SHORTEST:], data[2:_SHORTEST])
    return payload if payload in _PLAIN_CLOSES else None


class _StrictReader(StreamReader):
    """Finds lengths that are broken in themselves, which the library lets pass.

    is_between_frames: whether nothing of the next frame has come yet.
    """

    is_strict = True
    is_between_frames = False

    def at_eof(self) -> Generator[None, None, bool]:
        """Asked before each frame: wait until its length can be told, or for the end."""
        buffer = self.buffer
        while not self._can_begin(buffer):
            if self.eof:
                return not buffer
            self.is_between_frames = not buffer
            yield
        self.is_between_frames = False
        return False

    def _can_begin(self, buffer: bytearray) -> bool:
        """Whether the length of the frame can be told, or need not be."""
        if len(buffer) < 2:
            return bool(buffer) and not self.is_strict
        form = buffer[1] & 127
        if not self.is_strict or form < _LENGTH_16:
            return True
        if len(buffer) < (10 if form == _LENGTH_64 else 4):
            return False
        _check_length(buffer, form)
        return True


def _check_length(buffer: bytearray, form: int) -> None:
    length = int.from_bytes(buffer[2:10] if form == _LENGTH_64 else buffer[2:4])
    if length < (0x10000 if form == _LENGTH_64 else _LENGTH_16):
        raise ProtocolError(NOT_SHORTEST)
    if length >= ABSURD_LENGTH:
        raise ProtocolError('The length of a frame is absurd.')


class _Protocol(ServerProtocol):
    """The library's protocol, in two places as RFC 6455 has it.

    It begins open, between two frames.
    """

    _spare: ClassVar[list[_Protocol]] = []

    def __init__(self) -> None:
        super().__init__(state=State.OPEN, logger=LOG)
        self.reader: _StrictReader = _StrictReader()
        self.parser = self.parse()
        next(self.parser)

    @classmethod
    def take(cls, limits: FrameLimits) -> _Protocol:
        """One for a connection with these limits."""
        protocol = cls._spare.pop() if cls._spare else cls()
        protocol.max_message_size = limits.message_bytes
        protocol.max_fragment_size = limits.frame_bytes
        return protocol

    def give_back(self) -> None:
        """Leave it to any connection; all that it had to say has been taken from it."""
        if len(self._spare) < MAX_SPARE_PROTOCOLS:
            self._spare.append(self)

    @property
    def is_fresh(self) -> bool:
        """Whether it is as it began."""
        return (
            self.reader.is_between_frames
            and self.state is State.OPEN
            and self.current_size is None
            and not self.extensions
        )

    def recv_frame(self, frame: Frame) -> None:
        """A message that was begun may be given up by a close frame, as by any other (5.4)."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)

    def discard(self) -> Generator[None, None, None]:
        """Ignore everything that is received from now on."""
        self.reader.is_strict = False
        return super().discard()


class _LongMessage:
    """A message in one frame that comes in many pieces.

    Each is unmasked and checked when it comes: all at once would hold others up.

    binary: whether it is no text. payload: what has come of it.
    """

    def __init__(self, binary: bool, key: bytes) -> None:
        self.binary = binary
        self.payload = bytearray()
        self._key = key
        self._decoder = None if binary else _new_decoder()

    def add(self, piece: bytes) -> bool:
        """A piece has come; whether it may be part of the message."""
        turn = len(self.payload) % len(self._key)
        plain = apply_mask(piece, self._key[turn:] + self._key[:turn])
        self.payload += plain
        return self._decode(plain)

    def is_whole(self) -> bool:
        """Whether no character is left unfinished."""
        return self._decode(b'', final=True)

    def _decode(self, data: bytes, *, final: bool = False) -> bool:
        try:
            if self._decoder is not None:
                self._decoder.decode(data, final)
        except UnicodeDecodeError:
            return False
        return True


class FrameEngine:
    """See `zaqar_gevent.websocket.engines.Engine`.

    PERF: a connection has a protocol of the library only while it receives what is not plain, and
    where it compresses; it is most of an engine's memory.
    """

    name = 'websockets'

    __slots__ = (
        *('_binary', '_fragments', '_limits', '_max_bytes', '_outgoing', '_protocol'),
        *('_begun', '_ignored', 'close_code', 'is_open', 'is_over', 'missing'),
    )

    def __init__(self, limits: FrameLimits, extensions: Sequence[Any] = ()) -> None:
        self._limits = limits
        self._max_bytes = min(limits.message_bytes, limits.frame_bytes)
        self._protocol: _Protocol | None = None
        if extensions:
            self._protocol = _Protocol.take(limits)
            self._protocol.extensions = list(extensions)
        self._fragments: list[bytes] = []
        self._outgoing: list[bytes] = []
        self._binary = False
        self.is_open = True
        self.is_over = False
        self.close_code: int | None = None
        self._begun: _LongMessage | None = None
        self.missing = 0
        self._ignored = 0

    @classmethod
    def offer(cls, compression: Compression | None) -> list[Any]:
        if compression is None:
            return []
        return [
            ServerPerMessageDeflateFactory(
                server_max_window_bits=compression.window_bits,
                client_max_window_bits=compression.window_bits,
                compress_settings={'level': compression.level, 'memLevel': 5},
            )
        ]

    @property
    def max_bytes(self) -> int:
        return self._limits.message_bytes

    @property
    def unfinished(self) -> int:
        if self._begun is not None:
            return len(self._begun.payload) + self.missing
        protocol = self._protocol
        if protocol is None or not self.is_open:
            return 0
        return len(protocol.reader.buffer) + (protocol.current_size or 0)

    @property
    def frame_head(self) -> Callable[..., bytes] | None:
        protocol = self._protocol
        return message_head if protocol is None or not protocol.extensions else None

    def receive(self, data: bytes) -> Iterable[WebSocketMessage]:
        """PERF: nearly always `data` is one or a few messages, whole and plain, or parts of a long
        one, and then the library, which is made to be fed single bytes, need not see it."""
        if self._ignored and data:
            ignored = min(self._ignored, len(data))
            self._ignored -= ignored
            data = data[ignored:]
            if not data:
                return ()
        if self._begun is not None:
            return self._receive_long(self._begun, data)
        if self._protocol is not None:
            return self._receive_frames([], data)
        if not self.is_open:
            # Closed plainly: what comes now is not looked at.
            self.is_over = not data
            return ()
        messages, end = self._plain_messages(data)
        if messages and end == len(data):
            return messages
        if (place := plain_payload(data, end, self._max_bytes)) and place[1] > len(data):
            self._begun = _LongMessage(data[end] == FIN | _BINARY, data[place[0] - 4 : place[0]])
            self.missing = place[1] - place[0]
            if place[0] < len(data):
                self._receive_long(self._begun, data[place[0] :])
            return messages
        return self._receive_frames(messages, data[end:])

    def _receive_long(self, begun: _LongMessage, data: bytes) -> Iterable[WebSocketMessage]:
        """Go on with a message that comes in many pieces; an end within it is the stream's."""
        piece = data[: self.missing]
        if not begun.add(piece) or (len(piece) == self.missing and not begun.is_whole()):
            self._begun, self.missing = None, 0
            self._fail(self._parsing(), Failure(CloseCode.INVALID_DATA, NOT_UTF8))
            return ()
        self.missing -= len(piece)
        if self.missing and data:
            return ()
        self._begun, self.missing = None, 0
        rest = data[len(piece) :]
        if not data:
            return self.receive(b'')
        payload = begun.payload
        # PERF: to copy ten megabytes into new memory would keep all others waiting.
        whole = bytes(payload) if len(payload) < _LONG else cast('bytes', payload)
        message = WebSocketMessage(whole, begun.binary)
        return (message, *(self.receive(rest) if rest else ()))

    def _plain_messages(self, data: bytes) -> tuple[list[WebSocketMessage], int]:
        """The messages at the front of `data` that are plain, and where they end."""
        messages: list[WebSocketMessage] = []
        end, size = 0, len(data)
        while end < size:
            found = plain_message(data, end, self._max_bytes)
            if found is None:
                break
            binary, payload, end = found
            messages.append(WebSocketMessage(payload, binary))
        return messages, end

    def _receive_frames(
        self, messages: list[WebSocketMessage], data: bytes
    ) -> Iterator[WebSocketMessage]:
        yield from messages
        if self._protocol is None and (payload := plain_close(data)) is not None:
            self._close_plainly(payload)
            return
        protocol = self._parsing()
        was_open = self.is_open
        if data:
            protocol.receive_data(data)
        else:
            protocol.receive_eof()
        if protocol.state is not State.OPEN:
            self._note_closing(protocol)
            self._forget(protocol)
        frames = protocol.events_received()
        try:
            for frame in frames if was_open else ():
                if isinstance(frame, Frame) and (message := self._assemble(frame)):
                    yield message
        except Failure as failure:
            self._fail(protocol, failure)
        if protocol.is_fresh and not self._fragments:
            self._outgoing += protocol.data_to_send()
            self._protocol = None
            protocol.give_back()

    def send(self, payload: bytes, *, binary: bool) -> None:
        protocol = self._protocol
        if not self.is_open:
            return
        if protocol is None:
            start = head(_BINARY if binary else _TEXT, len(payload))
            # One that is as long is not copied.
            self._outgoing += [start, payload] if len(payload) > _LONG else [start + payload]
        elif protocol.extensions:
            (protocol.send_binary if binary else protocol.send_text)(payload)
        else:
            protocol.writes.append(message_head(len(payload), binary=binary) + payload)

    def ping(self) -> None:
        if not self.is_open:
            return
        if self._protocol is None:
            self._outgoing.append(head(Opcode.PING, 0))
        else:
            self._protocol.send_ping(b'')

    def close(self, code: int, reason: str = '') -> None:
        self._ignore_begun()
        if self.is_open:
            protocol = self._parsing()
            protocol.send_close(code, shorten(reason))
            self._note_closing(protocol)

    def outgoing(self) -> list[bytes]:
        outgoing, self._outgoing = self._outgoing, []
        if self._protocol is not None:
            outgoing += self._protocol.data_to_send()
        return outgoing

    def _ignore_begun(self) -> None:
        """Forget the message that has begun, and do not look at what is still to come of it."""
        if self._begun is not None:
            self._begun, self._ignored, self.missing = None, self.missing, 0

    def _parsing(self) -> _Protocol:
        if self._protocol is None:
            self._protocol = _Protocol.take(self._limits)
        return self._protocol

    def _close_plainly(self, payload: bytes) -> None:
        """Answer a close frame in its own words, and end the stream."""
        self.is_open = False
        self.close_code = _PLAIN_CLOSES[payload]
        self._outgoing += [head(_CLOSE, len(payload)) + payload, b'']

    def _note_closing(self, protocol: _Protocol) -> None:
        """The library has begun to close the connection, or gone on with it."""
        self.is_open = False
        self.is_over = protocol.state is State.CLOSED
        first = protocol.close_rcvd if protocol.close_rcvd_then_sent else protocol.close_sent
        self.close_code = (first or protocol.close_rcvd or _ABNORMAL).code

    def _forget(self, protocol: _Protocol) -> None:
        """Drop what was received: it would stay until the next garbage collection.

        An exception has all that was being parsed, an extension its buffers and what it has left.
        """
        protocol.parser_exc = None
        protocol.extensions = []

    def _assemble(self, frame: Frame) -> WebSocketMessage | None:
        if frame.opcode not in _DATA:
            return None
        if frame.opcode is not Opcode.CONT:
            self._binary = frame.opcode is Opcode.BINARY
        self._fragments.append(bytes(frame.data))
        if not frame.fin:
            if len(self._fragments) >= self._limits.fragments:
                reason = f'A message exceeds {self._limits.fragments} fragments.'
                raise Failure(CloseCode.MESSAGE_TOO_BIG, reason)
            return None
        payload = b''.join(self._fragments)
        self._fragments.clear()
        if not self._binary and not is_utf8(payload):
            raise Failure(CloseCode.INVALID_DATA, NOT_UTF8)
        return WebSocketMessage(payload, self._binary)

    def _fail(self, protocol: _Protocol, failure: Failure) -> None:
        self._fragments.clear()
        if self.is_open:
            protocol.fail(failure.code, failure.reason)
            self._note_closing(protocol)
            self._forget(protocol)
