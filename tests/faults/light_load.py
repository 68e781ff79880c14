"""A light load of REST beside a fault, and how long it has to wait for its answers.

with LightLoad(port) as rest:
    for _ in rest.seconds(1):
        ...
assert rest.p99 < PROMPT
"""

from __future__ import annotations

import http.client
import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

from tests.stopwatch import Stopwatch

PROMPT = 0.1
PAUSE_SECONDS = 0.005
PATIENCE_SECONDS = 60
HEADERS = {'X-Project-ID': 'light', 'Client-ID': '3381af92-2b9e-11e3-b191-71861300734c'}


class LightLoad:
    """One GET after the other, by a process of its own.

    statuses: those of the answers. durations: of the requests, in seconds, in ascending order. So
        that one long wait does not count less than the short ones it has prevented, it counts as
        those that would have been made meanwhile. What does not count is how long server and load
        were ready to run and the machine had no processor for them.
    """

    def __init__(self, port: int, path: str = '/v2/ping') -> None:
        arguments = [str(port), path, *map(str, _serving(port))]
        self._command = [sys.executable, '-m', __name__, *arguments]
        self.statuses: set[int] = set()
        self.durations: list[float] = []

    def __enter__(self) -> LightLoad:
        self._process = subprocess.Popen(
            self._command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == 'begun\n', 'REST does not answer'
        return self

    def __exit__(self, *exc_info: object) -> None:
        output, _ = self._process.communicate('', timeout=2 * PATIENCE_SECONDS)
        assert self._process.returncode == 0, 'REST hangs up'
        statuses, durations = json.loads(output)
        self.statuses = set(statuses)
        self.durations = sorted(moment for each in durations for moment in _moments(each))
        print(f'REST: {self}')

    @staticmethod
    def seconds(duration: float) -> Iterator[int]:
        """Numbers for that long: a fault that is over at once has to be repeated to be felt."""
        deadline = time.monotonic() + duration
        number = 0
        while time.monotonic() < deadline:
            yield number
            number += 1

    @property
    def p99(self) -> float:
        return self.durations[len(self.durations) * 99 // 100]

    @property
    def longest(self) -> float:
        return self.durations[-1]

    def __str__(self) -> str:
        median = self.durations[len(self.durations) // 2]
        figures = (figure * 1000 for figure in (median, self.p99, self.longest))
        return 'median {:.1f}, p99 {:.1f}, longest {:.1f} ms'.format(*figures)


def _serving(port: int) -> list[int]:
    """The ids of the processes that listen on a port, and of those they have started."""
    listening = {
        psutil.Process(connection.pid)
        for connection in psutil.net_connections('tcp')
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr.port == port
        and connection.pid
    }
    workers = {child for process in listening for child in process.children()}
    return [process.pid for process in listening | workers]


def _moments(duration: float) -> list[float]:
    count = int(duration / PAUSE_SECONDS) + 1
    return [duration - number * PAUSE_SECONDS for number in range(count)]


def _main() -> None:
    port, path, *pids = sys.argv[1:]
    connection = http.client.HTTPConnection('127.0.0.1', int(port), timeout=PATIENCE_SECONDS)

    def get() -> int:
        connection.request('GET', path, headers=HEADERS)
        response = connection.getresponse()
        response.read()
        return response.status

    statuses = {get()}
    durations: list[float] = []
    print('begun', flush=True)
    while not select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
        watch = Stopwatch(*map(int, pids))
        statuses.add(get())
        durations.append(watch.seconds())
    print(json.dumps([list(statuses), durations]))


if __name__ == '__main__':
    _main()
