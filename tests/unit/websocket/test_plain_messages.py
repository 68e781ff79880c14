"""The way around the library that plain messages take leads to where the library's does."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterable

import pytest

from zaqar_gevent.websocket.engines import FrameLimits, Message
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
    'not masked': frame(TEXT, b'x', masked=False),
    'reserved bit': frame(TEXT | 0x40, b'x'),
    'reserved opcode': frame(0x83, b'x'),
    'not UTF-8': frame(TEXT, b'\xff'),
    'too long': frame(BINARY, b'x' * 66_001),
    'length not in the shortest form': b'\x81\xfe\x00\x01wxyz' + b'x',
    'continuation of nothing': frame(CONTINUATION, b'x'),
}


def outcome(data: Iterable[bytes]) -> tuple[list[Message], bytes, int | None]:
    """What an engine makes of data that comes in pieces: messages, its own frames, close code."""
    engine = FrameEngine(LIMITS)
    messages = [message for piece in data for message in engine.receive(piece)]
    return messages, b''.join(engine.outgoing()), engine.close_code


def by_the_library(data: bytes) -> tuple[list[Message], bytes, int | None]:
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


@pytest.mark.parametrize('name', ['empty text', 'text', 'binary', '16 bits of length'])
def test_a_plain_message_takes_the_short_way(name: str) -> None:
    data = FRAMES[name]
    found = plain_message(b'..' + data + b'..', 2, 200)
    assert found is not None
    binary, payload, end = found
    assert end == 2 + len(data)
    assert [Message(payload, binary)] == by_the_library(data)[0]


def test_what_is_not_plain_or_not_whole_does_not() -> None:
    assert plain_message(FRAMES['16 bits of length'], 0, 125) is None
    for name in ('64 bits of length', 'fragments', 'ping'):
        assert plain_message(FRAMES[name], 0, LIMITS.message_bytes) is None
    for end in set(ENDS.values()) - {ENDS['too long']}:
        assert plain_message(end, 0, LIMITS.message_bytes) is None
    for name in ('empty text', 'text', '16 bits of length'):
        data = FRAMES[name]
        for size in range(len(data)):
            assert plain_message(data[:size], 0, LIMITS.message_bytes) is None
