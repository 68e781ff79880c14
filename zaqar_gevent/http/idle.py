"""The connections that are kept for another request; their places can be given to others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zaqar_gevent.http.connection import HTTPConnection


class IdleConnections:
    """Connections that have been answered and wait for their next request."""

    def __init__(self) -> None:
        self._by_address: dict[str, dict[HTTPConnection, None]] = {}

    def add(self, connection: HTTPConnection) -> None:
        """A connection begins to wait."""
        self._by_address.setdefault(connection.address, {})[connection] = None

    def discard(self, connection: HTTPConnection) -> None:
        """A connection does not wait any more."""
        connections = self._by_address.get(connection.address)
        if connections is not None:
            connections.pop(connection, None)
            if not connections:
                del self._by_address[connection.address]

    def longest(self) -> HTTPConnection | None:
        """The connection that has waited longest, of the address with most that wait.

        A connection with unread input is passed over: its next request has begun.
        """
        while self._by_address:
            connections = max(self._by_address.values(), key=len)
            connection = next(iter(connections))
            if not connection.has_input():
                return connection
            self.discard(connection)
        return None
