"""The HTTP server: gevent's, with upgrades, time limits for slow clients, and a graceful end."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import gevent
from gevent import pywsgi
from gevent import socket as gevent_socket
from gevent.pool import PoolFull
from oslo_log import log

from zaqar_gevent.websocket.connections import Connections
from zaqar_gevent.websocket.upgrade import TAKEOVER, Takeover, read_ahead

LOG = log.getLogger(__name__)

_REQUEST_TIMEOUT = (
    b'HTTP/1.1 408 Request Timeout\r\n'
    b'Connection: close\r\n'
    b'Content-Type: application/json\r\n'
    b'Content-Length: %d\r\n\r\n%b'
)
_TOO_SLOW = b'{"code":"request_timeout","title":"Request timeout","description":"Too slow."}'


class Timeouts(NamedTuple):
    """How long a client may take, in seconds: to send a head, a body, and the next request."""

    head: float
    body: float
    keepalive: float


class Application(Protocol):
    """A WSGI application with WebSockets, and what its server has to know of it."""

    connections: Connections
    timeouts: Timeouts

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any: ...


class Handler(pywsgi.WSGIHandler):
    """Serves the requests of one connection, and lets the application take the connection over.

    Whoever is too slow finds that no more is read: what it began cannot be completed any more. So
    nothing else is interrupted.
    """

    socket: Any
    close_connection: bool

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._timeouts: Timeouts = self.server.application.timeouts
        self._deadline: Any = None
        self._is_late = False
        self._is_first = True

    def handle_one_request(self) -> Any:
        if not self._is_first and not self._await_next():
            return None
        self._is_first = False
        self._limit(self._timeouts.head)
        try:
            return super().handle_one_request()
        finally:
            self._limit(None)

    def get_environ(self) -> dict[str, Any]:
        """Called when the head has been read."""
        environ: dict[str, Any] = super().get_environ()
        environ[TAKEOVER] = self._take_over
        has_body = self.content_length or 'HTTP_TRANSFER_ENCODING' in environ
        self._limit(self._timeouts.body if has_body else None)
        return environ

    def finalize_headers(self) -> None:
        super().finalize_headers()
        if self.server.is_draining and not self.close_connection:
            self.close_connection = True
            self.response_headers.append((b'Connection', b'close'))

    def _handle_client_error(self, ex: Exception) -> Any:
        if self._is_late:
            return '408 Request Timeout', _REQUEST_TIMEOUT % (len(_TOO_SLOW), _TOO_SLOW)
        return super()._handle_client_error(ex)

    def _await_next(self) -> bool:
        """Wait for another request; False when there will be none."""
        if self.server.is_draining:
            return False
        self._limit(self._timeouts.keepalive)
        self.server.idle.add(self)
        try:
            return bool(self.rfile.peek(1))
        except OSError:
            return False
        finally:
            self.server.idle.discard(self)

    def _limit(self, seconds: float | None) -> None:
        """Read no more after `seconds`; None takes the limit away."""
        if self._deadline is not None:
            self._deadline.close()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.server.loop.timer(seconds)
            self._deadline.start(self._expire)

    def _expire(self) -> None:
        self._is_late = True
        self.stop_reading()

    def stop_reading(self) -> None:
        """Whoever reads from the connection finds its end; what is answered still gets through."""
        try:
            gevent_socket.socket.shutdown(self.socket, socket.SHUT_RD)
        except OSError:
            LOG.debug('A connection was lost before its time was up')

    def _take_over(self) -> Takeover:
        """Hand the connection to the caller; this handler has nothing more to do with it.

        Where it can be, it is moved to a greenlet of its own, so that all that an HTTP request
        needs is freed. A TLS session cannot be moved.
        """
        self._limit(None)
        self.close_connection = True
        self.status, self.headers_sent = b'101 Switching Protocols', True
        early = read_ahead(self.rfile, self.socket)
        if isinstance(self.socket, ssl.SSLSocket):
            return Takeover(self.socket, early, _run_here)
        sock = self.socket
        moved = gevent_socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self.socket = None
        return Takeover(moved, early, self.server.run)


def _run_here(run: Callable[[], None]) -> None:
    run()


class Server(pywsgi.WSGIServer):
    """gevent's HTTP server, for an `Application`.

    is_draining: whether it has been told to stop.
    idle: handlers that wait for another request.
    """

    handler_class = Handler

    def __init__(self, listener: Any, application: Application, **options: Any) -> None:
        options.setdefault('log', None)
        options.setdefault('error_log', logging.getLogger(__name__))
        self.is_draining = False
        self.idle: set[Handler] = set()
        super().__init__(listener, application, **options)

    def handle(self, sock: socket.socket, address: Any) -> None:
        """Serve one connection.

        PERF: head and body of an answer are written apart; without TCP_NODELAY the body waits
        40 ms for the client's delayed acknowledgement.
        """
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle(sock, address)

    def run(self, serve: Callable[[], None]) -> None:
        """Serve a connection taken over in a greenlet that counts as the server's others do."""
        greenlet = gevent.Greenlet(serve)
        try:
            self.pool.add(greenlet, blocking=False)
        except PoolFull:
            serve()
        else:
            greenlet.start()

    def close(self) -> None:
        """Accept no more, and let the clients go; does not wait for them."""
        if self.started and not self.is_draining:
            self.is_draining = True
            gevent.spawn(self._drain)
        super().close()

    def _drain(self) -> None:
        for handler in tuple(self.idle):
            handler.stop_reading()
        self.application.connections.drain()
