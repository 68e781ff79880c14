# Written by `tox -e genblocking` from client/aio/client.py: change that one.
# fmt: off
"""The client: one object a server, for any number of callers."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Callable, Mapping
from typing import Any

from zaqar_gevent.client import cloud as clouds
from zaqar_gevent.client import settings
from zaqar_gevent.client.sync.admin import Resources
from zaqar_gevent.client.sync.connection import Connection
from zaqar_gevent.client.sync.queue import Queue, Topic
from zaqar_gevent.client.sync.requester import Requester
from zaqar_gevent.client.sync.target import list_names
from zaqar_gevent.client.fallback import State, Transport
from zaqar_gevent.client.links import Broken, Capabilities


class Client:
    """A client of one server, which keeps itself connected.

    url: of the server (http, https, ws or wss); may be left out with a `session` or `cloud`, whose
        catalogue says it.
    project: whose queues; left out, the session's or cloud's.
    client_id: a UUID; left out, a new one.
    token: a token, or a function that gives one. session: a keystoneauth1 session instead.
    cloud: the name of a cloud in clouds.yaml, or True for the one that the variables `OS_*` name or
        describe; needs openstacksdk.
    transport: `auto` is the WebSocket, or REST while that does not get through.
    websocket_url: of the WebSocket, if it is not below `url`.
    encoding: `msgpack` or `json`, of the WebSocket; REST is always JSON.
    default: called for a value in a message body that JSON does not know, such as a datetime; gives
        one to send instead.
    timeout: of each call, in seconds, whatever it takes.
    headers: more headers for each request, such as those of a pre-signed URL.
    tls: a context for https and wss; left out, the system's certificates are trusted.
    max_message_size: in bytes, of what the server may send at once.
    keepalive: after how many seconds of silence the server is pinged; after twice as many the
        connection is given up.
    retry_seconds: how often the WebSocket is tried again from REST.
    pool_size: how many HTTP connections are kept.
    engine: what reads and writes WebSocket frames, `websockets` or `ws4py`.
    compression: whether to offer compression to the server; only the engine `websockets` can.
    on_state: called with each new state, in the background.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        project: str | None = None,
        client_id: str | None = None,
        token: str | Callable[[], Any] | None = None,
        session: Any = None,
        cloud: str | bool | None = None,
        transport: Transport = 'auto',
        websocket_url: str | None = None,
        encoding: str = 'msgpack',
        default: Callable[[Any], Any] | None = None,
        timeout: float = 30.0,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        max_message_size: int = settings.MAX_MESSAGE_BYTES,
        keepalive: float = settings.KEEPALIVE_SECONDS,
        retry_seconds: float = settings.RETRY_SECONDS,
        pool_size: int = 10,
        engine: str = 'websockets',
        compression: bool = False,
        on_state: Callable[[State], None] | None = None,
    ) -> None:
        if cloud:
            session = clouds.session_of(cloud if isinstance(cloud, str) else None)
        self._requester = Requester(
            settings.check(
                url=url,
                websocket_url=websocket_url,
                project=project,
                client_id=client_id,
                token=token,
                session=session,
                transport=transport,
                encoding=encoding,
                default=default,
                timeout=timeout,
                headers=headers,
                tls=tls,
                max_message_size=max_message_size,
                keepalive=keepalive,
                retry_seconds=retry_seconds,
                pool_size=pool_size,
                engine=engine,
                compression=compression,
            ),
            on_state,
        )
        self.client_id = self._requester.settings.client_id
        self.encoding = encoding

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f'<Client of {self._requester.traits}>'

    @property
    def url(self) -> str | None:
        """Where the server is, by HTTP; None until a session's or cloud's catalogue was asked."""
        return self._requester.url

    @property
    def timeout(self) -> float:
        """How many seconds each call takes at most."""
        return self._requester.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._requester.timeout = seconds

    @property
    def state(self) -> State:
        """`connecting`, `websocket`, `polling` (REST) or `closed`."""
        return self._requester.connector.state

    @property
    def protocol(self) -> str | None:
        """`zaqar.v2` or `default` (upstream's) of the WebSocket, None while none is open."""
        connection = self._requester.connector.connection
        return None if connection is None else connection.kind

    def close(self) -> None:
        """Close the connections; calls that wait for an answer fail.

        Close subscriptions and consumers before. A client that is dropped without being closed is
        closed when it is garbage collected, with a ResourceWarning. In a forked process this leaves
        the parent's connections alone.
        """
        self._requester.close()

    def call(self, action: str, **arguments: Any) -> Any:
        """Perform any operation by its name; its result, None if there is none.

        The arguments and the result have the form of the WebSocket, over REST as well. Raises
        APIError for what the server refuses, ConnectionLost, Timeout, OutcomeUnknown (see there),
        and TypeError or ValueError for what cannot be written.
        """
        answer = self._requester.perform(action, arguments)
        return None if answer.status == 204 or isinstance(answer.body, str) else answer.body

    def queue(self, name: str) -> Queue:
        """A queue, whether it exists or not."""
        return Queue(self._requester, name)

    def topic(self, name: str) -> Topic:
        """A topic, whether it exists or not."""
        return Topic(self._requester, name)

    def queues(
        self, *, marker: str | None = None, limit: int | None = None, name: str | None = None
    ) -> Iterator[Queue]:
        """The project's queues by name, page by page; `name` is a text that each contains."""
        for one in list_names(self._requester, 'queue', marker, limit, name):
            yield Queue(self._requester, one)

    def topics(
        self, *, marker: str | None = None, limit: int | None = None, name: str | None = None
    ) -> Iterator[Topic]:
        """The project's topics by name, page by page; `name` is a text that each contains."""
        for one in list_names(self._requester, 'topic', marker, limit, name):
            yield Topic(self._requester, one)

    @property
    def pools(self) -> Resources:
        """The pools; for operators."""
        return Resources(self._requester, 'pool')

    @property
    def flavors(self) -> Resources:
        """The flavors; for operators."""
        return Resources(self._requester, 'flavor')

    @property
    def project(self) -> str | None:
        """Whose queues these are; None if that is not known here, or not yet."""
        return self._requester.project

    def capabilities(self) -> Capabilities:
        """The capabilities of the server."""
        return self._requester.capabilities()

    def quotas(self) -> dict[str, Any]:
        """The quotas of the project: `used` and `allowed` by the name of the limit."""
        report: dict[str, Any] = self.call('quota_get')
        quotas: dict[str, Any] = report['quotas']
        return quotas

    def ping(self) -> None:
        """Ask whether the server and its store are alive.

        Raises ServiceUnavailable, or what `call` does. A server of upstream's, over WebSocket, is
        only asked whether it is there.
        """
        link = self._requester.connector.link(self.timeout, is_urgent=True)
        if not isinstance(link, Connection) or link.kind != 'default':
            self.call('ping_node')
            return
        try:
            link.check(self.timeout)
        except Broken as error:
            raise error.public() from error

    def health(self) -> dict[str, Any]:
        """How each kind of operation on the store goes; for operators."""
        health: dict[str, Any] = self.call('check_node_health')
        return health
