"""The client's credentials: none, a token, or a session.

What may have to wait is done by whoever uses this, as threads and asyncio do it: `ask` calls a
function of the user's, `ask_blocking` one that waits for the network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from zaqar_gevent.client.errors import ConnectionLost, Unauthorized, ZaqarError

# How often it is asked whether there is another token.
CHECK_SECONDS = 20.0


class Place(NamedTuple):
    """The server's URL and the project; None for unknown parts."""

    url: str | None
    websocket_url: str | None
    project: str | None


class FixedToken:
    """One token, or none."""

    def __init__(self, token: str | None) -> None:
        self.value = token


class TokenCall:
    """A function that gives the token; it is asked for each connection, and again and again."""

    def __init__(self, give: Callable[[], Any]) -> None:
        self.give = give


class SessionToken:
    """A keystoneauth1 session, which renews a token by itself two minutes before it expires.

    region, interface: which endpoint of the catalogue to use, None for the first public one.
    """

    def __init__(
        self, session: Any, region: str | None = None, interface: str | None = None
    ) -> None:
        from keystoneauth1.exceptions import CatalogException, ClientException

        self._session = session
        self._filter = {'region_name': region, 'interface': interface or 'public'}
        self._failure = ClientException
        self._not_found = CatalogException

    def token(self) -> str | None:
        """A token that is valid; raises ZaqarError if there is none to be had."""
        return self._ask(self._session.get_token)

    def invalidate(self) -> bool:
        """The token was refused; whether there can be another."""
        return bool(self._session.invalidate())

    def place(self, *, needs_url: bool = True) -> Place:
        """The endpoints in the catalogue: `messaging`, and `messaging-websocket` if any.

        Raises `ConnectionLost` where there is none of the former, and it is needed.
        """
        url = self._endpoint('messaging')
        if url is None and needs_url:
            wanted = ', '.join(f'{name} {value}' for name, value in self._filter.items() if value)
            raise ConnectionLost(
                f"The identity service's catalogue has no service `messaging` for {wanted}."
            )
        return Place(
            url,
            self._endpoint('messaging-websocket'),
            self._ask(self._session.get_project_id),
        )

    def _endpoint(self, service_type: str) -> str | None:
        given = {name: value for name, value in self._filter.items() if value is not None}

        def get() -> str | None:
            try:
                url: str | None = self._session.get_endpoint(service_type=service_type, **given)
            except self._not_found:
                return None
            return url

        return self._ask(get)

    def _ask(self, question: Callable[[], str | None]) -> str | None:
        try:
            return question()
        except self._failure as error:
            raise _explain(error) from error


Credentials = FixedToken | TokenCall | SessionToken


def _explain(error: Any) -> ZaqarError:
    status = getattr(error, 'http_status', None)
    if status == 401:
        return Unauthorized(401, 'unauthorized', 'Unauthorized', str(error))
    return ConnectionLost(f'The identity service gives no token: {error}')


def choose(token: str | Callable[[], Any] | None, session: Any) -> Credentials:
    """The credentials for a client's arguments `token` and `session`."""
    if session is None:
        return TokenCall(token) if callable(token) else FixedToken(token)
    if token is not None:
        raise ValueError('Give a token or a session, not both.')
    return session if isinstance(session, SessionToken) else SessionToken(session)
