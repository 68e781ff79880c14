"""The addresses of names, looked up in threads of their own, so nothing else waits for them."""

from __future__ import annotations

import collections
import socket
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import gevent
from gevent import monkey
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.threadpool import ThreadPool

SECONDS = 30.0
"""For how long an address is taken without a new look."""

STALE_SECONDS = 600.0
"""For how long it is still taken where a new look fails or takes long."""

FAILURE_SECONDS = 5.0
"""For how long a name that could not be found is not looked up again."""

PATIENCE_SECONDS = 1.0
"""How long a new look may take where an older answer is there."""

MAX_NAMES = 10_000
_THREADS = 32
_OF_PROJECT = 4

Place = tuple[int, Any]
"""The family and the address of a socket."""

Name = tuple[str, int]
"""A host and a port."""

Lookup = Callable[[str, int], list[Place]]


class Unresolved(OSError):
    """A name has no address, or none was found in time."""


class _Known(NamedTuple):
    """The addresses found, and how long they may be used."""

    places: list[Place]
    fresh_until: float
    stale_until: float


def look_up(host: str, port: int) -> list[Place]:
    """The addresses of a host, by the system's resolver; blocks its thread."""
    getaddrinfo = monkey.get_original('socket', 'getaddrinfo')
    found = getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, place) for family, _, _, _, place in found]


class Resolver:
    """Finds addresses, and remembers them for a moment.

    Of one project, only a few names are looked up at a time, so one whose name servers do not
    answer holds up itself.
    """

    def __init__(
        self, lookup: Lookup = look_up, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lookup = lookup
        self._clock = clock
        self._pool: ThreadPool | None = None
        self._known: collections.OrderedDict[Name, _Known] = collections.OrderedDict()
        self._under_way: dict[Name, Event] = {}
        self._turns: weakref.WeakValueDictionary[str, BoundedSemaphore] = (
            weakref.WeakValueDictionary()
        )

    def places(self, host: str, port: int, project: str | None) -> list[Place]:
        """The addresses of a host; raises `Unresolved`.

        It takes as long as the system's resolver takes, unless older addresses are known.
        """
        name = (host, port)
        known = self._known.get(name)
        now = self._clock()
        if known is None or now >= known.fresh_until:
            has_older = known is not None and now < known.stale_until and bool(known.places)
            self._wait_for(name, project, PATIENCE_SECONDS if has_older else None)
            known = self._known.get(name)
        if known is None or not known.places:
            raise Unresolved(f'{host} could not be found')
        return known.places

    def _wait_for(self, name: Name, project: str | None, timeout: float | None) -> None:
        """Wait until a name has been looked up, which goes on where it takes too long."""
        looked_up = self._under_way.get(name)
        if looked_up is None:
            looked_up = self._under_way[name] = Event()
            gevent.spawn(self._look, name, project, looked_up)
        looked_up.wait(timeout)

    def _look(self, name: Name, project: str | None, looked_up: Event) -> None:
        if self._pool is None:
            self._pool = ThreadPool(_THREADS)
        turns = self._turns.setdefault(project or '', BoundedSemaphore(_OF_PROJECT))
        try:
            with turns:
                self._remember(name, self._pool.apply(_find, (self._lookup, *name)))
        finally:
            del self._under_way[name]
            looked_up.set()

    def _remember(self, name: Name, places: list[Place]) -> None:
        now = self._clock()
        before = self._known.pop(name, None)
        if places:
            known = _Known(places, now + SECONDS, now + STALE_SECONDS)
        elif before is not None and now < before.stale_until:
            known = before._replace(fresh_until=now + FAILURE_SECONDS)
        else:
            known = _Known([], now + FAILURE_SECONDS, now)
        self._known[name] = known
        if len(self._known) > MAX_NAMES:
            self._known.popitem(last=False)


def _find(lookup: Lookup, host: str, port: int) -> list[Place]:
    """The addresses of a host; none where it is not known. gevent prints what is raised here."""
    try:
        return lookup(host, port)
    except (OSError, UnicodeError):
        return []
