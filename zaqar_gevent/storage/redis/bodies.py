"""Stored bodies, metadata and options: MsgPack, as upstream packs it.

A body may have been spelled in another way than its value would be written. Then its spelling is
stored beside the value: a byte that tells the encoding, and the data.
"""

from __future__ import annotations

from typing import Any

import msgspec

from zaqar_gevent.bodies import (
    VERY_LONG_BYTES,
    Body,
    Encoding,
    UncheckedBody,
    check,
    encode_json,
)
from zaqar_gevent.storage.errors import UndecodableValue

pack = msgspec.msgpack.Encoder().encode
"""The bytes to store of a value. Raises `OverflowError` or `ValueError` if it has none."""

_decode = msgspec.msgpack.Decoder().decode


def unpack(packed: bytes) -> Any:
    """The value; raises `UndecodableValue`."""
    try:
        return _decode(packed)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UndecodableValue(str(error)) from None


def store(body: Any) -> tuple[bytes, bytes]:
    """The value of a body, which may be a `Body` or a value, and its spelling; empty if usual.

    Raises as `pack`.
    """
    if not isinstance(body, Body):
        return pack(body), b''
    packed = pack(body.value)
    if body.encoding is Encoding.ENCRYPTED:
        return packed, b''
    data = bytes(body.data)
    usual = packed if body.encoding is Encoding.MSGPACK else encode_json(body.value)
    return packed, b'' if data == usual else bytes([body.encoding]) + data


def read_spelling(spelling: bytes) -> Body:
    """The body that was stored with a spelling; raises `UndecodableValue`.

    A very long one is not checked.
    """
    try:
        encoding, data = Encoding(spelling[0]), spelling[1:]
        if len(data) >= VERY_LONG_BYTES:
            return UncheckedBody(encoding, data)
        check(encoding, data)
    except (IndexError, ValueError, msgspec.DecodeError) as error:
        raise UndecodableValue(str(error)) from None
    return Body(encoding, data)
