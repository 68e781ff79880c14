"""Bodies of messages as they travel: encoded, and never looked into.

The server stores a body as it came and gives it out as it was stored. Values are made of it only
for what needs them: a reader that asks for the other encoding, upstream's drivers, checksums, and
upstream's formats of encryption.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import msgspec

Data = bytes | memoryview | msgspec.Raw
"""An encoded body; the longer ones are parts of what was read or received."""


_KEPT_BYTES = 512 * 1024


def _make_syntax_check() -> Callable[[Data], Any]:
    try:
        import simdjson
    except ImportError:
        # There is no wheel for this interpreter: a decoder checks as well, but takes longer.
        return msgspec.json.decode
    # It keeps ten times the size of the longest text that it has parsed.
    kept = simdjson.Parser().parse

    def parse(text: Data) -> Any:
        return (kept if len(text) <= _KEPT_BYTES else simdjson.Parser().parse)(text)

    return parse


check_syntax = _make_syntax_check()
"""Raises `ValueError`, `RuntimeError` or `msgspec.DecodeError` unless a text is JSON in UTF-8.

Numbers that no float can hold are refused, and integers that 64 bits cannot hold.
"""


def count_elements(array: bytes) -> int:
    """How many elements an array in JSON has; raises as `check_syntax` does."""
    return len(check_syntax(array))


VERY_LONG_BYTES = 512 * 1024
"""To read so much at once would make others wait; see `long_documents`."""


class Encoding(enum.IntEnum):
    """The encoding of a body. The numbers are in stores."""

    JSON = 0
    ENCRYPTED = 1
    MSGPACK = 2


# PERF: members of an enumeration are looked up by its metaclass.
_JSON, _MSGPACK = Encoding.JSON, Encoding.MSGPACK


_check_msgpack = msgspec.msgpack.Decoder(msgspec.Raw).decode


def check(encoding: Encoding, data: Data) -> None:
    """Raise `ValueError` or `msgspec.DecodeError` for what would break the answer it is put into.

    encoding: of `data`; an encrypted body is a JSON text here.
    """
    if encoding is _MSGPACK:
        _check_msgpack(data)
        return
    try:
        check_syntax(data)
    except (ValueError, RuntimeError):
        # It is stricter with numbers than whoever stored this may have been.
        msgspec.json.decode(data)


class Body:
    """The body of a message.

    encoding: of `data`. data: valid in that encoding, as the API checks it; an encrypted body is
    ASCII in whichever format.
    """

    __slots__ = ('_other', 'data', 'encoding')

    def __init__(self, encoding: Encoding, data: Data) -> None:
        self.encoding = encoding
        self.data = data
        self._other: msgspec.Raw | None = None

    @classmethod
    def of(cls, value: Any) -> Body:
        """The body with this value; of `bytes`, an encrypted one. Raises `TypeError`."""
        if type(value) is bytes:
            return cls(Encoding.ENCRYPTED, value)
        return cls(Encoding.JSON, encode_json(value))

    @property
    def size(self) -> int:
        """Bytes of `data`."""
        return len(self.data)

    @property
    def value(self) -> Any:
        """The body as it was posted; `bytes` of an encrypted body."""
        match self.encoding:
            case Encoding.JSON:
                return msgspec.json.decode(self.data)
            case Encoding.MSGPACK:
                return msgspec.msgpack.decode(self.data)
            case Encoding.ENCRYPTED:
                return bytes(self.data)

    def in_answer(self, encoding: Encoding) -> Any:
        """The value that an encoder writes as the body in an answer in `encoding`.

        PERF: without asking for more, and without keeping it for another reader.
        """
        if self.encoding is encoding:
            data = self.data
            return data if type(data) is msgspec.Raw else msgspec.Raw(data)
        return self.value if self._other is None else self._other

    def keep_converted(self, data: bytes | bytearray) -> None:
        """Remember the body in the encoding that is not its own."""
        self._other = msgspec.Raw(data)

    def in_json(self) -> Any:
        """The value that a JSON encoder writes as the body."""
        return self._in(_JSON)

    def in_msgpack(self) -> Any:
        """The value that a MsgPack encoder writes as the body."""
        return self._in(_MSGPACK)

    def _in(self, encoding: Encoding) -> Any:
        if self.encoding is encoding:
            data = self.data
            return data if type(data) is msgspec.Raw else msgspec.Raw(data)
        if self._other is None:
            # Several clients often read it in the other encoding: a push goes to many.
            write = encode_json if encoding is _JSON else encode_msgpack
            self._other = msgspec.Raw(write(self.value))
        return self._other


class UncheckedBody(Body):
    """A very long body as it was stored, which may be damaged; see `long_documents.prepare`."""

    __slots__ = ()


class ValueBody(Body):
    """A body that a store gave as a value, as upstream's do; it is encoded where it is written."""

    __slots__ = ('_value',)

    def __init__(self, value: Any) -> None:
        self.encoding = Encoding.JSON
        self._other = None
        self._value = value

    @property
    def data(self) -> Data:  # type: ignore[override]
        return encode_json(self._value)

    @property
    def value(self) -> Any:
        return self._value

    def in_answer(self, encoding: Encoding) -> Any:
        return self._value

    def in_json(self) -> Any:
        return self._value

    def in_msgpack(self) -> Any:
        return self._value


def body_of(value: Any) -> Body:
    """The body that a store gave as a value; `bytes` are an encrypted one."""
    return Body(Encoding.ENCRYPTED, value) if type(value) is bytes else ValueBody(value)


def _refuse(value: object) -> Any:
    raise TypeError(f'A {type(value).__name__} value is no part of a document')


def _body_in_json(value: object) -> Any:
    return value.in_json() if isinstance(value, Body) else _refuse(value)


def _body_in_msgpack(value: object) -> Any:
    return value.in_msgpack() if isinstance(value, Body) else _refuse(value)


encode_json = msgspec.json.Encoder(enc_hook=_body_in_json).encode
"""A document as compact UTF-8 JSON; bodies of messages in it are written as they are."""

encode_msgpack = msgspec.msgpack.Encoder(enc_hook=_body_in_msgpack).encode
"""A document as MsgPack; bodies of messages in it are written as they are."""
