"""The HTTP server: gevent's, with upgrades, time limits for slow clients, and a graceful end."""

from __future__ import annotations

import io
import logging
import socket
import ssl
import time
from collections.abc import Callable
from email.message import Message
from typing import Any, NamedTuple, Protocol

import gevent
from gevent import pywsgi
from gevent import socket as gevent_socket
from gevent.pool import PoolFull
from oslo_log import log

from zaqar_gevent.greenlets import MOMENT
from zaqar_gevent.websocket.connection import BREAK_SECONDS, TURN_SECONDS
from zaqar_gevent.websocket.inbox import Inbox
from zaqar_gevent.websocket.upgrade import TAKEOVER, Takeover

LOG = log.getLogger(__name__)

_REFUSAL = (
    b'HTTP/1.1 %b\r\n'
    b'Connection: close\r\n'
    b'Content-Type: application/json\r\n'
    b'Content-Length: %d\r\n\r\n%b'
)
_TOO_SLOW = b'{"code":"request_timeout","title":"Request timeout","description":"Too slow."}'
_NO_REQUEST = (
    b'{"code":"bad_request","title":"Bad request","description":"This is no HTTP request."}'
)


class Timeouts(NamedTuple):
    """How long a client may take, in seconds: to send a head, a body, and the next request."""

    head: float
    body: float
    keepalive: float


class Application(Protocol):
    """A WSGI application with WebSockets, and what its server has to know of it."""

    timeouts: Timeouts

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any: ...

    def drain(self) -> None:
        """Let go whoever stays connected: the server is to stop."""
        ...


class Handler(pywsgi.WSGIHandler):
    """Serves the requests of one connection, and lets the application take the connection over.

    Whoever is too slow finds that no more is read: what it began cannot be completed any more. So
    nothing else is interrupted.
    """

    socket: Any
    rfile: Any
    close_connection: bool
    environ: Any

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._stream = _Stream(self.rfile.detach(), self.socket)
        self.rfile = io.BufferedReader(self._stream)
        self._timeouts: Timeouts = self.server.application.timeouts
        self._deadline: Any = None
        self._is_late = False
        self._is_first = True
        self._unsent: bytearray | None = None

    def handle(self) -> None:
        try:
            super().handle()
        finally:
            # It refers to this handler; nothing is to wait for the garbage collector.
            self.environ = None

    def handle_one_request(self) -> Any:
        is_first, self._is_first = self._is_first, False
        self._limit(self._timeouts.head if is_first else self._timeouts.keepalive)
        try:
            if not self._await_request():
                return None
            if not is_first:
                self._limit(self._timeouts.head)
            result = super().handle_one_request()
            return None if result is True and self._is_out_of_step() else result
        finally:
            self._limit(None)

    def MessageClass(self, rfile: Any, *arguments: Any) -> Any:  # noqa: N802
        """Read the header fields; a head that ends without its empty line is not a whole one."""
        head = _Head(rfile)
        message = super().MessageClass(head, *arguments)
        if not head.last_line:
            message.status = 'Incomplete'
        elif not _is_certain(message):
            message.status = 'Ambiguous'
        return message

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

    def log_request(self) -> None:
        """PERF: a line that goes nowhere is not put together either."""
        if not self.server.is_silent:
            super().log_request()

    def _write_with_headers(self, data: bytes) -> None:
        """PERF: head and body in one write, where the server's own are two."""
        self._unsent = bytearray()
        try:
            super()._write_with_headers(data)
        finally:
            unsent, self._unsent = self._unsent, None
        self._sendall(unsent)

    def _sendall(self, data: bytes | bytearray) -> None:
        if self._unsent is None:
            super()._sendall(data)
        else:
            self._unsent += data

    def _is_out_of_step(self) -> bool:
        """Whether a broken chunk has left it unknown where the next request begins."""
        return bool(self.wsgi_input._chunked_input_error)

    def _handle_client_error(self, ex: Exception) -> Any:
        """Refuse what is no request; it is not logged, for it may be a message, or hold a token."""
        if self._is_late:
            return _refuse('408 Request Timeout', _TOO_SLOW)
        LOG.info('What %s sent is no HTTP request: %s', self.client_address, type(ex).__name__)
        return _refuse('400 Bad Request', _NO_REQUEST)

    def _await_request(self) -> bool:
        """Wait for a request to begin; False when there will be none."""
        if self.server.is_draining:
            return False
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
        self._is_late = self.close_connection = True
        self.stop_reading()

    def stop_reading(self) -> None:
        """Whoever reads from the connection finds its end; what is answered still gets through."""
        self._stream.is_over = True
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
        self.close_connection = self._stream.is_over = True
        self.status, self.headers_sent = b'101 Switching Protocols', True
        early = bytes(self.rfile.peek())
        if isinstance(self.socket, ssl.SSLSocket):
            return Takeover(self.socket, early, _run_here)
        sock = self.socket
        moved = gevent_socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self.socket = None
        return Takeover(moved, early, self.server.run)


class _Stream(io.RawIOBase):
    """What a client sends, read in turns: a socket that always has something never waits.

    is_over: whether no more is to be read.
    """

    def __init__(self, raw: Any, sock: socket.socket) -> None:
        self._raw = raw
        self._inbox = Inbox(sock)
        self._next_turn = 0.0
        self.is_over = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        now = time.monotonic()
        if now >= self._next_turn:
            gevent.sleep(MOMENT)
            self._next_turn = now + TURN_SECONDS
        data = b'' if self.is_over else self._inbox.read(len(buffer))
        later = time.monotonic()
        if later - now > BREAK_SECONDS:
            self._next_turn = later + TURN_SECONDS
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._inbox.close()
        self._raw.close()
        super().close()


class _Head:
    """The lines of a request's head; remembers the last one."""

    def __init__(self, rfile: Any) -> None:
        self._readline = rfile.readline
        self.last_line = b''

    def readline(self, limit: int) -> bytes:
        self.last_line = self._readline(limit)
        return self.last_line


def _is_certain(message: Message) -> bool:
    """Whether everybody who reads this head finds the same end of its body (RFC 9112, 6.3)."""
    lengths = {length.strip() for length in message.get_all('Content-Length', ())}
    codings = [coding.strip().lower() for coding in message.get_all('Transfer-Encoding', ())]
    if codings:
        return codings == ['chunked'] and not lengths
    return len(lengths) < 2 and all(one.isascii() and one.isdecimal() for one in lengths)


def _refuse(status: str, body: bytes) -> tuple[str, bytes]:
    return status, _REFUSAL % (status.encode(), len(body), body)


def _run_here(run: Callable[[], None]) -> None:
    run()


class Server(pywsgi.WSGIServer):
    """gevent's HTTP server, for an `Application`.

    is_draining: whether it has been told to stop.
    is_silent: whether it has no access log.
    idle: handlers that wait for a request.
    """

    handler_class = Handler

    def __init__(self, listener: Any, application: Application, **options: Any) -> None:
        self.is_silent = options.setdefault('log', None) is None
        options.setdefault('error_log', logging.getLogger(__name__))
        self.is_draining = False
        self.idle: set[Handler] = set()
        super().__init__(listener, application, **options)

    def handle(self, sock: socket.socket, address: Any) -> None:
        """Serve one connection.

        PERF: without TCP_NODELAY an answer in more than one piece waits 40 ms for the client's
        delayed acknowledgement.
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
        self.application.drain()
