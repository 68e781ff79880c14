"""HTTP connections for asyncio, by `httpcore`."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from zaqar_gevent.client import errors, foreign
from zaqar_gevent.client.links import Broken, no_answer
from zaqar_gevent.client.rest_format import Response

_CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 30.0


class HTTPPool:
    """A pool of HTTP connections; it is made at its first use, as most clients never need it."""

    def __init__(self, tls: ssl.SSLContext | None, max_body_bytes: int, size: int) -> None:
        self._tls = tls
        self._max_body_bytes = max_body_bytes
        self._size = size
        self._pool: Any = None

    async def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            await self._pool.aclose()

    async def send(
        self,
        method: str,
        url: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
        seconds: float,
    ) -> Response:
        """Send a request and wait for the response.

        url: of the server; the request is for `target` below it. Raises Broken, Timeout, NotZaqar
        where it does not speak HTTP, and ZaqarError for a response that is too long.
        """
        import httpcore

        if self._pool is None:
            self._pool = httpcore.AsyncConnectionPool(
                ssl_context=self._tls or ssl.create_default_context(),
                max_connections=None,
                max_keepalive_connections=self._size,
                keepalive_expiry=_IDLE_SECONDS,
            )
        timeout = {
            'connect': min(seconds, _CONNECT_SECONDS),
            'pool': seconds,
            'read': seconds,
            'write': seconds,
        }
        try:
            async with self._pool.stream(
                method,
                url + target,
                headers=dict(headers),
                content=body,
                extensions={'timeout': timeout},
            ) as response:
                content = await self._read(response)
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout) as error:
            raise Broken(foreign.unreachable(url, error), was_sent=False) from error
        except httpcore.TimeoutException as error:
            raise no_answer(seconds) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            # In the words of `h11`.
            if str(error).startswith('illegal'):
                raise errors.NotZaqar(foreign.no_http(url, error)) from error
            raise Broken(foreign.unanswered(url, error), was_sent=True) from error
        location = next(
            (
                value.decode('latin-1')
                for name, value in response.headers
                if name.lower() == b'location'
            ),
            None,
        )
        return Response(response.status, location, content)

    async def _read(self, response: Any) -> bytes:
        content = bytearray()
        async for part in response.aiter_stream():
            content += part
            if len(content) > self._max_body_bytes:
                raise errors.ZaqarError(f'An answer exceeds {self._max_body_bytes} bytes.')
        return bytes(content)
