"""Upgrades requests to WebSocket connections: a WSGI middleware in front of REST.

A request to upgrade is answered here, under any of three kinds of server: those that hand a
connection over (ours, and gunicorn with our worker), where the handshake is done here;
gevent-websocket's handler, which has answered it already; and servers that cannot upgrade.
"""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from oslo_log import log

from zaqar_gevent import foreign, metrics
from zaqar_gevent.api import errors
from zaqar_gevent.api.context import Identity
from zaqar_gevent.api.push import Recipient
from zaqar_gevent.hosts import Hosts
from zaqar_gevent.origins import Origins
from zaqar_gevent.refusals import refuse_early
from zaqar_gevent.request_ids import identify_request
from zaqar_gevent.websocket import handshake
from zaqar_gevent.websocket.connection import Receiver, WebSocketConnection
from zaqar_gevent.websocket.connections import OpenConnections
from zaqar_gevent.websocket.engines import Compression, Engine, FrameLimits
from zaqar_gevent.websocket.limits import Limits

LOG = log.getLogger(__name__)

PATHS = ('/', '/v2/ws')
TAKEOVER = 'zaqar_gevent.takeover'

# 1013, try again later; everything else that is refused is against the rules.
_CLOSE_CODES = {503: 1013}
_POLICY_VIOLATION = 1008
_PROTOCOL_ERROR = 1002

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class Takeover(NamedTuple):
    """A connection that its HTTP server hands over.

    early: what was received behind the request.
    start: runs the connection, now or in a greenlet of its own.
    """

    socket: socket.socket
    early: bytes
    start: Callable[[Callable[[], None]], None]


class Authenticator(Protocol):
    """Identifies callers by their tokens."""

    def identify(self, headers: Mapping[str, str]) -> Identity: ...


class NewReceiver(Protocol):
    """Makes the handler of the messages of a new connection.

    subprotocol: what was negotiated. identity: of the token in the handshake, if one came with it.
    headers: of the handshake, by lower-case name. address: of the client.
    """

    def __call__(
        self,
        subprotocol: str | None,
        identity: Identity | None,
        headers: Mapping[str, str],
        address: str,
    ) -> Receiver: ...


class Framing(NamedTuple):
    """How frames are read and written: the engine, what a client may send, the compression."""

    engine: type[Engine]
    limits: FrameLimits
    compression: Compression | None = None


class _Refused(Exception):
    """An upgrade is refused: why, for the client and for the metrics."""

    def __init__(self, error: errors.APIError, reason: metrics.Refusal) -> None:
        super().__init__(reason)
        self.error = error
        self.reason: metrics.Refusal = reason


class Upgrade:
    """Turns upgrade requests into connections and passes everything else to `app`.

    connections: the open ones.
    authenticator: knows the tokens in handshakes; None where they are ignored.
    """

    def __init__(
        self,
        app: Application,
        new_receiver: NewReceiver,
        connections: OpenConnections,
        frames: Framing,
        limits: Limits,
        hosts: Hosts,
        origins: Origins,
        subprotocols: tuple[str, ...],
        authenticator: Authenticator | None = None,
    ) -> None:
        self._app = app
        self._new_receiver = new_receiver
        self.connections = connections
        self._frames = frames
        self._limits = limits
        self._hosts = hosts
        self._origins = origins
        self._subprotocols = subprotocols
        self._authenticator = authenticator

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if TAKEOVER in environ and 'HTTP_UPGRADE' not in environ:
            # PERF: nearly every request.
            return self._app(environ, start_response)
        if environ.get('wsgi.websocket') is not None:
            self._continue_upgraded(environ)
            return []
        if TAKEOVER not in environ:
            try:
                foreign.check(environ)
            except errors.BadRequest as error:
                identify_request(environ)
                return _respond(start_response, error)
            start_response = foreign.close_after_broken_body(environ, start_response)
        if 'websocket' not in environ.get('HTTP_UPGRADE', '').lower():
            return self._app(environ, start_response)
        if environ['PATH_INFO'] not in PATHS:
            return self._app(environ, start_response)
        identify_request(environ)
        if TAKEOVER not in environ:
            return _respond(start_response, _no_upgrade(environ))
        try:
            self._upgrade(environ)
        except _Refused as refused:
            metrics.count_refusal(refused.reason)
            return _respond(start_response, refused.error)
        return []

    def app_protocol(self, path: str) -> str | None:
        """The subprotocol that gevent-websocket's handler may agree to."""
        return self._subprotocols[0] if path in PATHS and self._subprotocols else None

    def _upgrade(self, environ: Environ) -> None:
        """Do the handshake, and take over the connection."""
        offered = self._frames.engine.offer(self._frames.compression)
        try:
            accepted = handshake.accept(environ, offered, self._subprotocols)
        except errors.APIError as error:
            raise _Refused(error, 'handshake') from None
        address = _address_of(environ)
        receiver = self._admit(environ, address, accepted.subprotocol)
        takeover: Takeover = environ[TAKEOVER]()
        engine = self._frames.engine(self._frames.limits, accepted.extensions)
        connection = self._connection(takeover.socket, engine, receiver, address)
        connection.outbox.put([accepted.response])
        takeover.start(functools.partial(self._run, connection, address, takeover.early))

    def _connection(
        self, sock: socket.socket, engine: Engine, receiver: Receiver, address: str
    ) -> WebSocketConnection:
        connections = self.connections
        return WebSocketConnection(
            *(sock, engine, receiver, self._limits, connections.unsent, connections.received),
            address,
        )

    def _admit(self, environ: Environ, address: str, subprotocol: str | None) -> Receiver:
        """Let a client in, which takes up room; raises `_Refused`."""
        try:
            self._hosts.check(environ)
        except errors.APIError as error:
            raise _Refused(error, 'host') from None
        try:
            self._origins.check(environ)
        except errors.APIError as error:
            raise _Refused(error, 'origin') from None
        self._take_room(address)
        headers = _headers_of(environ)
        try:
            identity = self._identify(headers)
            receiver = self._new_receiver(subprotocol, identity, headers, address)
            self.connections.admit_client(receiver, address)
        except errors.APIError as error:
            self.connections.give_back(address)
            raise _Refused(error, _reason_of(error)) from None
        return receiver

    def _take_room(self, address: str) -> None:
        try:
            self.connections.admit(address)
        except errors.AtCapacity as error:
            raise _Refused(error, _reason_of(error)) from None

    def _identify(self, headers: Mapping[str, str]) -> Identity | None:
        if self._authenticator is None or 'x-auth-token' not in headers:
            return None
        return self._authenticator.identify(headers)

    def _continue_upgraded(self, environ: Environ) -> None:
        """Take over a connection whose handshake gevent-websocket has answered.

        Only its handshake is used: from here on the frames are ours, and closing it quietly keeps
        it from sending any of its own. What would have been refused is closed with a code.
        """
        upgraded = environ['wsgi.websocket']
        upgraded.closed = True
        handler = upgraded.handler
        engine = self._frames.engine(self._frames.limits)
        address = _address_of(environ)
        early = read_ahead(handler.rfile, handler.socket)
        try:
            receiver = self._admit_upgraded(environ, address)
        except _Refused as refused:
            metrics.count_refusal(refused.reason)
            _turn_away(handler.socket, engine, refused.error)
            return
        connection = self._connection(handler.socket, engine, receiver, address)
        self._run(connection, address, early)

    def _admit_upgraded(self, environ: Environ, address: str) -> Receiver:
        if environ['PATH_INFO'] not in PATHS:
            where = f'WebSockets are served at {" and ".join(PATHS)}'
            raise _Refused(errors.NotFound(where), 'handshake')
        try:
            foreign.check(environ)
            handshake.check_version(environ)
        except errors.APIError as error:
            raise _Refused(error, 'handshake') from None
        offered = environ.get('HTTP_SEC_WEBSOCKET_PROTOCOL', '')
        agreed = self.app_protocol(environ['PATH_INFO'])
        # Its handler agrees to a name that appears anywhere in the client's list.
        subprotocol = agreed if agreed and agreed in offered else None
        return self._admit(environ, address, subprotocol)

    def _run(self, connection: WebSocketConnection, address: str, early: bytes) -> None:
        LOG.debug('WebSocket connected: %s', address)
        try:
            self.connections.look_after(connection)
            connection.run(early)
        finally:
            self.connections.leave(address, connection)
            LOG.debug('WebSocket disconnected: %s', address)


def _reason_of(error: errors.APIError) -> metrics.Refusal:
    """The name in the metrics for the refusal of a valid request."""
    match error:
        case errors.TooManyOfAddress():
            return 'address'
        case errors.TooManyUnknown():
            return 'unauthenticated'
        case errors.AtCapacity():
            return 'capacity'
        case _:
            return 'authentication'


def read_ahead(rfile: Any, sock: socket.socket) -> bytes:
    """The bytes that an HTTP server has received behind the request, without waiting."""
    timeout = sock.gettimeout()
    sock.settimeout(0)
    try:
        return bytes(rfile.peek())
    except (BlockingIOError, ssl.SSLWantReadError):
        return b''
    finally:
        sock.settimeout(timeout)


def _address_of(environ: Environ) -> str:
    return str(environ.get('REMOTE_ADDR', ''))


def _headers_of(environ: Environ) -> dict[str, str]:
    return {
        name.removeprefix('HTTP_').replace('_', '-').lower(): value
        for name, value in environ.items()
        if name.startswith('HTTP_')
    }


def _turn_away(sock: socket.socket, engine: Engine, error: errors.APIError) -> None:
    """Close a connection that should not have been upgraded."""
    code = _CLOSE_CODES.get(error.status, _POLICY_VIOLATION)
    if isinstance(error, errors.UpgradeRequired):
        code = _PROTOCOL_ERROR
    engine.close(code, error.description)
    WebSocketConnection(sock, engine, _Nobody(), Limits()).run()


class _Nobody:
    """Answers nothing: receives for connections that are being closed."""

    protocol = 'default'
    expires_at: float | None = None
    is_known = True

    def receive(self, payload: bytes, *, binary: bool) -> bytes:
        raise AssertionError('a closing connection delivers no messages')

    def check_token(self) -> bool:
        return True

    def attach(self, recipient: Recipient) -> None: ...

    def end(self) -> None: ...

    def farewell(self, reason: str, reconnect_after_ms: int) -> None:
        return None


def _no_upgrade(environ: Environ) -> errors.NotImplementedHere:
    server = environ.get('SERVER_SOFTWARE', 'this server')
    return errors.NotImplementedHere(
        f'{server} cannot upgrade to WebSocket here. Run the zaqar-gevent command, or gunicorn '
        'with -k zaqar_gevent.gunicorn.Worker.'
    )


def _respond(start_response: StartResponse, error: errors.APIError) -> Iterable[bytes]:
    """Refuse in the form of REST's errors, and close the connection."""
    extra = _EXTRA_HEADERS.get(error.status, ())
    return refuse_early(start_response, error, ('Connection', 'close'), *extra)


_EXTRA_HEADERS = {
    426: [('Upgrade', 'websocket'), ('Sec-WebSocket-Version', handshake.VERSION)],
    503: [('Retry-After', str(errors.RETRY_AFTER_SECONDS))],
}
