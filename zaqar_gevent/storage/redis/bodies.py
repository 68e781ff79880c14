"""What is stored of bodies, metadata and options: MsgPack, as upstream packs it."""

from __future__ import annotations

from typing import Any

import msgspec

from zaqar_gevent.storage.errors import UndecodableValue

pack = msgspec.msgpack.Encoder().encode
"""The bytes to store of a value. Raises `OverflowError` or `ValueError` for what has none."""

_decode = msgspec.msgpack.Decoder().decode


def unpack(packed: bytes) -> Any:
    """The value; raises `UndecodableValue`."""
    try:
        return _decode(packed)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UndecodableValue(str(error)) from None
