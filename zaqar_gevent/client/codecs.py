"""Documents as bytes: JSON in text frames and HTTP bodies, MsgPack in binary frames."""

from __future__ import annotations

import json
from typing import Any

import msgpack

from zaqar_gevent.client.errors import ZaqarError

ENCODINGS = ('msgpack', 'json')


def encode(document: Any, *, binary: bool) -> bytes:
    """A document in MsgPack where `binary`, else in JSON.

    Raises TypeError or ValueError for what cannot be written so.
    """
    if binary:
        packed: bytes = msgpack.packb(document)
        return packed
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(',', ':')).encode()


def decode(payload: bytes, *, binary: bool) -> Any:
    """The document in a payload; raises ZaqarError where there is none."""
    try:
        if binary:
            return msgpack.unpackb(payload, strict_map_key=False)
        return json.loads(payload)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise ZaqarError(f'The server sent what is no document: {error}') from None
