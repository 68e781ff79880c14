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
from zaqar_gevent.rotation import Rotation

LOG = log.getLogger(__name__)

TICK_SECONDS = 0.25
STALL_SECONDS = 1.0
"""A client that has taken nothing for so long is among the first to go when there is no room."""

ROOM_SECONDS = 10.0
"""How long work with a long answer waits for room before it is refused."""

LONG_AT_ONCE = 30
"""The most requests with long answers that are served at once by a process, for projects whose
latest answers were not large."""

LONG_PER_PROJECT = 24
"""The most of them for one project."""

LARGE_AT_ONCE = 2
"""The most requests that are served at once for projects whose latest answer was large or that have
not been answered yet: until it is written, a large answer takes several times its size in memory,
and its making delays all others."""

LARGE_PER_PROJECT = 1
"""The most of them for one project, so that others find a place."""

MAX_REMEMBERED = 10_000
"""Projects of which it is remembered whether their answers are large."""

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
        self.answer_limiter = AnswerLimiter(self)
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


class _Share:
    """One project's share of the room.

    allowed: how many of its requests may be served at once, by its latest answers.
    is_small: whether those were small. held: places it has. unsettled: answers that were finished
    and not reported as large since.
    """

    __slots__ = ('allowed', 'held', 'is_small', 'unsettled')

    def __init__(self) -> None:
        self.held = 0
        self.was_large()

    def was_large(self) -> None:
        """The latest answer was large, or there was none."""
        self.allowed = LARGE_PER_PROJECT
        self.is_small = False
        self.unsettled = 0

    def settle(self) -> None:
        """Count the answers that were finished before: had they been large, that was reported."""
        self.allowed = min(self.allowed + self.unsettled, LONG_PER_PROJECT)
        self.is_small = self.allowed > LARGE_PER_PROJECT
        self.unsettled = 0


class _PlaceWait(Event):
    """The wait of one request; is_small is the kind of place that it was given."""

    is_small = False


class _Place:
    """A place of a request, held while it is performed; see `AnswerLimiter.place`.

    PERF: a class, since a generator takes twice as long.
    """

    __slots__ = ('_is_small', '_limiter', '_project', '_share')

    def __init__(self, limiter: AnswerLimiter, project: str | None) -> None:
        self._limiter = limiter
        self._project = project

    def __enter__(self) -> bool:
        self._share, self._is_small, has_waited = self._limiter.enter(self._project)
        return has_waited

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        has_answered = kind is None
        self._limiter.leave(self._share, is_small=self._is_small, has_answered=has_answered)


class AnswerLimiter:
    """Limits the work with long answers that is done at once, fairly between projects.

    refusal: makes the exception that is raised when there is no room in time.

    The size of an answer is not known before it is made. A project whose latest answer was large,
    or that has not been answered before, shares LARGE_AT_ONCE places with all such projects, and
    has one of them at most. Each answer that is not large allows the project one more request at
    once; those requests have LONG_AT_ONCE places of their own, of which one project has at most
    LONG_PER_PROJECT, and do not wait for places of projects with large answers.
    Projects whose requests wait take turns.
    """

    def __init__(self, unsent: Unsent) -> None:
        self.refusal: Callable[[], Exception] = Exhausted
        self._unsent = unsent
        self._large = 0
        self._small = 0
        # By project, the least recently served first.
        self._shares: collections.OrderedDict[str | None, _Share] = collections.OrderedDict()
        # By project.
        self._waiting: Rotation[str | None, _PlaceWait] = Rotation()

    def report(self, project: str | None, size: int) -> None:
        """An answer to `project` has `size` bytes; to be called before others can run."""
        if size < LARGE_BYTES:
            return
        share = self._shares.get(project)
        if share is not None:
            share.was_large()

    def place(self, project: str | None) -> _Place:
        """Hold a place for a request of `project`, and wait for it first.

        Gives whether the request had to wait: the client may be gone. Raises `refusal` after
        ROOM_SECONDS.
        """
        return _Place(self, project)

    def enter(self, project: str | None) -> tuple[_Share, bool, bool]:
        """Take a place: the project's share, whether it is a small one, and whether it waited."""
        unsent = self._unsent
        share = self._shares.get(project)
        if share is None:
            share = self._new_share(project)
        else:
            self._shares.move_to_end(project)
        if share.unsettled:
            share.settle()
        has_waited = project in self._waiting.by_key or not self._is_free(share)
        if not has_waited and unsent.size <= unsent.limit:
            return share, self._take(share), False
        deadline = time.monotonic() + ROOM_SECONDS
        is_small = (
            self._wait_for_place(project, share, deadline) if has_waited else self._take(share)
        )
        try:
            if unsent.size > unsent.limit and not unsent.wait_for_room(deadline - time.monotonic()):
                raise self.refusal()
        except BaseException:
            self._leave(share, is_small=is_small)
            raise
        return share, is_small, True

    def leave(self, share: _Share, *, is_small: bool, has_answered: bool) -> None:
        """Give a place back. has_answered: whether the request was performed."""
        if has_answered:
            if share.unsettled:
                share.settle()
            share.unsettled = 1
        self._leave(share, is_small=is_small)

    def _new_share(self, project: str | None) -> _Share:
        share = self._shares[project] = _Share()
        if len(self._shares) > MAX_REMEMBERED:
            self._forget_one()
        return share

    def _forget_one(self) -> None:
        project, share = next(iter(self._shares.items()))
        if share.held or project in self._waiting.by_key:
            self._shares.move_to_end(project)
        else:
            del self._shares[project]

    def _is_free(self, share: _Share) -> bool:
        """Whether a request of the project may be served now."""
        if share.held >= share.allowed:
            return False
        return self._small < LONG_AT_ONCE if share.is_small else self._large < LARGE_AT_ONCE

    def _take(self, share: _Share) -> bool:
        share.held += 1
        if share.is_small:
            self._small += 1
        else:
            self._large += 1
        return share.is_small

    def _leave(self, share: _Share, *, is_small: bool) -> None:
        share.held -= 1
        if is_small:
            self._small -= 1
        else:
            self._large -= 1
        if self._waiting.by_key:
            self._admit()

    def _wait_for_place(self, project: str | None, share: _Share, deadline: float) -> bool:
        """Wait for a place; places that become free go to the project whose turn it is."""
        wait = _PlaceWait()
        self._waiting.add(project, wait)
        try:
            wait.wait(deadline - time.monotonic())
        except BaseException:
            if wait.is_set():
                self._leave(share, is_small=wait.is_small)
            else:
                self._waiting.remove(project, wait)
            raise
        if not wait.is_set():
            self._waiting.remove(project, wait)
            raise self.refusal()
        return wait.is_small

    def _admit(self) -> None:
        """Give each project whose requests wait one place in turn, until no more are free."""
        while found := self._waiting.take(lambda project: self._is_free(self._shares[project])):
            project, wait = found
            wait.is_small = self._take(self._shares[project])
            wait.set()
