"""Frame engines: RFC 6455 without sockets, bytes in, messages out, and back.

Every engine has the constructor and the methods of `Engine`; which one serves is an option. The
opening handshake is not theirs (`zaqar_gevent.websocket.handshake`).
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

# By name, with what is to be said of each.
ENGINES = {
    'websockets': 'the protocol core of the websockets library; can compress',
    'ws4py': 'the streaming parser of ws4py, fast only with wsaccel beside it',
}


class WebSocketMessage(NamedTuple):
    """A whole message as it was received; a long one may be a `bytearray`."""

    payload: bytes
    binary: bool


class FrameLimits(NamedTuple):
    """The limits on frames and messages of a peer; beyond them the connection fails with 1009.

    message_bytes: a whole message, after inflation.
    frame_bytes: one frame's payload.
    fragments: frames a message.
    """

    message_bytes: int
    frame_bytes: int
    fragments: int


class Compression(NamedTuple):
    """permessage-deflate (RFC 7692): zlib's level, 1 to 9, and the window, 2^9 to 2^15 bytes."""

    level: int
    window_bits: int


class Failure(Exception):
    """The peer broke a rule.

    code: the status code of the close frame that says which rule.
    reason: its reason.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Engine(Protocol):
    """The frames of one connection, from the server's side.

    A peer that breaks the protocol or a limit is sent a close frame with the code that tells which,
    and nothing more is received. Pings are answered.

    name: the engine's name, one of ENGINES.
    frame_head: what stands before a message that is sent; None where messages are compressed.
    is_open: whether messages may still be sent and received.
    is_over: whether the peer has nothing more to say either.
    close_code: with what the connection is being closed, the peer's code if it was first; 1005 for
        a close frame without one and 1006 where the stream ended without a close frame; None while
        it is open.
    missing: how many bytes of the message that has begun are known to be still to come.
    unfinished: the same with those that have come. max_bytes: how long it may be.
    """

    name: str
    frame_head: Callable[..., bytes] | None
    is_open: bool
    is_over: bool
    close_code: int | None
    missing: int
    max_bytes: int

    @property
    def unfinished(self) -> int: ...

    def __init__(self, limits: FrameLimits, extensions: Sequence[Any] = ()) -> None: ...

    @classmethod
    def offer(cls, compression: Compression | None) -> list[Any]:
        """The extensions that can be negotiated: factories of `websockets` extensions."""
        ...

    def receive(self, data: bytes) -> Iterable[WebSocketMessage]:
        """The messages that `data` completes; empty `data` is the end of the stream."""
        ...

    def send(self, payload: bytes, *, binary: bool) -> None:
        """Queue a message; without effect on a connection that is closing."""
        ...

    def ping(self) -> None:
        """Queue a ping; without effect on a connection that is closing."""
        ...

    def close(self, code: int, reason: str = '') -> None:
        """Start the closing handshake; without effect on a connection that is closing.

        Of a reason, no more is sent than a close frame can hold.
        """
        ...

    def outgoing(self) -> list[bytes]:
        """The bytes to write to the peer now; an empty element means that nothing follows."""
        ...


MAX_REASON_BYTES = 123

# A length that no message can have, and that is sent to make a sum of lengths overflow.
ABSURD_LENGTH = 2**62

NOT_SHORTEST = 'The length of a frame is not in the shortest form.'


FIN = 0x80
_TEXT, _BINARY = 1, 2
_SHORT, _MEDIUM = 126, 0x10000
_with_16_bits = struct.Struct('!BBH').pack
_with_64_bits = struct.Struct('!BBQ').pack


def head(opcode: int, length: int) -> bytes:
    """The head of a whole message in one frame, or of a control frame, as a server sends it."""
    if length < _SHORT:
        return bytes((FIN | opcode, length))
    if length < _MEDIUM:
        return _with_16_bits(FIN | opcode, 126, length)
    return _with_64_bits(FIN | opcode, 127, length)


def message_head(length: int, *, binary: bool) -> bytes:
    """The head of a whole message of `length` bytes in one frame."""
    return head(_BINARY if binary else _TEXT, length)


def shorten(reason: str) -> str:
    """As much of a reason as a close frame holds: 123 bytes of UTF-8."""
    return reason.encode()[:MAX_REASON_BYTES].decode(errors='ignore')


def is_utf8(payload: bytes | bytearray) -> bool:
    """Whether a text message, or a reason, is valid."""
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def load(name: str) -> type[Engine]:
    """The engine called `name`, one of ENGINES."""
    module = importlib.import_module(f'{__name__}.{name}')
    engine: type[Engine] = module.FrameEngine
    return engine
