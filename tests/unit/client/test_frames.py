"""RFC 6455 from the client's side, byte by byte and against another implementation."""

from __future__ import annotations

import importlib
import os
import random
import struct

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from zaqar_gevent.client import engines
from zaqar_gevent.client.engines import Engine, Payload

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN = 0x80


def frame(opcode: int, payload: bytes = b'', *, fin: bool = True, first: int = 0) -> bytes:
    """A frame as a server sends it; `first` is added to its first byte."""
    head = bytes([(FIN if fin else 0) | opcode | first])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 65536:
        return head + b'\x7e' + struct.pack('!H', len(payload)) + payload
    return head + b'\x7f' + struct.pack('!Q', len(payload)) + payload


@pytest.fixture(params=engines.ENGINES)
def name(request: pytest.FixtureRequest) -> str:
    """The engine's name."""
    return request.param


def reader(name: str, limit: int = 100_000) -> Engine:
    return engines.load(name)(limit)


def replies(of: Engine) -> list[Frame]:
    """The frames that are to be sent, as a server reads them."""
    server = ServerProtocol(state=State.OPEN, max_size=None)
    server.receive_data(b''.join(of.replies))
    return [event for event in server.events_received() if isinstance(event, Frame)]


def closed_with(of: Engine) -> int | None:
    """The code of the close frame that is to be sent."""
    [close] = [one for one in replies(of) if one.opcode is Opcode.CLOSE]
    return int.from_bytes(close.data[:2], 'big') if close.data else None


@pytest.mark.parametrize('size', [0, 1, 125, 126, 65535, 65536, 90_000])
@pytest.mark.parametrize('opcode', [TEXT, BINARY])
def test_messages_of_any_size_are_read(name: str, size: int, opcode: int) -> None:
    payload = b'x' * size
    assert reader(name).receive(frame(opcode, payload)) == [Payload(payload, opcode == BINARY)]


def test_it_does_not_matter_how_the_bytes_come(name: str) -> None:
    text = 'κόσμε'.encode()
    sent = [
        frame(TEXT, text[:3], fin=False),
        frame(PING, b'between'),
        frame(CONTINUATION, text[3:4], fin=False),
        frame(CONTINUATION, text[4:]),
        frame(BINARY, os.urandom(70_000)),
        frame(CONTINUATION | BINARY, b''),
    ]
    stream = b''.join(sent)
    whole = reader(name).receive(stream)
    assert [message.binary for message in whole] == [False, True, True]
    assert whole[0].data == text
    for seed in range(20):
        generator = random.Random(seed)
        one, got, start = reader(name), [], 0
        while start < len(stream):
            end = start + generator.choice([1, 2, 3, 7, 1000, 60_000])
            got += one.receive(stream[start:end])
            start = end
        assert got == whole
        assert [(reply.opcode, reply.data) for reply in replies(one)] == [(Opcode.PONG, b'between')]


@pytest.mark.parametrize(
    'sent',
    [
        frame(TEXT, b'\xff'),
        frame(TEXT, b'\xce'),
        frame(TEXT, b'\xed\xa0\x80'),
        frame(TEXT, b'\xf4\x90', fin=False),
        frame(TEXT, b'\xce', fin=False) + frame(CONTINUATION, b''),
        frame(TEXT, b'a', fin=False) + frame(CONTINUATION, b'\x80'),
        frame(CLOSE, b'\x03\xe8\xff'),
    ],
)
def test_text_that_is_not_utf8_ends_the_connection(name: str, sent: bytes) -> None:
    one = reader(name)
    assert one.receive(sent) == []
    assert one.is_over
    assert one.close_code == closed_with(one) == engines.INVALID_PAYLOAD


@pytest.mark.parametrize(
    'sent',
    [
        *(frame(TEXT, first=bit) for bit in (0x10, 0x20, 0x40)),
        *(frame(opcode) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        *(frame(opcode, fin=False) for opcode in (CLOSE, PING, PONG)),
        bytes([FIN | PING, 126]) + struct.pack('!H', 126),
        frame(CONTINUATION),
        frame(TEXT, fin=False) + frame(TEXT),
        frame(BINARY, b'x') + frame(CONTINUATION, b'x'),
        bytes([FIN | TEXT, 0x81, 1, 2, 3, 4, 5]),
        bytes([FIN | TEXT, 126]) + struct.pack('!H', 125),
        bytes([FIN | TEXT, 127]) + struct.pack('!Q', 65535),
        bytes([FIN | TEXT, 127]) + struct.pack('!Q', 1 << 63),
        frame(CLOSE, b'\x03'),
        *(frame(CLOSE, struct.pack('!H', code)) for code in (0, 999, 1004, 1005, 1006, 1015)),
        *(frame(CLOSE, struct.pack('!H', code)) for code in (1016, 2999, 5000, 65535)),
    ],
)
def test_frames_that_break_the_protocol_end_the_connection(name: str, sent: bytes) -> None:
    one = reader(name)
    one.receive(sent)
    assert one.is_over
    assert one.close_code == closed_with(one) == engines.PROTOCOL_ERROR


@pytest.mark.parametrize('code', [1000, 1001, 1003, 1007, 1011, 1012, 1014, 3000, 4003, 4999])
def test_a_close_is_answered_with_its_own_code(name: str, code: int) -> None:
    one = reader(name)
    one.receive(frame(CLOSE, struct.pack('!H', code) + 'Schluß'.encode()))
    assert (one.is_over, one.close_code, one.close_reason) == (True, code, 'Schluß')
    assert closed_with(one) == code


def test_a_close_without_a_code_is_answered_without_one(name: str) -> None:
    one = reader(name)
    one.receive(frame(CLOSE))
    assert one.close_code == engines.NO_STATUS_RECEIVED
    assert closed_with(one) is None


def test_after_its_own_close_it_answers_nothing(name: str) -> None:
    one = reader(name)
    one.encode_close(1000)
    one.receive(frame(PING) + frame(CLOSE, b'\x03\xe8'))
    assert one.replies == []
    assert one.is_over


def test_nothing_is_read_after_a_close(name: str) -> None:
    one = reader(name)
    assert one.receive(frame(CLOSE) + frame(TEXT, b'late')) == []
    assert one.receive(frame(TEXT, b'later')) == []


def test_an_end_without_a_close_is_told_apart(name: str) -> None:
    one = reader(name)
    assert one.receive(b'') == []
    assert (one.is_over, one.close_code) == (True, engines.ABNORMAL_CLOSURE)


def test_pongs_are_counted(name: str) -> None:
    one = reader(name)
    one.receive(frame(PONG) + frame(PONG, b'unasked'))
    assert one.pongs == 2
    assert one.replies == []


@pytest.mark.parametrize(
    'sent',
    [
        frame(BINARY, b'x' * 1001)[:10],
        frame(TEXT, b'x' * 600, fin=False) + frame(CONTINUATION, b'x' * 401)[:10],
        bytes([FIN | BINARY, 127]) + struct.pack('!Q', 1 << 62),
    ],
)
def test_a_message_that_is_too_long_is_refused_before_it_is_received(
    name: str, sent: bytes
) -> None:
    one = reader(name, limit=1000)
    one.receive(sent)
    assert one.close_code == closed_with(one) == engines.MESSAGE_TOO_BIG


def test_a_message_in_too_many_frames_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module(f'{engines.__name__}.{name}'), 'MAX_FRAGMENTS', 10)
    one = reader(name)
    one.receive(frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 10)
    assert one.close_code == engines.MESSAGE_TOO_BIG


@pytest.mark.parametrize('size', [0, 1, 3, 4, 5, 125, 126, 65536])
@pytest.mark.parametrize('binary', [False, True])
def test_a_server_reads_what_is_built(name: str, size: int, binary: bool) -> None:
    payload = bytes(range(32, 127)) * (size // 95 + 1)
    server = ServerProtocol(state=State.OPEN)
    server.receive_data(reader(name).encode(payload[:size], binary=binary))
    [event] = server.events_received()
    assert isinstance(event, Frame)
    assert (event.opcode, event.data) == (Opcode.BINARY if binary else Opcode.TEXT, payload[:size])


def test_no_two_frames_are_masked_alike(name: str) -> None:
    engine = reader(name)
    built = {engine.encode(b'payload', binary=True) for _ in range(100)}
    assert len(built) == 100


def test_a_reason_that_is_too_long_is_cut_between_characters(name: str) -> None:
    server = ServerProtocol(state=State.OPEN)
    server.receive_data(reader(name).encode_close(1000, 'ß' * 100))
    [event] = server.events_received()
    assert isinstance(event, Frame)
    assert event.data[2:].decode() == 'ß' * 61
