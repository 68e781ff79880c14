"""What is stored of bodies, metadata and options: MsgPack, as upstream packs it."""

from __future__ import annotations

from typing import Any

import msgspec
from zaqar.storage import errors

pack = msgspec.msgpack.Encoder().encode
"""The bytes to store of a value. Raises `OverflowError` or `ValueError` for what has none."""

_decode = msgspec.msgpack.Decoder().decode


class UndecodableValue(errors.ConnectionError):
    """What is stored is no MsgPack."""

    msg_format = 'What is stored in Redis is garbled: {reason}'
    explanation = 'What is stored of this queue is damaged; trying again will not help.'

    def __init__(self, reason: str) -> None:
        super().__init__(reason=reason)


def unpack(packed: bytes) -> Any:
    """The value; raises `UndecodableValue`."""
    try:
        return _decode(packed)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UndecodableValue(str(error)) from None
