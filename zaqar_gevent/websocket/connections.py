"""The open WebSocket connections of a process: how many there may be, their care, their end."""

from __future__ import annotations

import collections
import random
import time
from collections.abc import Iterator
from typing import Protocol

import gevent
from oslo_log import log

from zaqar_gevent.api import errors
from zaqar_gevent.greenlets import in_turns
from zaqar_gevent.sockets.received import Received
from zaqar_gevent.sockets.unsent import Unsent
from zaqar_gevent.websocket.connection import (
    GOING_AWAY,
    TICK_SECONDS,
    Ending,
    WebSocketConnection,
)

LOG = log.getLogger(__name__)

_SPREAD_MS_EACH = 2
_SPREAD_MS = range(1000, 30_001)
_RECONNECT_AFTER_MS = 100
# The part of the unauthenticated connections that one address may hold: a single client is not to
# keep all others from authenticating.
_UNKNOWN_OF_ADDRESS = 5


class Client(Protocol):
    """A connected client; is_known: whether it has authenticated, if it must."""

    is_known: bool


class OpenConnections:
    """Admits connections, looks after the open ones, and lets them go when the server stops.

    capacity: how many there may be. per_address: how many of one client address.
    unknown: how many there may be of clients that have not authenticated, where they have to; a
        fifth of them of one client address.
    unsent: what waits to be written to all clients of the process. received: what they have sent
        that is not handled yet.
    """

    def __init__(
        self,
        capacity: int,
        per_address: int,
        unknown: int,
        unsent: Unsent | None = None,
        received: Received | None = None,
    ) -> None:
        self.capacity = capacity
        self.unsent = unsent
        self.received = received
        self._per_address = per_address
        self._max_unknown = unknown
        self._unknown: dict[Client, str] = {}
        self._taken = 0
        self._by_address: collections.Counter[str] = collections.Counter()
        self._open: set[WebSocketConnection] = set()
        self._keeper: gevent.Greenlet | None = None
        self._is_draining = False

    def __iter__(self) -> Iterator[WebSocketConnection]:
        return iter(tuple(self._open))

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, address: str) -> None:
        """Take up room for one connection; raises `errors.AtCapacity` where there is none.

        address: of the client; '' where it is not known, which is not limited by itself.
        """
        if self._is_draining:
            raise errors.AtCapacity('The server is stopping.')
        if self._taken >= self.capacity:
            raise errors.AtCapacity(f'There are {self.capacity} WebSocket connections already.')
        if address and self._by_address[address] >= self._per_address:
            raise errors.TooManyOfAddress(
                f'There are {self._per_address} WebSocket connections of this address already.'
            )
        self._taken += 1
        self._by_address[address] += 1

    def admit_client(self, client: Client, address: str) -> None:
        """Count `client` among those that have not authenticated; one that has is not counted.

        Raises `errors.TooManyUnknown` or `errors.TooManyOfAddress` where there are too many.
        """
        if client.is_known:
            return
        self._unknown = {one: of for one, of in self._unknown.items() if not one.is_known}
        if len(self._unknown) >= self._max_unknown:
            raise errors.TooManyUnknown(
                f'There are {self._max_unknown} WebSocket connections already that have not '
                'authenticated.'
            )
        most = max(self._max_unknown // _UNKNOWN_OF_ADDRESS, 1)
        if address and list(self._unknown.values()).count(address) >= most:
            raise errors.TooManyOfAddress(
                f'There are {most} WebSocket connections of this address already that have not '
                'authenticated.'
            )
        self._unknown[client] = address

    def look_after(self, connection: WebSocketConnection) -> None:
        """Look after a connection until it leaves."""
        self._open.add(connection)
        if self._keeper is None:
            self._keeper = gevent.spawn(self._keep)
        if self._is_draining:
            connection.finish(self._stopping())

    def leave(self, address: str, connection: WebSocketConnection) -> None:
        """A connection is over."""
        self._open.discard(connection)
        self._unknown.pop(connection.receiver, None)
        self.give_back(address)

    def give_back(self, address: str) -> None:
        """Give back the room that was taken up."""
        self._taken -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def drain(self) -> None:
        """Admit no more, and close every connection as soon as its requests are answered."""
        self._is_draining = True
        for connection in in_turns(self._open):
            connection.finish(self._stopping())

    def _stopping(self) -> Ending:
        """The end of one of many, with a time to come back that spreads them."""
        most = min(max(len(self) * _SPREAD_MS_EACH, _SPREAD_MS[0]), _SPREAD_MS[-1])
        after = _RECONNECT_AFTER_MS + random.randrange(most)  # noqa: S311
        return Ending(GOING_AWAY, 'The server is stopping.', after)

    def _keep(self) -> None:
        while self._open:
            now = time.monotonic()
            for connection in in_turns(self._open):
                connection.attend(now)
            gevent.sleep(TICK_SECONDS)
        self._keeper = None
