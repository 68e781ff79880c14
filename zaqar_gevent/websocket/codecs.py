"""The two encodings of a WebSocket message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from zaqar_gevent.api import documents


class Codec(NamedTuple):
    """An encoding: its name, the frame type that carries it, and both directions.

    `decode`, and `check`, which makes nothing of a document, take the most levels that it may be
    nested in, and raise `errors.MalformedDocument`.
    """

    name: str
    binary: bool
    decode: Callable[[bytes, int], Any]
    check: Callable[[bytes, int], None]
    encode: Callable[[Any], bytes]


JSON = Codec(
    'text (JSON)', False, documents.decode_json, documents.check_json, documents.encode_json
)
MSGPACK = Codec(
    'binary (MessagePack)',
    True,
    documents.decode_msgpack,
    documents.check_msgpack,
    documents.encode_msgpack,
)


CODECS = (JSON, MSGPACK)
"""By whether a frame is binary: `CODECS[binary]`."""
