"""Checks a request that another HTTP server reads.

gevent-websocket's worker reads heads by gevent's pywsgi, which joins what comes twice by commas,
keeps the line breaks of folded headers, and knows nothing of what has to be there. A line that it
does not understand it drops, with all that follow it; of that nothing is seen here, so such a
worker must stand behind a proxy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from zaqar_gevent.api import errors

_CONTROL = re.compile('[\x00-\x08\x0a-\x1f\x7f]')
_HOST = re.compile(r'[^\s,/?#@\\]*', re.ASCII)

# What never has a comma, unless it came twice.
_SINGLE = (
    *('HTTP_HOST', 'HTTP_CLIENT_ID', 'HTTP_X_PROJECT_ID', 'HTTP_X_TENANT_ID', 'HTTP_EXPECT'),
    *('HTTP_X_AUTH_TOKEN', 'HTTP_X_SERVICE_TOKEN', 'HTTP_URL_SIGNATURE', 'CONTENT_LENGTH'),
    *('HTTP_X_USER_ID', 'HTTP_X_OPENSTACK_REQUEST_ID'),
)


def check(environ: Mapping[str, Any]) -> None:
    """Raise `errors.BadRequest` for a request that no strict server would have let through."""
    for name in _SINGLE:
        if ',' in environ.get(name, ''):
            raise _bad(f'The header {_header(name)} must not be repeated.')
    for name, value in environ.items():
        if name.startswith('HTTP_') and _CONTROL.search(value):
            raise _bad(f'The header {_header(name)} has a line break or another control character.')
    if environ.get('SERVER_PROTOCOL') == 'HTTP/1.1' and 'HTTP_HOST' not in environ:
        raise _bad('A request of HTTP/1.1 needs a Host.')
    if _HOST.fullmatch(environ.get('HTTP_HOST', '')) is None:
        raise _bad('The Host is not a name or address, with or without a port.')
    if environ.get('HTTP_TRANSFER_ENCODING', 'chunked').lower() != 'chunked':
        raise _bad('Of transfer codings only `chunked` is known.')
    length = environ.get('CONTENT_LENGTH') or '0'
    if not (length.isascii() and length.isdecimal()):
        raise _bad('The Content-Length is not a number of bytes.')
    has_body = int(length) > 0 or 'HTTP_TRANSFER_ENCODING' in environ
    # pywsgi gives the whole connection as input, and passes over the body once more in the end: so
    # it would take as much of the next request, which may be another client's.
    if has_body and not environ.get('wsgi.input_terminated', True):
        raise _bad('A request for an upgrade must not have a body.')


def close_after_broken_body(
    environ: MutableMapping[str, Any], start_response: Callable[..., Any]
) -> Callable[..., Any]:
    """Have the connection closed where the body cannot be read: nobody knows where it ends.

    Returns what takes the place of `start_response`.
    """
    body = environ['wsgi.input'] = _Body(environ['wsgi.input'])

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        extra = [('Connection', 'close')] if body.is_broken else []
        return start_response(status, [*headers, *extra], *exc_info)

    return start


class _Body:
    """The input of a request, whose every error in reading it is an `OSError`."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self.is_broken = False

    def read(self, size: int = -1) -> bytes:
        try:
            read: bytes = self._body.read(size)
        except (OSError, ValueError) as error:
            self.is_broken = True
            raise OSError(f'it is malformed ({error})') from None
        return read


def _header(name: str) -> str:
    return name.removeprefix('HTTP_').replace('_', '-').title()


def _bad(reason: str) -> errors.BadRequest:
    return errors.BadRequest(f'This is not a valid HTTP request. {reason}')
