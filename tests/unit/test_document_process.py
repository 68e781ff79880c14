"""What is done with very long documents: by the process, or in place."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from zaqar_gevent import document_process, documents, long_documents
from zaqar_gevent.api import posts
from zaqar_gevent.bodies import Body, Encoding, UncheckedBody
from zaqar_gevent.document_process import CUT_BYTES, Task

LONG = 'snö "quoted" ' * CUT_BYTES
MESSAGES = [
    {'ttl': 60, 'body': LONG},
    {'body': 'short', 'ttl': 61},
    {'ttl': 62, 'body': {'in': [LONG, 1, None]}, 'delay': 5},
    {'body': LONG, 'ttl': 63, 'attributes': {'a': 'b'}},
]
DOCUMENTS: dict[str, Any] = {
    'rest': {'messages': MESSAGES},
    'frame': {'id': 1, 'action': 'message_post', 'body': {'queue_name': 'q', 'messages': MESSAGES}},
}


def encode(document: Any, *, binary: bool) -> bytes:
    encoded: bytes
    if binary:
        encoded = msgpack.packb(document)
    else:
        encoded = json.dumps(document, ensure_ascii=False, indent=1).encode()
    return encoded


def decode(data: Any, *, binary: bool) -> Any:
    return msgpack.unpackb(bytes(data)) if binary else json.loads(bytes(data))


def places_of(document: Any, *, binary: bool) -> list[document_process.Place]:
    return document_process.find_bodies(encode(document, binary=binary), binary=binary)


@pytest.mark.parametrize('binary', [False, True])
@pytest.mark.parametrize('name', DOCUMENTS)
def test_long_bodies_of_a_post_are_found(name: str, binary: bool) -> None:
    document = DOCUMENTS[name]
    encoded = encode(document, binary=binary)
    places = document_process.find_bodies(encoded, binary=binary)
    assert [place.index for place in places] == [0, 2, 3]
    for place in places:
        body = encoded[place.start : place.start + place.size]
        assert decode(body, binary=binary) == MESSAGES[place.index]['body']
    rest = document_process.cut(encoded, places, binary=binary)
    assert len(rest) < CUT_BYTES
    cut_out = {
        place.index: memoryview(encoded)[place.start : place.start + place.size] for place in places
    }
    read = decode(rest, binary=binary)
    posts.put_back(read, cut_out, binary=binary)
    assert documents.encode(read, binary=binary)
    found = read['messages'] if name == 'rest' else read['body']['messages']
    bodies = [one['body'].value if isinstance(one['body'], Body) else one['body'] for one in found]
    assert bodies == [message['body'] for message in MESSAGES]


@pytest.mark.parametrize('binary', [False, True])
def test_a_post_has_its_bodies_put_back(binary: bool) -> None:
    encoded = encode(DOCUMENTS['rest'], binary=binary)
    whole = posts.read_post(encoded, binary=binary)
    places = document_process.find_bodies(encoded, binary=binary)
    cut = posts.read_post(document_process.cut(encoded, places, binary=binary), binary=binary)
    cut.put_back({one.index: memoryview(encoded)[one.start :][: one.size] for one in places})
    named, expected = (one.arguments(binary=binary)['messages'] for one in (cut, whole))
    assert [one.ttl for one in named] == [one.ttl for one in expected]
    assert [bytes(one.body.data) for one in named] == [bytes(one.body.data) for one in expected]
    assert {one.body.encoding for one in named} == {one.body.encoding for one in expected}


@pytest.mark.parametrize('binary', [False, True])
@pytest.mark.parametrize(
    'document',
    [
        pytest.param({'messages': [{'more': LONG, 'body': LONG}]}, id='the same in another member'),
        pytest.param({'messages': [{'more': LONG}]}, id='no body'),
        pytest.param({'messages': [{'body': 'short'}], 'more': LONG}, id='a short body'),
        pytest.param({'messages': {'body': LONG}}, id='no list'),
        pytest.param({'action': 'queue_create', 'body': LONG}, id='no post'),
        pytest.param({'action': 'queue_create'}, id='nothing'),
        pytest.param([LONG], id='no object'),
    ],
)
def test_where_bodies_cannot_be_told_none_is_found(document: Any, binary: bool) -> None:
    assert places_of(document, binary=binary) == []


def test_a_body_that_is_in_another_message_as_well_is_found() -> None:
    messages = [{'body': [LONG, LONG]}, {'body': LONG}]
    places = places_of({'messages': messages}, binary=False)
    assert [place.index for place in places] == [0, 1]


@pytest.mark.parametrize('binary', [False, True])
def test_bodies_are_prepared_for_an_answer(binary: bool) -> None:
    value = {'text': LONG, 'numbers': list(range(20_000))}
    encoding, other = Encoding.JSON, Encoding.MSGPACK
    if binary:
        encoding, other = other, encoding
    bodies = [Body(encoding, encode(value, binary=binary)) for _ in range(3)]
    unchecked = UncheckedBody(encoding, encode(value, binary=binary))
    long_documents.prepare([*bodies, unchecked], other, 'project')
    for body in (*bodies, unchecked):
        written = documents.encode([body.in_answer(other)], binary=not binary)
        assert decode(written, binary=not binary) == [value]
    long_documents.prepare(bodies, encoding, 'project')
    assert bytes(bodies[0].in_answer(encoding)) == encode(value, binary=binary)


@pytest.mark.parametrize('binary', [False, True])
def test_a_damaged_body_is_not_answered(binary: bool) -> None:
    data = encode(LONG, binary=binary)[:-1]
    encoding = Encoding.MSGPACK if binary else Encoding.JSON
    with pytest.raises(documents.Malformed):
        long_documents.prepare([UncheckedBody(encoding, data)], encoding, None)


def test_a_task_that_refuses_says_why() -> None:
    with pytest.raises(documents.Malformed, match='2\\^63-1'):
        document_process.perform(Task.CHECK_POST, b'{"messages": [%d]}' % 2**63, 64, binary=False)


@pytest.mark.parametrize(
    ('document', 'found'),
    [
        (b'{"id": 7, "a": NaN}', 7),
        (b'{"id": "x", "a": 1e999}', 'x'),
        (b'{"id": true}', None),
        (b'{"id": [1]}', None),
        (b'{"id": 9223372036854775808}', None),
        (b'{"id": "\\ud800"}', None),
        (b'{', None),
        (b'[]', None),
    ],
)
def test_the_id_of_a_refused_document_is_found(document: bytes, found: Any) -> None:
    assert documents.find_id(document, binary=False) == found
    result = document_process.perform(Task.FIND_ID, document, 0, binary=False)
    assert json.loads(result) == found
