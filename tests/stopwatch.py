"""How long something takes, on a machine that does other things as well."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterator

NANOSECOND = 1e-9


class Stopwatch:
    """Measures from when it is made, less what some threads waited for a processor meanwhile.

    They are those of this process and of others. What the machine does beside the tests makes them
    wait, and what they wait for each other, for a lock or a disk, counts.

    pids: the other processes.
    """

    def __init__(self, *pids: int) -> None:
        self._directories = [pathlib.Path('/proc', str(pid), 'task') for pid in ('self', *pids)]
        self._waited = self._look()
        self._began = time.perf_counter()

    def seconds(self) -> float:
        """The time since then."""
        passed = time.perf_counter() - self._began
        waited = sum(
            seconds - self._waited.get(task, 0.0) for task, seconds in self._look().items()
        )
        return max(0.0, passed - waited)

    def _look(self) -> dict[str, float]:
        """For how long each thread that there is has been ready to run, and did not."""
        found = {}
        for file in self._files():
            # A thread may end meanwhile.
            with contextlib.suppress(OSError):
                _, waited, _ = file.read_text().split()
                found[file.parent.name] = int(waited) * NANOSECOND
        return found

    def _files(self) -> Iterator[pathlib.Path]:
        for directory in self._directories:
            with contextlib.suppress(OSError):
                yield from [task / 'schedstat' for task in directory.iterdir()]
