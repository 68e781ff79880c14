"""What is stored of bodies, metadata and options: MsgPack, as upstream packs it."""

from __future__ import annotations

import functools
from typing import Any

import msgpack
from zaqar.storage import errors

pack = functools.partial(msgpack.packb, use_bin_type=True)


class Garbled(errors.ConnectionError):
    """What is stored is no MsgPack."""

    msg_format = 'What is stored in Redis is garbled: {reason}'
    explanation = 'What is stored of this queue is damaged; trying again will not help.'

    def __init__(self, reason: str) -> None:
        super().__init__(reason=reason)


def unpack(packed: bytes) -> Any:
    """The value; raises `Garbled`."""
    try:
        return msgpack.unpackb(packed, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise Garbled(str(error)) from None
