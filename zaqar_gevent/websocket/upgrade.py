"""How a WebSocket connection comes about: a WSGI middleware in front of REST.

A request to upgrade is answered here, under any of three kinds of server: our own, which hands
over its socket; gevent-websocket's handler, which has answered the handshake already; and servers
that cannot upgrade.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from oslo_context.context import RequestContext
from oslo_log import log

from zaqar_gevent.api import documents, errors
from zaqar_gevent.api.context import Identity
from zaqar_gevent.websocket import frames
from zaqar_gevent.websocket.connection import Connection, Receiver
from zaqar_gevent.websocket.frames import Frames

LOG = log.getLogger(__name__)

# 1013, try again later, where the identity service cannot be asked.
_CLOSE_CODES = {503: 1013}
PATHS = ('/', '/v2/ws')
TAKEOVER = 'zaqar_gevent.takeover'

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
NewReceiver = Callable[..., Receiver]


class Authenticator(Protocol):
    """Whoever knows tokens."""

    def identify(self, headers: Mapping[str, str]) -> Identity: ...


class Upgrade:
    """Turns upgrade requests into connections and passes everything else to `app`.

    new_receiver: makes the one that answers the messages of a new connection, given
        the `identity` of the token that came with the handshake, if one did.
    max_message_bytes: the longest message a client may send.
    auth_app: knows the tokens in handshakes; None where they are ignored.
    """

    def __init__(
        self,
        app: Application,
        new_receiver: NewReceiver,
        max_message_bytes: int,
        auth_app: Authenticator | None = None,
    ) -> None:
        self._app = app
        self._auth_app = auth_app
        self._new_receiver = new_receiver
        self._max_message_bytes = max_message_bytes

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if 'websocket' not in environ.get('HTTP_UPGRADE', '').lower():
            return self._app(environ, start_response)
        if environ.get('wsgi.websocket') is not None:
            self._continue_upgraded(environ)
            return []
        if environ['PATH_INFO'] not in PATHS:
            return self._app(environ, start_response)
        if TAKEOVER not in environ:
            return _refuse(start_response, _no_upgrade(environ))
        return self._upgrade(environ, start_response)

    def _upgrade(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Do the handshake on our own server."""
        response = frames.answer_handshake(environ['PATH_INFO'], _headers(environ))
        if response.status_code != 101:
            return _reject(start_response, response)
        try:
            receiver = self._receiver_for(environ)
        except errors.APIError as error:
            return _refuse(start_response, error)
        handler = environ[TAKEOVER]()
        handler.socket.sendall(response.serialize())
        self._run(handler, Frames(self._max_message_bytes), receiver)
        return []

    def _continue_upgraded(self, environ: Environ) -> None:
        """Go on where gevent-websocket has answered the handshake.

        Only its handshake is used: from here on the frames are ours, and closing it quietly keeps
        it from sending any of its own.
        """
        upgraded = environ['wsgi.websocket']
        upgraded.closed = True
        engine = Frames(self._max_message_bytes)
        receiver = self._new_receiver()
        if environ['PATH_INFO'] not in PATHS:
            engine.close(1008, f'WebSockets are served at {" and ".join(PATHS)}')
        else:
            try:
                receiver = self._receiver_for(environ)
            except errors.APIError as error:
                engine.close(_CLOSE_CODES.get(error.status, 1008), error.description)
        self._run(upgraded.handler, engine, receiver)

    def _receiver_for(self, environ: Environ) -> Receiver:
        """The receiver for a new connection; raises `errors.APIError` for a token refused."""
        if self._auth_app is None or 'HTTP_X_AUTH_TOKEN' not in environ:
            return self._new_receiver()
        headers = {name.lower(): value for name, value in _headers(environ)}
        return self._new_receiver(identity=self._auth_app.identify(headers))

    def _run(self, handler: Any, engine: Frames, receiver: Receiver) -> None:
        """Serve the connection; what is logged meanwhile has a request id of its own."""
        RequestContext()
        LOG.debug('WebSocket connected: %s', handler.client_address)
        Connection(handler.socket, handler.rfile.read1, engine, receiver).run()
        LOG.debug('WebSocket disconnected: %s', handler.client_address)


def _headers(environ: Environ) -> list[tuple[str, str]]:
    return [
        (name.removeprefix('HTTP_').replace('_', '-'), value)
        for name, value in environ.items()
        if name.startswith('HTTP_')
    ]


def _reject(start_response: StartResponse, response: Any) -> Iterable[bytes]:
    """Pass on why the handshake was refused, in the form of REST's errors."""
    reason = bytes(response.body or b'').decode().strip()
    error = errors.BadRequest(reason, title='WebSocket handshake refused')
    extra = [
        (name, value)
        for name, value in response.headers.raw_items()
        if name.lower() in ('allow', 'sec-websocket-version', 'upgrade')
    ]
    status = f'{response.status_code} {response.reason_phrase}'
    return _respond(start_response, status, error, extra)


def _no_upgrade(environ: Environ) -> errors.NotImplementedHere:
    server = environ.get('SERVER_SOFTWARE', 'this server')
    return errors.NotImplementedHere(
        f'{server} cannot upgrade to WebSocket here. Run the zaqar-gevent command, or gunicorn '
        'with -k geventwebsocket.gunicorn.workers.GeventWebSocketWorker.'
    )


def _refuse(start_response: StartResponse, error: errors.APIError) -> Iterable[bytes]:
    return _respond(start_response, f'{error.status} {error.title}', error, [])


def _respond(
    start_response: StartResponse,
    status: str,
    error: errors.APIError,
    extra: list[tuple[str, str]],
) -> Iterable[bytes]:
    body = documents.encode_json(error.to_document())
    headers = [
        ('Content-Type', 'application/json'),
        ('Content-Length', str(len(body))),
        ('Connection', 'close'),
    ]
    start_response(status, headers + extra)
    return [body]
