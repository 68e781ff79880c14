"""The client: one object a server, for any number of threads."""

from __future__ import annotations

import random
import ssl
import time
import urllib.parse
import uuid
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from zaqar_gevent.client import codecs
from zaqar_gevent.client.admin import Resources
from zaqar_gevent.client.attempts import Attempt
from zaqar_gevent.client.connection import Connection
from zaqar_gevent.client.connector import Connector
from zaqar_gevent.client.credentials import (
    CHECK_SECONDS,
    Credentials,
    FixedToken,
    SessionToken,
    TokenCall,
)
from zaqar_gevent.client.envelopes import SUBPROTOCOL, CompactEnvelope, DefaultEnvelope
from zaqar_gevent.client.errors import OutcomeUnknown
from zaqar_gevent.client.fallback import (
    RETRY_SECONDS,
    WANTED_BACKOFF_SECONDS,
    Backoff,
    Fallback,
    State,
    Transport,
)
from zaqar_gevent.client.lifetime import weakly
from zaqar_gevent.client.links import Answer, Broken, Capabilities, Link, check
from zaqar_gevent.client.queue import Queue, Topic
from zaqar_gevent.client.rest import Rest
from zaqar_gevent.client.websocket import MAX_MESSAGE_BYTES, WebSocket

TRANSPORTS = ('auto', 'websocket', 'rest')
KEEPALIVE_SECONDS = 10.0

_SCHEMES = {'http': 'ws', 'https': 'wss', 'ws': 'ws', 'wss': 'wss'}


class Client:
    """A client of one server, which keeps itself connected.

    url: of the server (http, https, ws or wss); may be left out with a `session`, whose catalogue
        says it. project: whose queues; left out, the session's. client_id: a UUID; left out, a new
        one.
    token: a token, or a function that gives one. session: a keystoneauth1 session instead.
    transport: `auto` is the WebSocket, or REST while that does not get through.
    encoding: of the WebSocket; REST is always JSON.
    timeout: of each call, in seconds, whatever it takes.
    headers: more of them for each request, as those of a pre-signed URL.
    tls: a context for https and wss; left out, the system's certificates are trusted.
    max_message_size: in bytes, of what the server may send at once.
    keepalive: after how many seconds of silence the server is pinged; after twice as many the
        connection is given up.
    retry_seconds: how often the WebSocket is tried again from REST.
    pool_size: how many HTTP connections are kept.
    on_state: called with each new state, by a thread of the client's.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        project: str | None = None,
        client_id: str | None = None,
        token: str | Callable[[], str] | None = None,
        session: Any = None,
        transport: Transport = 'auto',
        encoding: str = 'msgpack',
        timeout: float = 30.0,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        max_message_size: int = MAX_MESSAGE_BYTES,
        keepalive: float = KEEPALIVE_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        pool_size: int = 10,
        on_state: Callable[[State], None] | None = None,
    ) -> None:
        if transport not in TRANSPORTS:
            raise ValueError(f'The transport must be one of {", ".join(TRANSPORTS)}.')
        if encoding not in codecs.ENCODINGS:
            raise ValueError(f'The encoding must be one of {", ".join(codecs.ENCODINGS)}.')
        self._credentials = _credentials(token, session)
        if isinstance(self._credentials, SessionToken):
            url = url or self._credentials.endpoint()
            project = project or self._credentials.project_id()
        http_url, self._websocket_url = _urls(url)
        self.project = project
        self.client_id = client_id or str(uuid.uuid4())
        self.encoding = encoding
        self.timeout = timeout
        self._tls = tls
        self._max_message_size = max_message_size
        self._keepalive = keepalive
        self._headers = {'Client-ID': self.client_id, **(headers or {})}
        if project is not None:
            self._headers['X-Project-ID'] = project
        self._given_token: str | None = None
        rest = Rest(
            http_url,
            self._headers,
            self._credentials,
            tls=tls,
            max_body_bytes=max_message_size,
            pool_size=pool_size,
        )
        self.connector = Connector(
            Fallback(transport, time.monotonic, random.random, retry_seconds),
            rest,
            weakly(self._open),
            weakly(self._refresh),
            CHECK_SECONDS,
            weakly(self._tell_state),
        )
        self._on_state = on_state
        self._finalizer = weakref.finalize(self, _abandon, self.connector, http_url)
        self._finalizer.atexit = False
        self.connector.start()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def state(self) -> State:
        """`connecting`, `websocket`, `polling` (REST) or `closed`."""
        return self.connector.state

    @property
    def protocol(self) -> str | None:
        """`zaqar.v2` or `default` (upstream's) of the WebSocket, None while none is open."""
        connection = self.connector.connection
        return None if connection is None else connection.kind

    def close(self) -> None:
        """Close the connections; what waits for an answer gets none. Subscriptions and consumers
        are to be closed before.

        A client that is dropped without it is closed when it is garbage collected, with a
        ResourceWarning. In a forked process this leaves the parent's connections alone.
        """
        self._finalizer.detach()
        self.connector.close()

    def call(self, action: str, **arguments: Any) -> Any:
        """Perform any operation by its name; its result, None where there is none.

        The arguments and the result have the form of the WebSocket, over REST as well. Raises
        APIError for what the server refuses, ConnectionLost, Timeout, OutcomeUnknown (see there),
        and TypeError or ValueError for what cannot be written.
        """
        answer = self.perform(action, arguments)
        return None if answer.status == 204 or isinstance(answer.body, str) else answer.body

    def queue(self, name: str) -> Queue:
        """A queue, whether it exists or not."""
        return Queue(self, name)

    def topic(self, name: str) -> Topic:
        """A topic, whether it exists or not."""
        return Topic(self, name)

    def queues(
        self, *, marker: str | None = None, limit: int | None = None, name: str | None = None
    ) -> Iterator[Queue]:
        """The project's queues by name, page by page; `name` is a regular expression for them."""
        return (Queue(self, one) for one in self._names('queue', marker, limit, name))

    def topics(
        self, *, marker: str | None = None, limit: int | None = None, name: str | None = None
    ) -> Iterator[Topic]:
        """The project's topics by name, page by page; `name` is a regular expression for them."""
        return (Topic(self, one) for one in self._names('topic', marker, limit, name))

    @property
    def pools(self) -> Resources:
        """The pools; for operators."""
        return Resources(self, 'pool')

    @property
    def flavors(self) -> Resources:
        """The flavors; for operators."""
        return Resources(self, 'flavor')

    def capabilities(self) -> Capabilities:
        """What the server can do."""
        capabilities: Capabilities = self._repeatedly(lambda link, _seconds: link.capabilities)
        return capabilities

    def ping(self) -> None:
        """Ask whether the server and its store are alive; raises ServiceUnavailable, or what `call`
        does. A server of upstream's, over WebSocket, is only asked whether it is there."""
        link = self.connector.link(self.timeout, is_urgent=True)
        if isinstance(link, Connection) and link.kind == 'default':
            link.check(self.timeout)
        else:
            self.call('ping_node')

    def health(self) -> dict[str, Any]:
        """How each kind of operation on the store goes; for operators."""
        health: dict[str, Any] = self.call('check_node_health')
        return health

    def perform(self, action: str, arguments: Mapping[str, Any]) -> Answer:
        """The same as `call`, with the status."""
        return self._perform(action, dict(arguments), self.timeout)

    def perform_waiting(
        self, action: str, arguments: Mapping[str, Any], wait: float
    ) -> tuple[Any, bool]:
        """Perform an operation that waits for messages, at most `wait` seconds; its result, and
        whether the server has waited, as not all can."""
        seconds = min(wait, self.capabilities().max_wait) if wait > 0 else 0
        given = {**arguments, 'wait': seconds} if seconds else dict(arguments)
        body = self._perform(action, given, self.timeout + seconds).body
        return body if isinstance(body, dict) else {}, bool(seconds)

    def _perform(self, action: str, arguments: dict[str, Any], timeout: float) -> Answer:
        attempt = Attempt(action, arguments)
        return check(self._repeatedly(attempt.make, timeout, attempt.may_repeat))

    def _repeatedly(
        self,
        ask: Callable[[Link, float], Any],
        timeout: float | None = None,
        may_repeat: Callable[[], bool] = lambda: True,
    ) -> Any:
        """What `ask` gives over the link of the moment, or over the next where that dies."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        backoff = Backoff(random.random)
        while True:
            link = self.connector.link(deadline - time.monotonic(), is_urgent=True)
            try:
                return ask(link, deadline - time.monotonic())
            except Broken as error:
                if error.was_sent and not may_repeat():
                    raise OutcomeUnknown(f'{error} It may have been done or not.') from error
                # Somebody waits: better to ask in vain than to give up with time left.
                pause = min(backoff.next(), WANTED_BACKOFF_SECONDS)
                if time.monotonic() + pause >= deadline:
                    raise
                if not isinstance(link, Connection):
                    time.sleep(pause)

    def _names(
        self, kind: str, marker: str | None, limit: int | None, name: str | None
    ) -> Iterator[str]:
        while True:
            options = {'marker': marker, 'limit': limit, 'name': name}
            given = {key: value for key, value in options.items() if value is not None}
            page = self.call(f'{kind}_list', **given) or {}
            found = page.get(f'{kind}s') or []
            yield from (one['name'] for one in found)
            next_marker = page.get('marker') or (found[-1]['name'] if found else None)
            if not found or next_marker == marker:
                return
            marker = next_marker

    def _tell_state(self, state: State) -> None:
        if self._on_state is not None:
            self._on_state(state)

    def _open(self, seconds: float, on_end: Callable[[Connection], None]) -> Connection:
        """Open a WebSocket and agree with the server on it, within `seconds`."""
        deadline = time.monotonic() + seconds
        token = self._credentials.token()
        websocket = WebSocket.connect(
            self._websocket_url,
            seconds=deadline - time.monotonic(),
            subprotocols=(SUBPROTOCOL,),
            tls=self._tls,
            max_message_bytes=self._max_message_size,
        )
        is_compact = websocket.subprotocol == SUBPROTOCOL
        connection = Connection(
            websocket,
            CompactEnvelope() if is_compact else DefaultEnvelope(self._headers),
            binary=self.encoding == 'msgpack',
            keepalive=self._keepalive,
            on_end=on_end,
        )
        connection.start()
        try:
            self._greet(connection, token, deadline)
        except BaseException:
            connection.cut()
            raise
        return connection

    def _greet(self, connection: Connection, token: str | None, deadline: float) -> None:
        self._given_token = token
        given = {'X-Auth-Token': token} if token else {}
        seconds = deadline - time.monotonic()
        if connection.kind == SUBPROTOCOL:
            headers = {**self._headers, **given}
            answer = connection.perform('hello', {}, seconds, headers=headers)
            self._accept(answer)
            connection.capabilities = Capabilities.of(answer.body)
        elif token:
            self._accept(connection.perform('authenticate', {}, seconds, headers=given))
        else:
            connection.check(seconds)

    def _accept(self, answer: Answer) -> None:
        if answer.status == 401:
            self._credentials.invalidate()
        check(answer)

    def _refresh(self, connection: Connection) -> None:
        """Give a connection the token that is good by now, if that is another one."""
        token = self._credentials.token()
        if token and token != self._given_token:
            headers = {**self._headers, 'X-Auth-Token': token}
            self._accept(connection.perform('authenticate', {}, self.timeout, headers=headers))
            self._given_token = token


def _abandon(connector: Connector, url: str) -> None:
    """Close what a client has left open that nobody can use any more."""
    if connector.home.is_here:
        warnings.warn(f'A client of {url} was not closed.', ResourceWarning, stacklevel=2)
        # By its own thread: garbage is collected anywhere, also under locks.
        connector.soon(connector.close)


def _credentials(token: str | Callable[[], str] | None, session: Any) -> Credentials:
    if session is not None:
        if token is not None:
            raise ValueError('Give a token or a session, not both.')
        return SessionToken(session)
    return TokenCall(token) if callable(token) else FixedToken(token)


def _urls(url: str | None) -> tuple[str, str]:
    """The server's URL for HTTP, without the API's version, and that of its WebSocket."""
    parts = urllib.parse.urlsplit(url or '')
    # The port is a ValueError where it is none.
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.port == 0:
        raise ValueError(f'Not the URL of a server: {url!r}')
    scheme = _SCHEMES[parts.scheme]
    place = parts.netloc.rpartition('@')[2] + parts.path.rstrip('/').removesuffix('/v2')
    return f'{scheme.replace("ws", "http")}://{place}', f'{scheme}://{place}/v2/ws'
