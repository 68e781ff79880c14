"""What an idle WebSocket connection costs the server in memory.

    python perf/connections.py [--connections 5000] [--engine websockets] [--used]

Opens connections to a server of its own, waits until they are quiet, and reports the growth of the
server's resident memory for each. With --used every connection has made one request before.
"""

from __future__ import annotations

import argparse
import pathlib
import resource
import socket
import tempfile
import time

import psutil
from cpu import connect, frame, start

# Past 1,000 or so, clients of one address would be refused: they come from several.
PER_ADDRESS = 900


def resident(server: psutil.Process) -> int:
    """The server's resident memory in bytes, once it does not change any more."""
    sizes = [-1, server.memory_info().rss]
    while sizes[-1] != sizes[-2]:
        time.sleep(1)
        sizes.append(server.memory_info().rss)
    return sizes[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--connections', type=int, default=5000)
    parser.add_argument('--engine', choices=('websockets', 'ws4py'), default='websockets')
    parser.add_argument('--used', action='store_true')
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as directory:
        config = pathlib.Path(directory, 'zaqar.conf')
        lines = [f'websocket_engine = {options.engine}', 'ping_interval = 0']
        lines += [f'max_connections = {2 * options.connections + 1000}']
        config.write_text('\n'.join(['[drivers:transport:gevent]', *lines, '']))
        process, port = start(directory, '--config-file', str(config))
        server = psutil.Process(process.pid)
        try:
            warm = [connect(port, upgrade=True) for _ in range(50)]
            before = resident(server)
            began, used = time.monotonic(), server.cpu_times()
            clients = [
                open_one(port, number, use=options.used) for number in range(options.connections)
            ]
            took, after = time.monotonic() - began, server.cpu_times()
            spent = after.user + after.system - used.user - used.system
            each = (resident(server) - before) / options.connections / 1000
            print(
                f'{options.connections} connections, {options.engine}: {each:.1f} KB each, '
                f'{options.connections / took:.0f}/s, '
                f'{spent / options.connections * 1e6:.0f} us of CPU each'
            )
            for client in clients + warm:
                client.close()
        finally:
            process.terminate()
            process.wait()


def open_one(port: int, number: int, *, use: bool) -> socket.socket:
    client = connect(port, upgrade=True, source=f'127.0.1.{1 + number // PER_ADDRESS}')
    if use:
        client.sendall(frame('ping_node'))
        client.recv(65536)
    return client


if __name__ == '__main__':
    main()
