"""Where a Redis server is: upstream's URIs, and `rediss://` for TLS beside them.

::

    redis://[[user]:password@]host[:port][?options]
    redis://[[user]:password@]/path/to/redis.sock[?options]
    redis://[[user]:password@]host[:port][,host[:port]...]?master=NAME[&options]    Sentinel

Unlike upstream, user and password are percent-decoded.
"""

from __future__ import annotations

import urllib.parse
from typing import NamedTuple

from oslo_utils import netutils
from zaqar.common import errors

from zaqar_gevent import uris

PORT = 6379
SENTINEL_PORT = 26379

TIMEOUT_SECONDS = 1.0
"""How long an answer is waited for where the URI does not say it (`socket_timeout`)."""

_OPTIONS = ('dbid', 'master', 'sentinel_password', 'sentinel_username', 'socket_timeout')

Host = tuple[str, int]


class Credentials(NamedTuple):
    """`password` None: the server asks for none.

    Bytes that are not UTF-8 are surrogates, as in names of files.
    """

    user: str | None = None
    password: str | None = None


class Address(NamedTuple):
    """Where a server is and how it is spoken to.

    path: of a Unix socket, otherwise None. hosts: one server, or the Sentinels that know where
        `master` is. database: its number. timeout: seconds to wait for a connection or an answer.
    """

    hosts: tuple[Host, ...]
    path: str | None = None
    master: str | None = None
    is_secure: bool = False
    credentials: Credentials = Credentials()
    sentinel_credentials: Credentials = Credentials()
    database: int = 0
    timeout: float = TIMEOUT_SECONDS

    def __str__(self) -> str:
        """Without credentials."""
        scheme = 'rediss' if self.is_secure else 'redis'
        where = self.path or ','.join(netutils.escape_ipv6(h) + f':{p}' for h, p in self.hosts)
        options = f'?master={self.master}' if self.master else ''
        return f'{scheme}://{where}{options}'

    @property
    def store(self) -> str:
        """The server as the subject of a sentence, for logs and errors."""
        return f'Redis at {self}'


def parse(uri: str) -> Address:
    """The address that `uri` names; raises `zaqar.common.errors.ConfigurationError`."""
    fault = uris.find_fault(uri or '')
    if fault is not None:
        raise errors.ConfigurationError(f'The URI of Redis cannot be read: {fault}.')
    try:
        split = urllib.parse.urlsplit(uri)
        options = dict(urllib.parse.parse_qsl(split.query))
        credentials = Credentials(_decode(split.username), _decode(split.password))
        master = options.get('master')
        hosts = _hosts(split.netloc.rpartition('@')[2], SENTINEL_PORT if master else PORT)
        address = Address(
            hosts,
            path=None if hosts else urllib.parse.unquote(split.path) or None,
            master=master,
            is_secure=split.scheme == 'rediss',
            credentials=credentials,
            sentinel_credentials=Credentials(
                options.get('sentinel_username'), options.get('sentinel_password')
            ),
            database=int(options.get('dbid', 0)),
            timeout=float(options.get('socket_timeout', TIMEOUT_SECONDS)),
        )
    except ValueError as error:
        raise errors.ConfigurationError(f'The URI of Redis cannot be read: {error}.') from None
    if split.scheme not in ('redis', 'rediss'):
        raise errors.ConfigurationError('The URI of Redis must begin with redis:// or rediss://.')
    if credentials.user and not credentials.password:
        raise errors.ConfigurationError('The URI of Redis has a user name without a password.')
    if not hosts and (master or not address.path):
        raise errors.ConfigurationError('The URI of Redis names no host and no Unix socket.')
    if len(hosts) > 1 and not master:
        raise errors.ConfigurationError(
            'The URI of Redis names several hosts; for Sentinel, add ?master=NAME.'
        )
    if address.timeout <= 0:
        raise errors.ConfigurationError('socket_timeout in the URI of Redis must be above 0.')
    return address


def find_ignored(uri: str) -> list[str]:
    """The parts of a URI that can be parsed which have no effect, each as a sentence."""
    address = parse(uri)
    split = urllib.parse.urlsplit(uri)
    found = []
    if address.path is None and split.path not in ('', '/', f'/{address.database}'):
        database = split.path.strip('/')
        advice = f'; for database {database} add dbid={database} to its options'
        found.append(
            f'The path of the URI of {address.store} is ignored: database {address.database} is '
            f'used{advice if database.isdecimal() else ""}.'
        )
    names = dict(urllib.parse.parse_qsl(split.query, keep_blank_values=True))
    return found + [
        f'The option {name!r} in the URI of {address.store} is not known, and is ignored. Known '
        f'are: {", ".join(_OPTIONS)}.'
        for name in names
        if name not in _OPTIONS
    ]


def _decode(text: str | None) -> str | None:
    return urllib.parse.unquote(text, errors='surrogateescape') if text else None


def _hosts(text: str, port: int) -> tuple[Host, ...]:
    hosts = []
    for one in text.split(',') if text else ():
        name, number = netutils.parse_host_port(one, port)
        if not name or not netutils.is_valid_port(number):
            raise ValueError(f'{one!r} is not host or host:port')
        hosts.append((str(name), int(number)))
    return tuple(hosts)
