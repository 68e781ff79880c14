# Written by `tox -e genblocking` from client/aio/rest.py: change that one.
# fmt: off
"""REST, as a way to perform operations: a pool of HTTP connections."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from zaqar_gevent.client import errors, rest_format
from zaqar_gevent.client.sync.http import HTTPPool
from zaqar_gevent.client.links import Answer, Broken, Capabilities
from zaqar_gevent.client.operation import JSON, Operation
from zaqar_gevent.client.operations import OPERATIONS
from zaqar_gevent.client.outage import Outage

_CAPABILITIES_SECONDS = 10.0
# Asks for what upstream's API does not know, such as how often a message was claimed.
_EXTENSIONS = {'OpenStack-API-Version': 'messaging 2.1'}


class Rest:
    """Performs operations over HTTP.

    place: gives the server's URL, without the version, and the headers of each request.
    token: gives the token to use now.
    invalidate: told that a token was refused; says whether there is another.
    outage: told of each request whether the server answered.
    """

    kind: Literal['rest'] = 'rest'

    def __init__(
        self,
        place: Callable[[], Any],
        token: Callable[[], Any],
        invalidate: Callable[[], Any],
        outage: Outage,
        *,
        tls: ssl.SSLContext | None,
        max_body_bytes: int,
        pool_size: int,
        default: Callable[[Any], Any] | None = None,
    ) -> None:
        self._place = place
        self._token = token
        self._invalidate = invalidate
        self._outage = outage
        self._pool = HTTPPool(tls, max_body_bytes, pool_size)
        self._default = default
        self._capabilities: Capabilities | None = None
        self.is_open = True

    def get_capabilities(self) -> Capabilities:
        """The capabilities of the server; asked once, and again after it could not be reached.

        Raises what `perform` does.
        """
        if self._capabilities is None:
            answer = self.perform('get_capabilities', {}, _CAPABILITIES_SECONDS)
            if answer.status >= 500:
                raise errors.from_answer(answer.status, answer.body)
            self._capabilities = Capabilities.of(answer.body if answer.status == 200 else None)
        return self._capabilities

    def perform(self, action: str, arguments: Mapping[str, Any], seconds: float) -> Answer:
        """Perform an operation and wait for the answer, an error's as well.

        Raises Broken if the connection dies, Timeout if no answer comes in time, NotZaqar for an
        answer that no Zaqar gives, TypeError or ValueError for arguments that cannot be written,
        and Unsupported for an operation that is not known or not in REST.
        """
        operation = OPERATIONS.get(action)
        if operation is None or operation.path is None:
            raise errors.Unsupported(f'There is no {action} in REST.')
        deadline = time.monotonic() + seconds
        answer = self._try(operation, arguments, seconds)
        if answer.status == 401 and self._invalidate():
            answer = self._try(operation, arguments, deadline - time.monotonic())
        return answer

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.is_open = False
        self._pool.close()

    def _try(
        self, operation: Operation, arguments: Mapping[str, Any], seconds: float
    ) -> Answer:
        url, headers = self._place()
        target, body = rest_format.write(operation, dict(arguments), self._default)
        headers |= {'Accept': JSON, 'Content-Type': operation.media_type, **_EXTENSIONS}
        token = self._token()
        if token:
            headers['X-Auth-Token'] = token
        try:
            response = self._pool.send(
                operation.method or 'GET', url, target, body, headers, max(seconds, 0.001)
            )
        except Broken as error:
            self._outage.failed(str(error))
            # The next answer may be another server's.
            self._capabilities = None
            raise
        if response.status in rest_format.GATEWAY_STATUSES:
            problem = f'The gateway at {url} answered {response.status}.'
            self._outage.failed(problem)
            raise Broken(problem, was_sent=True)
        self._outage.over()
        return rest_format.read(operation, response, url)
