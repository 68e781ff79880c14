"""A light load of REST beside a fault, by a process of its own, and how long it had to wait.

    with LightLoad(port) as rest:
        ...
    assert rest.p99 < PROMPT
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time

PROMPT = 0.1
PAUSE_SECONDS = 0.005

_LENGTH = re.compile(rb'(?i)content-length: *(\d+)')
_TIMEOUT_SECONDS = 60


class LightLoad:
    """A loop of one GET after the other.

    statuses: those of the answers. durations: of the requests, in seconds, in ascending order. So
        that one long wait weighs as much as the short ones it prevented, it counts as those that
        would have been made meanwhile.
    """

    def __init__(self, port: int, path: str = '/v2/ping') -> None:
        self._command = [sys.executable, '-m', __name__, str(port), path]
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
        output, _ = self._process.communicate('\n', timeout=2 * _TIMEOUT_SECONDS)
        statuses, durations = json.loads(output)
        self.statuses = set(statuses)
        self.durations = sorted(moment for each in durations for moment in _moments(each))

    @property
    def p99(self) -> float:
        return self.durations[len(self.durations) * 99 // 100]

    @property
    def longest(self) -> float:
        return self.durations[-1]

    def __str__(self) -> str:
        """For whoever reads the output of the tests."""
        median = self.durations[len(self.durations) // 2]
        figures = (median, self.p99, self.longest)
        return 'median {:.1f}, p99 {:.1f}, longest {:.1f} ms'.format(*(x * 1000 for x in figures))


def _moments(duration: float) -> list[float]:
    count = int(duration / PAUSE_SECONDS) + 1
    return [duration - number * PAUSE_SECONDS for number in range(count)]


def _get(connection: socket.socket, request: bytes) -> int:
    """Send a request, read all of its answer, and return its status."""
    connection.sendall(request)
    received = b''
    while b'\r\n\r\n' not in received:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError('REST hangs up')
        received += data
    head, _, body = received.partition(b'\r\n\r\n')
    length = _LENGTH.search(head)
    rest = int(length[1]) - len(body) if length else 0
    while rest > 0:
        rest -= len(connection.recv(65536))
    return int(head[9:12])


def _main() -> None:
    port, path = sys.argv[1:]
    request = (
        f'GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Project-ID: light\r\n'
        'Client-ID: 3381af92-2b9e-11e3-b191-71861300734c\r\n\r\n'
    ).encode()
    statuses: set[int] = set()
    durations: list[float] = []
    connection = socket.create_connection(('127.0.0.1', int(port)), timeout=_TIMEOUT_SECONDS)
    _get(connection, request)
    print('begun', flush=True)
    sys.stdin = None  # type: ignore[assignment]
    waiting = _until_told_to_stop()
    while not waiting(PAUSE_SECONDS):
        began = time.perf_counter()
        statuses.add(_get(connection, request))
        durations.append(time.perf_counter() - began)
    print(json.dumps([list(statuses), durations]))


def _until_told_to_stop():  # type: ignore[no-untyped-def]
    import select

    return lambda seconds: bool(select.select([0], [], [], seconds)[0])


if __name__ == '__main__':
    _main()
