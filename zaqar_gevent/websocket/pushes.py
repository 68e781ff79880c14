"""Orders the pushes to one client and the answers to its requests."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from gevent import getcurrent
from gevent.event import Event

from zaqar_gevent.api.grants import UNLIMITED, Grant


class Push(NamedTuple):
    """A push as it is sent; `kind` is for the metrics. It is not sent when `grant` has ended."""

    payload: bytes
    binary: bool
    kind: str
    grant: Grant = UNLIMITED


class Pushes:
    """Holds pushes back while requests of the same connection are performed.

    A push that comes while requests are performed may have been caused by any of them, so it is
    held until all of those are answered. It does not wait for requests that begin later. Pushes
    stay in order. A greenlet performs one request at a time.

    send: sends a push now; it must not let other greenlets run. size: bytes that are held.
    performed: the greenlets that perform requests, and when each began, counted in requests.
    """

    __slots__ = ('_begun', '_held', '_released', '_send', 'performed', 'size')

    def __init__(self, send: Callable[[Push], None]) -> None:
        self._send = send
        self._begun = 0
        self.performed: dict[object, int] = {}
        self._held: collections.deque[tuple[int, Push]] | None = None
        self._released: Event | None = None
        self.size = 0

    def begin(self) -> None:
        """This greenlet begins to perform a request."""
        self._begun += 1
        self.performed[getcurrent()] = self._begun

    def end(self) -> None:
        """The answer to the request of this greenlet has been sent."""
        del self.performed[getcurrent()]
        if self._held:
            self._release()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The request of this greenlet waits, and has caused nothing so far."""
        self.end()
        try:
            yield
        finally:
            self.begin()

    def add(self, push: Push) -> None:
        """Send a push, now or as soon as the requests that are performed have been answered."""
        if not self.performed:
            self._send(push)
            return
        if self._held is None:
            self._held = collections.deque()
        self._held.append((self._begun, push))
        self.size += len(push.payload)

    def wait_until_released(self) -> None:
        """Wait until nothing is held, or the connection has ended."""
        while self._held:
            if self._released is None:
                self._released = Event()
            self._released.clear()
            self._released.wait()

    def close(self) -> None:
        """Forget what is held."""
        self._held = None
        self.size = 0
        if self._released is not None:
            self._released.set()

    def _release(self) -> None:
        # Those performed are in the order in which they began.
        oldest = next(iter(self.performed.values()), self._begun + 1)
        while self._held and self._held[0][0] < oldest:
            _, push = self._held.popleft()
            self.size -= len(push.payload)
            if not push.grant.is_over:
                self._send(push)
        if not self._held and self._released is not None:
            self._released.set()
