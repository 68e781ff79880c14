"""The default envelope, upstream's: what wraps a request and its answer.

::

    {"action": "message_post", "headers": {"Client-ID": ..., "X-Project-ID": ...}, "body": {...}}

    {"request": {"action": ..., "body": ..., "headers": ..., "api": "v2"},
     "headers": {"status": 201},
     "body": {...}}
"""

from __future__ import annotations

from typing import Any

import msgspec

from zaqar_gevent.api import errors

_SECRET_HEADERS = frozenset({'x-auth-token'})


class Envelope(msgspec.Struct):
    """A request as it was unwrapped; names of headers are in lower case."""

    action: str
    headers: dict[str, str]
    body: dict[str, Any]


class _Frame(msgspec.Struct):
    action: str
    headers: dict[str, str] | None = None
    body: dict[str, Any] | None = None


def unwrap(document: dict[str, Any]) -> Envelope:
    """The request in a document.

    Raises `errors.MalformedDocument`, which names the member of the wrong type.
    """
    try:
        frame = msgspec.convert(document, _Frame)
    except msgspec.ValidationError as error:
        raise errors.MalformedDocument(f'Schema validation failed. {error}') from None
    headers = {name.lower(): value for name, value in (frame.headers or {}).items()}
    return Envelope(frame.action, headers, frame.body or {})


def wrap(document: dict[str, Any], status: int, body: Any) -> dict[str, Any]:
    """The answer to the request in `document`, which is echoed without its secrets."""
    return {
        'request': {
            'action': document.get('action'),
            'body': document.get('body') or {},
            'headers': _public(document.get('headers')),
            'api': 'v2',
        },
        'headers': {'status': status},
        'body': body,
    }


def describe(error: errors.APIError) -> dict[str, Any]:
    """The body of an answer that reports an error."""
    return {'error': error.description, 'exception': error.title, 'code': error.code}


def _public(headers: Any) -> Any:
    if not isinstance(headers, dict):
        return headers or {}
    return {name: value for name, value in headers.items() if name.lower() not in _SECRET_HEADERS}
