"""Bytes that wait to be written to clients: limits for the process and for each client."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

import gevent
from gevent.event import Event
from oslo_log import log

from zaqar_gevent.greenlets import in_turns

LOG = log.getLogger(__name__)

TICK_SECONDS = 0.25
STALL_SECONDS = 1.0
"""A client that has taken nothing for so long is among the first to go when there is no room."""

ROOM_SECONDS = 10.0
"""How long work with a long answer waits for room before it is refused."""

LONG_AT_ONCE = 32
"""The most requests with long answers that are served at once by a process."""

LARGE_AT_ONCE = 2
"""The same where the latest answers were large: until it is written, each takes several times its
size, and the store answers nobody else while it reads it."""

LARGE_BYTES = 256 * 1024
"""An answer of so many bytes is large."""


class Exhausted(Exception):
    """Too many bytes wait to be written for another long answer."""


class Holder(Protocol):
    """The bytes that wait for one client.

    size: in bytes. moved_at: when the client last took some of it, by `time.monotonic`.
    """

    size: int
    moved_at: float

    def look(self, now: float) -> None:
        """Notice whether the client has taken anything."""
        ...

    def cut(self) -> None:
        """Forget the waiting bytes, and end the connection."""
        ...


class Unsent:
    """The bytes that wait to be written to clients, of one process.

    limit: past it, the connections of clients that take nothing are ended, those that have stalled
        longest first, and work with a long answer waits.
    write_timeout: for how long a client may take nothing, in seconds.
    size: bytes that wait.
    """

    def __init__(self, limit: int, write_timeout: float) -> None:
        self.limit = limit
        self.write_timeout = write_timeout
        self.size = 0
        self.room = _Room(self)
        self._holders: set[Holder] = set()
        self._keeper: gevent.Greenlet | None = None
        self._relief = Event()

    def add(self, holder: Holder, size: int) -> None:
        """`size` bytes more wait for a client."""
        self.size += size
        self._holders.add(holder)
        if self._keeper is None:
            self._keeper = gevent.spawn(self._keep)

    def remove(self, holder: Holder, size: int) -> None:
        """`size` bytes less wait for a client, after `holder.size` was reduced by as many."""
        self.size -= size
        if not holder.size:
            self._holders.discard(holder)
        if self.size <= self.limit:
            self._relief.set()

    def wait_for_room(self, seconds: float) -> bool:
        """Wait until there is room; False where there is none after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.size > self.limit:
            self._relief.clear()
            if not self._relief.wait(max(0.0, deadline - time.monotonic())):
                return False
        return True

    def _keep(self) -> None:
        while self._holders:
            self._look_at_all()
            gevent.sleep(TICK_SECONDS)
        self._keeper = None

    def _look_at_all(self) -> None:
        now = time.monotonic()
        for holder in in_turns(self._holders):
            holder.look(now)
            if holder.size and now - holder.moved_at > self.write_timeout:
                holder.cut()
        if self.size > self.limit:
            self._make_room(now)

    def _make_room(self, now: float) -> None:
        """End connections that have stalled until there is room again."""
        stalled = sorted(
            (holder for holder in self._holders if now - holder.moved_at >= STALL_SECONDS),
            key=lambda holder: holder.moved_at,
        )
        ended = 0
        for holder in stalled:
            if self.size <= self.limit:
                break
            holder.cut()
            ended += 1
        if ended:
            LOG.warning(
                'More than %d bytes of answers and pushes waited to be written; '
                'ended %d connections that took none of it',
                self.limit,
                ended,
            )


class _Room:
    """Held while work with a long answer is done.

    refusal: makes what is raised where there is no room.

    How large an answer will be is not known before, so few are begun at once until some have turned
    out small, and few again after a large one.
    """

    def __init__(self, unsent: Unsent) -> None:
        self.refusal: Callable[[], Exception] = Exhausted
        self._unsent = unsent
        self._allowed = LARGE_AT_ONCE
        self._busy = 0
        self._waiting: collections.deque[Event] = collections.deque()

    def narrow(self) -> None:
        """An answer was large."""
        self._allowed = LARGE_AT_ONCE

    def __enter__(self) -> bool:
        """Whether there was anything to wait for: the client may be gone."""
        unsent = self._unsent
        deadline = 0.0
        if self._waiting or self._busy >= self._allowed:
            deadline = time.monotonic() + ROOM_SECONDS
            self._await_turn(deadline)
        else:
            self._busy += 1
        if unsent.size > unsent.limit:
            deadline = deadline or time.monotonic() + ROOM_SECONDS
            if not unsent.wait_for_room(deadline - time.monotonic()):
                self._leave()
                raise self.refusal()
        return deadline > 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and self._allowed < LONG_AT_ONCE:
            self._allowed += 1
        self._leave()

    def _await_turn(self, deadline: float) -> None:
        """Wait behind those who came before; whoever leaves counts the next one in."""
        turn = Event()
        self._waiting.append(turn)
        try:
            turn.wait(deadline - time.monotonic())
        finally:
            if not turn.is_set():
                self._waiting.remove(turn)
        if not turn.is_set():
            raise self.refusal()

    def _leave(self) -> None:
        self._busy -= 1
        while self._waiting and self._busy < self._allowed:
            self._busy += 1
            self._waiting.popleft().set()
