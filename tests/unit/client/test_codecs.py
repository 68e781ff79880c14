"""A document is written as it is, or refused, in either encoding alike."""

from __future__ import annotations

import datetime
import decimal
import enum
from typing import Any

import pytest

from zaqar_gevent.client.codecs import decode, encode


def nested(levels: int) -> Any:
    document: Any = []
    for _ in range(levels - 1):
        document = [document]
    return document


def circular() -> Any:
    document: list[Any] = []
    document.append(document)
    return document


class Number(enum.IntEnum):
    LARGE = 2**63


class Colour(enum.StrEnum):
    RED = 'red'


REFUSED: dict[str, Any] = {
    'not a number': float('nan'),
    'infinity': float('-inf'),
    'bytes': b'a',
    'an array of bytes': bytearray(b'a'),
    'a view': memoryview(b'a'),
    'an integer of 64 bits without sign': 2**63,
    'a negative integer of 65 bits': -(2**63) - 1,
    'a large integer of an enumeration': Number.LARGE,
    'too many levels': nested(65),
    'what holds itself': circular(),
    'a set': {1},
    'a date': datetime.date(2026, 1, 1),
    'a decimal': decimal.Decimal('1.5'),
    'an object': object(),
    'a function': print,
    'half of a surrogate pair': '\ud800',
    'a number as a name': {1: 'a'},
    'null as a name': {None: 'a'},
    'true as a name': {True: 'a'},
    'a tuple as a name': {(1, 2): 'a'},
    'a name that would be there twice': {1: 'a', '1': 'b'},
}
KEPT: list[Any] = [
    *('', ' ', '\ufeffa', 'a\r\n\0', '\U0001f418', None, True, False, [], {}, {'': None}),
    *(0, -1, 2**63 - 1, -(2**63), 0.5, -0.0, 5e-324, 1e300),
]


@pytest.mark.parametrize('binary', [False, True], ids=['json', 'msgpack'])
@pytest.mark.parametrize('value', REFUSED.values(), ids=REFUSED)
def test_what_would_be_altered_is_refused(value: Any, binary: bool) -> None:
    for document in (value, [value], {'deep': [{'down': value}]}):
        with pytest.raises((TypeError, ValueError)):
            encode(document, binary=binary)


@pytest.mark.parametrize(
    'value', [2**63, -(2**63) - 1, 10**50, float('nan'), b'a', {1: 'a'}], ids=repr
)
def test_a_refusal_says_where(value: Any) -> None:
    place = r' - at `\$\.body\.messages\[1\]\.a`$'
    for binary in (False, True):
        with pytest.raises((TypeError, ValueError), match=place):
            encode({'body': {'messages': ['fine', {'a': value}]}}, binary=binary)


def test_a_document_may_have_as_many_levels_as_servers_take() -> None:
    for binary in (False, True):
        assert decode(encode(nested(64), binary=binary), binary=binary) == nested(64)
        with pytest.raises(ValueError, match=r'at most 64 levels.* - at `\$(\[0\]){64}`$'):
            encode(nested(65), binary=binary)


@pytest.mark.parametrize('binary', [False, True], ids=['json', 'msgpack'])
@pytest.mark.parametrize('value', KEPT, ids=repr)
def test_all_else_is_read_as_it_was_written(value: Any, binary: bool) -> None:
    read = decode(encode({'a': [value]}, binary=binary), binary=binary)['a'][0]
    assert (type(read), repr(read)) == (type(value), repr(value))


@pytest.mark.parametrize('binary', [False, True], ids=['json', 'msgpack'])
def test_tuples_are_lists_and_enumerations_their_values(binary: bool) -> None:
    document = {'tuple': (1, 2), 'colour': Colour.RED}
    assert decode(encode(document, binary=binary), binary=binary) == {
        'tuple': [1, 2],
        'colour': 'red',
    }
