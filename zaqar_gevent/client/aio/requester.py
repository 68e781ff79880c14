"""Performs operations: over the link of the moment, and again where that is safe."""

from __future__ import annotations

import functools
import random
import re
import time
import urllib.parse
import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from zaqar_gevent.client.aio import io
from zaqar_gevent.client.aio.connection import Connection
from zaqar_gevent.client.aio.connector import Connector, Link
from zaqar_gevent.client.aio.rest import Rest
from zaqar_gevent.client.attempts import Attempt
from zaqar_gevent.client.credentials import (
    CHECK_SECONDS,
    FixedToken,
    Place,
    SessionToken,
    TokenCall,
)
from zaqar_gevent.client.envelopes import SUBPROTOCOL, CompactEnvelope, DefaultEnvelope
from zaqar_gevent.client.errors import OutcomeUnknown
from zaqar_gevent.client.fallback import WANTED_BACKOFF_SECONDS, Backoff, Fallback, State
from zaqar_gevent.client.lifetime import weak_method
from zaqar_gevent.client.links import Answer, Broken, Capabilities, check
from zaqar_gevent.client.outage import Outage
from zaqar_gevent.client.settings import Settings

# How long closing waits for what cancelled calls have left behind.
_CLEANUP_SECONDS = 5.0

_SCHEMES = {'http': 'ws', 'https': 'wss', 'ws': 'ws', 'wss': 'wss'}


class Requester:
    """Performs the operations of a client and its queues; it keeps itself connected.

    It is closed when nobody uses it any more, with a ResourceWarning.
    """

    def __init__(self, settings: Settings, on_state: Callable[[State], None] | None) -> None:
        self.settings = settings
        self.timeout = settings.timeout
        self.cleanups = io.Cleanups()
        self._credentials = settings.credentials
        self._given_token: str | None = None
        self._on_state = on_state
        self._place: Place | None = None
        if not isinstance(self._credentials, SessionToken):
            # A mistake in the URL is told at once.
            self._place = _complete(Place(settings.url, settings.websocket_url, settings.project))
        self._outage = Outage(self.url or _without_user(settings.url))
        rest = Rest(
            weak_method(self._rest_place),
            weak_method(self.token),
            weak_method(self.invalidate),
            self._outage,
            tls=settings.tls,
            max_body_bytes=settings.max_message_size,
            pool_size=settings.pool_size,
            default=settings.default,
        )
        self.connector = Connector(
            Fallback(settings.transport, time.monotonic, random.random, settings.retry_seconds),
            rest,
            self._outage,
            weak_method(self._open),
            weak_method(self._refresh),
            CHECK_SECONDS,
            weak_method(self._tell_state),
        )
        self._finalizer = weakref.finalize(self, _abandon, self.connector, self._outage.address)
        self._finalizer.atexit = False
        self.connector.start()

    async def close(self) -> None:
        """Close the connections."""
        if self.connector.fork_guard.is_here:
            await self.cleanups.finish(_CLEANUP_SECONDS)
        self._finalizer.detach()
        await self.connector.close()

    @property
    def project(self) -> str | None:
        """Whose queues are meant, as far as is known."""
        return self.settings.project if self._place is None else self._place.project

    @property
    def url(self) -> str | None:
        """Where the server is, as far as is known."""
        return None if self._place is None else self._place.url

    @property
    def traits(self) -> str:
        """What tells it from others, for people: without tokens and passwords."""
        state = self.connector.state
        transport = self.settings.transport
        url = self.url or self._outage.address or 'a server that is not known yet'
        return f'{url} project={self.project!r} transport={transport!r} state={state!r}'

    async def place(self) -> Place:
        """Where the server is, and whose queues are meant; a session is asked once."""
        place = self._place
        if place is None:
            given = Place(self.settings.url, self.settings.websocket_url, self.settings.project)
            if isinstance(self._credentials, SessionToken) and not (given.url and given.project):
                find = functools.partial(self._credentials.place, needs_url=not given.url)
                found = await io.ask_blocking(find)
                given = Place(
                    given.url or found.url,
                    given.websocket_url or (None if given.url else found.websocket_url),
                    given.project or found.project,
                )
            place = self._place = _complete(given)
            self._outage.address = place.url or ''
        return place

    async def token(self) -> str | None:
        """The token to use now, None for none; raises ZaqarError if there is none to be had."""
        if isinstance(self._credentials, FixedToken):
            return self._credentials.value
        if isinstance(self._credentials, TokenCall):
            token: str | None = await io.ask(self._credentials.give)
            return token
        return await io.ask_blocking(self._credentials.token)

    async def invalidate(self) -> bool:
        """The token was refused; whether there can be another."""
        if isinstance(self._credentials, SessionToken):
            return await io.ask_blocking(self._credentials.invalidate)
        return isinstance(self._credentials, TokenCall)

    async def capabilities(self) -> Capabilities:
        """The capabilities of the server."""
        capabilities: Capabilities = await self._repeatedly(_capabilities)
        return capabilities

    async def perform(
        self, action: str, arguments: dict[str, Any], timeout: float | None = None
    ) -> Answer:
        """Perform an operation; see `Client.call` for what it raises."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        attempt = Attempt(action, arguments)
        backoff: Backoff | None = None
        while True:
            link = await self.connector.link(deadline - time.monotonic(), is_urgent=True)
            began_at = time.monotonic()
            try:
                given = await self._arguments(attempt, link)
                return check(await link.perform(action, given, deadline - began_at))
            except Broken as error:
                attempt.broke(error, began_at)
                if error.was_sent and not attempt.may_repeat():
                    raise OutcomeUnknown(f'{error} It may have been performed or not.') from error
                backoff = backoff or Backoff(random.random)
                await self._pause(backoff, link, deadline, error)

    async def perform_waiting(
        self, action: str, arguments: Mapping[str, Any], wait: float
    ) -> tuple[Any, bool]:
        """Perform an operation that waits for messages, at most `wait` seconds.

        Returns its result, and whether the server has waited: not all can.
        """
        seconds = min(wait, (await self.capabilities()).max_wait) if wait > 0 else 0
        given = {**arguments, 'wait': seconds} if seconds else dict(arguments)
        body = (await self.perform(action, given, self.timeout + seconds)).body
        return body if isinstance(body, dict) else {}, bool(seconds)

    async def _arguments(self, attempt: Attempt, link: Link) -> dict[str, Any]:
        if not attempt.is_post:
            return attempt.arguments(None)
        try:
            capabilities = await link.get_capabilities()
        except Broken as error:
            # Asking that is no part of the operation.
            raise Broken(str(error), was_sent=False) from error
        return attempt.arguments(capabilities)

    async def _repeatedly(self, ask: Callable[[Link], Any]) -> Any:
        """The result of `ask` over the present link, or over the next if that one dies."""
        deadline = time.monotonic() + self.timeout
        backoff = Backoff(random.random)
        while True:
            link = await self.connector.link(deadline - time.monotonic(), is_urgent=True)
            try:
                return await ask(link)
            except Broken as error:
                await self._pause(backoff, link, deadline, error)

    async def _pause(self, backoff: Backoff, link: Link, deadline: float, error: Broken) -> None:
        """Wait before the next attempt, or raise the error if there is no time for one."""
        # A call waits: better to ask in vain than to give up with time left.
        pause = min(backoff.next(), WANTED_BACKOFF_SECONDS)
        if time.monotonic() + pause >= deadline:
            raise error.public() from error
        if not isinstance(link, Connection):
            await io.sleep(pause)

    def _tell_state(self, state: State) -> None:
        if self._on_state is not None:
            self._on_state(state)

    async def _rest_place(self) -> tuple[str, dict[str, str]]:
        place = await self.place()
        return place.url or '', self._headers(place)

    def _headers(self, place: Place) -> dict[str, str]:
        given = {} if place.project is None else {'X-Project-ID': place.project}
        return {'Client-ID': self.settings.client_id, **given, **self.settings.headers}

    async def _open(self, seconds: float, on_end: Callable[[Connection], None]) -> Connection:
        """Open a WebSocket and agree with the server on it, within `seconds`."""
        deadline = time.monotonic() + seconds
        place = await self.place()
        token = await self.token()
        headers = self._headers(place)
        connection = await Connection.open(
            place.websocket_url or '',
            lambda subprotocol: (
                CompactEnvelope() if subprotocol == SUBPROTOCOL else DefaultEnvelope(headers)
            ),
            seconds=deadline - time.monotonic(),
            settings=self.settings,
            subprotocols=(SUBPROTOCOL,),
            on_end=on_end,
        )
        try:
            await self._greet(connection, headers, token, deadline)
        except BaseException:
            connection.cut()
            raise
        return connection

    async def _greet(
        self, connection: Connection, headers: dict[str, str], token: str | None, deadline: float
    ) -> None:
        self._given_token = token
        given = {'X-Auth-Token': token} if token else {}
        seconds = deadline - time.monotonic()
        if connection.kind == SUBPROTOCOL:
            answer = await connection.perform('hello', {}, seconds, headers={**headers, **given})
            await self._accept(answer)
            connection.capabilities = Capabilities.of(answer.body)
        elif token:
            await self._accept(await connection.perform('authenticate', {}, seconds, headers=given))
        else:
            await connection.check(seconds)

    async def _accept(self, answer: Answer) -> None:
        if answer.status == 401:
            await self.invalidate()
        check(answer)

    async def _refresh(self, connection: Connection) -> None:
        """Give a connection the token that is valid now, if that is another one."""
        token = await self.token()
        if token and token != self._given_token:
            headers = {**self._headers(await self.place()), 'X-Auth-Token': token}
            answer = await connection.perform('authenticate', {}, self.timeout, headers=headers)
            await self._accept(answer)
            self._given_token = token


async def _capabilities(link: Link) -> Capabilities:
    return await link.get_capabilities()


def _abandon(connector: Connector, url: str) -> None:
    """Close what a client has left open that nobody can use any more."""
    if connector.fork_guard.is_here:
        warnings.warn(f'A client of {url} was not closed.', ResourceWarning, stacklevel=2)
        # By its own task: garbage is collected anywhere, also under locks.
        connector.soon(connector.close)


def _complete(place: Place) -> Place:
    """The place with the URL for HTTP, without the API's version, and that of the WebSocket."""
    parts = _split(place.url)
    scheme = _SCHEMES[parts.scheme]
    authority = parts.netloc.rpartition('@')[2] + parts.path.rstrip('/').removesuffix('/v2')
    url = f'{scheme.replace("ws", "http")}://{authority}'
    websocket_url = f'{scheme}://{authority}/v2/ws'
    if place.websocket_url:
        given = _split(place.websocket_url)
        scheme = _SCHEMES[given.scheme]
        websocket_url = given._replace(scheme=scheme).geturl()
    return Place(url, websocket_url, place.project)


def _split(url: str | None) -> urllib.parse.SplitResult:
    parts = urllib.parse.urlsplit(url or '')
    # The port is a ValueError if it is no number.
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.port == 0:
        shown = _without_user(url)
        raise ValueError(f'Not the URL of a server (http, https, ws or wss): {shown!r}')
    return parts


def _without_user(url: str | None) -> str:
    """A URL without a name and password in it."""
    return re.sub('//[^/?#]*@', '//', url or '')
