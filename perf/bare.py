"""Servers that do next to nothing, by what ours are built of: how fast those are alone.

python -m perf.bare echo | falcon
"""

from __future__ import annotations

import contextlib
import socket
import sys

ECHO, FALCON = 'echo', 'falcon'


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


def falcon_app() -> None:
    """Falcon under gevent's own server: reads a JSON document, and answers a short one."""
    import falcon
    import msgspec
    from gevent.pywsgi import WSGIHandler, WSGIServer

    class Messages:
        def on_post(self, req: falcon.Request, resp: falcon.Response, queue: str) -> None:
            document = msgspec.json.decode(req.bounded_stream.read())
            resp.status = falcon.HTTP_201
            resp.content_type = 'application/json'
            ids = [f'/v2/queues/{queue}/messages/{at:016x}' for at in range(len(document))]
            resp.data = msgspec.json.encode({'resources': ids})

    class Handler(WSGIHandler):  # type: ignore[misc]
        def __init__(self, sock: socket.socket, *arguments: object) -> None:
            # It writes head and body apart, which would wait for each other.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            super().__init__(sock, *arguments)

    app = falcon.App()
    app.add_route('/v2/queues/{queue}/messages', Messages())
    server = WSGIServer(('127.0.0.1', 0), app, handler_class=Handler, log=None)
    server.start()
    _announce(server.server_port)
    server.serve_forever()


def _announce(port: int) -> None:
    print(f'Listening at: http://127.0.0.1:{port}', flush=True)


if __name__ == '__main__':
    {ECHO: echo, FALCON: falcon_app}[sys.argv[1]]()
