"""Documents as bytes: JSON in text frames and HTTP bodies, MsgPack in binary frames."""

from __future__ import annotations

import json
import math
from typing import Any

import msgpack

from zaqar_gevent.client.errors import ZaqarError

ENCODINGS = ('msgpack', 'json')

_PLAIN = frozenset({str, int, bool, type(None)})


def encode(document: Any, *, binary: bool) -> bytes:
    """A document in MsgPack where `binary`, else in JSON.

    Raises TypeError or ValueError for what cannot be written so; it is the same in both, and what
    is read is what was written.
    """
    _check(document)
    if binary:
        packed: bytes = msgpack.packb(document)
        return packed
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(',', ':')).encode()


def _check(value: Any) -> None:
    """Refuse what one of the encodings would write as something else, or a server refuse later.

    PERF: most members are of types that need no look.
    """
    if isinstance(value, dict):
        for name, member in value.items():
            if not isinstance(name, str):
                raise TypeError(f'the name of a member must be text, not {name!r}')
            if type(member) not in _PLAIN:
                _check(member)
    elif isinstance(value, list | tuple):
        for member in value:
            if type(member) not in _PLAIN:
                _check(member)
    else:
        _check_scalar(value)


def _check_scalar(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f'{value} is no number of JSON')
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError('bytes are no text; decode them first, or write them in base64')


def decode(payload: bytes, *, binary: bool) -> Any:
    """The document in a payload; raises ZaqarError where there is none."""
    try:
        if binary:
            return msgpack.unpackb(payload, strict_map_key=False)
        return json.loads(payload)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise ZaqarError(f'The server sent what is no document: {error}') from None
