"""Reading and writing documents: JSON, and MsgPack restricted to what JSON can say.

What arrives is untrusted. A document is accepted only if every client can be given it back in
either encoding: no NaN or infinity, integers from -2^63 to 2^63-1, text keys, no duplicate keys,
bounded nesting, no binary, extension or timestamp values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import msgpack
import msgspec

from zaqar_gevent.api import errors

MAX_DEPTH = 64
_INT64 = range(-(2**63), 2**63)
_LONG_NUMBER = b'0' * 19
_DIGITS_AS_ZERO = bytes(ord('0') if chr(byte).isdigit() else 32 for byte in range(128)) + b' ' * 128
_HARMLESS = frozenset({str, bool, type(None)})
_CONTAINERS = frozenset({dict, list})
_KEYS = frozenset({str, int})

_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode
_encode_msgpack: Callable[[Any], bytes] = msgpack.Packer(use_bin_type=True, autoreset=True).pack


class _Unacceptable(ValueError):
    """A value outside the data model; the keys that lead to it are added on the way out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.keys: list[str | int] = []

    def describe(self) -> str:
        path = '$' + ''.join(
            f'[{key}]' if isinstance(key, int) else f'.{key}' for key in reversed(self.keys)
        )
        return f'{self.reason} - at `{path}`'


class _TooDeep(Exception):
    """A document is nested deeper than allowed."""


def encode_json(document: Any) -> bytes:
    """`document` as compact UTF-8 JSON."""
    return _encode_json(document)


def decode_json(data: bytes | str, max_depth: int = MAX_DEPTH) -> Any:
    """Read one JSON text (RFC 8259), nested at most `max_depth` levels.

    Raises `errors.MalformedDocument`, which names the place and the reason.
    """
    raw = data.encode() if isinstance(data, str) else data
    try:
        document = _decode_json(raw)
    except RecursionError:
        raise errors.MalformedDocument(_too_deep(max_depth)) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise errors.MalformedDocument(f'Not valid JSON: {error}') from None
    if _LONG_NUMBER in raw.translate(_DIGITS_AS_ZERO):
        _inspect(document, max_depth)
    elif _has_many_brackets(raw, max_depth) and not _is_shallow(document, max_depth):
        raise errors.MalformedDocument(_too_deep(max_depth))
    if _has_duplicate_keys(raw, document):
        raise errors.MalformedDocument('Not valid JSON: an object has the same key twice')
    return document


def encode_msgpack(document: Any) -> bytes:
    """`document` as MsgPack."""
    return _encode_msgpack(document)


def encode(document: Any, *, binary: bool) -> bytes:
    """`document` as MsgPack where `binary`, else as JSON."""
    return (encode_msgpack if binary else encode_json)(document)


def decode_msgpack(data: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Read one MsgPack value whose types are JSON's, nested at most `max_depth` levels.

    Raises `errors.MalformedDocument`, which names the place and the reason.
    """
    size = len(data)
    try:
        document = msgpack.unpackb(
            data,
            strict_map_key=True,
            object_pairs_hook=_to_object,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=size,
            max_map_len=size,
            max_ext_len=size,
        )
    except msgpack.StackError:
        raise errors.MalformedDocument(_too_deep(max_depth)) from None
    except (ValueError, msgpack.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise errors.MalformedDocument(f'Not valid MsgPack: {reason}') from None
    _inspect(document, max_depth)
    return document


def _to_object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(members)
    if len(document) != len(members):
        raise ValueError('an object has the same key twice')
    return document


def _too_deep(max_depth: int) -> str:
    return f'The document is nested too deeply; at most {max_depth} levels are allowed'


def _has_many_brackets(raw: bytes, max_depth: int) -> bool:
    """Whether a text may be nested too deeply. PERF: nearly no document may."""
    return raw.count(b'{') + raw.count(b'[') > max_depth


def _has_duplicate_keys(raw: bytes, document: Any) -> bool:
    """Whether decoding lost a member of some object.

    PERF: a member lost is a colon lost when the document is written again, and this is a tenth of
    the cost of a decoder that reports every key. It is exact unless a text spells a colon as an
    escape, which is left to that decoder.
    """
    if b'\\u003' in raw:
        return _reports_duplicate_keys(raw)
    return raw.count(b':') != _encode_json(document).count(b':')


def _reports_duplicate_keys(raw: bytes) -> bool:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        found.append(len(members) != len(pairs))
        return members

    found: list[bool] = []
    json.loads(raw, object_pairs_hook=build)
    return any(found)


def _inspect(document: Any, max_depth: int) -> None:
    try:
        _check(document, max_depth)
    except _TooDeep:
        raise errors.MalformedDocument(_too_deep(max_depth)) from None
    except _Unacceptable as error:
        raise errors.MalformedDocument(error.describe()) from None


def _is_shallow(document: Any, max_depth: int) -> bool:
    """Whether a document is nested at most `max_depth` levels."""
    containers = _containers_among([document])
    for _ in range(max_depth):
        if not containers:
            return True
        containers = _containers_among(_members_of(containers))
    return not containers


def _containers_among(values: list[Any]) -> list[Any]:
    return [value for value in values if type(value) in _CONTAINERS]


def _members_of(containers: list[Any]) -> list[Any]:
    members: list[Any] = []
    for container in containers:
        members += container.values() if type(container) is dict else container
    return members


def _check(value: Any, levels: int) -> None:
    """Raise `_Unacceptable` unless `value` is JSON's and nested at most `levels` deep."""
    if type(value) in _HARMLESS:
        return
    if isinstance(value, int):
        if value not in _INT64:
            raise _Unacceptable('An integer is not from -2^63 to 2^63-1')
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _Unacceptable('A number is not finite')
    elif isinstance(value, dict):
        _check_members(value.items(), levels)
    elif isinstance(value, list):
        _check_members(enumerate(value), levels)
    else:
        raise _Unacceptable(f'A {type(value).__name__} value has no JSON form')


def _check_members(members: Any, levels: int) -> None:
    """PERF: most values are of types that need no look."""
    if levels == 0:
        raise _TooDeep
    for key, value in members:
        if type(value) in _HARMLESS and type(key) in _KEYS:
            continue
        try:
            if type(key) not in _KEYS:
                raise _Unacceptable('A key is not text')
            _check(value, levels - 1)
        except _Unacceptable as error:
            error.keys.append(key if isinstance(key, (str, int)) else repr(key))
            raise
