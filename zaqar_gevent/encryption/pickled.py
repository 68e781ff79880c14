"""Reads pickles of plain data, as upstream's encryption makes them of message bodies.

The standard library's unpickler is a machine that looks up and calls functions, and whose memo
can be made to take any amount of memory. This reader knows the few opcodes that a pickle of JSON
data consists of (protocols 2 to 5), can build JSON's types and nothing else, and takes memory in
proportion to the length of the pickle.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

START = b'\x80'
"""The first byte of every pickle that is read here. No text in UTF-8 begins with it."""

MAX_DEPTH = 256
"""Levels that lists and dicts may be nested."""

MAX_TEXT_FACTOR = 64
MIN_MAX_TEXT = 1024 * 1024
"""All texts together may have `MIN_MAX_TEXT` characters, and `MAX_TEXT_FACTOR` for each byte of the
pickle: a text that repeats is in it once."""

_PROTOCOLS = range(2, 6)
_INTEGERS = range(-(2**63), 2**64)
_LONG_BYTES = 9
_FLOAT = struct.Struct('>d')


class NotPlainData(ValueError):
    """These bytes are no pickle of plain data, or exceed a limit."""


class _Mark:
    """Where the members of a list or dict begin on the stack."""


_MARK = _Mark()


def load(data: bytes) -> Any:
    """The list, dict, text, number, boolean or None that was pickled; raises `NotPlainData`."""
    try:
        value = _Reader(data).read()
    except (IndexError, UnicodeDecodeError):
        raise NotPlainData('the pickle is damaged') from None
    _check_depth(value)
    return value


class _Reader:
    """One pickle, read from the left; `read` may be called once."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._stack: list[Any] = []
        # Only texts are looked up in it. Other values have a place there, since places count.
        self._memo: list[Any] = []
        self._text_left = MIN_MAX_TEXT + MAX_TEXT_FACTOR * len(data)

    def read(self) -> Any:
        if self._take(1) != START or self._number(1) not in _PROTOCOLS:
            raise NotPlainData('it does not begin as a pickle of protocol 2 to 5')
        while True:
            opcode = self._take(1)
            if opcode == b'.':
                break
            step = _STEPS.get(opcode)
            if step is None:
                raise NotPlainData(f'opcode {opcode!r} is not one of plain data')
            step(self)
        [value] = self._stack if len(self._stack) == 1 else [_MARK]
        if value is _MARK or self._position != len(self._data):
            raise NotPlainData('the pickle does not end where it should')
        return value

    def _take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._data):
            raise NotPlainData('the pickle is cut off')
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def _number(self, count: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._take(count), 'little', signed=signed)

    def _push_text(self, text: str) -> None:
        self._text_left -= len(text)
        if self._text_left < 0:
            raise NotPlainData('its texts repeat too often')
        self._stack.append(text)

    def skip(self, count: int) -> None:
        self._take(count)

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def push_integer(self, count: int, *, signed: bool = False) -> None:
        self._stack.append(self._number(count, signed=signed))

    def push_long(self) -> None:
        count = self._number(1)
        if count > _LONG_BYTES:
            raise NotPlainData('an integer is not from -2^63 to 2^63-1')
        value = self._number(count, signed=True)
        if value not in _INTEGERS:
            raise NotPlainData('an integer is not from -2^63 to 2^63-1')
        self._stack.append(value)

    def push_float(self) -> None:
        self._stack.append(_FLOAT.unpack(self._take(8))[0])

    def push_text(self, length_bytes: int) -> None:
        self._push_text(self._take(self._number(length_bytes)).decode())

    def memoize(self) -> None:
        self._memo.append(self._stack[-1])

    def put(self, index_bytes: int) -> None:
        """Memoize under an index, which counts upwards in all pickles that are written."""
        if self._number(index_bytes) != len(self._memo):
            raise NotPlainData('its memo is out of order')
        self.memoize()

    def get(self, index_bytes: int) -> None:
        """Push a text once more. A list or dict in two places is nothing that JSON can say."""
        value = self._memo[self._number(index_bytes)]
        if type(value) is not str:
            raise NotPlainData('a value is in two places')
        self._push_text(value)

    def append(self) -> None:
        value = self._pop()
        self._innermost(list).append(value)

    def append_all(self) -> None:
        members = self._pop_members()
        self._innermost(list).extend(members)

    def set_item(self) -> None:
        value = self._pop()
        self._set([self._pop(), value])

    def set_items(self) -> None:
        self._set(self._pop_members())

    def _set(self, members: list[Any]) -> None:
        keys, values = members[::2], members[1::2]
        if len(keys) != len(values) or any(type(key) is not str for key in keys):
            raise NotPlainData('a key is not text')
        self._innermost(dict).update(zip(keys, values, strict=True))

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise NotPlainData('a value is missing')
        return value

    def _pop_members(self) -> list[Any]:
        members: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            members.append(value)
        members.reverse()
        return members

    def _innermost(self, kind: type) -> Any:
        value = self._stack[-1]
        if type(value) is not kind:
            raise NotPlainData(f'there is no {kind.__name__} to add to')
        return value


_STEPS: dict[bytes, Callable[[_Reader], None]] = {
    b'\x95': lambda reader: reader.skip(8),  # FRAME
    b'(': lambda reader: reader.push(_MARK),  # MARK
    b'N': lambda reader: reader.push(None),  # NONE
    b'\x88': lambda reader: reader.push(True),  # NEWTRUE
    b'\x89': lambda reader: reader.push(False),  # NEWFALSE
    b'K': lambda reader: reader.push_integer(1),  # BININT1
    b'M': lambda reader: reader.push_integer(2),  # BININT2
    b'J': lambda reader: reader.push_integer(4, signed=True),  # BININT
    b'\x8a': lambda reader: reader.push_long(),  # LONG1
    b'G': lambda reader: reader.push_float(),  # BINFLOAT
    b'\x8c': lambda reader: reader.push_text(1),  # SHORT_BINUNICODE
    b'X': lambda reader: reader.push_text(4),  # BINUNICODE
    b'\x8d': lambda reader: reader.push_text(8),  # BINUNICODE8
    b']': lambda reader: reader.push([]),  # EMPTY_LIST
    b'}': lambda reader: reader.push({}),  # EMPTY_DICT
    b'a': lambda reader: reader.append(),  # APPEND
    b'e': lambda reader: reader.append_all(),  # APPENDS
    b's': lambda reader: reader.set_item(),  # SETITEM
    b'u': lambda reader: reader.set_items(),  # SETITEMS
    b'\x94': lambda reader: reader.memoize(),  # MEMOIZE
    b'q': lambda reader: reader.put(1),  # BINPUT
    b'r': lambda reader: reader.put(4),  # LONG_BINPUT
    b'h': lambda reader: reader.get(1),  # BINGET
    b'j': lambda reader: reader.get(4),  # LONG_BINGET
}
"""What each opcode does, by the names of the standard library's `pickletools`."""


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            member
            for container in level
            if type(container) in (list, dict)
            for member in (container.values() if type(container) is dict else container)
        ]
        if not level:
            return
    raise NotPlainData('it is nested too deeply')
