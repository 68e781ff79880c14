"""How operations look in REST: their requests and answers in HTTP, without I/O.

Everywhere else, arguments and results have the form of the WebSocket.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable
from typing import Any, NamedTuple

from zaqar_gevent.client import codecs, foreign
from zaqar_gevent.client.errors import NotZaqar
from zaqar_gevent.client.links import Answer
from zaqar_gevent.client.operation import Operation

# A gateway answers so when the server behind it does not answer: nobody knows whether the server
# has got the request.
GATEWAY_STATUSES = (502, 504)

_GET_MANY = ('message_get_many', 'topic_message_get_many')


class Response(NamedTuple):
    """An HTTP response. location: its Location header, None for none."""

    status: int
    location: str | None
    content: bytes


def write(
    operation: Operation, arguments: dict[str, Any], default: codecs.Default | None = None
) -> tuple[str, bytes | None]:
    """The target and the body of a request; see `codecs.encode` for `default`.

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
    return path, _body(operation, arguments, default)


def _body(
    operation: Operation, arguments: dict[str, Any], default: codecs.Default | None
) -> bytes | None:
    if operation.method in ('GET', 'DELETE'):
        return None
    if operation.payload:
        document: Any = arguments.get(operation.payload)
    else:
        document = None if not arguments and operation.optional_body else arguments
    return None if document is None else codecs.encode(document, binary=False, default=default)


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ','.join(map(str, value))
    return str(value)


def read(operation: Operation, response: Response, url: str) -> Answer:
    """The answer in the form of the WebSocket: without hrefs and links.

    url: of the server. Raises NotZaqar for what no Zaqar answers. An error that no Zaqar gives
    keeps its status, as there are gateways that put pages of their own in place of errors.
    """
    status = response.status
    if status >= 400:
        body = _error_body(response, url)
        if status == 404 and isinstance(body, dict) and operation.name in _GET_MANY:
            return Answer(200, {'messages': []})
        return Answer(status, body)
    try:
        if status in foreign.REDIRECTIONS:
            raise ValueError('It redirects.')
        return Answer(status, _read_body(operation, response))
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        said = foreign.describe(url, status, response.content, response.location)
        raise NotZaqar(f'{said}.') from error


def _read_body(operation: Operation, response: Response) -> Any:
    body = json.loads(response.content) if response.content else None
    if isinstance(body, dict) and isinstance(body.get('links'), list):
        links = body.pop('links')
        if links:
            body['marker'] = _marker_in(links[0]['href'])
    reshape = _RESHAPE.get(operation.name.removeprefix('topic_'), _as_is)
    return reshape(response, body)


def _error_body(response: Response, url: str) -> Any:
    status, content = response.status, response.content
    try:
        return json.loads(content or b'{}')
    except (ValueError, RecursionError):
        if foreign.is_foreign(status):
            return foreign.describe(url, status, content)
        return foreign.quote(content)


def _marker_in(href: str) -> str:
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(href).query)
    return query.get('marker', [''])[0]


def _last(href: str) -> str:
    return href.rsplit('/', 1)[-1]


Reshape = Callable[[Response, Any], Any]


def _as_is(response: Response, body: Any) -> Any:
    if isinstance(body, dict):
        body.pop('href', None)
    return body


def _posted(response: Response, body: Any) -> Any:
    return {'message_ids': [_last(href) for href in body['resources']]}


def _one(response: Response, body: Any) -> Any:
    return {'messages': _message(body)}


def _page(response: Response, body: Any) -> Any:
    body = {'messages': [], **(body or {})}
    body.pop('href', None)
    body['messages'] = [_message(message) for message in body['messages']]
    return body


def _claimed(response: Response, body: Any) -> Any:
    claim_id = _last(response.location) if response.location and body else None
    return {**_page(response, body), 'claim_id': claim_id}


def _stats(response: Response, body: Any) -> Any:
    for end in ('oldest', 'newest'):
        message = body['messages'].get(end)
        if message:
            message['id'] = _last(message.pop('href'))
    return body


def _named(response: Response, body: Any) -> Any:
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
