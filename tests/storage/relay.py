"""What stands between a driver and its server, and passes on what both say."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import ssl
import threading
import time
from collections.abc import Callable

from tests.readiness import readable

Greet = Callable[[socket.socket], socket.socket]


class Relay:
    """Passes on what is said to a server, until it is to lose an answer or is silent.

    listener: where clients connect; left out, a free port. greet: makes the connection that is
    spoken over of one that was accepted, and raises OSError to close it.
    """

    def __init__(
        self, port: int, listener: socket.socket | None = None, greet: Greet = lambda plain: plain
    ) -> None:
        self._port = port
        self._listener = listener or socket.create_server(('127.0.0.1', 0))
        self._greet = greet
        self.loses = threading.Event()
        self.is_silent = threading.Event()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        self._listener.close()

    def cut(self) -> None:
        """End all connections, whatever is under way."""
        for one in tuple(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, accepted: socket.socket) -> None:
        try:
            client = self._greet(accepted)
        except OSError:
            # It does not believe the certificate.
            accepted.close()
            return
        # Either may be gone at any time: it is what this is for.
        gone = contextlib.suppress(ConnectionError)
        with gone, client, socket.create_connection(('127.0.0.1', self._port)) as server:
            self._open.append(client)
            while True:
                if self.is_silent.is_set():
                    time.sleep(0.01)
                    continue
                for one in _ready(client, server):
                    data = one.recv(65536)
                    if not data:
                        return
                    if one is server and self.loses.is_set():
                        # It was done, and nobody is told.
                        self.loses.clear()
                        return
                    (client if one is server else server).sendall(data)


def with_tls(certificate: pathlib.Path) -> Greet:
    """Speaks TLS with whoever connects."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return lambda plain: context.wrap_socket(plain, server_side=True)


def _ready(client: socket.socket, server: socket.socket) -> list[socket.socket]:
    if isinstance(client, ssl.SSLSocket) and client.pending():
        return [client]
    return readable([client, server], 10)
