"""Servers that do next to nothing, by what ours are built of: how fast those are alone.

python -m perf.bare echo | falcon | http
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable
from typing import Any

from zaqar_gevent import http
from zaqar_gevent.sockets.received import Received
from zaqar_gevent.sockets.unsent import Unsent

ECHO, FALCON, HTTP = 'echo', 'falcon', 'http'


def echo() -> None:
    """The protocol core of `websockets` on a gevent socket: says what it is told."""
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
                    elif isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                        protocol.send_binary(event.data)
                connection.sendall(b''.join(protocol.data_to_send()))

    server = StreamServer(('127.0.0.1', 0), handle)
    server.start()
    _announce(server.server_port)
    server.serve_forever()


def build_falcon() -> Any:
    """An application of Falcon: reads a JSON document, and answers a short one."""
    import falcon
    import msgspec

    class Messages:
        def on_post(self, req: falcon.Request, resp: falcon.Response, queue: str) -> None:
            document = msgspec.json.decode(req.bounded_stream.read())
            resp.status = falcon.HTTP_201
            resp.content_type = 'application/json'
            ids = [f'/v2/queues/{queue}/messages/{at:016x}' for at in range(len(document))]
            resp.data = msgspec.json.encode({'resources': ids})

    app = falcon.App()
    app.add_route('/v2/queues/{queue}/messages', Messages())
    return app


def falcon_app() -> None:
    """Falcon under gevent's own server."""
    from gevent.pywsgi import WSGIHandler, WSGIServer

    class Handler(WSGIHandler):  # type: ignore[misc]
        def __init__(self, sock: socket.socket, *arguments: object) -> None:
            # It writes head and body apart, which would wait for each other.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            super().__init__(sock, *arguments)

    server = WSGIServer(('127.0.0.1', 0), build_falcon(), handler_class=Handler, log=None)
    server.start()
    _announce(server.server_port)
    server.serve_forever()


class _Application:
    """What the HTTP server asks of an application, around one that has no WebSockets."""

    timeouts = http.Timeouts(5, 60, 75)
    limits = http.Limits()

    def __init__(self, app: Callable[..., Any]) -> None:
        self.unsent = Unsent(1 << 30, 60.0)
        self.received = Received(1 << 30)
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        return self._app(environ, start_response)

    def drain(self) -> None:
        """No client stays."""

    def end_connections(self) -> None:
        """None has been taken over."""


def http_app() -> None:
    """Falcon under the HTTP server that serves in production."""
    server = http.Server(('127.0.0.1', 0), _Application(build_falcon()), spawn=10_000)
    server.start()
    _announce(server.server_port)
    server.serve_forever()


def _announce(port: int) -> None:
    print(f'Listening at: http://127.0.0.1:{port}', flush=True)


if __name__ == '__main__':
    {ECHO: echo, FALCON: falcon_app, HTTP: http_app}[sys.argv[1]]()
