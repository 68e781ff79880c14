"""The way over REST: a pool of HTTP connections.

Requests and results have the form of the WebSocket; what they are in REST is known here only.
"""

from __future__ import annotations

import json
import ssl
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, Literal

import urllib3

from zaqar_gevent.client import codecs, errors
from zaqar_gevent.client.credentials import Credentials
from zaqar_gevent.client.links import Answer, Broken, Capabilities
from zaqar_gevent.client.operation import JSON, Operation
from zaqar_gevent.client.operations import OPERATIONS

# What a gateway answers when the server behind it does not: whether it has got the request, nobody
# knows.
_GATEWAY_STATUSES = (502, 504)
_CONNECT_SECONDS = 10.0


class Rest:
    """See `zaqar_gevent.client.links.Link`.

    url: of the server, without the version. headers: of each request.
    """

    kind: Literal['rest'] = 'rest'

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        credentials: Credentials,
        *,
        tls: ssl.SSLContext | None,
        max_body_bytes: int,
        pool_size: int,
    ) -> None:
        self._url = url.rstrip('/')
        self._headers = {**headers, 'Accept': JSON}
        self._credentials = credentials
        self._max_body_bytes = max_body_bytes
        self._pool = urllib3.PoolManager(2, maxsize=pool_size, ssl_context=tls)
        self._capabilities: Capabilities | None = None
        self.is_open = True

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do; it is asked once, and again after it could not be reached.

        Raises what `perform` does.
        """
        if self._capabilities is None:
            answer = self.perform('get_capabilities', {}, _CONNECT_SECONDS)
            if answer.status >= 500:
                raise errors.from_answer(answer.status, answer.body)
            self._capabilities = Capabilities.of(answer.body if answer.status == 200 else None)
        return self._capabilities

    def perform(self, action: str, arguments: Mapping[str, Any], seconds: float) -> Answer:
        """See `Link`; raises Unsupported for an action that is not known or not in REST."""
        operation = OPERATIONS.get(action)
        if operation is None or operation.path is None:
            raise errors.Unsupported(f'There is no {action} in REST.')
        deadline = time.monotonic() + seconds
        answer = self._try(operation, arguments, seconds)
        if answer.status == 401 and self._credentials.invalidate():
            answer = self._try(operation, arguments, deadline - time.monotonic())
        return answer

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.is_open = False
        self._pool.clear()

    def _try(self, operation: Operation, arguments: Mapping[str, Any], seconds: float) -> Answer:
        target, body = _write(operation, dict(arguments))
        headers = {**self._headers, 'Content-Type': operation.media_type}
        token = self._credentials.token()
        if token:
            headers['X-Auth-Token'] = token
        try:
            response, content = self._send(
                operation.method or 'GET', target, body, headers, seconds
            )
        except Broken:
            # Whoever answers next may be another.
            self._capabilities = None
            raise
        if response.status in _GATEWAY_STATUSES:
            raise Broken(f'The gateway answered {response.status}.', was_sent=True)
        return _read(operation, arguments, response, content)

    def _send(
        self,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
        seconds: float,
    ) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        seconds = max(seconds, 0.001)
        timeout = urllib3.Timeout(connect=min(seconds, _CONNECT_SECONDS), read=seconds)
        try:
            response = self._pool.urlopen(
                method,
                self._url + target,
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
            raise Broken(f'The server cannot be reached: {error}', was_sent=False) from error
        except urllib3.exceptions.ReadTimeoutError as error:
            raise errors.Timeout(f'No answer within {seconds:.1f} s.') from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Broken(f'The connection died: {error}', was_sent=True) from error
        return response, content


def _write(operation: Operation, arguments: dict[str, Any]) -> tuple[str, bytes | None]:
    """The target and the body of a request.

    A missing part of the path is a TypeError, as a missing argument is.
    """
    path = operation.path or ''
    for variable in operation.variables:
        if variable not in arguments:
            raise TypeError(f'{operation.name} needs {variable}')
        value = str(arguments.pop(variable))
        path = path.replace(f'{{{variable}}}', urllib.parse.quote(value, safe=''))
    query = {
        parameter: _as_text(arguments.pop(name))
        for parameter, name in operation.query.items()
        if arguments.get(name) is not None
    }
    if operation.filters is not None:
        filters = arguments.pop(operation.filters, None) or {}
        query |= {name: _as_text(value) for name, value in filters.items()}
    if query:
        path += '?' + urllib.parse.urlencode(query, safe=',')
    return path, _body(operation, arguments)


def _body(operation: Operation, arguments: dict[str, Any]) -> bytes | None:
    if operation.method in ('GET', 'DELETE'):
        return None
    if operation.payload:
        document: Any = arguments.get(operation.payload)
    else:
        document = None if not arguments and operation.optional_body else arguments
    return None if document is None else codecs.encode(document, binary=False)


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ','.join(map(str, value))
    return str(value)


def _read(
    operation: Operation,
    arguments: Mapping[str, Any],
    response: urllib3.BaseHTTPResponse,
    content: bytes,
) -> Answer:
    """An answer in the form of the WebSocket: without hrefs and links."""
    status = response.status
    if status >= 400:
        if status == 404 and operation.name.endswith('message_get_many'):
            return Answer(200, {'messages': []})
        return Answer(status, _error_body(content))
    body = codecs.decode(content, binary=False) if content else None
    if isinstance(body, dict) and isinstance(body.get('links'), list):
        links = body.pop('links')
        if links:
            body['marker'] = _marker_in(links[0]['href'])
    reshape = _RESHAPE.get(operation.name.removeprefix('topic_'), _as_is)
    return Answer(status, reshape(arguments, response, body))


def _error_body(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content[:200].decode(errors='replace')


def _marker_in(href: str) -> str:
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(href).query)
    return query.get('marker', [''])[0]


def _last(href: str) -> str:
    return href.rsplit('/', 1)[-1]


Reshape = Callable[[Mapping[str, Any], urllib3.BaseHTTPResponse, Any], Any]


def _as_is(arguments: Mapping[str, Any], response: urllib3.BaseHTTPResponse, body: Any) -> Any:
    if isinstance(body, dict):
        body.pop('href', None)
    return body


def _posted(arguments: Mapping[str, Any], response: urllib3.BaseHTTPResponse, body: Any) -> Any:
    return {'message_ids': [_last(href) for href in body['resources']]}


def _one(arguments: Mapping[str, Any], response: urllib3.BaseHTTPResponse, body: Any) -> Any:
    return {'messages': _message(body)}


def _page(arguments: Mapping[str, Any], response: urllib3.BaseHTTPResponse, body: Any) -> Any:
    body = {'messages': [], **(body or {})}
    body.pop('href', None)
    body['messages'] = [_message(message) for message in body['messages']]
    return body


def _claimed(arguments: Mapping[str, Any], response: urllib3.BaseHTTPResponse, body: Any) -> Any:
    location = response.headers.get('Location')
    claim_id = _last(location) if location and body else None
    return {**_page(arguments, response, body), 'claim_id': claim_id}


def _stats(arguments: Mapping[str, Any], response: urllib3.BaseHTTPResponse, body: Any) -> Any:
    for end in ('oldest', 'newest'):
        message = body['messages'].get(end)
        if message:
            message['id'] = _last(message.pop('href'))
    return body


def _named(arguments: Mapping[str, Any], response: urllib3.BaseHTTPResponse, body: Any) -> Any:
    for kind in ('flavors', 'pools', 'queues', 'topics'):
        for entry in (body or {}).get(kind, ()):
            entry.pop('href', None)
    return body


def _message(message: dict[str, Any]) -> dict[str, Any]:
    href = urllib.parse.urlsplit(message.pop('href'))
    claim_ids = urllib.parse.parse_qs(href.query).get('claim_id', [None])
    return {'id': _last(href.path), **message, 'claim_id': claim_ids[0]}


_RESHAPE: dict[str, Reshape] = {
    'claim_create': _claimed,
    'claim_get': _page,
    'flavor_list': _named,
    'list': _named,
    'message_get': _one,
    'message_get_many': _page,
    'message_list': _page,
    'message_post': _posted,
    'pool_list': _named,
    'queue_get_stats': _stats,
    'get_stats': _stats,
    'queue_list': _named,
}
