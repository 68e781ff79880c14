"""The engine on the protocol core of `websockets`, with permessage-deflate."""

from __future__ import annotations

import codecs
import logging
import struct
from collections.abc import Generator, Sequence
from typing import Any

from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol
from websockets.streams import StreamReader

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

from zaqar_gevent.client.engines import (
    ABNORMAL_CLOSURE,
    INVALID_PAYLOAD,
    MAX_FRAGMENTS,
    MESSAGE_TOO_BIG,
    Payload,
    shorten,
)
from zaqar_gevent.client.random_pool import RandomPool

LOG = logging.getLogger(__name__)

# A window of 4 KiB, as the server's, and less memory than zlib's default.
_WINDOW_BITS = 12
_MEMORY_LEVEL = 5

_CONTROL = 0x08
_LENGTH_16, _LENGTH_64 = 126, 127
# The most significant bit of a length must be 0 (5.2).
_ABSURD_LENGTH = 1 << 63

_PLAIN_TEXT, _PLAIN_BINARY = 0x81, 0x82
_MASKED = 0x80
_NEEDS_64 = 0x10000
_with_16_bits = struct.Struct('!BBH').pack
_with_64_bits = struct.Struct('!BBQ').pack

_keys = RandomPool(4)

_utf8_decoder = codecs.getincrementaldecoder('utf-8')


class _StrictReader(StreamReader):
    """Refuses lengths that are not written the shortest way, which the library lets pass."""

    is_strict = True
    is_between_frames = False

    def at_eof(self) -> Generator[None, None, bool]:
        """Asked before each frame: wait until its length can be told, or for the end."""
        buffer = self.buffer
        while not self._can_begin(buffer):
            if self.eof:
                return not buffer
            self.is_between_frames = not buffer and self.is_strict
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
        if buffer[0] & _CONTROL:
            raise ProtocolError('A control frame is too long.')
        if len(buffer) < (10 if form == _LENGTH_64 else 4):
            return False
        length = int.from_bytes(buffer[2:10] if form == _LENGTH_64 else buffer[2:4])
        if length < (0x10000 if form == _LENGTH_64 else _LENGTH_16) or length >= _ABSURD_LENGTH:
            raise ProtocolError('The length of a frame is not written the shortest way.')
        return True


class _Protocol(Protocol):
    """The library's protocol, in two places as RFC 6455 has it."""

    def __init__(self, max_message_bytes: int) -> None:
        super().__init__(CLIENT, state=OPEN, max_size=max_message_bytes, logger=LOG)
        self.reader: _StrictReader = _StrictReader()
        self.parser = self.parse()
        next(self.parser)

    def discard(self) -> Generator[None, None, None]:
        """Ignore everything that is received from now on."""
        self.reader.is_strict = False
        return super().discard()

    def recv_frame(self, frame: Frame) -> None:
        """A message that was begun may be given up by a close frame, as by any other (5.4)."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class FrameEngine:
    """See `zaqar_gevent.client.engines.Engine`."""

    def __init__(self, max_message_bytes: int, extensions: Sequence[Any] = ()) -> None:
        self._protocol = _Protocol(max_message_bytes)
        self._protocol.extensions = list(extensions)
        self._max_message_bytes = max_message_bytes
        self._fragments: list[bytes] = []
        self._opcode = Opcode.TEXT
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
        settings = {'memLevel': _MEMORY_LEVEL}
        return [
            ClientPerMessageDeflateFactory(
                server_max_window_bits=_WINDOW_BITS,
                # Any that the server asks for: some answer with 15 to whatever is offered.
                client_max_window_bits=True,
                compress_settings=settings,
            )
        ]

    def receive(self, data: bytes) -> list[Payload]:
        if self.is_over:
            return []
        protocol = self._protocol
        messages: list[Payload] = []
        if data:
            # PERF: nearly always `data` is whole messages, each in one frame, and then the library,
            # which is made to be fed single bytes, need not see it.
            if protocol.reader.is_between_frames and protocol.current_size is None:
                data = self._take_plain(data, messages)
                if not data:
                    return messages
            protocol.receive_data(data)
        else:
            protocol.receive_eof()
        for frame in protocol.events_received():
            self._take(frame, messages)
        self._reply()
        if protocol.state is not OPEN and not self.is_over:
            self._finish()
        return messages

    def _take_plain(self, data: bytes, messages: list[Payload]) -> bytes:
        """Take the messages at the front of `data` that are whole and in one frame; gives the rest.

        Anything else is left to the library: other frames, longer ones, broken ones.
        """
        start, size = 0, len(data)
        while size - start >= 2 and data[start] in (_PLAIN_TEXT, _PLAIN_BINARY):
            length, begin = data[start + 1], start + 2
            if length == _LENGTH_16:
                length, begin = int.from_bytes(data[start + 2 : start + 4]), start + 4
                if length < _LENGTH_16:
                    break
            elif length > _LENGTH_16:
                break
            end = begin + length
            if end > size or length > self._max_message_bytes:
                break
            payload, is_text = data[begin:end], data[start] == _PLAIN_TEXT
            if is_text and not _is_utf8(payload):
                break
            messages.append(Payload(payload, not is_text))
            start = end
        return data[start:] if start else data

    def encode(self, data: bytes, *, binary: bool) -> bytes:
        if not self._protocol.extensions:
            # PERF: what `serialize` does, for a frame that needs no check.
            opcode, length, key = 0x82 if binary else 0x81, len(data), _keys.take()
            if length < _LENGTH_16:
                head = bytes((opcode, _MASKED | length))
            elif length < _NEEDS_64:
                head = _with_16_bits(opcode, _MASKED | _LENGTH_16, length)
            else:
                head = _with_64_bits(opcode, _MASKED | _LENGTH_64, length)
            return b''.join((head, key, apply_mask(data, key)))
        frame = Frame(Opcode.BINARY if binary else Opcode.TEXT, data)
        return frame.serialize(mask=True, extensions=self._protocol.extensions)

    def encode_ping(self) -> bytes:
        return Frame(Opcode.PING, b'').serialize(mask=True)

    def encode_close(self, code: int, reason: str = '') -> bytes:
        self._has_closed = True
        return Frame(Opcode.CLOSE, Close(code, shorten(reason)).serialize()).serialize(mask=True)

    def _take(self, frame: Any, messages: list[Payload]) -> None:
        """Take a frame; nothing but a close counts once the connection has failed."""
        if frame.opcode is Opcode.PONG:
            self.pongs += 1
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT) and not self.has_failed:
            try:
                self._take_data(frame, messages)
            except UnicodeDecodeError:
                self._fail(INVALID_PAYLOAD, 'A text message is not UTF-8.')

    def _take_data(self, frame: Frame, messages: list[Payload]) -> None:
        data = bytes(frame.data)
        if frame.opcode is not Opcode.CONT:
            self._opcode = frame.opcode
            if frame.fin:
                is_text = frame.opcode is Opcode.TEXT
                if is_text:
                    data.decode()
                messages.append(Payload(data, not is_text))
                return
            self._utf8.reset()
        if self._opcode is Opcode.TEXT:
            self._utf8.decode(data, frame.fin)
        self._fragments.append(data)
        if frame.fin:
            messages.append(Payload(b''.join(self._fragments), self._opcode is Opcode.BINARY))
            self._fragments.clear()
        elif len(self._fragments) > MAX_FRAGMENTS:
            self._fail(MESSAGE_TOO_BIG, f'A message exceeds {MAX_FRAGMENTS} fragments.')

    def _fail(self, code: int, reason: str) -> None:
        self.has_failed = True
        self.close_code, self.close_reason = code, reason
        if self._protocol.state is OPEN:
            self._protocol.fail(code, reason)

    def _reply(self) -> None:
        replies = [reply for reply in self._protocol.data_to_send() if reply]
        if not self._has_closed:
            self.replies += replies

    def _finish(self) -> None:
        """Note how the connection was closed."""
        self.is_over = True
        self._fragments.clear()
        protocol = self._protocol
        if self.close_code is not None:
            return
        received = protocol.close_rcvd
        if received is not None and protocol.parser_exc is None:
            self.close_code, self.close_reason = int(received.code), received.reason
        elif protocol.close_sent is not None:
            self.has_failed = True
            sent = protocol.close_sent
            self.close_code, self.close_reason = int(sent.code), sent.reason
        else:
            self.close_code = ABNORMAL_CLOSURE
            self.close_reason = 'The connection ended without a close frame.'


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
