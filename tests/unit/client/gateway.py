"""An HTTP server that answers as it is told: a gateway, or any server that is no Zaqar."""

from __future__ import annotations

import http.server
import json
import threading
from typing import Any, Self


class Gateway(http.server.ThreadingHTTPServer):
    """Answers requests with what is in `answers`, in order, and the last one again and again.

    An answer is a status and a body, None for the end of the connection without one. capabilities:
    how the question what the server can do is answered.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), GatewayHandler)
        self.answers: list[tuple[int, bytes] | None] = []
        self.capabilities: tuple[int, bytes] = (404, b'{}')
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_port}'

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.may_answer.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def asked(self) -> list[tuple[str, str]]:
        """Methods and paths, but for the question what the server can do."""
        return [(how, path) for how, path, _ in self.requests if path != '/v2/capabilities']


class GatewayHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: Gateway

    def handle_one(self) -> None:
        length = int(self.headers.get('Content-Length') or 0)
        document = json.loads(self.rfile.read(length) or b'{}')
        self.server.requests.append((self.command, self.path, document))
        if self.path == '/v2/capabilities':
            self._answer(*self.server.capabilities)
            return
        self.server.may_answer.wait(60)
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            self.close_connection = True
            self.connection.close()
        else:
            self._answer(*answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_one  # noqa: N815

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""
