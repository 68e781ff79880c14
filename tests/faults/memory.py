"""How much memory a server needs."""

from __future__ import annotations

import pathlib
import time

import psutil

MB = 1_000_000
KIB = 1024


def resident(pid: int) -> int:
    """The resident memory, in bytes, of a process and its children."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return sum(member.memory_info().rss for member in family)


def settled(pid: int) -> int:
    """The same once what is being dealt with has been: the least within half a second."""
    deadline = time.monotonic() + 0.5
    least = resident(pid)
    while time.monotonic() < deadline:
        time.sleep(0.02)
        least = min(least, resident(pid))
    return least


class Peak:
    """The most memory that a process has been resident with since this was made."""

    def __init__(self, pid: int) -> None:
        self._directory = pathlib.Path('/proc', str(pid))
        (self._directory / 'clear_refs').write_text('5')
        self.before = self.bytes

    @property
    def bytes(self) -> int:
        lines = (self._directory / 'status').read_text().splitlines()
        [line] = [line for line in lines if line.startswith('VmHWM:')]
        return int(line.split()[1]) * KIB

    @property
    def growth(self) -> int:
        return self.bytes - self.before
