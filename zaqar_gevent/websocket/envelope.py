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

from zaqar_gevent.api import errors, microversions, subscribers, tracing
from zaqar_gevent.api.context import Caller
from zaqar_gevent.api.signed_urls import SignedRequest

_SECRET_HEADERS = frozenset({'url-signature', 'x-auth-token', 'x-service-token', 'x-storage-token'})

# The headers whose values the server acts on.
_INTERPRETED = _SECRET_HEADERS | {
    *('client-id', 'x-project-id', 'x-user-id', 'x-roles', 'request-id'),
    *('url-expires', 'url-methods', 'url-paths'),
    *(microversions.HEADER.lower(), tracing.PARENT, tracing.STATE),
}

MAX_HEADERS = 32 * 1024
"""Characters of all the headers of a message: they are remembered for the connection."""


class _RequestMembers(msgspec.Struct):
    action: str
    headers: dict[str, str] | None = None
    body: dict[str, Any] | None = None


def check(document: dict[str, Any]) -> None:
    """Raise `errors.MalformedDocument`, naming the member of the wrong type, if there is one."""
    try:
        msgspec.convert(document, _RequestMembers)
    except msgspec.ValidationError as error:
        raise errors.MalformedDocument(f'Schema validation failed. {error}') from None


def check_size(headers: dict[str, str]) -> None:
    """Raise `errors.BadRequest` for more headers than are remembered."""
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_HEADERS:
        raise errors.BadRequest(
            f'Headers may have at most {MAX_HEADERS} characters in all - at `$.headers`'
        )


def lower(headers: dict[str, str]) -> dict[str, str]:
    """The headers by lower-case name, since names are read in any case.

    Raises `errors.BadRequest` for an interpreted header that has two values, in two spellings. That
    python-zaqarclient gives the same value twice does no harm.
    """
    named = {name.lower(): value for name, value in headers.items()}
    if len(named) != len(headers):
        _check_single(headers, named)
    return named


def _check_single(headers: dict[str, str], named: dict[str, str]) -> None:
    for name, value in headers.items():
        if value != named[name.lower()] and name.lower() in _INTERPRETED:
            raise errors.BadRequest(
                f'The header {name} must not have two values, in two spellings - at `$.headers`'
            )


def caller_of(named: dict[str, str]) -> Caller:
    """The caller that the headers of a request, by lower-case name, name."""
    return Caller.of(
        named.get('x-project-id'),
        named.get('client-id'),
        named.get('x-user-id'),
        named.get('x-roles'),
    )


def signed_request_in(named: dict[str, str]) -> SignedRequest | None:
    """The pre-signed URL that the headers of a request, by lower-case name, present."""
    return SignedRequest.of(
        named.get('url-signature'),
        named.get('url-expires'),
        named.get('url-methods'),
        named.get('url-paths'),
    )


def public(headers: Any) -> Any:
    """The headers of a request that may be echoed: no token and no signature."""
    if not isinstance(headers, dict):
        return headers or {}
    return {name: value for name, value in headers.items() if name.lower() not in _SECRET_HEADERS}


def wrap(document: dict[str, Any], headers: Any, status: int, body: Any) -> dict[str, Any]:
    """The answer to the request in `document`, which is echoed with these `headers`."""
    asked = document.get('body') or {}
    # PERF: hardly any has options, of which a secret may be one.
    if type(asked) is dict and 'options' in asked:
        asked = subscribers.conceal(asked)
    return {
        'request': {
            'action': document.get('action'),
            'body': asked,
            'headers': headers,
            'api': 'v2',
        },
        'headers': {'status': status},
        'body': body,
    }


def describe(error: errors.APIError) -> dict[str, Any]:
    """The body of an answer that reports an error."""
    document = {'error': error.description, 'exception': error.title, 'code': error.code}
    return {**document, **error.details}
