"""Documents that are none, or not what a request is: told with 400, and the connection stays."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgpack
import pytest

from tests.callers import Identity
from tests.faults.client import DIALECTS, Client, Dialect
from tests.faults.conftest import Connect
from tests.faults.frames import Opcode, frame

JSON = [dialect for dialect in DIALECTS if not dialect.binary]
MSGPACK = [dialect for dialect in DIALECTS if dialect.binary]

DEEP = 100_000
REQUEST: dict[str, Any] = {'id': 1, 'action': 'ping_node', 'headers': Identity().headers()}


def in_json(value: bytes) -> bytes:
    """A request whose body holds a value, and otherwise is as it should be."""
    return json.dumps(REQUEST).encode()[:-1] + b', "body": {"x": ' + value + b'}}'


def nested(depth: int) -> bytes:
    return in_json(b'[' * depth + b'1' + b']' * depth)


BAD_JSON = {
    'nested-1500': nested(1500),
    'nested-100000': nested(DEEP),
    'objects-nested-1500': in_json(b'{"x":' * 1500 + b'1' + b'}' * 1500),
    'objects-nested-40000': in_json(b'{"x":' * 40_000 + b'1' + b'}' * 40_000),
    'arrays-alone': b'[' * DEEP + b']' * DEEP,
    'never-closed': b'[' * DEEP,
    'integer-of-5000-digits': in_json(b'9' * 5000),
    'negative-integer-of-5000-digits': in_json(b'-' + b'9' * 5000),
    'integer-of-300000-digits': in_json(b'9' * 300_000),
    'integer-of-65-bits': in_json(b'18446744073709551616'),
    'header-of-65-bits': in_json(b'1, "y": 18446744073709551616'),
    'NaN': in_json(b'NaN'),
    'Infinity': in_json(b'Infinity'),
    '-Infinity': in_json(b'-Infinity'),
    '1e400': in_json(b'1e400'),
    '-1e400': in_json(b'-1e400'),
    'key-twice': in_json(b'1}, "body": {"x": 2'),
    'key-twice-inside': in_json(b'{"a": 1, "b": 2, "a": 3}'),
    'key-twice-spelled-otherwise': in_json(b'1}, "\\u0062ody": {"x": 2'),
    'high-surrogate': in_json(b'"\\ud800"'),
    'low-surrogate': in_json(b'"\\udc00"'),
    'surrogates-swapped': in_json(b'"\\udc00\\ud800"'),
    'surrogate-in-a-key': in_json(b'{"\\ud800": 1}'),
    'control-character': in_json(b'"\n"'),
    'byte-order-mark': '\ufeff'.encode() + in_json(b'1'),
    'behind-the-end': in_json(b'1') + b'{}',
    'cut-short': in_json(b'1')[:-1],
    'nothing': b'',
    'blank': b' \n\t ',
}


@pytest.mark.parametrize('value', [None, [], [[1]], {'x': -(2**63)}, 'ÿ🐘', 0.5], ids=repr)
def test_what_surrounds_the_bad_values_is_good(client: Client, value: Any) -> None:
    surround = in_msgpack if client.dialect.binary else in_json
    client.send(frame(client.dialect.opcode, surround(client.dialect.encode(value))))
    assert client.status() == 204


@pytest.mark.parametrize('payload', BAD_JSON.values(), ids=BAD_JSON)
@pytest.mark.parametrize('dialect', JSON, ids=str)
def test_bad_json_is_400(connect: Connect, dialect: Dialect, payload: bytes) -> None:
    assert_400(connect(dialect), payload)


# In a post, the last of several keys that are the same counts.
TWICE = frozenset({'key-twice-inside', 'key-twice-spelled-otherwise', 'key-twice'})


POST_IN_JSON = b'"body": {"queue_name": "q", "messages": [{"ttl": 60, "body": 7}], "x": '


@pytest.mark.parametrize('name', [name for name in BAD_JSON if name not in TWICE])
@pytest.mark.parametrize('dialect', JSON, ids=str)
def test_bad_json_in_a_post_is_400(connect: Connect, dialect: Dialect, name: str) -> None:
    """Beside its messages and in the body of one."""
    payload = BAD_JSON[name].replace(b'ping_node', b'message_post')
    client = connect(dialect)
    assert_400(client, payload.replace(b'"body": {"x": ', POST_IN_JSON))
    inside = POST_IN_JSON.replace(b'"body": 7}], "x": ', b'"body": {"x": ')
    inner = payload.replace(b'"body": {"x": ', inside)
    assert_400(client, inner.removesuffix(b'}}') + b'}}]}}' if inner.endswith(b'}}') else inner)


def in_msgpack(value: bytes) -> bytes:
    """The same in MsgPack."""
    return b'\x84' + msgpack.packb(REQUEST)[1:] + b'\xa4body\x81\xa1x' + value


BAD_MSGPACK = {
    'nested-100000': in_msgpack(b'\x91' * DEEP + b'\xc0'),
    'maps-nested-100000': in_msgpack(b'\x81\xa1x' * DEEP + b'\xc0'),
    'nested-65': in_msgpack(b'\x91' * 65 + b'\xc0'),
    'arrays-alone': b'\x91' * DEEP + b'\xc0',
    'array-of-4e9': in_msgpack(b'\xdd' + struct.pack('>I', 4_000_000_000)),
    'map-of-4e9': in_msgpack(b'\xdf' + struct.pack('>I', 4_000_000_000)),
    'text-of-4e9': in_msgpack(b'\xdb' + struct.pack('>I', 4_000_000_000)),
    'bytes-of-4e9': in_msgpack(b'\xc6' + struct.pack('>I', 4_000_000_000)),
    'extension-of-4e9': in_msgpack(b'\xc9' + struct.pack('>I', 4_000_000_000) + b'\x01'),
    'array-alone': b'\xdd' + struct.pack('>I', 4_000_000_000),
    **{
        f'extension-{kind}': in_msgpack(b'\xd4' + struct.pack('b', kind) + b'\0')
        for kind in (-128, -2, 0, 1, 5, 127)
    },
    'extension-of-nothing': in_msgpack(b'\xc7\x00\x05'),
    'timestamp-32': in_msgpack(b'\xd6\xff' + bytes(4)),
    'timestamp-64': in_msgpack(b'\xd7\xff' + bytes(8)),
    'timestamp-96': in_msgpack(b'\xc7\x0c\xff' + bytes(12)),
    'timestamp-of-no-such-length': in_msgpack(b'\xc7\x05\xff' + bytes(5)),
    'timestamp-with-too-many-nanoseconds': in_msgpack(b'\xd7\xff' + b'\xff' * 8),
    'key-twice': in_msgpack(b'\x01\xa1x\x02').replace(b'\xa4body\x81', b'\xa4body\x82'),
    'key-twice-inside': in_msgpack(b'\x83\xa1a\x01\xa1b\x02\xa1a\x03'),
    'key-integer': in_msgpack(b'\x81\x01\x02'),
    'key-nil': in_msgpack(b'\x81\xc0\x02'),
    'key-bytes': in_msgpack(b'\x81\xc4\x01a\x02'),
    'key-list': in_msgpack(b'\x81\x90\x02'),
    'key-map': in_msgpack(b'\x81\x80\x02'),
    'key-float': in_msgpack(b'\x81\xcb' + bytes(8) + b'\x02'),
    'key-timestamp': in_msgpack(b'\x81\xd6\xff' + bytes(4) + b'\x02'),
    'key-at-the-top': b'\x81\x01\x02',
    'behind-the-end': in_msgpack(b'\x80') + b'\x80',
    'bytes-behind-the-end': in_msgpack(b'\x80') + b'\xc0' * 1000,
    'bytes': in_msgpack(b'\xc4\x01a'),
    'text-that-is-not-utf8': in_msgpack(b'\xa1\xff'),
    'surrogate': in_msgpack(b'\xa3\xed\xa0\x80'),
    'integer-of-64-bits-and-no-sign': in_msgpack(b'\xcf' + b'\xff' * 8),
    'NaN': in_msgpack(b'\xcb\x7f\xf8' + bytes(6)),
    'infinity': in_msgpack(b'\xcb\x7f\xf0' + bytes(6)),
    'no-such-type': in_msgpack(b'\xc1'),
    'cut-short': in_msgpack(b''),
    'nothing': b'',
}


@pytest.mark.parametrize('payload', BAD_MSGPACK.values(), ids=BAD_MSGPACK)
@pytest.mark.parametrize('dialect', MSGPACK, ids=str)
def test_bad_msgpack_is_400(connect: Connect, dialect: Dialect, payload: bytes) -> None:
    assert_400(connect(dialect), payload)


# Two members of a post, and a message in it that ends with its body, or such a member.
POST_IN_MSGPACK = b'\xa4body\x82\xaaqueue_name\xa1q\xa8messages\x91'
BODY_IN_MSGPACK = b'\x82\xa3ttl\x3c\xa4body\x81\xa1x'


@pytest.mark.parametrize('name', [name for name in BAD_MSGPACK if not name.startswith('key-twice')])
@pytest.mark.parametrize('dialect', MSGPACK, ids=str)
def test_bad_msgpack_in_a_post_is_400(connect: Connect, dialect: Dialect, name: str) -> None:
    """In the body of a message, and beside its messages."""
    payload = BAD_MSGPACK[name].replace(b'\xa9ping_node', b'\xacmessage_post')
    client = connect(dialect)
    assert_400(client, payload.replace(b'\xa4body\x81\xa1x', POST_IN_MSGPACK + BODY_IN_MSGPACK))
    beside = POST_IN_MSGPACK.replace(b'\x82\xaa', b'\x83\xaa') + b'\x81\xa4body\x07\xa1x'
    assert_400(client, payload.replace(b'\xa4body\x81\xa1x', beside))


@pytest.mark.parametrize('value', [None, [], [[1]], {'x': -(2**63)}, 'ÿ🐘', 0.5], ids=repr)
def test_what_surrounds_the_bad_values_in_a_post_is_good(client: Client, value: Any) -> None:
    encoded = client.dialect.encode(value)
    if client.dialect.binary:
        payload = in_msgpack(encoded).replace(b'\xa9ping_node', b'\xacmessage_post')
        payload = payload.replace(b'\xa4body\x81\xa1x', POST_IN_MSGPACK + BODY_IN_MSGPACK)
    else:
        payload = in_json(encoded).replace(b'ping_node', b'message_post')
        inside = POST_IN_JSON.replace(b'"body": 7}], "x": ', b'"body": {"x": ')
        payload = payload.replace(b'"body": {"x": ', inside).removesuffix(b'}}') + b'}}]}}'
    client.send(frame(client.dialect.opcode, payload))
    assert client.status() == 201


ANYTHING: list[Any] = [None, True, 0, 1.5, 'x', '', [], ['x'], {}, {'x': 'x'}]


def wrong(*right: type) -> list[Any]:
    """Everything but values of these types."""
    return [value for value in ANYTHING if type(value) not in right]


MEMBERS: dict[str, list[Any]] = {
    'action': [*wrong(), '__class__', 'queue_glorify', 'Ping_node', 'ping_node\0', 'x' * 10_000],
    'headers': [
        *wrong(type(None), dict),
        *({'Client-ID': value} for value in wrong()),
        *({'X-Project-ID': value} for value in wrong(str)),
        *({'X-Roles': value} for value in wrong(str)),
    ],
    'body': wrong(type(None), dict),
}


@pytest.mark.parametrize('member', MEMBERS)
def test_a_member_of_the_wrong_type_is_400(client: Client, member: str) -> None:
    for value in MEMBERS[member]:
        right = {'id': 1, 'action': 'queue_list', 'headers': client.identity.headers()}
        assert_400(client, client.dialect.encode({**right, member: value}))


@pytest.mark.parametrize('dialect', [d for d in DIALECTS if d.subprotocol], ids=str)
def test_an_id_of_the_wrong_type_is_400(connect: Connect, dialect: Dialect) -> None:
    client = connect(dialect)
    for value in wrong(int, str):
        right = {'action': 'queue_list', 'headers': client.identity.headers()}
        answer = assert_400(client, dialect.encode({**right, 'id': value}))
        assert answer['id'] is None
    assert_400(client, dialect.encode(right))


@pytest.mark.parametrize('document', ANYTHING, ids=repr)
def test_a_document_that_is_no_request_is_400(client: Client, document: Any) -> None:
    assert_400(client, client.dialect.encode(document))


def test_the_other_encoding_in_a_frame_is_400(client: Client) -> None:
    """Text is JSON and binary is MsgPack, whatever it looks like."""
    other = next(
        dialect
        for dialect in DIALECTS
        if dialect.subprotocol == client.dialect.subprotocol
        and dialect.binary is not client.dialect.binary
    )
    payload = other.encode({'id': 1, 'action': 'ping_node'})
    if client.dialect.binary:
        assert_400(client, payload)
    else:
        client.send(frame(Opcode.TEXT, payload))
        assert client.status_code().code == 1007


def assert_400(client: Client, payload: bytes) -> Any:
    """The payload is answered with 400, in its own encoding, and the next request is served."""
    client.send(frame(client.dialect.opcode, payload))
    answer = client.answer()
    assert client.dialect.status(answer) == 400, answer
    assert client.lives()
    return answer
