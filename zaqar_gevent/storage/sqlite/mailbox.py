"""Calls from greenlets to native threads.

gevent's hub must not wait for a disk, so a native thread does, and the calling greenlet waits for
the answer. Answers return through one `async` watcher a hub, whatever the number of calls and of
mailboxes. In a native thread that has no hub there are no greenlets to keep running, and the call
waits on a lock.

Everything here is made of the interpreter's own primitives: `threading` is usually patched.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from gevent.hub import Waiter

from zaqar_gevent.greenlets import MOMENT

# Who could share a commit is waited for no longer than this, however much there is to do meanwhile.
_PATIENCE_SECONDS = 0.002

_start_new_thread = monkey.get_original('_thread', 'start_new_thread')
_allocate_lock = monkey.get_original('_thread', 'allocate_lock')
_local = monkey.get_original('threading', 'local')
_SimpleQueue = monkey.get_original('queue', 'SimpleQueue')
_Empty = monkey.get_original('queue', 'Empty')


class MailboxClosed(Exception):
    """The mailbox takes no more calls."""


class Call:
    """One piece of work for a native thread: `work(..., *arguments)`, then `result` or `error`."""

    __slots__ = ('arguments', 'error', 'lane', 'origin', 'result', 'waiter', 'work')

    def __init__(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.work = work
        self.arguments = arguments
        self.result: Any = None
        self.error: BaseException | None = None
        self.origin: _HubOrigin | _LockOrigin
        self.lane: _Lane | None = None
        self.waiter: Any = None


class _Lane:
    """The way of one hub's calls to one mailbox."""

    __slots__ = (
        *('_answered', '_gathered', '_in_work', '_loop', '_mailbox', '_outgoing', '_turn'),
        '_wait_until',
    )

    def __init__(self, mailbox: Mailbox, loop: Any) -> None:
        self._mailbox = mailbox
        self._loop = loop
        self._turn = loop.timer(MOMENT)
        self._outgoing: list[Call] = []
        self._in_work = 0
        self._answered = 0
        self._gathered = 0
        self._wait_until = 0.0

    def send(self, call: Call) -> None:
        """Put `call` in the mailbox before the loop waits for events again.

        PERF: what all greenlets that are ready now have to write is committed together, and the
        writer does not compete with them for the interpreter.
        """
        if not self._outgoing:
            self._begin()
        self._outgoing.append(call)

    def answered(self, count: int) -> None:
        """So many calls have been answered together."""
        self._in_work -= count
        self._answered = count
        if self._outgoing:
            self._begin()

    def _begin(self) -> None:
        self._gathered = 0
        self._wait_until = time.monotonic() + _PATIENCE_SECONDS
        self._look_soon()

    def _look_soon(self) -> None:
        self._loop.run_callback(self._look)

    def flush(self) -> None:
        """Put in the mailbox what has gathered."""
        calls, self._outgoing = self._outgoing, []
        self._in_work += len(calls)
        if calls:
            self._mailbox.put(calls)

    def _look(self) -> None:
        if not (self._mailbox.is_greedy and self._is_expecting()):
            self.flush()

    def _is_expecting(self) -> bool:
        """Whether what has gathered is to wait for more.

        PERF: a commit costs the same whatever is in it. A few calls wait for those in work to be
        done, and then for those who were answered together and ask again, as long as there is one
        more with each turn of the loop.
        """
        count = len(self._outgoing)
        if count < self._in_work:
            return True
        if not self._gathered < count < self._answered or time.monotonic() > self._wait_until:
            return False
        self._gathered = count
        # Twice soon: what the sockets bring lets greenlets run, which come after the first.
        self._turn.start(self._loop.run_callback, self._look_soon)
        return True


class _HubOrigin:
    """The way back to the greenlets of one hub."""

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self._done: collections.deque[Call] = collections.deque()
        self._pending = 0
        self._watcher = hub.loop.async_()

    def expect(self, call: Call) -> None:
        """In the hub's thread: `call` is about to be posted."""
        call.origin = self
        call.waiter = Waiter(self.hub)
        if not self._pending:
            # Started only while answers are due: it keeps the loop from ending meanwhile, and a
            # program that is otherwise done from waiting for ever.
            self._watcher.start(self._deliver)
        self._pending += 1

    def send(self, mailbox: Mailbox, call: Call) -> None:
        lane: _Lane | None = mailbox.lanes.get(self)
        if lane is None:
            lane = mailbox.lanes[self] = _Lane(mailbox, self.hub.loop)
        call.lane = lane
        lane.send(call)

    def wait(self, call: Call) -> None:
        call.waiter.get()

    def finish(self, calls: Sequence[Call]) -> None:
        """In a native thread: wake the greenlets that made `calls`."""
        self._done.extend(calls)
        try:
            self._watcher.send()
        except ValueError:
            # The hub has been destroyed, and with it everybody who could wait for an answer.
            self._done.clear()

    def _deliver(self) -> None:
        calls = []
        while self._done:
            calls.append(self._done.popleft())
        self._pending -= len(calls)
        counts: dict[_Lane | None, int] = {}
        for call in calls:
            counts[call.lane] = counts.get(call.lane, 0) + 1
        for lane, count in counts.items():
            if lane is not None:
                lane.answered(count)
        for call in calls:
            call.waiter.switch(None)
        if not self._pending:
            self._watcher.stop()


class _LockOrigin:
    """The way back to a native thread without a hub."""

    def expect(self, call: Call) -> None:
        call.origin = self
        call.waiter = _allocate_lock()
        call.waiter.acquire()

    def send(self, mailbox: Mailbox, call: Call) -> None:
        mailbox.put([call])

    def wait(self, call: Call) -> None:
        call.waiter.acquire()

    def finish(self, calls: Sequence[Call]) -> None:
        for call in calls:
            call.waiter.release()


_LOCK_ORIGIN = _LockOrigin()
_origins = _local()


def _get_origin() -> _HubOrigin | _LockOrigin:
    hub = get_hub_if_exists()
    if hub is None:
        return _LOCK_ORIGIN
    origin: _HubOrigin | None = getattr(_origins, 'origin', None)
    if origin is None or origin.hub is not hub:
        origin = _origins.origin = _HubOrigin(hub)
    return origin


def finish(calls: Sequence[Call]) -> None:
    """In a native thread: return `calls` to where they came from, each hub woken once."""
    first = calls[0].origin
    if all(call.origin is first for call in calls):
        first.finish(calls)
        return
    by_origin: dict[_HubOrigin | _LockOrigin, list[Call]] = {}
    for call in calls:
        by_origin.setdefault(call.origin, []).append(call)
    for origin, some in by_origin.items():
        origin.finish(some)


class Server(Protocol):
    """What works in a mailbox's thread. None of it may raise."""

    def serve(self, calls: list[Call]) -> None:
        """Give every call its `result` or `error`."""

    def rest(self) -> float | None:
        """Called after each batch and when it has asked for: seconds until the next time."""

    def close(self) -> None: ...


class Mailbox:
    """Native threads, started by the first call, that serve what greenlets post.

    make_server: called once in each thread.
    greedy: whether a thread takes all the calls that have gathered, or one at a time.
    """

    def __init__(
        self, make_server: Callable[[], Server], *, threads: int = 1, greedy: bool = False
    ) -> None:
        self._make_server = make_server
        self._threads = threads
        self.is_greedy = greedy
        self._started = False
        self._closed = False
        self.lanes: dict[_HubOrigin | _LockOrigin, _Lane] = {}
        self._lock = _allocate_lock()
        self._calls = _SimpleQueue()

    def call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Have a thread do `work` and wait for its result; raises what it raised."""
        call = Call(work, arguments)
        origin = _get_origin()
        origin.expect(call)
        origin.send(self, call)
        origin.wait(call)
        if call.error is not None:
            raise call.error
        return call.result

    def close(self, *, wait: bool) -> None:
        """Serve what has been posted, then stop the threads."""
        lane = self.lanes.get(_get_origin())
        if lane is not None:
            lane.flush()
        with self._lock:
            self._closed = True
            running = self._threads if self._started else 0
            self._started = False
        origin = _get_origin() if wait else _NOWHERE
        ends = [Call(_end, ()) for _ in range(running)]
        for end in ends:
            origin.expect(end)
            self._calls.put([end])
        for end in ends:
            origin.wait(end)

    def put(self, calls: list[Call]) -> None:
        """Give `calls` to the threads; those of a closed mailbox fail with `MailboxClosed`."""
        # Held for an instant only, and by native threads: nobody waits here for a greenlet.
        with self._lock:
            if not self._closed:
                self._start()
                for some in [calls] if self.is_greedy else [[call] for call in calls]:
                    self._calls.put(some)
                return
        for call in calls:
            call.error = MailboxClosed()
        finish(calls)

    def _start(self) -> None:
        if not self._started:
            self._started = True
            for _ in range(self._threads):
                _start_new_thread(self._run, ())

    def _run(self) -> None:
        server = self._make_server()
        wait: float | None = 0
        while True:
            try:
                calls = self._gather(wait)
            except _Empty:
                wait = server.rest()
                continue
            ends = [call for call in calls if call.work is _end]
            calls = [call for call in calls if call.work is not _end]
            if calls:
                server.serve(calls)
                finish(calls)
            if ends:
                server.close()
                finish(ends)
                return
            wait = server.rest()

    def _gather(self, wait: float | None) -> list[Call]:
        calls: list[Call] = self._calls.get(timeout=wait)
        while self.is_greedy and not self._calls.empty():
            calls += self._calls.get()
        return calls


def forget_origins() -> None:
    """In a forked child: the hub's loop has been made anew."""
    global _origins
    _origins = _local()


def _end() -> None:
    """The work of a call that ends a thread."""


class _Nowhere(_LockOrigin):
    """For calls that nobody waits for."""

    def wait(self, call: Call) -> None: ...


_NOWHERE = _Nowhere()
