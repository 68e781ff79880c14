"""Frames of RFC 6455 by hand, so that they can be wrong."""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

FIN = 0x80
RSV1 = 0x40
RSV2 = 0x20
RSV3 = 0x10
MASK = 0x80
MASKING_KEY = b'\x37\xfa\x21\x3d'


class Opcode(enum.IntEnum):
    """What the payload of a frame is."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Frame(NamedTuple):
    """A frame as it was received."""

    opcode: int
    payload: bytes
    fin: bool
    rsv: int


class StatusCode(NamedTuple):
    """What a close frame says; of an empty one, 1005."""

    code: int
    reason: bytes

    @classmethod
    def of(cls, payload: bytes) -> StatusCode:
        if not payload:
            return cls(1005, b'')
        return cls(int.from_bytes(payload[:2]), payload[2:])


def header(first: int, length: int, *, form: int | None = None, masked: bool = True) -> bytes:
    """The header of a frame.

    first: its first byte. form: how the length is written: itself, 126 or 127; as short as
        possible unless given.
    """
    if form is None:
        form = length if length < 126 else 126 if length < 0x10000 else 127
    extended = {126: struct.pack('>H', length & 0xFFFF), 127: struct.pack('>Q', length)}
    second = form | MASK if masked else form
    key = MASKING_KEY if masked else b''
    return bytes([first, second]) + extended.get(form, b'') + key


def mask(payload: bytes, key: bytes = MASKING_KEY) -> bytes:
    """The payload, masked or unmasked."""
    size = len(payload)
    keys = (key * (size // len(key) + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(keys)).to_bytes(size)


def frame(
    opcode: int, payload: bytes = b'', *, fin: bool = True, rsv: int = 0, masked: bool = True
) -> bytes:
    """A whole frame of a client."""
    first = opcode | rsv | (FIN if fin else 0)
    body = mask(payload) if masked else payload
    return header(first, len(payload), masked=masked) + body


def closing(code: int, reason: bytes = b'') -> bytes:
    """A close frame."""
    return frame(Opcode.CLOSE, struct.pack('>H', code) + reason)
