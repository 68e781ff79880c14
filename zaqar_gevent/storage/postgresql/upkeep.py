"""What a server does for its database by itself: removes what has expired, and makes delayed
messages visible when they are due.

Servers share this work: PostgreSQL lets one at a time collect, and each message is made visible by
one.
"""

from __future__ import annotations

import contextlib
import functools
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from oslo_log import log
from oslo_utils import timeutils

from zaqar_gevent.storage.core.clocks import COMPARE_SECONDS
from zaqar_gevent.storage.core.pages import decode_page
from zaqar_gevent.storage.errors import StoreUnavailable
from zaqar_gevent.storage.moves import QueueMoved
from zaqar_gevent.storage.postgresql import kinds, schema

if TYPE_CHECKING:
    from zaqar_gevent.storage.postgresql.servers import PostgresServer

LOG = log.getLogger(__name__)

INTERVAL = 2.0
"""Seconds between looks for something to remove, and for what others have delayed."""

STEP = 200
"""Messages that one transaction removes, or makes visible, at most."""

STEP_BYTES = 1024 * 1024
"""Bytes of messages after which a step that makes some visible ends."""

SWEEP = 200
"""Messages that this process removes from a queue before it looks where the queue begins now."""

THOROUGH_SECONDS = 30.0
"""How often what has expired is looked for where there should be none any more."""

_QUEUES = 100
_MOST_COUNTED = 10_000

_USE_SECONDS = 3600.0
_PAUSE_SECONDS = 0.2

Queue = tuple[str, str]
Listener = Callable[[str | None, str, list[dict[str, Any]]], None]


class Upkeep:
    """The work of one process; `server` is only used while it lives.

    counts_bytes: whether the process needs the bytes of projects to be counted.
    """

    def __init__(self, server: PostgresServer) -> None:
        self._server = weakref.ref(server)
        self._listeners: list[Listener] = []
        self._next_due: float | None = None
        self._greenlets: list[Any] = []
        self._hub: Any = None
        self._is_over = False
        self._delayed = Event()
        # Messages that have been removed from queues since they were swept.
        self._removed: dict[Queue, int] = {}
        self._to_sweep: set[Queue] = set()
        self._has_removed = Event()
        self.counts_bytes = False

    def begin(self, hub: Any) -> None:
        """Work in greenlets of the hub, if no other hub's do."""
        if self._hub is None and not self._is_over:
            self._hub = hub
            self._greenlets = [
                gevent.spawn(work) for work in (self._collect, self._place, self._sweep)
            ]

    def after_fork(self) -> Upkeep:
        """In a forked child: the work of this process, with the same listeners."""
        server = self._server()
        assert server is not None
        own = Upkeep(server)
        own._listeners = [*self._listeners]
        own.counts_bytes = self.counts_bytes
        return own

    def stop(self) -> None:
        """Stop working."""
        self._is_over = True
        if self._hub is not None and self._hub is gevent.get_hub():
            gevent.killall(self._greenlets, block=False)
        self._listeners.clear()

    def listen(self, listener: Listener) -> None:
        """Have `listener` called when this process makes delayed messages visible.

        It is given the project, the queue and, where that has subscriptions, the messages, with
        their `delay` in seconds and what they have `passed`.
        """
        self._listeners.append(listener)

    def forget(self, listener: Listener) -> None:
        """Do not call `listener` any more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def delayed(self, due: float) -> None:
        """A message, or its retry, has been delayed until `due`, in seconds since the epoch."""
        if self._next_due is None or due < self._next_due:
            self._next_due = due
            self._delayed.set()

    def removed(self, project: str, queue: str, count: int) -> None:
        """Messages have been removed from a queue.

        What is deleted stays in PostgreSQL's indices until it is vacuumed, which a long transaction
        elsewhere, such as a backup, puts off. So the queue is swept now and then: reads do not
        begin before the first message that is left.
        """
        key = project, queue
        total = self._removed.get(key, 0) + count
        if total < SWEEP:
            if len(self._removed) >= _MOST_COUNTED:
                self._removed.clear()
            self._removed[key] = total
            return
        self._removed.pop(key, None)
        self._to_sweep.add(key)
        self._has_removed.set()

    def place(self, server: PostgresServer, project: str, queue: str, limit: int = STEP) -> int:
        """Make messages visible that are due, at most about `limit`; how many."""
        placed, has_more = 0, True
        while has_more and placed < limit:
            now = timeutils.utcnow_ts(microsecond=True)
            first, *told = server.rows(
                kinds.STEPS,
                'place',
                *(project, queue, now, min(limit - placed, STEP), STEP_BYTES),
                is_repeatable=False,
            )
            count, has_more, again = first[0]
            if not count and not again:
                # There may be more remains of messages that were deleted while they waited.
                continue
            placed += count + again
            self.removed(project, queue, count)
            messages = []
            for (delay, passed), document in told:
                [message] = decode_page(document)
                messages.append({**message, 'delay': delay, 'passed': passed})
            for listener in tuple(self._listeners):
                gevent.spawn_raw(listener, project or None, queue, messages)
        return placed

    def _collect(self) -> None:
        use_at = time.monotonic() + _USE_SECONDS
        look_at = 0.0
        compare_at = time.monotonic() + COMPARE_SECONDS
        while not self._is_over:
            gevent.sleep(INTERVAL)
            if time.monotonic() > compare_at and (server := self._server()) is not None:
                compare_at = time.monotonic() + COMPARE_SECONDS
                _attempt(functools.partial(look, server))
                del server
            if time.monotonic() > use_at and (server := self._server()) is not None:
                use_at = time.monotonic() + _USE_SECONDS
                if self.counts_bytes:
                    _attempt(functools.partial(count_bytes, server))
                _attempt(functools.partial(use_functions, server))
                del server
            has_more = True
            while has_more and not self._is_over:
                server = self._server()
                if server is None:
                    return
                is_thorough = time.monotonic() > look_at
                has_more = _attempt(functools.partial(collect, server, is_thorough=is_thorough))
                if is_thorough:
                    look_at = time.monotonic() + THOROUGH_SECONDS
                del server

    def _sweep(self) -> None:
        while not self._is_over:
            self._has_removed.wait(INTERVAL)
            self._has_removed.clear()
            server = self._server()
            if server is None:
                return
            while self._to_sweep:
                _attempt(functools.partial(sweep, server, *self._to_sweep.pop()))
            del server

    def _place(self) -> None:
        look_at = 0.0
        while not self._is_over:
            now = timeutils.utcnow_ts(microsecond=True)
            wait = max(0.0, look_at - time.monotonic())
            if self._next_due is not None:
                wait = min(wait, self._next_due - now)
            if wait > 0 or not self._listeners:
                self._delayed.clear()
                self._delayed.wait(max(wait, 0.0) if self._listeners else INTERVAL)
                continue
            server = self._server()
            if server is None:
                return
            look_at = time.monotonic() + INTERVAL
            _attempt(functools.partial(self._place_due, server))
            del server

    def _place_due(self, server: PostgresServer) -> bool:
        self._next_due = None
        due, _ = server.call(kinds.READS, 'next_due')
        now = timeutils.utcnow_ts(microsecond=True)
        if due is not None and due <= now:
            names, _ = server.call(kinds.READS, 'find_due', now, _QUEUES)
            for project, queue in names:
                # One that has begun to move meanwhile is made visible where it comes to.
                with contextlib.suppress(QueueMoved):
                    self.place(server, project, queue)
            due, _ = server.call(kinds.READS, 'next_due')
            if due is not None and not names:
                # It is of a queue that is being removed.
                due = max(due, now + _PAUSE_SECONDS)
        if due is not None:
            self.delayed(due)
        return False


def use_functions(server: PostgresServer) -> bool:
    """Say that this version's functions are used, and drop those that no server uses any more."""
    server.call(kinds.STEPS, 'use_functions', schema.UNUSED_SECONDS)
    return False


def look(server: PostgresServer) -> bool:
    """Compare the clocks, and see whether the database has lost its end."""
    server.look()
    return False


def count_bytes(server: PostgresServer) -> bool:
    """Have the bytes of projects counted, and say that this process needs it."""
    server.call(kinds.STEPS, 'begin_usage')
    return False


def collect(server: PostgresServer, *, is_thorough: bool = False) -> bool:
    """Remove some expired or orphaned rows; whether there may be more.

    is_thorough: look where there should be none any more, too: the clocks of servers differ.
    """
    now = timeutils.utcnow_ts(microsecond=True)
    facts, _ = server.call(kinds.STEPS, 'collect', now, STEP, is_thorough)
    if facts is None:
        return False
    has_more, removed = facts
    for project, queue, count in removed:
        server.upkeep.removed(project, queue, count)
    return bool(has_more)


def sweep(server: PostgresServer, project: str, queue: str) -> bool:
    """Find where a queue begins now."""
    server.call(kinds.STEPS, 'sweep', project, queue)
    return False


def _attempt(work: Callable[[], bool]) -> bool:
    """The result of `work`; False where the database cannot be used, which is logged elsewhere."""
    try:
        return work()
    except StoreUnavailable:
        return False
    except Exception:
        LOG.exception('Housekeeping in PostgreSQL has failed.')
        return False
