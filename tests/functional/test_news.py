"""How a process tells another one of news: many queues at once, over a connection that is kept."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.callers import CompactCaller, RestCaller
from tests.functional.test_push import Subscriber, eventually, post
from tests.internal_urls import subscribe
from tests.server_process import ServerProcess

QUEUES = 20
POSTS = 400
TAKES_SECONDS = 0.02


class OtherProcess(http.server.ThreadingHTTPServer):
    """Listens for news as another process would, and takes its time.

    connections: how many were opened. told: the queues that it was told of, request by request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _Told)
        self.connections = 0
        self.told: list[list[str]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def place(self) -> str:
        """What the URL of a connection to it begins with."""
        return f'http://127.0.0.1:{self.server_port}/zaqar_gevent/push/0123456789abcdef'

    def process_request(self, *arguments: Any) -> None:
        self.connections += 1
        super().process_request(*arguments)


class _Told(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: OtherProcess

    def do_POST(self) -> None:
        assert self.path == '/zaqar_gevent/news'
        document = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        self.server.told.append([queue for _, queue in document['news']])
        time.sleep(TAKES_SECONDS)
        self.send_response(200)
        self.send_header('Content-Length', '12')
        self.end_headers()
        self.wfile.write(b'{"gone": []}')

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def other() -> Iterator[OtherProcess]:
    process = OtherProcess()
    yield process
    process.shutdown()
    process.server_close()


def test_news_is_told_together_over_one_connection(
    server: ServerProcess, other: OtherProcess
) -> None:
    rest = RestCaller(server.url)
    queues = [f'q{number}' for number in range(QUEUES)]
    with Subscriber(server.port) as anybody:
        # Now there is a key to sign with.
        anybody.subscribe()
    for queue in queues:
        subscribe(server.state_path, other.place, rest.identity.project_id, queue)
    caller = CompactCaller(server.websocket_url, binary=False, identity=rest.identity)
    for number in range(POSTS):
        post(caller, number, queue_name=queues[number % QUEUES])
    caller.close()
    eventually(lambda: {queue for told in other.told for queue in told} == set(queues))
    assert other.connections == 1
    assert len(other.told) < POSTS / 3
    assert max(len(told) for told in other.told) > 1
    assert all(len(told) == len(set(told)) for told in other.told)
    rest.close()
