"""Bodies of requests, and where they end."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from tests.unit.http.pieces import Pieces
from zaqar_gevent.http.body import BrokenBody, ChunkedBody, SizedBody

BEHIND = b'GET / HTTP/1.1\r\n'

CHUNKS = {
    'one': b'3\r\nabc\r\n0\r\n\r\n',
    'several': b'1\r\na\r\n2\r\nbc\r\n0\r\n\r\n',
    'leading zeros': b'00000003\r\nabc\r\n000\r\n\r\n',
    'extensions': b'3;a\r\nabc\r\n0;b=c;d="e f"\r\n\r\n',
    'bytes over 127 in an extension': b'3;a=\xe9\r\nabc\r\n0\r\n\r\n',
    'trailers': b'3\r\nabc\r\n0\r\nX-A: 1\r\nX-B:\r\n\r\n',
}


@pytest.mark.parametrize('piece_size', [1, 3, 1000])
@pytest.mark.parametrize('chunks', CHUNKS.values(), ids=CHUNKS)
def test_chunks_are_one_body(chunks: bytes, piece_size: int) -> None:
    stream = Pieces(chunks + BEHIND, piece_size)
    body = ChunkedBody(stream, None)
    assert body.read() == b'abc'
    assert body.read() == b''
    assert body.is_whole
    assert stream.rest() == BEHIND


def test_sizes_of_chunks_are_in_either_case() -> None:
    data = bytes(range(0xAB))
    wire = b'aB\r\n' + data + b'\r\nAb\r\n' + data + b'\r\n0\r\n\r\n'
    assert ChunkedBody(Pieces(wire, 7), None).read() == data + data


BROKEN = {
    'no size': b'\r\nabc\r\n0\r\n\r\n',
    'no size but an extension': b';a\r\nabc\r\n0\r\n\r\n',
    'size below zero': b'-3\r\nabc\r\n0\r\n\r\n',
    'size with a plus': b'+3\r\nabc\r\n0\r\n\r\n',
    'size with a prefix': b'0x3\r\nabc\r\n0\r\n\r\n',
    'size with an underscore': b'0_3\r\nabc\r\n0\r\n\r\n',
    'space before a size': b' 3\r\nabc\r\n0\r\n\r\n',
    'space behind a size': b'3 \r\nabc\r\n0\r\n\r\n',
    'size past all numbers': b'1' * 17 + b'\r\nabc\r\n0\r\n\r\n',
    'no number for a size': b'g\r\nabc\r\n0\r\n\r\n',
    'NUL behind a size': b'3\x00\r\nabc\r\n0\r\n\r\n',
    'byte over 127 for a size': b'\xb3\r\nabc\r\n0\r\n\r\n',
    'LF behind a size': b'3\nabc\r\n0\r\n\r\n',
    'CR behind a size': b'3\rabc\r\n0\r\n\r\n' + b'x' * 2000,
    'CR CR LF behind a size': b'3\r\r\nabc\r\n0\r\n\r\n',
    'LF in an extension': b'3;a\nb\r\nabc\r\n0\r\n\r\n',
    'CR in an extension': b'3;a\rb\r\nabc\r\n0\r\n\r\n',
    'NUL in an extension': b'3;a\x00b\r\nabc\r\n0\r\n\r\n',
    'comma for a semicolon': b'3,a\r\nabc\r\n0\r\n\r\n',
    'extension that is too long': b'3;' + b'a' * 2000 + b'\r\nabc\r\n0\r\n\r\n',
    'extensions that are too long together': (b'1;' + b'a' * 900 + b'\r\na\r\n') * 40
    + b'0\r\n\r\n',
    'chunk that is too long': b'3\r\nabcd\r\n0\r\n\r\n',
    'chunk that is too short': b'3\r\nab\r\n0\r\n\r\n' + b'x' * 2000,
    'LF behind a chunk': b'3\r\nabc\n0\r\n\r\n',
    'CR behind a chunk': b'3\r\nabc\r0\r\n\r\n' + b'x' * 2000,
    'nothing behind a chunk': b'3\r\nabc0\r\n\r\n',
    'end': b'3\r\nabc\r\n',
    'end in a chunk': b'3\r\nab',
    'end in the trailers': b'3\r\nabc\r\n0\r\nX-A: 1\r\n',
    'LF behind the last chunk': b'3\r\nabc\r\n0\n\n',
    'LF for the last line': b'3\r\nabc\r\n0\r\n\n',
    'LF behind a trailer': b'3\r\nabc\r\n0\r\nX-A: 1\n\r\n',
    'space before the colon of a trailer': b'3\r\nabc\r\n0\r\nX-A : 1\r\n\r\n',
    'trailer without a colon': b'3\r\nabc\r\n0\r\nX-A\r\n\r\n',
    'trailer without a name': b'3\r\nabc\r\n0\r\n: 1\r\n\r\n',
    'folded trailer': b'3\r\nabc\r\n0\r\nX-A: 1\r\n 2\r\n\r\n',
    'NUL in a trailer': b'3\r\nabc\r\n0\r\nX-A: \x00\r\n\r\n',
    'CR in a trailer': b'3\r\nabc\r\n0\r\nX-A: a\rb\r\n\r\n',
    'request for a trailer': b'3\r\nabc\r\n0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n',
    'length for a trailer': b'3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n',
    'coding for a trailer': b'3\r\nabc\r\n0\r\ntransfer-encoding: chunked\r\n\r\n',
    'host for a trailer': b'3\r\nabc\r\n0\r\nHOST: a\r\n\r\n',
    'trailers that are too long': b'3\r\nabc\r\n0\r\n' + b'X-A: 1\r\n' * 4000 + b'\r\n',
}


@pytest.mark.parametrize('piece_size', [1, 1000])
@pytest.mark.parametrize('chunks', BROKEN.values(), ids=BROKEN)
def test_chunks_that_are_none_are_refused(chunks: bytes, piece_size: int) -> None:
    body = ChunkedBody(Pieces(chunks, piece_size), None)
    with pytest.raises(BrokenBody):
        body.read()
    assert not body.is_whole
    assert not body.is_skippable(2**20)


def test_a_body_ends_where_its_length_says() -> None:
    stream = Pieces(b'abc' + BEHIND, 2)
    body = SizedBody(stream, 3, None)
    assert body.read() == b'abc'
    assert body.is_whole
    assert stream.rest() == BEHIND


def test_small_chunks_cost_little_memory_and_let_others_run() -> None:
    """What a body takes depends on its size, and not on how it was cut."""
    wire = b'2\r\nab\r\n' * 100_000 + b'0\r\n\r\n'
    stream = Pieces(wire, 2**20)
    tracemalloc.start()
    body = ChunkedBody(stream, None).read()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert body == b'ab' * 100_000
    assert peak < 1_000_000
    assert max(stream.asked) <= 4096 + 2


def test_whoever_waits_to_be_asked_is_asked_once_and_only_if_nothing_has_come() -> None:
    asked: list[float] = []
    body = SizedBody(Pieces(b'abc', 1), 3, lambda: asked.append(time.monotonic()))
    assert not body.is_skippable(2**20)
    assert not asked
    assert body.read() == b'abc'
    assert len(asked) == 1
    early = Pieces(b'abc', 3)
    early.fill(3)
    assert SizedBody(early, 3, lambda: asked.append(0.0)).read() == b'abc'
    assert len(asked) == 1
