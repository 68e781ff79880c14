"""How much memory a server needs."""

from __future__ import annotations

import psutil

MB = 1_000_000


def resident(pid: int) -> int:
    """The resident memory, in bytes, of a process and its children."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return sum(member.memory_info().rss for member in family)
