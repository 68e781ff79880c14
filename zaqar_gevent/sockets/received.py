"""Bytes that clients have sent and that are not handled yet: a limit for the process.

A long message takes room before it is read, for all of it, and keeps it until it has been handled.
Where there is none, it is not read on: TCP lets its client wait. Who has room and does not use it
is ended when others wait.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable

import gevent
from gevent.event import Event
from oslo_log import log

from zaqar_gevent.rotation import Rotation

LOG = log.getLogger(__name__)

FREE_BYTES = 16 * 1024
"""So much of a message is received without room; shorter ones wait for nobody."""

WAIT_SECONDS = 10.0
"""How long a message waits for room before it is refused."""

STALL_SECONDS = 1.0
"""Where others wait, a client that has sent nothing for so long is ended."""

MOST_SECONDS = 10.0
"""Where others wait, a message that has not come within this time is ended."""

_TICK_SECONDS = 0.25


class NoRoom(Exception):
    """There is no room for a message."""


class TooSlow(Exception):
    """A client was too slow with what it had room for."""


class Reservation:
    """Room for one message.

    size: in bytes. address: of the client; '' where it is not known. moved_at: when the client last
        sent some of it, by `time.monotonic`. is_ended: whether the client was too slow.
    """

    __slots__ = ('_end', '_received', 'address', 'began_at', 'is_ended', 'moved_at', 'size')

    def __init__(
        self, received: Received, size: int, address: str, end: Callable[[], None]
    ) -> None:
        self._received = received
        self.size = size
        self.address = address
        self.began_at = self.moved_at = time.monotonic()
        self.is_ended = False
        self._end = end

    def has_come(self) -> None:
        """All of the message is there: it is ended no more, but keeps its room."""
        self._received.has_come(self)

    def give_back(self) -> None:
        """The message has been handled, or will not come."""
        self._received.give_back(self)

    def check(self) -> None:
        """Raise what `too_slow` of `Received` makes where the client was too slow."""
        if self.is_ended:
            raise self._received.too_slow()

    def end(self) -> None:
        """Have no more of it received."""
        self.is_ended = True
        self._end()


class Received:
    """The room for messages of one process.

    limit: in bytes. Of one client address, messages take at most half of it.
    no_room, too_slow: make what is raised in place of `NoRoom` and `TooSlow` where it concerns one
        request of several over a connection.
    size: bytes that are taken.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.no_room: Callable[[], Exception] = NoRoom
        self.too_slow: Callable[[], Exception] = TooSlow
        self._by_address: collections.Counter[str] = collections.Counter()
        # By address.
        self._waiting: Rotation[str, _Turn] = Rotation()
        # Messages that are still coming.
        self._coming: set[Reservation] = set()
        self._keeper: gevent.Greenlet | None = None

    def take(self, size: int, address: str, end: Callable[[], None]) -> Reservation:
        """Take room for a message of `size` bytes, once there is some.

        end: ends the receiving of the message, whose client is too slow. Raises `NoRoom`.
        """
        reservation = Reservation(self, size, address, end)
        if address in self._waiting or not self._may_take(address):
            self._wait(reservation)
        else:
            self._add(reservation)
        self._coming.add(reservation)
        return reservation

    def has_come(self, reservation: Reservation) -> None:
        """See `Reservation.has_come`."""
        self._coming.discard(reservation)

    def give_back(self, reservation: Reservation) -> None:
        """See `Reservation.give_back`."""
        self._coming.discard(reservation)
        self.size -= reservation.size
        address = reservation.address
        self._by_address[address] -= reservation.size
        if not self._by_address[address]:
            del self._by_address[address]
        while found := self._waiting.take(self._may_take):
            self._add(found[1].reservation)
            found[1].set()

    def _may_take(self, address: str) -> bool:
        """Whether there is room; the last one who finds some may take more than is left."""
        return self.size < self.limit and (
            not address or self._by_address[address] < self.limit // 2
        )

    def _add(self, reservation: Reservation) -> None:
        self.size += reservation.size
        self._by_address[reservation.address] += reservation.size
        reservation.began_at = reservation.moved_at = time.monotonic()

    def _wait(self, reservation: Reservation) -> None:
        turn = _Turn(reservation)
        self._waiting.add(reservation.address, turn)
        if self._keeper is None:
            self._keeper = gevent.spawn(self._keep)
        try:
            turn.wait(WAIT_SECONDS)
        except BaseException:
            if turn.is_set():
                self.give_back(reservation)
            else:
                self._waiting.remove(reservation.address, turn)
            raise
        if not turn.is_set():
            self._waiting.remove(reservation.address, turn)
            raise NoRoom

    def _keep(self) -> None:
        while self._waiting:
            self._end_slow()
            gevent.sleep(_TICK_SECONDS)
        self._keeper = None

    def _end_slow(self) -> None:
        now = time.monotonic()
        slow = [
            one
            for one in self._coming
            if now - one.moved_at > STALL_SECONDS or now - one.began_at > MOST_SECONDS
        ]
        if slow:
            LOG.info('%d long messages come too slowly while others wait: they end', len(slow))
        for one in slow:
            self._coming.discard(one)
            one.end()


class _Turn(Event):
    """The wait of one message."""

    def __init__(self, reservation: Reservation) -> None:
        super().__init__()
        self.reservation = reservation
