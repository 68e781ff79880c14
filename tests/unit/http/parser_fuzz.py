"""The C parser, given anything: `python -m tests.unit.http.parser_fuzz COUNT`.

Prints its resident memory in bytes after a fifth of the inputs, and after all of them. Whatever
the parser reads or writes past the end of an input ends the process with a signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import random
import sys

import gunicorn_h1c
import psutil

from tests.unit.http.mutations import Mutations
from tests.unit.http.pieces import Pieces
from zaqar_gevent.http.body import BrokenBody, ChunkedBody
from zaqar_gevent.http.head import Limits, Refused, read_head

_ROOM = 64 * 1024
_NO_ACCESS = 0
_LIMITS = Limits(head_bytes=_ROOM)


class Cliff:
    """Memory behind which there is none."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _ROOM + mmap.PAGESIZE)
        edge = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)) + _ROOM
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(edge), mmap.PAGESIZE, _NO_ACCESS):
            raise OSError(ctypes.get_errno(), 'mprotect')

    def put(self, data: bytes) -> memoryview:
        """`data`, the last byte of which is at the edge."""
        place = memoryview(self._memory)[_ROOM - len(data) : _ROOM]
        place[:] = data
        return place


def _input(seed: int) -> bytes:
    mutations = Mutations(seed)
    chance = random.Random(-1 - seed)
    if seed % 5 == 0:
        return mutations.noise()
    data = mutations.mutated()
    if seed % 5 == 1:
        return data[: chance.randrange(len(data) + 1)]
    if seed % 50 == 2:
        # Many lines, or long ones.
        lines = data.split(b'\r\n')
        place = chance.randrange(len(lines))
        much = chance.choice((lines[place] + b'\r\n', lines[place]))
        lines[place] = (much * 2000)[: _ROOM // 2]
        return b'\r\n'.join(lines)
    return data


def _read(data: bytes, cliff: Cliff) -> None:
    with contextlib.suppress(Refused):
        read_head(data, _LIMITS)
    with contextlib.suppress(BrokenBody):
        ChunkedBody(Pieces(data.partition(b'\r\n\r\n')[2], 1000), None).read()
    for parse in (gunicorn_h1c.parse_request, gunicorn_h1c.parse_headers):
        with contextlib.suppress(gunicorn_h1c.ParseError, gunicorn_h1c.IncompleteError):
            parse(cliff.put(data))


def main() -> None:
    """Parse so many inputs."""
    count = int(sys.argv[1])
    cliff = Cliff()
    process = psutil.Process()
    for seed in range(count):
        _read(_input(seed), cliff)
        if seed == count // 5:
            print(process.memory_info().rss, flush=True)
    print(process.memory_info().rss)


if __name__ == '__main__':
    main()
