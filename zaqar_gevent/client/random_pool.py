"""Random bytes of the system's, got for many uses at once."""

from __future__ import annotations

import collections
import os

_PIECES = 256


class RandomPool:
    """Gives pieces of `size` random bytes, each once; any thread may take them.

    PERF: to ask the system for each piece costs more than the piece is worth, and lets go of the
    interpreter, which other threads then take.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._pieces: collections.deque[bytes] = collections.deque()
        # A forked process must not use the same ones.
        os.register_at_fork(after_in_child=self._pieces.clear)

    def take(self) -> bytes:
        """A piece that nobody else gets."""
        try:
            return self._pieces.pop()
        except IndexError:
            size = self._size
            data = os.urandom(_PIECES * size)
            self._pieces.extend(data[at : at + size] for at in range(size, len(data), size))
            return data[:size]
