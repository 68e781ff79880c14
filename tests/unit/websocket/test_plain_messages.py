"""The way around the library that plain messages take leads to where the library's does."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterable
from typing import NamedTuple

import pytest

from zaqar_gevent.websocket.engines import FrameLimits, WebSocketMessage
from zaqar_gevent.websocket.engines.websockets import FrameEngine, plain_message

LIMITS = FrameLimits(70_000, 66_000, 8)
TEXT, BINARY, CONTINUATION, CLOSE, PING = 0x81, 0x82, 0x80, 0x88, 0x89


def frame(first: int, payload: bytes, *, masked: bool = True, mask: bytes = b'wxyz') -> bytes:
    """One frame, its length in the shortest form."""
    size, flag = len(payload), 0x80 if masked else 0
    if size < 126:
        head = bytes((first, flag | size))
    elif size < 0x10000:
        head = struct.pack('!BBH', first, flag | 126, size)
    else:
        head = struct.pack('!BBQ', first, flag | 127, size)
    if not masked:
        return head + payload
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


FRAMES = {
    'empty text': frame(TEXT, b''),
    'text': frame(TEXT, 'snö ☃'.encode()),
    'binary': frame(BINARY, bytes(range(125))),
    '16 bits of length': frame(TEXT, b'x' * 126),
    'the most of 16 bits': frame(BINARY, b'x' * 0xFFFF),
    '64 bits of length': frame(BINARY, b'x' * 0x10000),
    'fragments': frame(0x01, b'be') + frame(PING, b'') + frame(CONTINUATION, b'gun'),
    'ping': frame(PING, b'?'),
}
ENDS = {
    'nothing': b'',
    'close': frame(CLOSE, b'\x03\xe8'),
    'close without a code': frame(CLOSE, b''),
    'going away': frame(CLOSE, b'\x03\xe9'),
    'close with a reason': frame(CLOSE, b'\x03\xe8done'),
    'close with a code that none may have': frame(CLOSE, b'\x03\xed'),
    'close with half a code': frame(CLOSE, b'\x03'),
    'close that is not masked': frame(CLOSE, b'\x03\xe8', masked=False),
    'more after a close': frame(CLOSE, b'\x03\xe8') + frame(TEXT, b'x'),
    'not masked': frame(TEXT, b'x', masked=False),
    'reserved bit': frame(TEXT | 0x40, b'x'),
    'reserved opcode': frame(0x83, b'x'),
    'not UTF-8': frame(TEXT, b'\xff'),
    'too long': frame(BINARY, b'x' * 66_001),
    'length not in the shortest form': b'\x81\xfe\x00\x01wxyz' + b'x',
    'continuation of nothing': frame(CONTINUATION, b'x'),
}


class Outcome(NamedTuple):
    """What an engine makes of data: messages, its own frames, whether it ends the stream, the close
    code, and the same frames and code once the client has ended the stream as well.
    """

    messages: list[WebSocketMessage]
    frames: bytes
    ends: bool
    code: int | None
    last_frames: bytes
    last_code: int | None


def outcome(data: Iterable[bytes]) -> Outcome:
    """What an engine makes of data that comes in pieces."""
    engine = FrameEngine(LIMITS)
    messages = [message for piece in data for message in engine.receive(piece)]
    outgoing, code = engine.outgoing(), engine.close_code
    assert engine.is_open is (code is None)
    assert not engine.is_over
    assert not list(engine.receive(b''))
    assert engine.is_over
    frames, last_frames = b''.join(outgoing), b''.join(engine.outgoing())
    return Outcome(messages, frames, b'' in outgoing, code, last_frames, engine.close_code)


def by_the_library(data: bytes) -> Outcome:
    """The same, in single bytes, of which none is a message."""
    return outcome(data[place : place + 1] for place in range(len(data)))


@pytest.mark.parametrize('end', ENDS)
@pytest.mark.parametrize('name', FRAMES)
def test_frames_in_one_piece_are_what_they_are_in_single_bytes(name: str, end: str) -> None:
    stream = FRAMES[name] + ENDS[end]
    assert outcome([stream]) == by_the_library(stream)


@pytest.mark.parametrize('seed', range(50))
def test_frames_are_the_same_however_they_are_cut(seed: int) -> None:
    chance = random.Random(seed)
    names = [name for name in FRAMES if 'most' not in name and '64' not in name]
    stream = b''.join(FRAMES[chance.choice(names)] for _ in range(10))
    stream += ENDS[chance.choice(list(ENDS))]
    cuts = sorted(chance.randrange(len(stream)) for _ in range(chance.randrange(8)))
    bounds = [0, *cuts, len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(bounds)]
    assert outcome(piece for piece in pieces if piece) == by_the_library(stream)


@pytest.mark.parametrize(
    'name', ['empty text', 'text', 'binary', '16 bits of length', '64 bits of length']
)
def test_a_plain_message_takes_the_short_way(name: str) -> None:
    data = FRAMES[name]
    found = plain_message(b'..' + data + b'..', 2, LIMITS.message_bytes)
    assert found is not None
    binary, payload, end = found
    assert end == 2 + len(data)
    assert [WebSocketMessage(payload, binary)] == by_the_library(data).messages


def test_connections_with_other_limits_do_not_hear_of_each_other() -> None:
    """What reads frames that are not plain serves one connection after the other."""
    for limit in (100, 1000, 100):
        engine = FrameEngine(FrameLimits(limit, limit, 8))
        assert not list(engine.receive(FRAMES['ping']))
        assert engine.outgoing() == [b'\x8a\x01?']
        assert list(engine.receive(FRAMES['text'])) == [
            WebSocketMessage('snö ☃'.encode(), binary=False)
        ]
        assert not list(engine.receive(frame(BINARY, b'x' * limit)[:8]))
        assert engine.is_open
        [message] = engine.receive(frame(BINARY, b'x' * limit)[8:])
        assert len(message.payload) == limit
        assert not list(engine.receive(frame(BINARY, b'x' * (limit + 1))))
        assert engine.close_code == 1009


def test_what_is_not_plain_or_not_whole_does_not() -> None:
    assert plain_message(FRAMES['16 bits of length'], 0, 125) is None
    for name in ('fragments', 'ping'):
        assert plain_message(FRAMES[name], 0, LIMITS.message_bytes) is None
    for end in set(ENDS.values()) - {ENDS['too long']}:
        assert plain_message(end, 0, LIMITS.message_bytes) is None
    for name in ('empty text', 'text', '16 bits of length'):
        data = FRAMES[name]
        for size in range(len(data)):
            assert plain_message(data[:size], 0, LIMITS.message_bytes) is None


@pytest.mark.parametrize('end', ENDS)
@pytest.mark.parametrize('cuts', [[6], [8], [14], [20, 21], [300], [65_000], [10, 65_535, 65_540]])
@pytest.mark.parametrize('name', ['16 bits of length', 'the most of 16 bits', '64 bits of length'])
def test_a_long_message_in_pieces_is_what_it_is_in_single_bytes(
    name: str, cuts: list[int], end: str
) -> None:
    stream = FRAMES['text'] + FRAMES[name] + ENDS[end]
    bounds = [0, *(len(FRAMES['text']) + cut for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(bounds)]
    assert outcome(piece for piece in pieces if piece) == by_the_library(stream)


def test_what_is_missing_of_a_message_is_known_until_it_has_come() -> None:
    engine = FrameEngine(LIMITS)
    data = FRAMES['64 bits of length']
    assert [*engine.receive(data[:100])] == []
    assert engine.missing == len(data) - 100
    assert [*engine.receive(data[100:1000])] == []
    assert engine.missing == len(data) - 1000
    assert len([*engine.receive(data[1000:] + FRAMES['text'])]) == 2
    assert engine.missing == 0


@pytest.mark.parametrize('is_closed', [False, True])
def test_a_message_that_is_cut_off_is_none(is_closed: bool) -> None:
    engine = FrameEngine(LIMITS)
    data = FRAMES['64 bits of length']
    assert [*engine.receive(data[:100])] == []
    if is_closed:
        engine.close(1000)
        assert engine.missing == 0
        assert [*engine.receive(data[100:])] == []
        assert [*engine.receive(ENDS['close'])] == []
    else:
        assert [*engine.receive(b'')] == []
    assert engine.close_code == (1000 if is_closed else 1006)
    assert engine.is_over or is_closed
