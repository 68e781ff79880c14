"""Many connections that are only held: from processes of their own, since each has its limit.

    python -m perf.crowd --port 8888 --count 5000 --first 0 [--use]

Opens connections, says how long that took, and holds them until its input ends. `Crowd` does it
from within a program.
"""

from __future__ import annotations

import argparse
import resource
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

from perf.machine import CLIENT_CORE, on_core
from perf.wire import Compact, Default, Dialect, connect, receive

# Past 1,000 or so, clients of one address would be refused: they come from several.
PER_ADDRESS = 900
PER_PROCESS = 9000


def allow_files() -> None:
    """Allow this process, and what it starts, as many open files as it may allow itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def address(number: int) -> str:
    """Where the connection of this number comes from."""
    return f'127.0.{1 + number // PER_ADDRESS}.1'


def open_one(port: int, number: int, dialect: Dialect, *, use: bool = False) -> socket.socket:
    """A connection; `use` asks something over it once."""
    connection = connect(port, dialect, address(number))
    if use:
        connection.sendall(dialect.encode('queue_list', {'limit': 1}, 1))
        receive(connection, dialect)
    return connection


class Crowd(ExitStack):
    """Connections to a server, held by other processes; ends with them.

    compact: of `zaqar.v2`, else of the default envelope. use: ask once over each.
    """

    def __init__(self, port: int, *, compact: bool = True, use: bool = False) -> None:
        super().__init__()
        self._port = port
        self._options = [*(['--compact'] if compact else []), *(['--use'] if use else [])]
        self.count = 0

    def grow(self, count: int) -> float:
        """Open connections until there are `count`; how long that took, in seconds."""
        took = 0.0
        while self.count < count:
            number = min(PER_PROCESS, count - self.count)
            command = [sys.executable, '-m', 'perf.crowd', '--port', str(self._port)]
            command += ['--count', str(number), '--first', str(self.count), *self._options]
            with on_core(CLIENT_CORE):
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            self.callback(_end, process)
            if process.stdout is None or not (line := process.stdout.readline()):
                raise ConnectionError('not all connections could be opened')
            took += float(line)
            self.count += number
        return took


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--port', type=int, required=True)
    parser.add_argument('--count', type=int, required=True)
    parser.add_argument('--first', type=int, required=True)
    parser.add_argument('--compact', action='store_true')
    parser.add_argument('--use', action='store_true')
    options = parser.parse_args()
    allow_files()
    dialect = Compact(binary=False) if options.compact else Default(binary=False)
    began = time.perf_counter()
    numbers = range(options.first, options.first + options.count)
    held = [open_one(options.port, number, dialect, use=options.use) for number in numbers]
    print(time.perf_counter() - began, flush=True)
    sys.stdin.read()
    for connection in held:
        connection.close()


if __name__ == '__main__':
    main()
