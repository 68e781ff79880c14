"""Frames that RFC 6455 does not allow, and odd ones that it does."""

from __future__ import annotations

import json

import pytest

from tests.faults.client import COMPACT, DEFAULT, Client, Dialect
from tests.faults.conftest import Connect
from tests.faults.frames import FIN, RSV1, RSV2, RSV3, Opcode, StatusCode, closing, frame, header
from tests.faults.light_load import PROMPT, LightLoad
from tests.faults.memory import MB, resident
from tests.server_process import ServerProcess

LIMIT = 262_144 + 65_536
TOO_BIG = 1009
PROTOCOL_ERROR = 1002
NOT_UTF8 = 1007

TEXT = FIN | Opcode.TEXT
BINARY = FIN | Opcode.BINARY
SNOWMAN = '☃'.encode()


@pytest.mark.parametrize('first', [TEXT, BINARY, Opcode.TEXT, Opcode.BINARY])
def test_a_frame_that_is_declared_too_long_is_refused_before_it_comes(
    server: ServerProcess, first: int
) -> None:
    def declare() -> None:
        with Client(server.port) as client:
            client.send(header(first, LIMIT + 1))
            assert client.status_code().code == TOO_BIG

    with LightLoad(server.port) as rest:
        for _ in rest.seconds(1):
            declare()
        before = resident(server.pid)
        for _ in rest.seconds(1):
            declare()
        assert resident(server.pid) - before < MB
    assert rest.p99 < PROMPT


def test_the_longest_message_that_is_allowed_is_answered(client: Client) -> None:
    document = {'id': 1, 'action': 'ping_node', 'headers': client.identity.headers()}
    empty = len(client.dialect.encode({**document, 'body': {'x': 'x' * 70_000}}))
    document['body'] = {'x': 'x' * (70_000 + LIMIT - empty)}
    client.send(client.frame(document))
    assert client.status() == 204
    assert client.lives()


@pytest.mark.parametrize(
    'broken',
    [
        header(TEXT, 2**63 - 1, form=127),
        header(TEXT, 2**63, form=127),
        header(TEXT, 2**64 - 1, form=127),
        header(TEXT, 125, form=126) + b'x' * 125,
        header(TEXT, 125, form=127) + b'x' * 125,
        header(TEXT, 65_535, form=127),
        header(TEXT, 0, form=126),
    ],
    ids=[
        *('2^63-1', '2^63', '2^64-1'),
        *('16-bits-for-125', '64-bits-for-125', '64-bits-for-65535', '16-bits-for-0'),
    ],
)
def test_a_length_that_is_absurd_or_not_in_the_shortest_form_is_a_protocol_error(
    connect: Connect, broken: bytes
) -> None:
    client = connect()
    client.send(broken)
    assert client.status_code().code == PROTOCOL_ERROR


BROKEN = {
    'text-unmasked': frame(Opcode.TEXT, b'{}', masked=False),
    'empty-unmasked': frame(Opcode.TEXT, masked=False),
    'ping-unmasked': frame(Opcode.PING, masked=False),
    'close-unmasked': frame(Opcode.CLOSE, b'\x03\xe8', masked=False),
    **{
        f'rsv-{rsv >> 4}-of-{opcode.name.lower()}': frame(opcode, b'\x03\xe8', rsv=rsv)
        for rsv in (RSV1, RSV2, RSV3, RSV1 | RSV2 | RSV3)
        for opcode in Opcode
        if opcode is not Opcode.CONTINUATION
    },
    **{f'opcode-{opcode}': frame(opcode, b'x') for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{
        f'fragmented-{opcode.name.lower()}': frame(opcode, b'\x03\xe8', fin=False)
        for opcode in (Opcode.CLOSE, Opcode.PING, Opcode.PONG)
    },
    **{
        f'126-bytes-of-{opcode.name.lower()}': frame(opcode, b'\x03\xe8' + b'x' * 124)
        for opcode in (Opcode.CLOSE, Opcode.PING, Opcode.PONG)
    },
    'continuation-of-nothing': frame(Opcode.CONTINUATION, b'x'),
    'beginning-among-fragments': frame(Opcode.TEXT, b'x', fin=False) + frame(Opcode.TEXT, b'x'),
}


@pytest.mark.parametrize('broken', BROKEN.values(), ids=BROKEN)
def test_a_frame_that_is_not_allowed_is_a_protocol_error(connect: Connect, broken: bytes) -> None:
    client = connect()
    client.send(broken)
    assert client.status_code().code == PROTOCOL_ERROR
    assert client.socket.recv(1) == b''


@pytest.mark.parametrize('more', [0, 100_000])
def test_the_reason_reaches_a_client_that_goes_on_sending(connect: Connect, more: int) -> None:
    """With unread bytes behind it, the system would throw the close frame away."""
    client = connect()
    client.send(frame(3) + frame(Opcode.BINARY, b'x' * 100) * (more // 100))
    assert client.status_code().code == PROTOCOL_ERROR


@pytest.mark.parametrize(
    'text',
    [b'\xff', b'{"action": "\xc0\xaf"}', b'\xed\xa0\x80', b'\xf4\x90\x80\x80', SNOWMAN[:2]],
    ids=['byte', 'overlong', 'surrogate', 'beyond-unicode', 'cut-short'],
)
@pytest.mark.parametrize('fragmented', [False, True])
def test_text_that_is_not_utf8_is_refused(connect: Connect, text: bytes, fragmented: bool) -> None:
    client = connect()
    if fragmented:
        client.send(frame(Opcode.TEXT, b'"', fin=False) + frame(Opcode.CONTINUATION, text))
    else:
        client.send(frame(Opcode.TEXT, text))
    assert client.status_code().code == NOT_UTF8


@pytest.mark.parametrize('dialect', [DEFAULT, COMPACT], ids=str)
def test_a_code_point_may_be_split_over_fragments(connect: Connect, dialect: Dialect) -> None:
    client = connect(dialect)
    text = json.dumps({'id': 1, 'action': '☃🐘'}, ensure_ascii=False).encode()
    pieces = [text[at : at + 1] for at in range(len(text))]
    client.send(frame(Opcode.TEXT, pieces[0], fin=False))
    for piece in pieces[1:-1]:
        client.send(frame(Opcode.CONTINUATION, piece, fin=False))
    client.send(frame(Opcode.CONTINUATION, pieces[-1]))
    assert '☃🐘 is not a valid action' in str(client.answer())


@pytest.mark.parametrize('code', [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 3000, 4003, 4999])
def test_a_close_frame_is_answered_with_its_code(connect: Connect, code: int) -> None:
    client = connect()
    client.send(closing(code, b'done'))
    assert client.status_code() == StatusCode(code, b'done')
    assert client.socket.recv(1) == b''


def test_an_empty_close_frame_is_answered_with_an_empty_one(connect: Connect) -> None:
    client = connect()
    client.send(frame(Opcode.CLOSE))
    assert client.status_code() == StatusCode(1005, b'')
    assert client.socket.recv(1) == b''


@pytest.mark.parametrize(
    ('payload', 'code'),
    [
        (b'\x03', PROTOCOL_ERROR),
        *((number.to_bytes(2), PROTOCOL_ERROR) for number in (0, 999, 1004, 1005, 1006, 1015)),
        *((number.to_bytes(2), PROTOCOL_ERROR) for number in (1016, 2999, 5000, 65_535)),
        (b'\x03\xe8\xff', NOT_UTF8),
        (b'\x03\xe8' + SNOWMAN[:2], NOT_UTF8),
    ],
)
def test_a_close_frame_that_says_nothing_allowed_is_refused(
    connect: Connect, payload: bytes, code: int
) -> None:
    client = connect()
    client.send(frame(Opcode.CLOSE, payload))
    assert client.status_code().code == code
    assert client.socket.recv(1) == b''


def test_an_empty_message_is_answered(client: Client) -> None:
    client.send(frame(client.dialect.opcode))
    assert client.status() == 400
    assert client.lives()


@pytest.mark.parametrize('payload', [b'', b'?', b'x' * 125], ids=len)
def test_a_ping_is_answered_with_its_payload(connect: Connect, payload: bytes) -> None:
    client = connect()
    client.send(frame(Opcode.PING, payload))
    assert client.receive() == (Opcode.PONG, payload, True, 0)


def test_a_ping_between_fragments_is_answered_before_the_message(client: Client) -> None:
    whole = client.dialect.encode({'id': 1, 'action': 'nonsense'})
    client.send(frame(client.dialect.opcode, whole[:5], fin=False))
    client.send(frame(Opcode.PING, b'between'))
    assert client.receive() == (Opcode.PONG, b'between', True, 0)
    client.send(frame(Opcode.CONTINUATION, whole[5:]))
    assert client.status() == 400


def test_a_pong_that_nobody_asked_for_is_ignored(client: Client) -> None:
    client.send(frame(Opcode.PONG, b'unasked') * 10)
    assert client.lives()
