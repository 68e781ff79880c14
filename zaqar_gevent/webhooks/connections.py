"""Connections to subscribers, kept for a while."""

from __future__ import annotations

import collections
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import certifi
import gevent.socket
import gevent.ssl
from gevent import monkey

from zaqar_gevent.api.subscribers import Target
from zaqar_gevent.webhooks.resolver import Place

MAX_IDLE = 512
MAX_IDLE_OF_ORIGIN = 32
IDLE_SECONDS = 15.0

_MAX_PLACES = 4
_BUNDLES = ('REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE')

Origin = tuple[str, str, int]


class WebhookConnection:
    """An open connection. is_used: whether something has been sent over it before."""

    __slots__ = ('idle_since', 'is_used', 'origin', 'sock')

    def __init__(self, origin: Origin, sock: Any) -> None:
        self.origin = origin
        self.sock = sock
        self.is_used = False
        self.idle_since = 0.0

    @property
    def is_quiet(self) -> bool:
        """Whether the peer has kept the connection open and sent nothing unasked."""
        poll = monkey.get_original('select', 'poll')()
        poll.register(self.sock.fileno(), select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        self.sock.close()


class ConnectionPool:
    """Opens connections to addresses that were checked, and keeps those that can be used again.

    connect_seconds: how long one may take to open, TLS not included. ca_file: the authorities that
        are believed; by default those that `requests` would believe.
    """

    def __init__(
        self,
        connect_seconds: float,
        ca_file: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect_seconds = connect_seconds
        self._ca_file = ca_file
        self._clock = clock
        self._tls: Any = None
        self._idle: collections.defaultdict[Origin, collections.deque[WebhookConnection]] = (
            collections.defaultdict(collections.deque)
        )
        self.idle = 0

    def take(self, target: Target) -> WebhookConnection | None:
        """A kept connection, the one used last."""
        kept = self._idle.get(target.origin)
        while kept:
            connection = kept.pop()
            self._count_out(target.origin)
            if connection.is_quiet:
                return connection
            connection.close()
        return None

    def open(self, target: Target, places: Sequence[Place]) -> WebhookConnection:
        """A new connection, to the first of `places` that accepts it; raises `OSError`."""
        failure: OSError | None = None
        for family, address in places[:_MAX_PLACES]:
            try:
                return WebhookConnection(target.origin, self._connect(target, family, address))
            except OSError as error:
                failure = error
        raise failure or OSError('there is no address')

    def keep(self, connection: WebhookConnection) -> None:
        """Keep a connection over which all that was asked has been answered."""
        kept = self._idle[connection.origin]
        if len(kept) >= MAX_IDLE_OF_ORIGIN or self.idle >= MAX_IDLE:
            connection.close()
            return
        connection.is_used = True
        connection.idle_since = self._clock()
        kept.append(connection)
        self.idle += 1

    def close_idle(self, seconds: float = IDLE_SECONDS) -> None:
        """Close what has not been used for so long."""
        latest = self._clock() - seconds
        for origin, kept in list(self._idle.items()):
            while kept and kept[0].idle_since <= latest:
                kept.popleft().close()
                self._count_out(origin)

    def _count_out(self, origin: Origin) -> None:
        self.idle -= 1
        if not self._idle[origin]:
            del self._idle[origin]

    def _connect(self, target: Target, family: int, address: Any) -> Any:
        sock = gevent.socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._connect_seconds)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(None)
            if target.scheme == 'https':
                return self._secure(sock, target.host)
        except BaseException:
            # A time limit is no Exception.
            sock.close()
            raise
        return sock

    def _secure(self, sock: Any, host: str) -> Any:
        try:
            return self._context().wrap_socket(sock, server_hostname=host)
        except OSError:
            # Some of these are a ValueError as well.
            raise
        except ValueError as error:
            # A certificate can be for no such name.
            raise OSError(f'TLS failed: {error}') from None

    def _context(self) -> Any:
        if self._tls is None:
            # Not `ssl`, which is gevent's only where it has been patched.
            context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
            context.hostname_checks_common_name = False
            given = [os.environ[name] for name in _BUNDLES if os.environ.get(name)]
            context.load_verify_locations((self._ca_file, *given, certifi.where())[0] or given[0])
            self._tls = context
        return self._tls
