"""How a WebSocket connection comes about: a WSGI middleware in front of REST.

A request to upgrade is answered here, under any of three kinds of server: our own, which hands
over its socket; gevent-websocket's handler, which has answered the handshake already; and servers
that cannot upgrade.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from oslo_log import log

from zaqar_gevent.api import documents, errors
from zaqar_gevent.websocket import frames
from zaqar_gevent.websocket.connection import Connection, Receiver
from zaqar_gevent.websocket.frames import Frames

LOG = log.getLogger(__name__)

PATHS = ('/', '/v2/ws')
TAKEOVER = 'zaqar_gevent.takeover'

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class Upgrade:
    """Turns upgrade requests into connections and passes everything else to `app`.

    new_receiver: makes the one that answers the messages of a new connection.
    max_message_bytes: the longest message a client may send.
    """

    def __init__(
        self, app: Application, new_receiver: Callable[[], Receiver], max_message_bytes: int
    ) -> None:
        self._app = app
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
        handler = environ[TAKEOVER]()
        handler.socket.sendall(response.serialize())
        self._run(handler, Frames(self._max_message_bytes))
        return []

    def _continue_upgraded(self, environ: Environ) -> None:
        """Go on where gevent-websocket has answered the handshake.

        Only its handshake is used: from here on the frames are ours, and closing it quietly keeps
        it from sending any of its own.
        """
        upgraded = environ['wsgi.websocket']
        upgraded.closed = True
        engine = Frames(self._max_message_bytes)
        if environ['PATH_INFO'] not in PATHS:
            engine.close(1008, f'WebSockets are served at {" and ".join(PATHS)}')
        self._run(upgraded.handler, engine)

    def _run(self, handler: Any, engine: Frames) -> None:
        LOG.debug('WebSocket connected: %s', handler.client_address)
        Connection(handler.socket, handler.rfile.read1, engine, self._new_receiver()).run()
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
