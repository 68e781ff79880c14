"""A client that keeps connections busy, fast enough not to be what is measured.

A closed loop: each connection has a fixed number of requests in flight, and sends the next when one
is answered. Requests are bytes made beforehand; every answer is checked to report success.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from perf.machine import processor_time
from perf.wire import Dialect, connect, is_control

RECEIVE_BYTES = 1 << 17
DRAIN_SECONDS = 20.0
IDENTS = 128
WARM_TURNS, TURNS = 4, 10
WARM_SECONDS, MOST_SECONDS = 3.0, 5.0


class Failed(Exception):
    """The server answered with something else than success."""


class Exchange(NamedTuple):
    """What is asked again and again.

    first: the request with an id. then: the requests that follow an answer to the first, one after
    the other; none where there is nothing left to do. The exchange is complete when the last is
    answered.
    """

    first: Callable[[int], bytes]
    then: Callable[[bytes, int], list[bytes]] | None = None


class Sample(NamedTuple):
    """What was measured in one go.

    exchanges: how many were completed, in `seconds`. latencies: of each, in seconds.
    server, store, client: processor time of each, in seconds. sent, received: bytes on the wire
    (of the TCP streams). opened: connections, those that had to be opened again included.
    exhausted: whether there was nothing left to do before the time was over.
    """

    exchanges: int
    seconds: float
    latencies: list[float]
    server: float
    store: float
    client: float
    sent: int
    received: int
    opened: int
    exhausted: bool


class Spent(NamedTuple):
    """Clocks and counters at one moment."""

    wall: float
    server: float
    store: float
    client: float


class _Link:
    """One connection, what has come of an answer, and when requests in flight began."""

    __slots__ = ('began', 'following', 'received', 'requests', 'socket')

    def __init__(self, connection: socket.socket, requests: list[bytes]) -> None:
        self.socket = connection
        self.requests = requests
        self.received: bytes | bytearray = b''
        self.began: dict[int, float] = {}
        self.following: dict[int, list[bytes]] = {}


class Driver:
    """Drives one server with one exchange.

    pids: the server's processes. store_pids: those of a store outside of it. open_one: makes a
    connection, given its number. The requests of a dialect that `is_addressed` have the number of
    their connection, times `IDENTS`, in their ids.
    """

    def __init__(
        self,
        port: int,
        dialect: Dialect,
        exchange: Exchange,
        pids: Sequence[int],
        store_pids: Sequence[int] = (),
        *,
        connections: int = 16,
        in_flight: int = 1,
        open_one: Callable[[int], socket.socket] | None = None,
    ) -> None:
        self._dialect = dialect
        self._exchange = exchange
        self._pids, self._store_pids = pids, store_pids
        self._number, self._in_flight = connections, in_flight
        self._open_one = open_one or (lambda _: connect(port, dialect))
        self._requests = self._requests_of(0)
        self._sent = self._received = self._opened = self._running = 0
        self._exhausted = False
        self._latencies: list[float] = []

    def run(self, seconds: float, warm: float = 0.2) -> Sample:
        """Measure for at least `seconds`, after at least `warm` seconds that do not count."""
        self._poll = select.epoll()
        self._links: dict[int, _Link] = {}
        gc.collect()
        gc.disable()
        try:
            return self._run(seconds, warm)
        finally:
            gc.enable()
            for link in self._links.values():
                link.socket.close()
            self._poll.close()

    def _run(self, seconds: float, warm: float) -> Sample:
        for _ in range(self._number):
            link = self._open()
            for ident in range(self._in_flight):
                self._begin(link, ident, time.perf_counter())
        seconds = max(seconds, self._warm_up(warm))
        self._sent = self._received = 0
        self._latencies = []
        before = self._spent()
        self._serve(before.wall + seconds)
        after = self._spent()
        latencies, sent, received = self._latencies, self._sent, self._received
        self._drain()
        return Sample(
            len(latencies),
            *(end - start for start, end in [(before.wall, after.wall)]),
            latencies,
            *(end - start for start, end in zip(before[1:], after[1:], strict=True)),
            sent,
            received,
            self._opened,
            self._exhausted,
        )

    def _warm_up(self, seconds: float) -> float:
        """Go on until all connections are well out of step, which takes slow servers longer.

        Gives the time to measure at least, in which each request in flight has its turn several
        times: otherwise what was begun before and finished after would count for too much.
        """
        began, in_flight = time.perf_counter(), self._number * self._in_flight
        self._serve(began + seconds)
        while len(self._latencies) < WARM_TURNS * in_flight and not self._exhausted:
            if time.perf_counter() - began > WARM_SECONDS:
                break
            self._serve(time.perf_counter() + 0.05)
        rate = max(1, len(self._latencies)) / (time.perf_counter() - began)
        return min(MOST_SECONDS, TURNS * in_flight / rate)

    def _requests_of(self, number: int) -> list[bytes]:
        """The requests of one connection, by their id."""
        first = IDENTS * number
        return [self._exchange.first(first + ident) for ident in range(self._in_flight)]

    def _spent(self) -> Spent:
        return Spent(
            time.perf_counter(),
            processor_time(self._pids),
            processor_time(self._store_pids),
            time.process_time(),
        )

    def _open(self) -> _Link:
        connection = self._open_one(self._opened)
        is_own = getattr(self._dialect, 'is_addressed', False)
        requests = self._requests_of(self._opened) if is_own else self._requests
        self._opened += 1
        link = _Link(connection, requests)
        self._links[connection.fileno()] = link
        self._poll.register(connection.fileno(), select.EPOLLIN)
        return link

    def _begin(self, link: _Link, ident: int, now: float) -> None:
        request = link.requests[ident]
        link.began[ident] = now
        link.socket.sendall(request)
        self._sent += len(request)
        self._running += 1

    def _serve(self, deadline: float) -> None:
        """Take answers and send what follows them, until `deadline`."""
        poll, links, take = self._poll.poll, self._links, self._take
        while not self._exhausted:
            for fd, _ in poll(1):
                take(links[fd])
            if time.perf_counter() >= deadline:
                return

    def _take(self, link: _Link, *, again: bool = True) -> None:
        """Read what has come, and go on after each answer in it.

        A dialect whose server puts several answers into one message has `parts_of`.
        """
        data = link.socket.recv(RECEIVE_BYTES)
        if not data:
            if link.began:
                raise Failed(f'a connection ended with {len(link.began)} requests in flight')
            self._forget(link)
            return
        self._received += len(data)
        now = time.perf_counter()
        if link.received:
            link.received += data
        else:
            link.received = data
        received, size_of = link.received, self._dialect.size
        upgraded, parts_of = self._dialect.upgrade, getattr(self._dialect, 'parts_of', None)
        while (size := size_of(received)) and size <= len(received):
            if size == len(received):
                answer, received = received, b''
            else:
                answer, received = received[:size], received[size:]
            if upgraded and is_control(answer):
                continue
            for part in parts_of(answer) if parts_of else (answer,):
                self._answered(link, part, now, again=again)
        if received and type(received) is bytes:
            received = bytearray(received)
        link.received = received

    def _answered(self, link: _Link, answer: bytes | bytearray, now: float, *, again: bool) -> None:
        dialect = self._dialect
        if not dialect.is_ok(answer):
            raise Failed(bytes(answer[:2000]))
        ident = 0 if dialect.in_order else dialect.ident_of(answer)
        then = self._exchange.then
        if then is not None:
            following = link.following.pop(ident, None)
            if following is None:
                following = then(bytes(answer), ident)
                self._exhausted = self._exhausted or not following
            if following:
                self._follow(link, ident, following, closing=dialect.is_last(answer))
                return
        self._latencies.append(now - link.began.pop(ident))
        self._running -= 1
        if not again or self._exhausted:
            return
        if dialect.is_last(answer):
            link = self._replace(link)
        # A server that closes lets its client wait for a new connection: that counts.
        self._begin(link, ident, now)

    def _follow(self, link: _Link, ident: int, requests: list[bytes], *, closing: bool) -> None:
        """Send the next request of an exchange."""
        if closing:
            link = self._replace(link)
        link.following[ident] = requests[1:]
        link.socket.sendall(requests[0])
        self._sent += len(requests[0])

    def _replace(self, link: _Link) -> _Link:
        """A new connection for one that the server is closing."""
        self._forget(link)
        fresh = self._open()
        fresh.began = link.began
        fresh.following = link.following
        return fresh

    def _forget(self, link: _Link) -> None:
        self._poll.unregister(link.socket.fileno())
        del self._links[link.socket.fileno()]
        link.socket.close()

    def _drain(self) -> None:
        """Let the server finish what it was asked, so that it is idle for whoever comes next."""
        deadline = time.perf_counter() + DRAIN_SECONDS
        while self._running > 0 and time.perf_counter() < deadline:
            for fd, _ in self._poll.poll(1):
                self._take(self._links[fd], again=False)
        if self._running > 0:
            raise Failed(f'{self._running} requests were not answered in {DRAIN_SECONDS} s')
