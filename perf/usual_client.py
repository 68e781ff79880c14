"""What the client that people have sends over REST: python-zaqarclient."""

from __future__ import annotations

import re
import socket
import threading

from zaqarclient.queues import client as zaqarclient

from perf.workloads import TTL

_POSTED = b'{"resources": ["/v2/queues/q/messages/1"]}'
_ANSWER = b'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b'
_LENGTH = re.compile(rb'(?i)content-length: *(\d+)')


def request_bytes(queue: str, body: object) -> int:
    """How many bytes a post of one message without a token is, head and body."""
    sizes: list[int] = []
    with socket.create_server(('127.0.0.1', 0)) as listener:
        server = threading.Thread(target=_take_one, args=(listener, sizes))
        server.start()
        auth = {'backend': 'noauth', 'options': {'os_project_id': 'demo'}}
        url = f'http://127.0.0.1:{listener.getsockname()[1]}'
        client = zaqarclient.Client(url, version=2, conf={'auth_opts': auth})
        client.queue(queue, force_create=False).post([{'body': body, 'ttl': TTL}])
        server.join()
    return sizes[0]


def _take_one(listener: socket.socket, sizes: list[int]) -> None:
    connection, _ = listener.accept()
    received = b''
    with connection:
        while not sizes:
            received += connection.recv(65536)
            head, separator, body = received.partition(b'\r\n\r\n')
            length = _LENGTH.search(head)
            if separator and length and len(body) == int(length[1]):
                sizes.append(len(received))
        connection.sendall(_ANSWER % (len(_POSTED), _POSTED))
