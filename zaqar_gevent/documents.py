"""Reading and writing documents: JSON, and MsgPack restricted to what JSON can say.

What arrives is untrusted. A document is accepted only if every client can be given it back in
either encoding: no NaN or infinity, integers from -2^63 to 2^63-1, text keys, no duplicate keys,
bounded nesting, no binary, extension or timestamp values.

Posts are checked only, since nothing looks into the bodies of messages. To look for duplicate keys
would cost as much again: of those, the last one counts.
"""

from __future__ import annotations

import codecs
import gc
import json
import math
from collections.abc import Callable
from typing import Any

import msgpack
import msgspec
import orjson

from zaqar_gevent import bodies, data_model

MAX_DEPTH = 64
_INT64 = range(-(2**63), 2**63)
_LONG_NUMBER = b'0' * 19
_DIGITS_AS_ZERO = bytes(ord('0') if chr(byte).isdigit() else 32 for byte in range(128)) + b' ' * 128
# The brackets of both kinds are one, too.
_DIGITS_AND_BRACKETS = bytes(
    ord('[') if byte in b'[{' else _DIGITS_AS_ZERO[byte] for byte in range(256)
)
_SHORT_TEXT = 1024
_COUNTED_TEXT = 8 * 1024
_EVERY_NINTH_DIGIT, _EVERY_FOURTH_DIGIT = (b'0' * (len(_LONG_NUMBER) // step) for step in (9, 4))
_SAME_BRACKETS = bytes.maketrans(b'{}', b'[]')
_NO_MARKS = bytes(set(range(256)) - set(b'{}[]"'))
# The first byte of a number in MsgPack.
_FLOAT_32, _FLOAT_64, _UNSIGNED_64 = b'\xca', b'\xcb', b'\xcf'
_HARMLESS = frozenset({str, bool, type(None)})
_CONTAINERS = frozenset({dict, list})
_KEYS = frozenset({str, int})
_TEXT = frozenset({str})
_PLAIN = _HARMLESS | _CONTAINERS | {int, float}

# Values that are not a document, or have no form in JSON.
_UNREADABLE = (ValueError, TypeError, RecursionError, msgspec.MsgspecError)

_decode_json = msgspec.json.Decoder().decode
_decode_msgpack = msgspec.msgpack.Decoder().decode
_decode_usual = msgspec.msgpack.Decoder(data_model.USUAL_REQUEST).decode

encode_json = bodies.encode_json
encode_msgpack = bodies.encode_msgpack


class Malformed(ValueError):
    """A document that is not accepted, for the reason given."""


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


def decode_json(data: bytes | str, max_depth: int = MAX_DEPTH) -> Any:
    """Read one JSON text (RFC 8259), nested at most `max_depth` levels.

    Raises `Malformed`, which names the place and the reason.
    """
    raw = data.encode() if isinstance(data, str) else data
    is_short = len(raw) <= _SHORT_TEXT
    document = _load_any_json(raw, max_depth) if is_short else _load_json(raw, max_depth)
    if _has_duplicate_keys(raw, document):
        raise Malformed('Not valid JSON: an object has the same key twice')
    return document


def check_json(text: bytes, max_depth: int = MAX_DEPTH) -> None:
    """Raise what `decode_json` would raise, but accept an object that has the same key twice.

    PERF: nothing is made of the text but where it may be bad, to say where it is.
    """
    try:
        bodies.check_syntax(text)
    except (ValueError, RuntimeError, RecursionError, msgspec.MsgspecError):
        _load_json(text, max_depth)
        return
    if len(text) <= _SHORT_TEXT:
        is_bad = _may_be_bad_text(text, max_depth)
    else:
        is_bad = _may_have_long_number(text) or not _is_shallow_text(text, max_depth)
    if is_bad or text.startswith(codecs.BOM_UTF8):
        _load_json(text, max_depth)


def _may_be_bad_text(text: bytes, max_depth: int) -> bool:
    """Whether a short text, which is valid, may have a long number or be nested too deeply."""
    marks = text.translate(_DIGITS_AND_BRACKETS)
    return _LONG_NUMBER in marks or marks.count(b'[') > max_depth


def _load_json(raw: bytes, max_depth: int) -> Any:
    return _without_collector(_load_any_json, raw, max_depth)


def _load_any_json(raw: bytes, max_depth: int) -> Any:
    try:
        document = _decode_json(raw)
    except RecursionError:
        raise Malformed(_too_deep(max_depth)) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Malformed(f'Not valid JSON: {error}') from None
    if len(raw) <= _SHORT_TEXT and not _may_be_bad_text(raw, max_depth):
        # PERF: most requests.
        return document
    if _may_have_long_number(raw):
        _inspect(document, max_depth)
    elif _has_many_brackets(raw, max_depth) and not _is_shallow(document, max_depth):
        raise Malformed(_too_deep(max_depth))
    return document


def _may_have_long_number(text: bytes) -> bool:
    """Whether a text has more digits behind each other than a small integer has.

    PERF: of nineteen characters behind each other at least two are among every ninth, and at least
    four among every fourth.
    """
    if len(text) > _SHORT_TEXT and (
        _EVERY_NINTH_DIGIT not in text[::9].translate(_DIGITS_AS_ZERO)
        or _EVERY_FOURTH_DIGIT not in text[::4].translate(_DIGITS_AS_ZERO)
    ):
        return False
    return _LONG_NUMBER in text.translate(_DIGITS_AS_ZERO)


def _is_shallow_text(text: bytes, max_depth: int) -> bool:
    """Whether a valid text is certainly nested at most `max_depth` levels.

    PERF: it is told by its brackets and quotes alone, in a tenth of the time that values take. A
    text with brackets in its strings may be called deep.
    """
    if not _has_many_brackets(text, max_depth):
        return True
    if b'\\' in text:
        # Where a backslash is, the next character is no end of a string.
        text = text.replace(b'\\\\', b'').replace(b'\\"', b'')
    marks = text.translate(_SAME_BRACKETS, _NO_MARKS)
    # Strings without brackets leave their two quotes beside each other. Beside the first bracket
    # in a string there would be an odd number of quotes.
    if 2 * marks.count(b'""') != marks.count(b'"'):
        return False
    brackets = marks.translate(None, b'"')
    for _ in range(max_depth):
        if not brackets:
            return True
        brackets = brackets.replace(b'[]', b'')
    return not brackets


def encode(document: Any, *, binary: bool) -> bytes:
    """`document` as MsgPack where `binary`, else as JSON."""
    return (encode_msgpack if binary else encode_json)(document)


def decode_msgpack(data: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Read one MsgPack value whose types are JSON's, nested at most `max_depth` levels.

    Raises `Malformed`, which names the place and the reason.
    """
    return _without_collector(_load_distinct_msgpack, data, max_depth)


def check_msgpack(data: bytes, max_depth: int = MAX_DEPTH) -> None:
    """Raise what `decode_msgpack` would raise, but accept an object that has the same key twice."""
    _without_collector(_check_any_msgpack, data, max_depth)


def _load_distinct_msgpack(data: bytes, max_depth: int) -> Any:
    """PERF: where a member was lost since its key was there twice, it is missing when the document
    is written again. What is longer then was not written in the shortest form.
    """
    try:
        document = _load_good_msgpack(data, max_depth)
        if encode_msgpack(document) == data:
            return document
        # There is no need to have two of it.
        del document
    except _UNREADABLE:
        pass
    return _load_any_msgpack(data, max_depth, object_pairs_hook=_to_object)


def _check_any_msgpack(data: bytes, max_depth: int) -> None:
    try:
        _load_good_msgpack(data, max_depth)
        return
    except _UNREADABLE:
        pass
    _load_any_msgpack(data, max_depth)


def _load_good_msgpack(data: bytes, max_depth: int) -> Any:
    """Read a document that is certainly good; raises one of `_UNREADABLE` for any other.

    PERF: a decoder that knows the types looks at a value once, while it makes it. Whether a
    document of another form is good is told by an encoder of JSON, in a fifth of the time that a
    look at each value takes.
    """
    if max_depth >= data_model.USUAL_LEVELS:
        try:
            return _decode_usual(data)
        except msgspec.ValidationError:
            pass
    document = _decode_msgpack(data)
    if _may_be_bad(data, document, max_depth):
        raise ValueError('each value has to be looked at')
    return document


def _may_be_bad(data: bytes, document: Any, max_depth: int) -> bool:
    """Whether a decoded document may need to be refused; raises one of `_UNREADABLE`.

    PERF: what has no form in JSON is found by an encoder of JSON, in a fifth of the time that a
    look at each value takes.
    """
    text = orjson.dumps(document, option=orjson.OPT_PASSTHROUGH_DATETIME)
    # It writes null for numbers that are not finite.
    may_be_infinite = (_FLOAT_32 in data or _FLOAT_64 in data) and b'null' in text
    may_be_too_large = _UNSIGNED_64 in data and _may_have_long_number(text)
    return may_be_infinite or may_be_too_large or not _is_shallow_text(text, max_depth)


def _without_collector(read: Callable[[bytes, int], Any], data: bytes, max_depth: int) -> Any:
    """PERF: the garbage collector does not run while a long document is read.

    All that is made lives until the end, and what was made before would be looked through again and
    again: that takes five times as long as to decode many small objects.
    """
    if len(data) <= _SHORT_TEXT or not gc.isenabled():
        return read(data, max_depth)
    gc.disable()
    try:
        return read(data, max_depth)
    finally:
        gc.enable()


class _Named(msgspec.Struct):
    id: int | str | None = None


_decode_named = msgspec.msgpack.Decoder(_Named).decode
_MAX_DIGITS = len(str(-(2**63)))


def find_id(data: bytes, *, binary: bool) -> int | str | None:
    """The `id` in a document that is refused; None where no integer or text can be read as one.

    The limits of documents do not apply.
    """
    try:
        if binary:
            found = _decode_named(data).id
        else:
            document = json.loads(data.decode(), parse_int=_short_integer)
            found = document.get('id') if isinstance(document, dict) else None
        if isinstance(found, str):
            # Half of a surrogate pair cannot be written in an answer.
            found.encode()
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None
    if not isinstance(found, int | str) or isinstance(found, bool):
        return None
    return None if isinstance(found, int) and found not in _INT64 else found


def _short_integer(digits: str) -> int | None:
    """An integer that an id may be. Longer ones would cost time, and an error."""
    return int(digits) if len(digits) <= _MAX_DIGITS else None


def _load_any_msgpack(data: bytes, max_depth: int, **options: Any) -> Any:
    size = len(data)
    try:
        document = msgpack.unpackb(
            data,
            strict_map_key=True,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=size,
            max_map_len=size,
            max_ext_len=size,
            **options,
        )
    except msgpack.StackError:
        raise Malformed(_too_deep(max_depth)) from None
    except (ValueError, msgpack.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise Malformed(f'Not valid MsgPack: {reason}') from None
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
    """Whether a text may be nested too deeply.

    PERF: nearly no document may. To replace is faster than to count, and to look for the next of
    few faster than either in a long text.
    """
    if len(raw) <= _COUNTED_TEXT:
        rest = len(raw.replace(b'{', b'')) + len(raw.replace(b'[', b''))
        return 2 * len(raw) - rest > max_depth
    left = max_depth
    for bracket in (b'{', b'['):
        place = raw.find(bracket)
        while place >= 0:
            left -= 1
            if left < 0:
                return True
            place = raw.find(bracket, place + 1)
    return False


def _has_duplicate_keys(raw: bytes, document: Any) -> bool:
    """Whether decoding lost a member of some object.

    PERF: a member lost is a colon lost when the document is written again, and this is a tenth of
    the cost of a decoder that reports every key. It is exact unless a text spells a colon as an
    escape, which is left to that decoder.
    """
    if b'\\u003' in raw:
        return _reports_duplicate_keys(raw)
    return raw.count(b':') != encode_json(document).count(b':')


def _reports_duplicate_keys(raw: bytes) -> bool:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        found.append(len(members) != len(pairs))
        return members

    found: list[bool] = []
    json.loads(raw, object_pairs_hook=build)
    return any(found)


def _inspect(document: Any, max_depth: int) -> None:
    if _is_plain(document, max_depth):
        return
    try:
        _check(document, max_depth)
    except _TooDeep:
        raise Malformed(_too_deep(max_depth)) from None
    except _Unacceptable as error:
        raise Malformed(error.describe()) from None


def _is_plain(document: Any, max_depth: int) -> bool:
    """Whether there is nothing in a document to refuse.

    PERF: a level at a time takes less than half of what value by value takes.
    """
    values = [document]
    for _ in range(max_depth + 1):
        types = set(map(type, values))
        if not types <= _PLAIN:
            return False
        if int in types and not all(value in _INT64 for value in values if type(value) is int):
            return False
        if float in types and not all(map(math.isfinite, _floats_among(values))):
            return False
        containers = _containers_among(values)
        if not containers:
            return True
        if not all(set(map(type, one)) <= _TEXT for one in containers if type(one) is dict and one):
            return False
        values = _members_of(containers)
    return False


def _floats_among(values: list[Any]) -> list[float]:
    return [value for value in values if type(value) is float]


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
