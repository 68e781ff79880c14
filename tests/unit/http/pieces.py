"""A stream without a socket."""

from __future__ import annotations

from zaqar_gevent.http.stream import Stream


class Pieces(Stream):
    """Has `data` to read, in pieces of at most `size` bytes, and then its end.

    asked: how many bytes were asked for, each time.
    """

    __slots__ = ('_data', '_size', 'asked')

    def __init__(self, data: bytes, size: int) -> None:
        self._data = memoryview(data)
        self._size = size
        self.asked: list[int] = []
        self.received = b''
        self.is_over = False
        self.is_late = False

    def read(self, size: int) -> bytes:
        """The next piece."""
        self.asked.append(size)
        taken = bytes(self._data[: min(size, self._size)])
        self._data = self._data[len(taken) :]
        return taken

    def rest(self) -> bytes:
        """What does not belong to anything yet."""
        return self.received + bytes(self._data)
