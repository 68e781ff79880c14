"""The journal beside an SQLite file (its write-ahead log), up to where it can be believed.

Its format is described in https://sqlite.org/fileformat2.html#the_write_ahead_log.
"""

from __future__ import annotations

import array
import struct
import sys
from typing import NamedTuple

_HEAD = struct.Struct('>8I')
_FRAME_HEAD = struct.Struct('>6I')
_MAGIC = 0x377F0682
_WORD = 0xFFFFFFFF

_Sums = tuple[int, int]


class Break(NamedTuple):
    """Where a journal ends before its end.

    frame: the number of the first frame that was changed, from 1. transactions: how many are in it
        and behind it.
    """

    frame: int
    transactions: int


def find_break(content: bytes) -> Break | None:
    """Where SQLite would end when it reads this journal anew; None at its end.

    Behind the valid frames there may be frames of an earlier round.
    """
    if len(content) < _HEAD.size:
        return None
    magic, _, page_size, _, *rest = _HEAD.unpack_from(content)
    if magic & ~1 != _MAGIC:
        return None
    salts, is_big = tuple(rest[:2]), bool(magic & 1)
    sums = _sum((0, 0), content[: _HEAD.size - 8], is_big)
    size = _FRAME_HEAD.size + page_size
    starts = range(_HEAD.size, len(content) - size + 1, size)
    for number, start in enumerate(starts, 1):
        if _salts(content, start) != salts:
            return None
        sums = _sum(sums, content[start : start + 8], is_big)
        sums = _sum(sums, content[start + _FRAME_HEAD.size : start + size], is_big)
        if sums != _FRAME_HEAD.unpack_from(content, start)[4:]:
            return Break(number, _count_ends(content, starts[number - 1 :], salts))
    return None


def _salts(content: bytes, start: int) -> tuple[int, ...]:
    return _FRAME_HEAD.unpack_from(content, start)[2:4]


def _count_ends(content: bytes, starts: range, salts: tuple[int, ...]) -> int:
    """How many of the frames are the last of a transaction of this round."""
    ends = 0
    for start in starts:
        if _salts(content, start) != salts:
            break
        # The size of the file after it is in the last frame only.
        ends += _FRAME_HEAD.unpack_from(content, start)[1] != 0
    return ends


def _sum(sums: _Sums, data: bytes, is_big: bool) -> _Sums:
    words = array.array('I', data)
    if is_big != (sys.byteorder == 'big'):
        words.byteswap()
    first, second = sums
    for index in range(0, len(words), 2):
        first = (first + words[index] + second) & _WORD
        second = (second + words[index + 1] + first) & _WORD
    return first, second
