"""Documents: what is read and what is refused, and where the refusal points."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import msgpack
import msgspec
import pytest

from zaqar_gevent import data_model
from zaqar_gevent.api import documents, errors

DOCUMENTS: list[Any] = [
    None,
    True,
    0,
    -(2**63),
    2**63 - 1,
    0.5,
    '',
    'snö ☃ "quoted" : {[',
    [],
    {},
    {'a:b': ['x:y', {'c': None}], 'd': '::'},
    [1, [2, [3]]],
    {'number': '1234567890123456789012345'},
    [1234567890123456789],
]


@pytest.mark.parametrize('document', DOCUMENTS, ids=repr)
def test_a_document_is_read_as_it_was_written(document: Any) -> None:
    for text in (json.dumps(document), json.dumps(document, ensure_ascii=False, indent=2)):
        assert documents.decode_json(text.encode()) == document
    assert documents.decode_json(documents.encode_json(document)) == document
    assert documents.decode_msgpack(msgpack.packb(document)) == document
    assert documents.decode_msgpack(documents.encode_msgpack(document)) == document


def nested(levels: int) -> Any:
    document: Any = []
    for _ in range(levels - 1):
        document = [document]
    return document


def test_nesting_is_allowed_up_to_the_limit() -> None:
    deepest = nested(documents.MAX_DEPTH)
    assert documents.decode_json(documents.encode_json(deepest)) == deepest
    assert documents.decode_msgpack(documents.encode_msgpack(deepest)) == deepest


@pytest.mark.parametrize('levels', [documents.MAX_DEPTH + 1, 500, 900])
def test_deeper_nesting_is_refused(levels: int) -> None:
    with pytest.raises(errors.MalformedDocument, match='nested too deeply'):
        documents.decode_json(b'[' * levels + b']' * levels)
    with pytest.raises(errors.MalformedDocument, match='nested too deeply'):
        documents.decode_msgpack(b'\x91' * (levels - 1) + b'\x90')


def test_many_brackets_in_text_are_not_nesting() -> None:
    text = '[' * 1000
    assert documents.decode_json(json.dumps([text])) == [text]


@pytest.mark.parametrize(
    'text',
    [
        '{"a": 1, "a": 2}',
        '{"x": [{"a": 1, "b": 2, "a": 3}]}',
        '{"a": 1, "\\u0061": 2}',
        '{"x": "\\u003a", "a": 1, "a": ":"}',
        '{"a": {"b": 1}, "a": {"b": 1}}',
    ],
)
def test_the_same_key_twice_is_refused(text: str) -> None:
    with pytest.raises(errors.MalformedDocument, match='same key twice'):
        documents.decode_json(text)


@pytest.mark.parametrize(
    'packed', [b'\x82\xa1a\x01\xa1a\x02', b'\x91\x81\xa1x\x82\xa1a\x01\xa1a\x01']
)
def test_the_same_key_twice_is_refused_in_msgpack(packed: bytes) -> None:
    with pytest.raises(errors.MalformedDocument, match='same key twice'):
        documents.decode_msgpack(packed)


@pytest.mark.parametrize('text', ['{"a": ":", "b": "\\u003a\\u003A"}', '["\\u003a"]'])
def test_escaped_colons_are_not_taken_for_members(text: str) -> None:
    assert documents.decode_json(text) == json.loads(text)


@pytest.mark.parametrize(
    ('document', 'place'),
    [
        ({'a': [0, 2**64 - 1]}, '$.a[1]'),
        ({'a': {'b': float('nan')}}, '$.a.b'),
        ([float('inf')], '$[0]'),
        ({'a': b'binary'}, '$.a'),
        ({'a': msgpack.Timestamp(1)}, '$.a'),
        ({'a': msgpack.ExtType(5, b'')}, '$.a'),
    ],
)
def test_what_json_cannot_say_is_refused_in_msgpack_with_its_place(
    document: Any, place: str
) -> None:
    with pytest.raises(errors.MalformedDocument) as caught:
        documents.decode_msgpack(msgpack.packb(document))
    assert f'`{place}`' in caught.value.description


@pytest.mark.parametrize('number', [2**63, -(2**63) - 1, 10**30])
def test_an_integer_of_more_than_64_bits_is_refused_with_its_place(number: int) -> None:
    with pytest.raises(errors.MalformedDocument, match=r'2\^63-1 - at `\$\.a\[0\]`'):
        documents.decode_json(json.dumps({'a': [number]}))


FAULTS = [2**63, float('nan'), float('-inf'), b'', msgpack.Timestamp(1), {1: 2}]


def grown(chance: random.Random, fault: list[Any], levels: int) -> Any:
    """A random document, with the fault, if there is one, somewhere in it."""
    if levels == 0:
        return chance.choice(fault or [None, False, 7, -(2**63), 1.5, 'text'])
    members = [grown(chance, [], chance.randrange(levels)) for _ in range(chance.randrange(4))]
    members.insert(chance.randint(0, len(members)), grown(chance, fault, levels - 1))
    if chance.random() < 0.5:
        return members
    return {str(at): member for at, member in enumerate(members)}


@pytest.mark.parametrize('fault', FAULTS, ids=repr)
@pytest.mark.parametrize('levels', range(6))
def test_a_fault_is_found_wherever_it_is(fault: Any, levels: int) -> None:
    chance = random.Random(f'{fault!r} {levels}')
    for _ in range(20):
        sound = grown(chance, [], levels)
        assert documents.decode_msgpack(msgpack.packb(sound), max(levels, 1)) == sound
        with pytest.raises(errors.MalformedDocument):
            documents.decode_msgpack(msgpack.packb(grown(chance, [fault], levels)), levels + 1)


@pytest.mark.parametrize('levels', range(2, 7))
def test_too_deep_is_found_wherever_it_is(levels: int) -> None:
    chance = random.Random(levels)
    for _ in range(20):
        for bottom in ([], {}):
            document = grown(chance, [bottom], levels)
            with pytest.raises(errors.MalformedDocument, match='nested too deeply'):
                documents.decode_msgpack(msgpack.packb(document), levels)
            assert documents.decode_msgpack(msgpack.packb(document), levels + 1) == document


def outcome(read: Any, data: bytes, *limits: int) -> str | None:
    """What is said of a document that is refused."""
    try:
        read(data, *limits)
    except errors.MalformedDocument as error:
        return error.description
    return None


BAD_TEXTS = [
    *('', ' ', '{', '{}{}', '[1,]', "['a']", '[01]', '[1.]', '[+1]', '[NaN]', '[Infinity]'),
    *('[1e400]', '[-1e400]', '["\\ud800"]', '["\\udc00\\ud800"]', '["\n"]', '["\\x"]', '\ufeff{}'),
    *(f'[{2**63}]', f'[{-(2**63) - 1}]', f'{{"a": {{"b": [0, {2**64}]}}}}', '9' * 5000),
    *('[' * 65 + ']' * 65, '{"a":' * 65 + '1' + '}' * 65, '[' * 2000 + ']' * 2000),
    *('["[", "]"' + ', [' * 65 + ']' * 65 + ']', '["\\"[", "\\\\"' + ', [' * 65 + ']' * 65 + ']'),
]


@pytest.mark.parametrize('text', BAD_TEXTS, ids=range(len(BAD_TEXTS)))
def test_what_is_only_checked_is_refused_with_the_same_words(text: str) -> None:
    refusal = outcome(documents.decode_json, text.encode())
    assert refusal is not None
    assert outcome(documents.check_json, text.encode()) == refusal


@pytest.mark.parametrize('data', [b'["\xff"]', b'["\xed\xa0\x80"]', b'{"\xc0\x80": 1}'])
def test_what_is_only_checked_must_be_utf8(data: bytes) -> None:
    refusal = outcome(documents.decode_json, data)
    assert refusal is not None
    assert outcome(documents.check_json, data) == refusal


GOOD_TEXTS = [
    '[' * 64 + ']' * 64,
    '["[[[["' + ', []' * 100 + ']',
    '["]]", "[["' + ', {"a": []}' * 100 + ']',
    '["\\"[", "\\\\", "]"' + ', [[]]' * 100 + ']',
    f'[{2**63 - 1}, {-(2**63)}]',
    '"' + '9' * 500 + '"',
    '[0.' + '1' * 400 + ']',
    '[1e308, 1E-400, -0]',
    '{"a": 1, "a": 2}',
    '"' + 'x' * 70_000 + '"',
]


@pytest.mark.parametrize('text', GOOD_TEXTS, ids=range(len(GOOD_TEXTS)))
def test_what_is_only_checked_is_accepted(text: str) -> None:
    documents.check_json(text.encode())
    documents.check_msgpack(msgpack.packb(json.loads(text)))


@pytest.mark.parametrize('seed', range(40))
def test_a_check_and_a_decoder_agree_on_whatever_is_sent(seed: int) -> None:
    """Of damaged documents in either encoding, none of which has a key twice."""
    chance = random.Random(seed)
    for _ in range(100):
        fault = chance.choice([[], [chance.choice([2**63, 2**64 - 1, 0.1, 'a[b{c', '\\"[', {}])]])
        document = grown(chance, fault, chance.randrange(6))
        for data, check, decode in (
            (json.dumps(document).encode(), documents.check_json, documents.decode_json),
            (msgpack.packb(document), documents.check_msgpack, documents.decode_msgpack),
        ):
            damaged = bytearray(data)
            for _ in range(chance.choice([0, 0, 1, 2])):
                damaged[chance.randrange(len(damaged))] = chance.choice(
                    [*b'[]{}",:\\09e-', *range(256)]
                )
            limit = chance.choice([3, 5, 64])
            refusal = outcome(decode, bytes(damaged), limit)
            if refusal is None or 'same key twice' not in refusal:
                assert outcome(check, bytes(damaged), limit) == refusal, bytes(damaged)


def posted(body: Any, *, compact: bool) -> Any:
    """A request that posts, in either envelope."""
    arguments = {'queue_name': 'q', 'messages': [{'body': body, 'ttl': 60}, {'body': 'x' * 2000}]}
    if compact:
        return {'id': 1, 'action': 'message_post', 'body': arguments}
    return {'action': 'message_post', 'headers': {'Client-ID': 'x'}, 'body': arguments}


def is_good(data: bytes, max_depth: int, *, may_repeat: bool) -> bool:
    """Whether a document is one of the data model, told by a look at each of its values."""

    def members(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        assert may_repeat or len({key for key, _ in pairs}) == len(pairs)
        return dict(pairs)

    def is_value(value: Any, levels: int) -> bool:
        if isinstance(value, dict):
            keys = all(isinstance(key, str) for key in value)
            return keys and levels > 0 and all(is_value(one, levels - 1) for one in value.values())
        if isinstance(value, list):
            return levels > 0 and all(is_value(one, levels - 1) for one in value)
        if isinstance(value, int):
            return -(2**63) <= value < 2**63
        return (
            math.isfinite(value)
            if isinstance(value, float)
            else value is None or type(value) is str
        )

    try:
        document = msgpack.unpackb(data, object_pairs_hook=members, max_str_len=len(data))
    except (ValueError, msgpack.UnpackException, AssertionError):
        return False
    return is_value(document, max_depth)


@pytest.mark.parametrize('compact', [True, False], ids=['compact', 'default'])
@pytest.mark.parametrize('seed', range(20))
def test_whatever_is_sent_in_an_envelope_is_told_by_each_of_its_values(
    seed: int, compact: bool
) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        fault = chance.choice([[], [], [chance.choice([*FAULTS, 2**64 - 1, 0.1, 'sn\xf6', {}])]])
        body = grown(chance, fault, chance.randrange(12))
        damaged = bytearray(msgpack.packb(posted(body, compact=compact)))
        # Where the body is, of which the other message follows.
        end = len(damaged) - 2000
        for _ in range(chance.choice([0, 0, 1, 2])):
            damaged[chance.randrange(end)] = chance.randrange(256)
        data, limit = bytes(damaged), chance.choice([3, 9, 12, 13, 64])
        check = outcome(documents.check_msgpack, data, limit)
        assert (check is None) == is_good(data, limit, may_repeat=True), data
        read = outcome(documents.decode_msgpack, data, limit)
        assert (read is None) == is_good(data, limit, may_repeat=False), data
        if read is None:
            assert documents.decode_msgpack(data, limit) == msgpack.unpackb(data)


USUAL: list[Any] = [
    {'action': 'message_list', 'headers': {'Client-ID': 'x'}, 'body': {'queue_name': 'q'}},
    {'id': 1, 'action': 'message_delete_many', 'body': {'queue_name': 'q', 'message_ids': ['x']}},
    {'id': 'a', 'action': 'queue_create', 'body': {'metadata': {'_x': [{'y': {'z': 1}}]}}},
    *(posted(grown(random.Random(8), [], 8), compact=compact) for compact in (True, False)),
]


@pytest.mark.parametrize('request_', USUAL, ids=range(len(USUAL)))
def test_usual_requests_are_read_in_one_pass(request_: Any) -> None:
    decoder = msgspec.msgpack.Decoder(data_model.USUAL_REQUEST)
    assert decoder.decode(msgpack.packb(request_)) == request_


@pytest.mark.parametrize('size', [10, 300, 5000])
@pytest.mark.parametrize('place', range(12))
def test_a_long_number_is_found_wherever_it_is(size: int, place: int) -> None:
    text = b'"' + b'x' * (size + place) + b'"'
    assert outcome(documents.check_json, b'[%b,%d,%b]' % (text, 2**63 - 1, text)) is None
    for number in (2**63, -(2**63) - 1, 2**64 - 1):
        refusal = outcome(documents.check_json, b'[%b,%d,%b]' % (text, number, text))
        assert refusal is not None
        assert refusal.endswith('at `$[1]`')
