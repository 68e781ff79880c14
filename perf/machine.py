"""The machine that is measured on: its cores, its clocks, and what it is."""

from __future__ import annotations

import contextlib
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version

import psutil

# A server has a core to itself; all else, the client and any Redis, is on the other.
CORES = sorted(os.sched_getaffinity(0))[:2]
CLIENT_CORE, SERVER_CORE = CORES[0], CORES[-1]

_PROCESS_CLOCK = 2
_LIBRARIES = ('gevent', 'gunicorn', 'falcon', 'websockets', 'msgspec', 'msgpack', 'zaqar', 'redis')
_FSYNCS = 200


@contextlib.contextmanager
def on_core(*cores: int) -> Iterator[None]:
    """What is started within, inherits the core, or the cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def end_orderly() -> None:
    """When told to end, stop what was started, as on an interrupt."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def processor_time(pids: Iterable[int]) -> float:
    """Seconds of user and system time that processes have used, all their threads together.

    By the clock that the kernel keeps for each process, which counts nanoseconds.
    """
    return sum(time.clock_gettime((~pid << 3) | _PROCESS_CLOCK) for pid in pids)


def thread_times(pid: int) -> dict[int, float]:
    """Seconds of processor time that each thread of a process has used, by the thread's id."""
    tasks = pathlib.Path(f'/proc/{pid}/task').iterdir()
    return {
        int(task.name): int((task / 'schedstat').read_text().split()[0]) / 1e9 for task in tasks
    }


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def resident_bytes(pids: Iterable[int]) -> int:
    """The memory that processes have in RAM, in bytes, once it does not change any more."""
    processes = [psutil.Process(pid) for pid in pids]
    sizes = [-1, sum(process.memory_info().rss for process in processes)]
    while abs(sizes[-1] - sizes[-2]) > sizes[-1] // 1000 and len(sizes) < 12:
        time.sleep(0.5)
        sizes.append(sum(process.memory_info().rss for process in processes))
    return sizes[-1]


def store_directory() -> pathlib.Path:
    """Where durable stores are put: `ZAQAR_PERF_DIR`, a directory of a disk whose fsync counts."""
    return pathlib.Path(os.environ.get('ZAQAR_PERF_DIR', tempfile.gettempdir()))


def fsync_seconds(directory: pathlib.Path) -> float:
    """The median time that an fsync of 4 KiB takes in `directory`."""
    times = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(_FSYNCS):
            file.write(b'x' * 4096)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def describe() -> dict[str, object]:
    """What a reader has to know of the machine, to judge figures taken on it."""
    return {
        'processor': _processor(),
        'cores': os.cpu_count(),
        'memory_gb': round(psutil.virtual_memory().total / 1e9),
        'kernel': platform.release(),
        'python': platform.python_version(),
        'fsync_us': round(fsync_seconds(store_directory()) * 1e6),
        'load_before': round(os.getloadavg()[0], 2),
        'libraries': {name: version(name) for name in _LIBRARIES},
        'commit': _commit(),
        'when': time.strftime('%Y-%m-%d %H:%M'),
    }


def _processor() -> str:
    for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return platform.processor()


def _commit() -> str:
    """The version of the source that is measured; empty outside of a repository."""
    here = pathlib.Path(__file__).parent
    found = subprocess.run(
        ['git', 'rev-parse', '--short', 'HEAD'],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip()
