"""A server of WebSockets that does what a test says: what a real one does only in bad luck."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

from websockets.sync.server import Server, ServerConnection, serve

GREETING = {
    'server': 'scripted',
    'protocols': ['zaqar.v2'],
    'protocol': 'zaqar.v2',
    'max_in_flight': 64,
    'max_message_size': 327680,
    'ping_interval': 25.0,
    'idle_timeout': 0.0,
    'max_wait': 20,
    'idempotency_seconds': 300,
}

# Deals with a request that is not `hello`; gives the status and the body of the answer.
Script = Callable[[ServerConnection, dict[str, Any]], tuple[int, Any] | None]


def dies(connection: ServerConnection, request: dict[str, Any]) -> None:
    """End the connection over a request, as a crash would."""
    connection.socket.close()


class ScriptedServer:
    """Speaks `zaqar.v2` in JSON and answers by a script; None from it is no answer.

    requests: all that came, by connection. greeting: what `hello` is answered.
    """

    def __init__(
        self, script: Script, *, tls: ssl.SSLContext | None = None, **greeting: Any
    ) -> None:
        self._script = script
        self._scheme = 'http' if tls is None else 'https'
        self.greeting = {**GREETING, **greeting}
        self.requests: list[list[dict[str, Any]]] = []
        self.hello_status = 200
        self._server: Server = serve(
            self._serve,
            '127.0.0.1',
            0,
            subprotocols=['zaqar.v2'],  # type: ignore[list-item]
            compression=None,
            ssl=tls,
            ping_interval=None,
        )
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()

    @property
    def port(self) -> int:
        port: int = self._server.socket.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f'{self._scheme}://127.0.0.1:{self.port}'

    def asked(self, action: str) -> list[dict[str, Any]]:
        """The requests for an action, over whichever connection."""
        return [one for had in self.requests for one in had if one['action'] == action]

    def _serve(self, connection: ServerConnection) -> None:
        had: list[dict[str, Any]] = []
        self.requests.append(had)
        for message in connection:
            request = json.loads(message)
            had.append(request)
            answer = self._answer(connection, request)
            if answer is not None:
                status, body = answer
                connection.send(json.dumps({'id': request['id'], 'status': status, 'body': body}))

    def _answer(
        self, connection: ServerConnection, request: dict[str, Any]
    ) -> tuple[int, Any] | None:
        if request['action'] == 'hello':
            refusal = {'code': 'unauthorized', 'title': 'Unauthorized', 'description': 'No.'}
            return self.hello_status, self.greeting if self.hello_status == 200 else refusal
        return self._script(connection, request)


class SilentHost:
    """A way to a server that can be shut without closing anything, as by a cable that is pulled."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(('127.0.0.1', 0))
        self._sockets = [self._listener]
        self._is_shut = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> SilentHost:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self._listener.getsockname()[1]}'

    def shut(self) -> None:
        """Let nothing through any more over the connections that there are."""
        self._is_shut.set()
        self._is_shut = threading.Event()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(('127.0.0.1', self._target_port))
                self._sockets += [near, far]
                for pair in ((near, far), (far, near)):
                    arguments = (*pair, self._is_shut)
                    threading.Thread(target=_carry, args=arguments, daemon=True).start()


def _carry(source: socket.socket, target: socket.socket, is_shut: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if not is_shut.is_set():
                target.sendall(data)
