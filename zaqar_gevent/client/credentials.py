"""Who the client is to the server: nobody in particular, or whoever has a token or a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from zaqar_gevent.client.errors import ConnectionLost, Unauthorized, ZaqarError

# How often it is asked whether there is another token.
CHECK_SECONDS = 20.0


class Credentials(Protocol):
    """Where tokens come from. May be called by any thread."""

    def token(self) -> str | None:
        """The token to use now, None for none; raises ZaqarError where there is none to be had."""
        ...

    def invalidate(self) -> bool:
        """The token was refused; False where there will be no other."""
        ...


class FixedToken:
    """One token, or none."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def token(self) -> str | None:
        return self._token

    def invalidate(self) -> bool:
        return False


class TokenCall:
    """A function that gives the token; it is asked for each connection, and again and again."""

    def __init__(self, give: Callable[[], str]) -> None:
        self._give = give

    def token(self) -> str | None:
        return self._give()

    def invalidate(self) -> bool:
        return True


class SessionToken:
    """A keystoneauth1 session, which by itself renews a token two minutes before it expires."""

    def __init__(self, session: Any) -> None:
        from keystoneauth1.exceptions import ClientException

        self._session = session
        self._failure = ClientException

    def token(self) -> str | None:
        return self._ask(self._session.get_token)

    def invalidate(self) -> bool:
        return bool(self._session.invalidate())

    def project_id(self) -> str | None:
        """The project that the session is for."""
        return self._ask(self._session.get_project_id)

    def endpoint(self) -> str | None:
        """Where the catalogue has the service."""
        return self._ask(lambda: self._session.get_endpoint(service_type='messaging'))

    def _ask(self, question: Callable[[], str | None]) -> str | None:
        try:
            return question()
        except self._failure as error:
            raise _explain(error) from error


def _explain(error: Any) -> ZaqarError:
    status = getattr(error, 'http_status', None)
    if status == 401:
        return Unauthorized(401, 'unauthorized', 'Unauthorized', str(error))
    return ConnectionLost(f'The identity service gives no token: {error}')
