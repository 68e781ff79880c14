"""Accepts connections, enforces their deadlines, and drains them when the server stops."""

from __future__ import annotations

import errno
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import gevent
from gevent.server import StreamServer
from oslo_log import log

from zaqar_gevent.greenlets import in_turns
from zaqar_gevent.http.answer import Answer
from zaqar_gevent.http.connection import HTTPConnection
from zaqar_gevent.http.head import Limits
from zaqar_gevent.http.idle import IdleConnections
from zaqar_gevent.http.places import Places
from zaqar_gevent.sockets.received import Received
from zaqar_gevent.sockets.unsent import Unsent

LOG = log.getLogger(__name__)

_TICK_SECONDS = 0.1
_PAUSE_SECONDS = 0.1
_QUIET_SECONDS = 10.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Timeouts(NamedTuple):
    """How long a client may take, in seconds: to send a head, a body, and the next request."""

    head: float
    body: float
    keepalive: float


class Application(Protocol):
    """A WSGI application with WebSockets, and what its server needs to know.

    Its answers are written when it has returned: their bodies are in memory anyway.
    """

    timeouts: Timeouts
    limits: Limits
    unsent: Unsent
    received: Received

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any: ...

    def drain(self) -> None:
        """Let the connected clients go: the server is stopping."""
        ...

    def end_connections(self) -> None:
        """End the connections that it has taken over and that are still open."""
        ...


class Server(StreamServer):
    """An HTTP/1.1 server for an `Application`.

    listener: an address, or a socket that listens. environ: added to each request's environment.
    spawn: the most connections at a time, or a pool of that size, which is not used otherwise.
    options: others of gevent's `StreamServer`.
    is_draining: whether it has been told to stop.
    idle: the connections that are kept for another request. Where there is no place for a new
        connection, it gets the place of one of them.
    """

    def __init__(
        self,
        listener: Any,
        application: Application,
        environ: dict[str, Any] | None = None,
        *,
        spawn: Any,
        **options: Any,
    ) -> None:
        size: int = getattr(spawn, 'size', spawn)
        self.application = application
        self.is_draining = False
        self.idle = IdleConnections()
        self._replaceable: HTTPConnection | None = None
        self._connections: set[HTTPConnection] = set()
        self._taken: set[socket.socket] = set()
        self._keeper: gevent.Greenlet | None = None
        self._complained_at = -_QUIET_SECONDS
        super().__init__(listener, spawn=Places(size, self._end_all), **options)
        self._environ: dict[str, Any] = {
            'GATEWAY_INTERFACE': 'CGI/1.1',
            'SCRIPT_NAME': '',
            'SERVER_SOFTWARE': 'zaqar_gevent',
            'wsgi.version': (1, 0),
            'wsgi.url_scheme': 'https' if self.ssl_enabled else 'http',
            'wsgi.errors': sys.stderr,
            'wsgi.multithread': False,
            'wsgi.multiprocess': False,
            'wsgi.run_once': False,
            **(environ or {}),
        }
        if self._environ['wsgi.multiprocess']:
            # Other processes accept on the same socket.
            self.max_accept = 1

    def init_socket(self) -> None:
        """Listen.

        PERF: without TCP_NODELAY an answer in more than one piece waits 40 ms for the client's
        delayed acknowledgement. Connections have it from the socket that accepts them.
        """
        super().init_socket()
        if self.socket.family in (socket.AF_INET, socket.AF_INET6):
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle(self, sock: socket.socket, address: Any) -> None:
        """Serve one connection."""
        connection = HTTPConnection(self, sock, self._environ_of(address))
        self._connections.add(connection)
        if self._keeper is None:
            self._keeper = gevent.spawn(self._keep)
        try:
            connection.serve()
        finally:
            self._connections.discard(connection)

    def wrap_socket_and_handle(self, client_socket: socket.socket, address: Any) -> None:
        """The same with TLS, whose handshake may take as long as a head."""
        try:
            with gevent.Timeout(self.application.timeouts.head):
                wrapped = self.wrap_socket(client_socket, **self.ssl_args)
        except (OSError, gevent.Timeout) as error:
            LOG.debug('A TLS handshake failed: %s', error)
            return
        try:
            self.handle(wrapped, address)
        finally:
            wrapped.close()

    def set_spawn(self, spawn: Any) -> None:
        """Accept connections while there are places, or some that can be made free."""
        super().set_spawn(spawn)
        self.full = self._is_full

    def do_handle(self, *arguments: Any) -> None:
        """Serve a new connection, in place of another where all places are taken."""
        replaced = self._replaceable
        if replaced is not None and self.pool.full():
            self._replaceable = None
            replaced.give_place()
        super().do_handle(*arguments)

    def began_to_wait(self) -> None:
        """A connection waits for its next request, so that its place can be made free."""
        if self._watcher is None and self.started and self.pool.full():
            # It was to be told when a place is free.
            self.pool._semaphore.unlink(self._start_accepting_if_started)
            self.start_accepting()

    def _is_full(self) -> bool:
        """Whether there is no place, and none that can be made free."""
        if not self.pool.full():
            return False
        self._replaceable = self.idle.longest()
        return self._replaceable is None

    def note(self, environ: dict[str, Any], answer: Answer, began: float) -> None:
        """A request was answered; began: in seconds since the epoch."""

    def let_go(self, sock: socket.socket) -> None:
        """A connection is taken over, and so closed by whoever takes it."""
        self._taken.add(sock)

    def do_close(self, sock: socket.socket, *address: Any) -> None:
        """Close a connection that has been served, or could not be, unless it was taken over."""
        if sock in self._taken:
            self._taken.discard(sock)
        else:
            super().do_close(sock, *address)

    def run(self, serve: Callable[[], None]) -> None:
        """Serve a connection taken over in a greenlet that counts as the server's others do."""
        if self.pool.full():
            serve()
        else:
            self.pool.spawn(serve)

    def do_read(self) -> Any:
        """Accept a connection; where the process has no descriptors left, wait for some."""
        try:
            return super().do_read()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._pause(error)
            return None

    def close(self) -> None:
        """Accept no more, and let the clients go; does not wait for them."""
        if self.started and not self.is_draining:
            self.is_draining = True
            gevent.spawn(self._drain)
        super().close()

    def _drain(self) -> None:
        for connection in tuple(self._connections):
            if connection.is_idle:
                connection.stop_reading()
        self.application.drain()

    def _end_all(self) -> None:
        for connection in tuple(self._connections):
            connection.cut()
        self.application.end_connections()

    def _pause(self, error: OSError) -> None:
        """Accept no connections for a moment; new ones wait in the backlog."""
        now = time.monotonic()
        if now - self._complained_at >= _QUIET_SECONDS:
            self._complained_at = now
            LOG.error('Cannot accept connections: %s. New ones wait.', error.strerror)
        self.stop_accepting()
        self._timer = self.loop.timer(_PAUSE_SECONDS)
        self._timer.start(self._start_accepting_if_started)

    def _keep(self) -> None:
        """Mind the deadlines. PERF: a timer for each request would cost 3 us."""
        while self._connections:
            now = time.monotonic()
            for connection in in_turns(self._connections):
                if now >= connection.deadline:
                    connection.expire()
            gevent.sleep(_TICK_SECONDS)
        self._keeper = None

    def _environ_of(self, address: Any) -> dict[str, Any]:
        """The part of WSGI's environment that all requests of a connection share."""
        environ = self._environ.copy()
        if isinstance(self.address, tuple):
            environ['SERVER_NAME'], environ['SERVER_PORT'] = (
                self.address[0],
                str(self.address[1]),
            )
        else:
            environ['SERVER_NAME'], environ['SERVER_PORT'] = 'localhost', '80'
        if isinstance(address, tuple):
            environ['REMOTE_ADDR'], environ['REMOTE_PORT'] = address[0], str(address[1])
        else:
            environ['REMOTE_ADDR'] = ''
        return environ
