"""Bodies of requests: of a known length, or in chunks (RFC 9112, sections 6 and 7)."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from typing import Any, cast

import gevent
import gunicorn_h1c

from zaqar_gevent.greenlets import MOMENT
from zaqar_gevent.http.stream import Stream
from zaqar_gevent.sockets.received import FREE_BYTES, Reservation

_READ_BYTES = 64 * 1024
# Of a long body as much as this, and then others have their turn.
_READ_LONG_BYTES = 256 * 1024
_LONG_BYTES = 1024 * 1024
# PERF: what is read for a line stays little: the rest of it is copied for each line and chunk.
_READ_LINE_BYTES = 4 * 1024
_CHUNK_SIZE = re.compile(rb'([0-9A-Fa-f]{1,15})(;[\t\x20-\x7e\x80-\xff]*)?')
_MAX_LINE_BYTES = 1024
# The most bytes of extensions and trailers that a body in chunks may have.
_MAX_EXTRA_BYTES = 16 * 1024
# Headers that are not allowed in trailers: framing and routing (RFC 9110, section 6.5.1).
_NO_TRAILERS = frozenset((b'content-length', b'transfer-encoding', b'host'))


class BrokenBody(OSError):
    """A body ends early, or is not in chunks; where the next request begins is not known."""


class LateBody(BrokenBody, TimeoutError):
    """A body ends early because the client was too slow."""


class Body(io.RawIOBase):
    """A body that is read from `stream`: WSGI's `wsgi.input`.

    invite: called before the first byte is waited for, where the client waits to be asked.
    take_room: called before more than FREE_BYTES of it are received, with how many there may be.
    is_whole: whether all of it has been read.
    reservation: the room that it has, if it needs any.
    """

    def __init__(
        self,
        stream: Stream,
        invite: Callable[[], None] | None,
        take_room: Callable[[int], Reservation] | None = None,
    ) -> None:
        self._stream = stream
        self._invite = invite
        self._take_room = take_room
        self._is_broken = False
        self.reservation: Reservation | None = None
        self.is_whole = False

    def is_skippable(self, most: int) -> bool:
        """Whether the rest can be read and forgotten, and is at most `most` bytes if known."""
        return self.is_whole or not (self._is_broken or self._invite is not None)

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        """`size` bytes, or what is left of the body; raises `BrokenBody`.

        What is long may be a `bytearray`.
        """
        left = self._bound(size if size is not None and size >= 0 else None)
        if left == 0:
            return b''
        data = self._read_some(_READ_BYTES if left is None else min(left, FREE_BYTES))
        if left is not None and len(data) == left:
            return data
        # Not a list of the pieces: of two bytes each it would be twenty times as long.
        gathered = bytearray(data)
        while data and (left is None or len(gathered) < left):
            data = self._read_some(min(self._may_read(len(gathered), left), _READ_LONG_BYTES))
            gathered += data
            if len(data) == _READ_LONG_BYTES:
                gevent.sleep(MOMENT)
        if self.reservation is not None:
            self.reservation.has_come()
        # PERF: to copy ten megabytes into new memory would keep all others waiting.
        return bytes(gathered) if len(gathered) < _LONG_BYTES else cast('bytes', gathered)

    def _may_read(self, gathered: int, most: int | None) -> int:
        """How much may be read now, of `most` bytes in all; waits for room where it is needed."""
        left = _READ_BYTES if most is None else most - gathered
        if self.reservation is not None:
            self.reservation.moved_at = time.monotonic()
        elif self._take_room is not None:
            if gathered < FREE_BYTES:
                return min(left, FREE_BYTES - gathered)
            self.reservation = self._take_room(_READ_BYTES if most is None else most)
        return left

    def _bound(self, size: int | None) -> int | None:
        """How much a read of `size` bytes, None for all, may give; None where it is not known."""
        return size

    def readinto(self, buffer: Any) -> int:
        data = self._read_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def discard(self, most: int) -> bool:
        """Read and forget the rest, unless it is more than `most` bytes; whether it is whole."""
        try:
            while not self.is_whole and most > 0:
                most -= len(self._read_some(_READ_BYTES))
        except OSError:
            return False
        return self.is_whole

    def _read_some(self, size: int) -> bytes:
        """Some of the body, at most `size` bytes; nothing at its end."""
        if self.is_whole:
            return b''
        if self._invite is not None:
            invite, self._invite = self._invite, None
            if not self._stream.received:
                invite()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        raise NotImplementedError

    def _take_of(self, length: int, size: int) -> bytes:
        data = self._stream.take(min(length, size))
        if not data:
            if self.reservation is not None:
                self.reservation.check()
            raise self._cut_short()
        return data

    def _cut_short(self) -> BrokenBody:
        if not self._stream.is_late:
            return self._broken('it ends early')
        self._is_broken = True
        return LateBody('it came too slowly')

    def _broken(self, reason: str) -> BrokenBody:
        self._is_broken = True
        return BrokenBody(reason)


class SizedBody(Body):
    """A body of `length` bytes."""

    def __init__(
        self,
        stream: Stream,
        length: int,
        invite: Callable[[], None] | None,
        take_room: Callable[[int], Reservation] | None = None,
    ) -> None:
        super().__init__(stream, invite, take_room)
        self._left = length
        self.is_whole = not length

    def _bound(self, size: int | None) -> int:
        return self._left if size is None else min(size, self._left)

    def is_skippable(self, most: int) -> bool:
        return super().is_skippable(most) and self._left <= most

    def _take(self, size: int) -> bytes:
        data = self._take_of(self._left, size)
        self._left -= len(data)
        self.is_whole = not self._left
        return data


class _NoBody(SizedBody):
    """PERF: one for all requests without a body."""

    def __init__(self) -> None:
        super().__init__(Stream.__new__(Stream), 0, None)

    def close(self) -> None:
        """It is used again."""


NO_BODY = _NoBody()


class ChunkedBody(Body):
    """A body in chunks; their extensions, and the trailers, are checked and ignored."""

    def __init__(
        self,
        stream: Stream,
        invite: Callable[[], None] | None,
        take_room: Callable[[int], Reservation] | None = None,
    ) -> None:
        super().__init__(stream, invite, take_room)
        self._left = 0
        self._is_first = True
        self._extra = 0

    def _take(self, size: int) -> bytes:
        if not self._left and not self._begin_chunk():
            self._skip_trailers()
            self.is_whole = True
            return b''
        data = self._take_of(self._left, size)
        self._left -= len(data)
        return data

    def _begin_chunk(self) -> bool:
        """Read up to the next chunk's data; False for the last one, which has none."""
        if self._is_first:
            self._is_first = False
        elif self._read_line() != b'':
            raise self._broken('a chunk is longer than it says')
        line = self._read_line()
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise self._broken('the size of a chunk is malformed')
        self._count_extra(len(match[2] or b''))
        self._left = int(match[1], 16)
        return self._left > 0

    def _read_line(self) -> bytes:
        """The next line, without its end."""
        stream = self._stream
        while (end := stream.received.find(b'\r\n', 0, _MAX_LINE_BYTES)) < 0:
            if b'\n' in stream.received or len(stream.received) >= _MAX_LINE_BYTES:
                raise self._broken('a line of a chunk is malformed')
            if not stream.fill(_READ_LINE_BYTES):
                raise self._cut_short()
        line = stream.received[:end]
        stream.received = stream.received[end + 2 :]
        return line

    def _skip_trailers(self) -> None:
        trailers = []
        while line := self._read_line():
            self._count_extra(len(line))
            trailers.append(line)
        if trailers:
            try:
                fields = gunicorn_h1c.parse_headers(b'\r\n'.join([*trailers, b'', b'']))
            except (gunicorn_h1c.ParseError, gunicorn_h1c.IncompleteError):
                raise self._broken('a trailer is malformed') from None
            if any(name.lower() in _NO_TRAILERS for name, _ in fields):
                raise self._broken('a trailer says what only a head may')

    def _count_extra(self, size: int) -> None:
        self._extra += size
        if self._extra > _MAX_EXTRA_BYTES:
            raise self._broken('its chunks have too many extensions or trailers')
