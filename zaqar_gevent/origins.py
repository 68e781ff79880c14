"""The web pages that may use a server from a browser, told by their origin (RFC 6454)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from oslo_log import log

from zaqar_gevent.api import errors
from zaqar_gevent.logs import FirstTimes

ANY = '*'
NULL = 'null'

_DEFAULT_PORTS = {'http': 80, 'https': 443}
_SHOWN = 100

LOG = log.getLogger(__name__)


class Origins:
    """The origins whose pages may read answers and open WebSockets.

    allowed: origins as in `[cors] allowed_origin`; `*` allows every origin.

    Pages of the server itself, and clients that send no Origin, are always allowed. The first
    refusal of each origin is logged, up to a number of origins.
    """

    def __init__(self, allowed: Collection[str]) -> None:
        """Raises `ValueError` for an entry that is not an origin."""
        check_origins(allowed)
        self._allowed = frozenset(allowed)
        self._logged = FirstTimes()

    def allow(self, environ: Mapping[str, Any]) -> bool:
        """Whether a request comes from an allowed origin, or from no page at all."""
        origin = environ.get('HTTP_ORIGIN')
        if origin is None or origin in self._allowed or ANY in self._allowed:
            return True
        if _is_same(origin, environ.get('HTTP_HOST', ''), environ.get('wsgi.url_scheme')):
            return True
        shown = origin[:_SHOWN]
        if self._logged.is_first(shown):
            LOG.warning(
                'A web page of the origin %r was refused. To allow it, add the origin to '
                'allowed_origin in [cors], or start the server with --allowed-origin.',
                shown,
            )
        return False

    def check(self, environ: Mapping[str, Any]) -> None:
        """Raise `errors.Forbidden` unless the request's origin is allowed."""
        if not self.allow(environ):
            raise errors.Forbidden(
                'Pages of this origin may not connect. To allow them, the operator adds the origin '
                'to allowed_origin in [cors], or starts the server with --allowed-origin.',
                title='Origin not allowed',
            )


def check_origins(origins: Iterable[str]) -> None:
    """Raise `ValueError` for the first entry that no browser would send as its origin."""
    for origin in origins:
        if origin not in (ANY, NULL) and not _is_origin(origin):
            raise ValueError(
                f'allowed_origin in [cors]: {origin!r} is not an origin. Write scheme, host and '
                'port, if it is not the default one, as in https://shop.example.org or '
                'http://localhost:5173, without a path; * alone allows every origin.'
            )


def _is_origin(text: str) -> bool:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return False
    host = url.hostname or ''
    if not url.scheme or not host or ANY in host:
        return False
    bracketed = f'[{host}]' if ':' in host else host
    written = bracketed if port is None else f'{bracketed}:{port}'
    return text == f'{url.scheme}://{written}'


def _is_same(origin: str, host: str, scheme: str | None) -> bool:
    """Whether `origin` is that of the `host` it asks.

    A `scheme` of http says nothing: behind a proxy that ends TLS and does not tell of it, only the
    client knows the scheme.
    """
    try:
        url, target = urlsplit(origin), urlsplit(f'//{host}')
        if scheme == 'https' and url.scheme != 'https':
            return False
        default = _DEFAULT_PORTS[url.scheme]
        asked = (target.hostname, target.port or default)
        return url.netloc != '' and (url.hostname, url.port or default) == asked
    except (KeyError, ValueError):
        return False
