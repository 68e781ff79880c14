"""Where a PostgreSQL server is: `postgresql://` URIs with libpq's options.

::

    postgresql://[user[:password]@][host[:port][,host[:port]...]][/database][?options]

Among the options are `target_session_attrs`, `sslmode` and `sslrootcert`, `passfile` and `service`;
a directory as `host` is that of a Unix socket. What is left out, libpq takes from its environment.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg
from oslo_utils import netutils
from psycopg import conninfo
from zaqar.common import errors

from zaqar_gevent import uris

SCHEMES = ('postgresql://', 'postgres://')

CONNECT_SECONDS = 3.0
"""How long a connection is waited for where the URI does not say it (`connect_timeout`)."""

Parameters = tuple[tuple[str, str], ...]


class Address(NamedTuple):
    """Where a database is, and which of its schemas is ours.

    parameters: libpq's, by name. schema: its name.
    """

    parameters: Parameters
    schema: str

    def __str__(self) -> str:
        """Without user and password."""
        given = dict(self.parameters)
        hosts = given.get('host') or given.get('hostaddr') or ''
        ports = given.get('port', '').split(',')
        named = [
            netutils.escape_ipv6(host) + (f':{port}' if port else '')
            for host, port in zip(hosts.split(','), _spread(ports, hosts), strict=True)
        ]
        service = f'?service={given["service"]}' if 'service' in given else ''
        return f'postgresql://{",".join(named)}/{given.get("dbname", "")}{service}'

    @property
    def store(self) -> str:
        """The database as the subject of a sentence, for logs and errors."""
        return f'PostgreSQL at {self}'

    @property
    def timeout(self) -> float:
        """Seconds to wait for a connection to one host."""
        return float(dict(self.parameters).get('connect_timeout') or CONNECT_SECONDS)

    def attempts(self) -> list[dict[str, Any]]:
        """The parameters to try one after the other: one set for each host.

        libpq would try the hosts itself, but it waits for each without a limit.
        """
        given: dict[str, Any] = dict(self.parameters)
        hosts = given.get('host')
        if not hosts or ',' not in hosts or 'hostaddr' in given:
            return [given]
        ports = _spread(given.get('port', '').split(','), hosts)
        return [
            {**given, 'host': host, 'port': port}
            for host, port in zip(hosts.split(','), ports, strict=True)
        ]


def parse(uri: str, schema: str) -> Address:
    """The address that `uri` names; raises `zaqar.common.errors.ConfigurationError`."""
    if not uri or not uri.startswith(SCHEMES):
        raise errors.ConfigurationError('The URI of PostgreSQL must begin with postgresql://.')
    fault = uris.find_fault(uri)
    if fault is not None:
        raise errors.ConfigurationError(f'The URI of PostgreSQL cannot be read: {fault}.')
    try:
        given = conninfo.conninfo_to_dict(uri)
        timeout = float(given.get('connect_timeout') or CONNECT_SECONDS)
    except (psycopg.Error, ValueError) as error:
        reason = uris.conceal_options(str(error), uri).strip()
        raise errors.ConfigurationError(
            f'The URI of PostgreSQL cannot be read: {reason}.'
        ) from None
    if timeout <= 0:
        raise errors.ConfigurationError('connect_timeout in the URI of PostgreSQL must be above 0.')
    hosts, ports = str(given.get('host') or ''), str(given.get('port') or '')
    if ports.count(',') not in (0, hosts.count(',')):
        raise errors.ConfigurationError(
            'The URI of PostgreSQL names more ports than hosts, or fewer.'
        )
    if not schema or len(schema.encode()) > 63 or '\0' in schema:
        raise errors.ConfigurationError(
            'The name of the schema of PostgreSQL must have 1 to 63 bytes.'
        )
    parameters = tuple(sorted((key, str(value)) for key, value in given.items()))
    return Address(parameters, schema)


def _spread(ports: list[str], hosts: str) -> list[str]:
    """The port of each host; one port is that of all."""
    count = hosts.count(',') + 1
    return ports * count if len(ports) == 1 else ports
