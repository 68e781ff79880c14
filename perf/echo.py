"""What frames and connections cost: an echo through them, against a bare one.

    python perf/echo.py [--connections 16] [--seconds 3] [--rounds 3]

Bare is the protocol core of `websockets` on a gevent socket and nothing else. Reports, for messages
of 100 B and 4 KB, the processor time of the server for each, and the share of the bare echo's
throughput that a core spent on nothing else would reach. Run from the project's root.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import statistics
import struct
import subprocess
import sys

import psutil
from cpu import Operation, has_frame, run

SIZES = (100, 4096)


def serve_bare() -> None:
    """The least that answers a WebSocket client."""
    from gevent.server import StreamServer
    from websockets.frames import Frame, Opcode
    from websockets.http11 import Request
    from websockets.server import ServerProtocol

    def handle(connection: socket.socket, address: object) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        protocol = ServerProtocol(max_size=2**20)
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                protocol.receive_data(data)
                for event in protocol.events_received():
                    if isinstance(event, Request):
                        protocol.send_response(protocol.accept(event))
                    elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                        protocol.send_text(event.data)
                connection.sendall(b''.join(protocol.data_to_send()))

    server = StreamServer(('127.0.0.1', 0), handle)
    server.start()
    print(f'Listening at: http://127.0.0.1:{server.server_port}', flush=True)
    server.serve_forever()


def message(size: int) -> bytes:
    """A masked text frame; the mask is zero, which costs the server the same."""
    head = b'\x81' + (bytes([0x80 | size]) if size < 126 else b'\xfe' + struct.pack('>H', size))
    return head + b'\0\0\0\0' + b'x' * size


def start(command: list[str]) -> tuple[subprocess.Popen[str], int]:
    env = {**os.environ, 'PYTHONPATH': os.getcwd()}
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout is not None
    match = re.search(r'127\.0\.0\.1:(\d+)', process.stdout.readline())
    assert match is not None, 'the server did not start'
    return process, int(match[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--connections', type=int, default=16)
    parser.add_argument('--seconds', type=float, default=3)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--bare', action='store_true', help='be the bare echo server')
    options = parser.parse_args()
    if options.bare:
        serve_bare()
        return
    echo = ['-m', 'tests.autobahn.echo_server', '--port', '0', '--no-compression', '--engine']
    servers = {
        'bare': start([__file__, '--bare']),
        **{engine: start([*echo, engine]) for engine in ('websockets', 'ws4py')},
    }
    try:
        for size in SIZES:
            operation = Operation('echo', message(size), has_frame, True)
            used: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(options.rounds):
                for name, (process, port) in servers.items():
                    server = psutil.Process(process.pid)
                    before = server.cpu_times()
                    answers = run(port, operation, options.connections, options.seconds)
                    after = server.cpu_times()
                    spent = after.user + after.system - before.user - before.system
                    used[name].append(spent / answers * 1e6)
            medians = {name: statistics.median(values) for name, values in used.items()}
            for name, median in medians.items():
                share = medians['bare'] / median
                print(f'{size:5} B  {name:12} {median:6.1f} us of CPU  {share:5.0%} of bare')
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.wait()


if __name__ == '__main__':
    main()
