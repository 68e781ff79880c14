"""The connections that are kept for another request; their places can be given to others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zaqar_gevent.http.connection import HTTPConnection


class Waiting(dict['HTTPConnection', None]):
    """The connections of one address that wait, those that have waited longest first.

    PERF: connections put themselves in and take themselves out, at each request.
    """

    __slots__ = ('members',)

    def __init__(self) -> None:
        super().__init__()
        self.members = 0


class IdleConnections:
    """Connections that have been answered and wait for their next request."""

    def __init__(self) -> None:
        self._by_address: dict[str, Waiting] = {}

    def join(self, address: str) -> Waiting:
        """Where a connection of `address` waits, until it says `leave`."""
        waiting = self._by_address.get(address)
        if waiting is None:
            waiting = self._by_address[address] = Waiting()
        waiting.members += 1
        return waiting

    def leave(self, address: str) -> None:
        """A connection that has joined does not wait any more."""
        waiting = self._by_address[address]
        waiting.members -= 1
        if not waiting.members:
            del self._by_address[address]

    def longest(self) -> HTTPConnection | None:
        """The connection that has waited longest, of the address with most that wait.

        A connection with unread input is passed over: its next request has begun.
        """
        while waiting := max(self._by_address.values(), key=len, default=None):
            connection = next(iter(waiting))
            if not connection.has_input():
                return connection
            del waiting[connection]
        return None
