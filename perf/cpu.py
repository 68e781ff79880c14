"""Server CPU per operation: a closed loop of connections against one server process.

    python perf/cpu.py [--connections 16] [--seconds 3] [--rounds 3]

Starts `zaqar-gevent` on a free port of loopback with an empty store, durable as ever, and reports
for each operation the user and system time the server spent on each request, and the throughput.
Figures of shared machines move; compare ratios of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil

HEADERS = {'Client-ID': '3381af92-2b9e-11e3-b191-71861300734c', 'X-Project-ID': 'demo'}
BODY = {'event': 'BackupStarted', 'backup': 'c378813c-3f0b-11e2-ad92-7823d2b0f3ce'}
MESSAGE = {'body': BODY, 'ttl': 3600}


class Operation(NamedTuple):
    name: str
    request: bytes
    is_complete: Callable[[bytearray], bool]
    upgrade: bool


def frame(action: str, **body: object) -> bytes:
    """A request in a frame."""
    return mask(json.dumps({'action': action, 'headers': HEADERS, 'body': body}).encode())


def mask(payload: bytes) -> bytes:
    """A masked text frame; the mask is zero, which costs the server the same."""
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b''
    if not length:
        length = b'\xfe' + struct.pack('>H', len(payload))
    return b'\x81' + length + b'\0\0\0\0' + payload


def http(method: str, path: str, document: object = None) -> bytes:
    body = b'' if document is None else json.dumps(document).encode()
    lines = [f'{method} {path} HTTP/1.1', 'Host: localhost', 'Content-Type: application/json']
    lines += [f'{name}: {value}' for name, value in HEADERS.items()]
    lines += [f'Content-Length: {len(body)}', '', '']
    return '\r\n'.join(lines).encode() + body


def frame_size(received: bytearray) -> int:
    """The size of the frame that begins here, in bytes; 0 where it cannot be told yet."""
    if len(received) < 10:
        return 2 + received[1] if len(received) > 1 and received[1] < 126 else 0
    length = received[1] & 127
    if length == 126:
        return 4 + int(struct.unpack_from('>H', received, 2)[0])
    if length == 127:
        return 10 + int(struct.unpack_from('>Q', received, 2)[0])
    return 2 + length


def has_frame(received: bytearray) -> bool:
    return 0 < frame_size(received) <= len(received)


def has_response(received: bytearray) -> bool:
    head, separator, body = bytes(received).partition(b'\r\n\r\n')
    if not separator:
        return False
    match = re.search(rb'(?i)content-length: (\d+)', head)
    return len(body) >= (int(match[1]) if match else 0)


OPERATIONS = [
    Operation('ws message_post', frame('message_post', queue_name='q', messages=[MESSAGE]),
              has_frame, True),
    Operation('ws message_list 10', frame('message_list', queue_name='ten', echo=True, limit=10),
              has_frame, True),
    Operation('ws queue_get', frame('queue_get', queue_name='q'), has_frame, True),
    Operation('ws ping_node', frame('ping_node'), has_frame, True),
    Operation('rest post', http('POST', '/v2/queues/q/messages', {'messages': [MESSAGE]}),
              has_response, False),
    Operation('rest list 10', http('GET', '/v2/queues/ten/messages?echo=true&limit=10'),
              has_response, False),
]  # fmt: skip


def connect(
    port: int, *, upgrade: bool, source: str = '127.0.0.1', subprotocol: str = ''
) -> socket.socket:
    connection = socket.create_connection(('127.0.0.1', port), source_address=(source, 0))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if upgrade:
        lines = ['GET / HTTP/1.1', 'Host: localhost', 'Connection: Upgrade', 'Upgrade: websocket']
        lines += ['Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==']
        lines += [f'Sec-WebSocket-Protocol: {subprotocol}'] if subprotocol else []
        connection.sendall('\r\n'.join([*lines, '', '']).encode())
        received = b''
        while not received.endswith(b'\r\n\r\n'):
            received += connection.recv(4096)
        assert b' 101 ' in received, received
    return connection


def run(port: int, operation: Operation, connections: int, seconds: float) -> int:
    """Keep every connection busy for `seconds`; return the number of answers."""
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        connection = connect(port, upgrade=operation.upgrade)
        selector.register(connection, selectors.EVENT_READ, bytearray())
        connection.sendall(operation.request)
    answers, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        for key, _ in selector.select(1):
            received = key.data
            received += key.fileobj.recv(65536)
            if operation.is_complete(received):
                answers += 1
                received.clear()
                key.fileobj.sendall(operation.request)
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    return answers


def start(directory: str, *options: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, '-m', 'zaqar_gevent.cmd', '--port', '0', '--state-path', directory]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    match = re.search(r':(\d+),', process.stdout.readline())
    assert match is not None, 'the server did not start'
    return process, int(match[1])


def fill(port: int) -> None:
    """A queue of ten messages, and one to look up."""
    connection = connect(port, upgrade=True)
    for request in (
        frame('message_post', queue_name='ten', messages=[MESSAGE] * 10),
        frame('queue_create', queue_name='q'),
    ):
        connection.sendall(request)
        connection.recv(65536)
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--connections', type=int, default=16)
    parser.add_argument('--seconds', type=float, default=3)
    parser.add_argument('--rounds', type=int, default=3)
    options = parser.parse_args()
    parent = pathlib.Path(os.environ.get('ZAQAR_PERF_DIR', tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(dir=parent) as directory:
        process, port = start(directory)
        server = psutil.Process(process.pid)
        fill(port)
        try:
            for operation in OPERATIONS:
                rows = []
                for _ in range(options.rounds):
                    before, began = server.cpu_times(), time.monotonic()
                    answers = run(port, operation, options.connections, options.seconds)
                    after, took = server.cpu_times(), time.monotonic() - began
                    used = after.user + after.system - before.user - before.system
                    rows.append((used / answers * 1e6, answers / took))
                cpu, rate = (statistics.median(column) for column in zip(*rows, strict=True))
                print(f'{operation.name:20} {cpu:7.0f} us of CPU {rate:8.0f}/s')
        finally:
            process.terminate()
            process.wait()


if __name__ == '__main__':
    main()
