"""The engine on the protocol core of `websockets`, with permessage-deflate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

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
    Message,
    head,
    is_utf8,
    message_head,
    shorten,
)

# It reports every connection at INFO; the server has a log of its own.
LOG = logging.getLogger('websockets.server')
LOG.setLevel(logging.WARNING)

_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
_TEXT, _BINARY = int(Opcode.TEXT), int(Opcode.BINARY)
_MASKED = 0x80
_LENGTH_16, _LENGTH_64 = 126, 127
# A masked frame without a payload.
_SHORTEST = 6
_ABNORMAL = Close(CloseCode.ABNORMAL_CLOSURE, '')


def plain_message(data: bytes, start: int, max_bytes: int) -> tuple[bool, bytes, int] | None:
    """The message in one frame that stands whole at `start`: whether it is binary, its payload, and
    where it ends.

    None for anything else: part of a frame, another kind of frame, a longer message, one that is
    not masked or not UTF-8, a length that is not in the shortest form or needs 64 bits.
    """
    if len(data) - start < _SHORTEST or data[start] not in (FIN | _TEXT, FIN | _BINARY):
        return None
    binary, form = data[start] == FIN | _BINARY, data[start + 1]
    mask = start + 2
    length = form - _MASKED
    if length == _LENGTH_16:
        length = int.from_bytes(data[mask : mask + 2])
        mask += 2
        if length < _LENGTH_16:
            return None
    begin, end = mask + 4, mask + 4 + length
    if not 0 <= length <= max_bytes or form == _MASKED | _LENGTH_64 or end > len(data):
        return None
    payload = apply_mask(data[begin:end], data[mask:begin])
    return (binary, payload, end) if binary or is_utf8(payload) else None


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
    """The library's protocol, in two places as RFC 6455 has it."""

    def __init__(self, max_size: tuple[int, int]) -> None:
        super().__init__(state=State.OPEN, max_size=max_size, logger=LOG)
        self.reader: _StrictReader = _StrictReader()
        self.parser = self.parse()
        next(self.parser)

    def recv_frame(self, frame: Frame) -> None:
        """A message that was begun may be given up by a close frame, as by any other (5.4)."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)

    def discard(self) -> Generator[None, None, None]:
        """What comes from now on is not looked at."""
        self.reader.is_strict = False
        return super().discard()


class FrameEngine:
    """See `zaqar_gevent.websocket.engines.Engine`."""

    name = 'websockets'

    def __init__(self, limits: FrameLimits, extensions: Sequence[Any] = ()) -> None:
        self._protocol = _Protocol((limits.message_bytes, limits.frame_bytes))
        self._protocol.extensions = list(extensions)
        self._max_fragments = limits.fragments
        self._max_bytes = min(limits.message_bytes, limits.frame_bytes)
        self._fragments: list[bytes] = []
        self._binary = False

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
    def frame_head(self) -> Callable[..., bytes] | None:
        return None if self._protocol.extensions else message_head

    @property
    def is_open(self) -> bool:
        return self._protocol.state is State.OPEN

    @property
    def is_over(self) -> bool:
        return self._protocol.state is State.CLOSED

    @property
    def close_code(self) -> int | None:
        protocol = self._protocol
        if protocol.state is State.OPEN:
            return None
        first = protocol.close_rcvd if protocol.close_rcvd_then_sent else protocol.close_sent
        return (first or protocol.close_rcvd or _ABNORMAL).code

    def receive(self, data: bytes) -> Iterable[Message]:
        """PERF: nearly always `data` is one or a few messages, whole and plain, and then the
        library, which is made to be fed single bytes, need not see it."""
        messages, end = self._plain_messages(data) if self._expects_message() else ([], 0)
        if messages and end == len(data):
            return messages
        return self._receive_frames(messages, data[end:])

    def _expects_message(self) -> bool:
        """Whether what comes next is the begin of a frame, and may be of a plain message."""
        protocol = self._protocol
        return (
            protocol.reader.is_between_frames
            and protocol.state is State.OPEN
            and not self._fragments
            and not protocol.extensions
        )

    def _plain_messages(self, data: bytes) -> tuple[list[Message], int]:
        """The messages at the front of `data` that are plain, and where they end."""
        messages: list[Message] = []
        end = 0
        while (found := plain_message(data, end, self._max_bytes)) is not None:
            binary, payload, end = found
            messages.append(Message(payload, binary))
        return messages, end

    def _receive_frames(self, messages: list[Message], data: bytes) -> Iterator[Message]:
        yield from messages
        was_open = self.is_open
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        if not self.is_open:
            self._forget()
        frames = self._protocol.events_received()
        try:
            for frame in frames if was_open else ():
                if isinstance(frame, Frame) and (message := self._assemble(frame)):
                    yield message
        except Failure as failure:
            self._fail(failure)

    def send(self, payload: bytes, *, binary: bool) -> None:
        protocol = self._protocol
        if protocol.state is not State.OPEN:
            return
        if protocol.extensions:
            (protocol.send_binary if binary else protocol.send_text)(payload)
        else:
            protocol.writes.append(head(_BINARY if binary else _TEXT, len(payload)) + payload)

    def ping(self) -> None:
        if self.is_open:
            self._protocol.send_ping(b'')

    def close(self, code: int, reason: str = '') -> None:
        if self.is_open:
            self._protocol.send_close(code, shorten(reason))

    def outgoing(self) -> list[bytes]:
        return self._protocol.data_to_send()

    def _forget(self) -> None:
        """Drop what was received: it would stay until the next garbage collection.

        An exception has all that was being parsed, an extension its buffers and what it has left.
        """
        self._protocol.parser_exc = None
        self._protocol.extensions = []

    def _assemble(self, frame: Frame) -> Message | None:
        if frame.opcode not in _DATA:
            return None
        if frame.opcode is not Opcode.CONT:
            self._binary = frame.opcode is Opcode.BINARY
        self._fragments.append(bytes(frame.data))
        if not frame.fin:
            if len(self._fragments) >= self._max_fragments:
                reason = f'A message exceeds {self._max_fragments} fragments.'
                raise Failure(CloseCode.MESSAGE_TOO_BIG, reason)
            return None
        payload = b''.join(self._fragments)
        self._fragments.clear()
        if not self._binary and not is_utf8(payload):
            raise Failure(CloseCode.INVALID_DATA, 'A text message is not UTF-8.')
        return Message(payload, self._binary)

    def _fail(self, failure: Failure) -> None:
        self._fragments.clear()
        if self.is_open:
            self._protocol.fail(failure.code, failure.reason)
            self._forget()
