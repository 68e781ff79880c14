"""Frame engines: RFC 6455 from the client's side, without I/O.

Each engine has the constructor and the members of `Engine`. The opening handshake is not theirs;
see `zaqar_gevent.client.handshake`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

# By name, with what to install for each.
ENGINES = {'websockets': 'websockets', 'ws4py': 'ws4py'}

NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
NO_STATUS_RECEIVED = 1005
ABNORMAL_CLOSURE = 1006
INVALID_PAYLOAD = 1007
MESSAGE_TOO_BIG = 1009

MAX_FRAGMENTS = 100_000
MAX_REASON_BYTES = 123


class Payload(NamedTuple):
    """A whole WebSocket message; text is valid UTF-8."""

    data: bytes
    binary: bool


class Engine(Protocol):
    """The frames of one connection.

    `receive` is for the one thread that reads. The `encode_` methods are for whoever holds the lock
    for writing: with compression, frames must be sent in the order in which they were encoded.

    replies: frames to be sent because of what was received: pongs, the answer to a close.
    pongs: how many pongs have been received.
    close_code, close_reason: how the connection was closed; None while it is open.
    is_over: whether nothing more will be received.
    has_failed: whether the server broke the protocol, so that the close code is the client's.
    """

    replies: list[bytes]
    pongs: int
    close_code: int | None
    close_reason: str
    is_over: bool
    has_failed: bool

    def __init__(self, max_message_bytes: int, extensions: Sequence[Any] = ()) -> None: ...

    @classmethod
    def offer(cls) -> list[Any]:
        """Extensions to offer for compression: factories of the `websockets` library."""
        ...

    def receive(self, data: bytes) -> list[Payload]:
        """The messages that `data` completes; empty `data` is the end of the stream."""
        ...

    def encode(self, data: bytes, *, binary: bool) -> bytes:
        """The frame of a message."""
        ...

    def encode_ping(self) -> bytes:
        """The frame of a ping."""
        ...

    def encode_close(self, code: int, reason: str = '') -> bytes:
        """The frame of a close, after which `receive` makes no more replies.

        A reason is cut to the 123 bytes that a close frame holds.
        """
        ...


def load(name: str) -> type[Engine]:
    """The engine called `name`; raises ValueError, or ImportError if its library is missing."""
    if name not in ENGINES:
        raise ValueError(f'The engine must be one of {", ".join(ENGINES)}, not {name!r}.')
    try:
        module = importlib.import_module(f'{__name__}.{name}')
    except ModuleNotFoundError as error:
        raise ImportError(
            f'The engine {name!r} needs {ENGINES[name]}: pip install {ENGINES[name]}'
        ) from error
    engine: type[Engine] = module.FrameEngine
    return engine


def shorten(reason: str) -> str:
    """As much of a reason as a close frame holds."""
    return reason.encode()[:MAX_REASON_BYTES].decode(errors='ignore')
