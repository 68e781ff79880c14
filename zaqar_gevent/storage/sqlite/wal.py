"""SQLite's write-ahead log as a file: how long it is, and the turns of those who write to it.

SQLite's own locks are on the other two files, so that this one may be opened and closed.
"""

from __future__ import annotations

import os
import time

from zaqar_gevent.storage.sqlite.write_lock import WriteLock

_HEAD_BYTES = 32
_FRAME_HEAD_BYTES = 24


class Wal:
    """One thread's view of the log of the database at `path`."""

    def __init__(self, path: str) -> None:
        # Closed with the last reference.
        self._file = open(f'{path}-wal', 'rb+', buffering=0)  # noqa: SIM115
        self.write_lock = WriteLock(self._file.fileno())

    def close(self) -> None:
        self.write_lock.release()
        self._file.close()

    def sync(self) -> None:
        """Have what has been written to it outlive a power cut.

        What a checkpoint has moved out of it meanwhile does so already.
        """
        os.fdatasync(self._file.fileno())

    def has_frames(self, count: int) -> bool:
        """Whether at least `count` pages have been written to it since it last began anew.

        What is left of before is told by its salt: https://sqlite.org/fileformat2.html#walformat
        """
        descriptor = self._file.fileno()
        head = os.pread(descriptor, _HEAD_BYTES, 0)
        if len(head) < _HEAD_BYTES:
            return False
        size = int.from_bytes(head[8:12], 'big') + _FRAME_HEAD_BYTES
        frame = os.pread(descriptor, _FRAME_HEAD_BYTES, _HEAD_BYTES + (count - 1) * size)
        return len(frame) == _FRAME_HEAD_BYTES and frame[8:16] == head[16:24]

    def is_idle(self, seconds: float) -> bool:
        """Whether there is something in it, but no process has written to it for `seconds`."""
        found = os.fstat(self._file.fileno())
        return found.st_size > 0 and time.time() - found.st_mtime > seconds
