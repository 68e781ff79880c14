"""Documents as bytes: JSON in text frames and HTTP bodies, MsgPack in binary frames."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import msgpack

from zaqar_gevent.client.errors import ZaqarError

Default = Callable[[Any], Any]

ENCODINGS = ('msgpack', 'json')

# The most levels that a server takes, by its default, envelope included.
MAX_DEPTH = 64

_PLAIN = frozenset({str, bool, type(None)})
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1


class _Refused(Exception):
    """A value that cannot be sent; the keys that lead to it are added on the way out."""

    def __init__(self, kind: type[TypeError | ValueError], reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.keys: list[str | int] = []

    def to_error(self) -> TypeError | ValueError:
        path = '$' + ''.join(
            f'[{key}]' if isinstance(key, int) else f'.{key}' for key in reversed(self.keys)
        )
        return self.kind(f'{self.reason} - at `{path}`')


def encode(document: Any, *, binary: bool, default: Default | None = None) -> bytes:
    """A document in MsgPack if `binary`, else in JSON.

    default: called for a value of a type that JSON does not know; gives one to write instead.

    Raises TypeError or ValueError, which name the place, for what cannot be written or what servers
    refuse: it is the same in both encodings, and what is read is what was written.
    """
    try:
        if default is not None:
            document = _converted(document, default, MAX_DEPTH)
        _check(document, MAX_DEPTH)
    except _Refused as refused:
        raise refused.to_error() from refused.__cause__
    if binary:
        packed: bytes = msgpack.packb(document)
        return packed
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(',', ':')).encode()


def _check(value: Any, levels: int) -> None:
    """Refuse what one of the encodings would write as something else, or a server refuse later."""
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise _Refused(TypeError, f'the name of a member must be text, not {name!r}')
        _check_members(value.items(), levels)
    elif isinstance(value, list | tuple):
        _check_members(enumerate(value), levels)
    else:
        _check_scalar(value)


def _check_members(members: Iterable[tuple[str | int, Any]], levels: int) -> None:
    """PERF: most members are of types that need no look."""
    if levels == 0:
        reason = f'the document is nested too deeply, at most {MAX_DEPTH} levels, or holds itself'
        raise _Refused(ValueError, reason)
    for key, member in members:
        kind = type(member)
        if kind in _PLAIN or (kind is int and _MIN_INTEGER <= member <= _MAX_INTEGER):
            continue
        try:
            _check(member, levels - 1)
        except _Refused as refused:
            refused.keys.append(key)
            raise


def _check_scalar(value: Any) -> None:
    if isinstance(value, int):
        if not _MIN_INTEGER <= value <= _MAX_INTEGER:
            raise _Refused(ValueError, 'an integer must be from -2^63 to 2^63 - 1')
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _Refused(ValueError, f'{value} is no number of JSON')
    elif isinstance(value, bytes | bytearray | memoryview):
        reason = 'bytes are no text; decode them first, or write them in base64'
        raise _Refused(TypeError, reason)
    elif not isinstance(value, str) and value is not None:
        reason = (
            f'JSON does not know the type {type(value).__name__}; give the client a function '
            '`default` that converts it, such as default=str'
        )
        raise _Refused(TypeError, reason)


def _converted(value: Any, default: Default, levels: int) -> Any:
    """The same document, in which `default` has replaced what JSON does not know."""
    if isinstance(value, str | int | float | bool | None):
        return value
    if levels < 0:
        # `_check` tells where.
        return value
    if isinstance(value, dict):
        return {name: _converted_member(name, one, default, levels) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_converted_member(key, one, default, levels) for key, one in enumerate(value)]
    try:
        replaced = default(value)
    except (TypeError, ValueError) as error:
        raise _Refused(type(error), str(error)) from error
    return _converted(replaced, default, levels - 1)


def _converted_member(key: Any, value: Any, default: Default, levels: int) -> Any:
    try:
        return _converted(value, default, levels - 1)
    except _Refused as refused:
        refused.keys.append(key)
        raise


def decode(payload: bytes, *, binary: bool) -> Any:
    """The document in a payload; raises ZaqarError where there is none."""
    try:
        if binary:
            return msgpack.unpackb(payload, strict_map_key=False)
        return json.loads(payload)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise ZaqarError(f'The server sent what is no document: {error}') from None
