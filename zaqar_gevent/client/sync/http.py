"""HTTP connections for threads, by `urllib3`."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from typing import Any

from zaqar_gevent.client import errors, foreign
from zaqar_gevent.client.links import Broken, no_answer
from zaqar_gevent.client.rest_format import Response

_CONNECT_SECONDS = 10.0


class HTTPPool:
    """A pool of HTTP connections, for any number of threads.

    It is made at its first use, as most clients never need it.
    """

    def __init__(self, tls: ssl.SSLContext | None, max_body_bytes: int, size: int) -> None:
        self._tls = tls
        self._max_body_bytes = max_body_bytes
        self._size = size
        self._pool: Any = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections that are not in use."""
        if self._pool is not None:
            self._pool.clear()

    def send(
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
        import http.client

        import urllib3

        with self._lock:
            if self._pool is None:
                self._pool = urllib3.PoolManager(2, maxsize=self._size, ssl_context=self._tls)
        timeout = urllib3.Timeout(connect=min(seconds, _CONNECT_SECONDS), read=seconds)
        try:
            response = self._pool.urlopen(
                method,
                url + target,
                body=body,
                headers=headers,
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=False,
            )
            content = response.read(self._max_body_bytes + 1)
            if len(content) > self._max_body_bytes:
                response.close()
                raise errors.ZaqarError(f'An answer exceeds {self._max_body_bytes} bytes.')
            response.release_conn()
        except (
            urllib3.exceptions.NewConnectionError,
            urllib3.exceptions.ConnectTimeoutError,
            urllib3.exceptions.SSLError,
        ) as error:
            raise Broken(foreign.unreachable(url, error), was_sent=False) from error
        except urllib3.exceptions.ReadTimeoutError as error:
            raise no_answer(seconds) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            root = foreign.root_of(error)
            if isinstance(root, http.client.BadStatusLine) and not isinstance(root, OSError):
                raise errors.NotZaqar(foreign.no_http(url, error)) from error
            raise Broken(foreign.unanswered(url, error), was_sent=True) from error
        return Response(response.status, response.headers.get('Location'), content)
