"""RFC 6455 without sockets."""

from __future__ import annotations

import struct

import pytest
from websockets.frames import Close, Frame, Opcode

from zaqar_gevent.websocket.frames import Frames, answer_handshake

LIMIT = 1000


def client_frame(payload: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    return bytes(Frame(opcode, payload, fin=fin).serialize(mask=True))


def close_sent(frames: Frames) -> int:
    """The code of the close frame that the server sends now."""
    data = b''.join(frames.outgoing())
    assert data[0] == 0x88
    return Close.parse(data[2 : 2 + data[1]]).code


def test_a_message_arrives_whole_however_its_bytes_do() -> None:
    frames = Frames(LIMIT)
    data = client_frame('☃'.encode() * 10)
    received = [message for byte in data for message in frames.receive(bytes([byte]))]
    assert received == [('☃'.encode() * 10, False)]


def test_several_messages_may_arrive_together() -> None:
    data = client_frame(b'one') + client_frame(b'\x81', Opcode.BINARY)
    assert list(Frames(LIMIT).receive(data)) == [(b'one', False), (b'\x81', True)]


def test_fragments_are_put_together_around_a_ping() -> None:
    frames = Frames(LIMIT)
    data = client_frame(b'a', fin=False) + client_frame(b'?', Opcode.PING)
    data += client_frame(b'b', Opcode.CONT)
    assert list(frames.receive(data)) == [(b'ab', False)]
    assert frames.outgoing() == [b'\x8a\x01?']


def test_an_answer_is_one_unmasked_frame_of_its_kind() -> None:
    frames = Frames(LIMIT)
    frames.send(b'text', binary=False)
    frames.send(b'bin', binary=True)
    assert frames.outgoing() == [b'\x81\x04text', b'\x82\x03bin']


@pytest.mark.parametrize(
    ('data', 'code'),
    [
        (b'\x81\x02{}', 1002),
        (b'\xc1\x80\0\0\0\0', 1002),
        (b'\x83\x80\0\0\0\0', 1002),
        (client_frame(b'x', Opcode.CONT), 1002),
        (client_frame(b'\xff'), 1007),
        (client_frame(b'x' * (LIMIT + 1)), 1009),
        (b'\x81\xff' + struct.pack('>Q', LIMIT + 1) + b'\0\0\0\0', 1009),
        (client_frame(b'x' * LIMIT, fin=False) + client_frame(b'x', Opcode.CONT), 1009),
    ],
)
def test_a_broken_rule_closes_with_its_code(data: bytes, code: int) -> None:
    frames = Frames(LIMIT)
    assert list(frames.receive(data)) == []
    assert not frames.is_open
    assert close_sent(frames) == code


def test_a_close_is_answered_and_then_nothing_is_sent() -> None:
    frames = Frames(LIMIT)
    list(frames.receive(client_frame(Close(4001, 'bye').serialize(), Opcode.CLOSE)))
    assert close_sent(frames) == 4001
    frames.send(b'late', binary=False)
    frames.close(1001)
    assert frames.outgoing() == []
    list(frames.receive(b''))
    assert frames.is_over


def test_the_end_of_the_stream_ends_it() -> None:
    frames = Frames(LIMIT)
    assert list(frames.receive(b'')) == []
    assert not frames.is_open


HEADERS = {
    'Connection': 'Upgrade',
    'Upgrade': 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
}


def test_a_handshake_is_answered_with_the_key_of_the_rfc() -> None:
    response = answer_handshake('/', list(HEADERS.items()))
    assert response.status_code == 101
    assert response.headers['Sec-WebSocket-Accept'] == 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='


@pytest.mark.parametrize('missing', HEADERS)
def test_a_handshake_lacking_a_header_is_refused(missing: str) -> None:
    headers = [(name, value) for name, value in HEADERS.items() if name != missing]
    assert answer_handshake('/', headers).status_code in (400, 426)
