"""A server of pages and modules, as a site has them on an origin of its own."""

from __future__ import annotations

import http.server
import pathlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ROOT = pathlib.Path(__file__).parents[2]
PAGE = b'<!doctype html><title>A page</title>'


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    page = PAGE

    def do_GET(self) -> None:
        file = (ROOT / self.path.lstrip('/')).resolve()
        is_script = file.suffix in ('.js', '.mjs') and file.is_relative_to(ROOT)
        body = file.read_bytes() if is_script else self.page
        self.send_response(200)
        self.send_header('Content-Type', 'text/javascript' if is_script else 'text/html')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def page_server(page: bytes = PAGE) -> Iterator[str]:
    """A server of one page, and of the scripts of this project by their paths; its origin."""
    handler = type('Handler', (_Handler,), {'page': page})
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.server_port}'
    finally:
        server.shutdown()
        server.server_close()
