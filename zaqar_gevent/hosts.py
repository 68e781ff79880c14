"""The names that a server without authentication answers to.

A page at `http://evil.example:8888` may let its name resolve to this server's address (DNS
rebinding); its browser then takes the page and the server for one origin. What tells such a request
from others is its Host: the page's name, which is none of the server's.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from oslo_log import log

from zaqar_gevent.api import documents, errors
from zaqar_gevent.logs import FirstTimes
from zaqar_gevent.proxies import RECEIVED_HOST
from zaqar_gevent.request_ids import HEADER as REQUEST_ID
from zaqar_gevent.request_ids import get_request_id, identify_request

ANY = '*'

_LOOPBACK_NAMES = frozenset({'localhost', 'localhost.localdomain', 'ip6-localhost', 'ip6-loopback'})
_PATTERN = re.compile(
    r'(?P<host>\[[^\[\]]+\]|[a-z0-9](?:[a-z0-9._-]{0,253}[a-z0-9])?)\.?(?::(?P<port>\d{0,5}))?',
    re.ASCII | re.IGNORECASE,
)
_SHOWN = 100
_MAX_REMEMBERED = 1000

LOG = log.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class Hosts:
    """The hosts that requests may be meant for.

    allowed: names as in allowed_hosts, in any case; a port is ignored. `*` allows every host.

    IP addresses, names of loopback and the machine's own name are always allowed. The first refusal
    of each host is logged, up to a number of hosts.
    """

    def __init__(self, allowed: Collection[str]) -> None:
        """Raises `ValueError` for an entry that is no host."""
        self._allows_any = ANY in allowed
        self._names = {_listed(entry) for entry in allowed if entry != ANY}
        self._remembered: set[str] = set()
        self._logged = FirstTimes()

    def check(self, environ: Environ) -> None:
        """Raise `errors.Forbidden` unless the request is for an allowed host.

        A request without the header Host passes: browsers always send it.
        """
        if self._allows_any:
            return
        if (
            environ.get('HTTP_HOST') in self._remembered
            and RECEIVED_HOST not in environ
            and environ.get('PATH_INFO', '')[:1] == '/'
        ):
            # PERF: nearly every request.
            return
        for host in _hosts_in(environ):
            if not self.allows(host):
                identify_request(environ)
                shown = host if len(host) <= _SHOWN else f'{host[:_SHOWN]}...'
                if self._logged.is_first(shown):
                    LOG.warning(
                        'A request for the host %r was refused. To answer to this name, add it to '
                        'allowed_hosts in [drivers:transport:gevent], or start the server with '
                        '--allowed-host.',
                        shown,
                    )
                raise errors.Forbidden(_refusal(shown), title='Host not allowed')

    def allows(self, host: str) -> bool:
        """Whether a Host header with this value (RFC 9110, section 7.2) names an allowed host.

        PERF: those that do are remembered, up to a number.
        """
        if host in self._remembered:
            return True
        name = name_in(host)
        if name is None or not self._has(name):
            return False
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered.add(host)
        return True

    def _has(self, name: str) -> bool:
        return (
            name in self._names or _is_address(name) or _is_loopback(name) or name in _own_names()
        )


def check_hosts(app: Application, hosts: Hosts) -> Application:
    """`app` for requests that `hosts` allow; others are refused with 403."""

    def checked(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            hosts.check(environ)
        except errors.Forbidden as error:
            body = documents.encode_json(error.to_document())
            headers = [
                ('Content-Type', 'application/json'),
                ('Content-Length', str(len(body))),
                (REQUEST_ID, get_request_id()),
            ]
            start_response(f'{error.status} Forbidden', headers)
            return [] if environ.get('REQUEST_METHOD') == 'HEAD' else [body]
        return app(environ, start_response)

    return checked


def name_in(host: str) -> str | None:
    """The host in `host[:port]`: lower case, without brackets and the dot of the root.

    None for what is neither a name nor an address.
    """
    match = _PATTERN.fullmatch(host)
    if match is None or int(match['port'] or 0) > 65535:
        return None
    name = match['host'].lower()
    if not name.startswith('['):
        return name
    address = _address(name[1:-1])
    return str(address) if isinstance(address, ipaddress.IPv6Address) else None


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches `address`, an IP address or a name."""
    found = _address(address)
    if found is None:
        return _is_loopback(address.lower())
    mapped = getattr(found, 'ipv4_mapped', None)
    return (mapped or found).is_loopback


def _hosts_in(environ: Environ) -> Iterator[str]:
    """The hosts that a request names: its Host, what a proxy had put there, and its target's."""
    for key in ('HTTP_HOST', RECEIVED_HOST):
        if key in environ:
            yield environ[key]
    target: str = environ.get('PATH_INFO', '')
    if not target.startswith(('/', '*')) and target:
        # The absolute form (RFC 9112, section 3.2.2), where the server passes it on.
        try:
            yield urlsplit(target).netloc
        except ValueError:
            yield target


def _listed(entry: str) -> str:
    name = name_in(entry)
    if name is None:
        raise ValueError(f'{entry!r} is no host name; write it as in example.com, without http://')
    return name


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    """Whether it is an IP address, which no name server can make lead elsewhere."""
    return _address(name) is not None


def _is_loopback(name: str) -> bool:
    """Whether a name is one of loopback (RFC 6761, section 6.3)."""
    return name in _LOOPBACK_NAMES or name.endswith('.localhost')


@functools.cache
def _own_names() -> frozenset[str]:
    """The name of this machine; read once, when it is first needed."""
    names = (name_in(name) for name in (socket.gethostname(), socket.getfqdn()))
    return frozenset(name for name in names if name)


def _refusal(shown: str) -> str:
    return (
        f'Without authentication this server answers only to names that are known to be its own; '
        f'{shown!r} is not. Clients may use its IP address; the operator may add the name to '
        'allowed_hosts in [drivers:transport:gevent], or start it with --allowed-host.'
    )
