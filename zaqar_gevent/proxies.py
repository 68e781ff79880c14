"""Reads the client's address, scheme and host from the headers of a proxy.

Each proxy adds to what it receives, and a client may have sent the same headers. So of each list
only the last element counts, which the proxy next to the server has added; and of the two kinds of
headers only the one that this proxy is known to set.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

from oslo_config import cfg
from oslo_middleware import http_proxy_to_wsgi

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

X_FORWARDED = 'x-forwarded'
FORWARDED = 'forwarded'
KINDS = (
    (X_FORWARDED, 'X-Forwarded-For, -Proto, -Host and -Prefix'),
    (FORWARDED, 'Forwarded (RFC 7239)'),
)

# Where the environment of a request has the path below which its client finds the API. It is not
# WSGI's SCRIPT_NAME, which upstream's own tests set and expect to be ignored.
PREFIX = 'zaqar_gevent.prefix'

# Where the environment of a request keeps the Host that it came with, if a proxy names another.
RECEIVED_HOST = 'zaqar_gevent.received_host'

_X_VARIABLES = {
    name: f'HTTP_X_FORWARDED_{name.upper()}' for name in ('for', 'proto', 'host', 'prefix')
}
_PREFIX = re.compile(r'(?:/[\w.~-]+)+', re.ASCII)
_SCHEMES = ('http', 'https')
_NODE = re.compile(r'\[?(?P<address>[0-9a-fA-F.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)\]?(?::\d{1,5})?')


def trust_proxies(app: Application, conf: cfg.ConfigOpts, kind: str) -> Application:
    """`app`, told by the headers of a proxy where a request came from.

    `app` itself unless [oslo_middleware] enable_proxy_headers_parsing says to believe them.

    kind: which headers the proxy sets, `x-forwarded` or `forwarded`; the others are ignored.
    """
    conf.register_opts(http_proxy_to_wsgi.OPTS, group='oslo_middleware')
    if not conf.oslo_middleware.enable_proxy_headers_parsing:
        return app

    def trusting(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        believe(environ, kind)
        return app(environ, start_response)

    return trusting


def believe(environ: Environ, kind: str) -> None:
    """Change `environ` to what the headers of this kind say.

    REMOTE_ADDR becomes an address only; what is none is not believed.
    """
    said = _forwarded(environ) if kind == FORWARDED else _x_forwarded(environ)
    address = _address_in(said.get('for', ''))
    if address is not None:
        environ['REMOTE_ADDR'] = address
    if said.get('proto', '').lower() in _SCHEMES:
        environ['wsgi.url_scheme'] = said['proto'].lower()
    if said.get('host'):
        if 'HTTP_HOST' in environ:
            environ[RECEIVED_HOST] = environ['HTTP_HOST']
        environ['HTTP_HOST'] = said['host']
    prefix = said.get('prefix', '').rstrip('/')
    if _PREFIX.fullmatch(prefix):
        environ[PREFIX] = prefix


def _x_forwarded(environ: Environ) -> dict[str, str]:
    return {
        name: environ[key].rsplit(',', 1)[-1].strip()
        for name, key in _X_VARIABLES.items()
        if key in environ
    }


def _forwarded(environ: Environ) -> dict[str, str]:
    """The parameters of the last element; none of those that are read holds a separator."""
    element = environ.get('HTTP_FORWARDED', '').rsplit(',', 1)[-1]
    pairs = (pair.partition('=') for pair in element.split(';'))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def _address_in(node: str) -> str | None:
    """The address in `address[:port]`; None for `unknown`, hidden names and the like."""
    match = _NODE.fullmatch(node)
    if match is None:
        return None
    try:
        address = ipaddress.ip_address(match['address'])
    except ValueError:
        return None
    return str(getattr(address, 'ipv4_mapped', None) or address)
