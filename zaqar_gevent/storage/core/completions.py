"""Where calls come from, and how their answers get back there.

gevent's hub must not wait for a disk, so a native thread does, and the calling greenlet waits for
the answer. Answers return through one `async` watcher a hub, whatever the number of calls and of
thread pools. In a native thread without a hub there are no greenlets to keep running, and the call
waits on a lock.

No wait is endless: after `WAIT_SECONDS` it ends with `NotAnswered`.
"""

from __future__ import annotations

import collections
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gevent
from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from gevent.hub import Waiter

from zaqar_gevent.greenlets import MOMENT

WAIT_SECONDS = 30.0
"""How long a call waits for its answer: longer than a lock is waited for, or a slow disk takes."""

_TICK_SECONDS = 1.0

# Who could share a commit is waited for no longer than this, however much there is to do meanwhile.
_PATIENCE_SECONDS = 0.002

_allocate_lock = monkey.get_original('_thread', 'allocate_lock')
_local = monkey.get_original('threading', 'local')


class NotAnswered(Exception):
    """The thread has not answered in time; what was asked of it may still be done."""

    def __init__(self) -> None:
        super().__init__('its thread does not answer')


class Call:
    """One piece of work for a native thread: `work(..., *arguments)`, then `result` or `error`.

    is_abandoned: nobody waits for it any more, so it must not be begun.
    """

    __slots__ = (
        *('arguments', 'batcher', 'completions', 'error', 'is_abandoned', 'result', 'tick'),
        *('waiter', 'work'),
    )

    def __init__(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.work = work
        self.arguments = arguments
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_abandoned = False
        self.completions: HubCompletions | LockCompletions
        self.batcher: CallBatcher | None = None
        self.tick = 0
        self.waiter: Any = None


class CallSink(Protocol):
    """Where calls go."""

    is_greedy: bool
    batchers: dict[HubCompletions, CallBatcher]

    def put(self, calls: list[Call]) -> None:
        """Take `calls`, whatever happens: those that cannot be served are returned at once."""
        ...


class CallBatcher:
    """The way of one hub's calls to one thread pool."""

    __slots__ = (
        *('_answered', '_gathered', '_in_work', '_loop', '_sink', '_outgoing', '_turn'),
        '_wait_until',
    )

    def __init__(self, sink: CallSink, loop: Any) -> None:
        self._sink = sink
        self._loop = loop
        self._turn = loop.timer(MOMENT)
        self._outgoing: list[Call] = []
        self._in_work = 0
        self._answered = 0
        self._gathered = 0
        self._wait_until = 0.0

    def send(self, call: Call) -> None:
        """Put `call` in the queue of the thread pool before the loop waits for events again.

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

    def give_up(self, call: Call) -> None:
        """Forget `call`, which has waited too long; the others wait for it no longer."""
        if call in self._outgoing:
            self._outgoing.remove(call)
        else:
            self.answered(1)

    def _begin(self) -> None:
        self._gathered = 0
        self._wait_until = time.monotonic() + _PATIENCE_SECONDS
        self._look_soon()

    def _look_soon(self) -> None:
        self._loop.run_callback(self._look)

    def flush(self) -> None:
        """Give the thread pool what has gathered."""
        calls, self._outgoing = self._outgoing, []
        self._in_work += len(calls)
        if calls:
            self._sink.put(calls)

    def _look(self) -> None:
        if not (self._sink.is_greedy and self._is_expecting()):
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


class HubCompletions:
    """The way back to the greenlets of one hub."""

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self._done: collections.deque[Call] = collections.deque()
        # In the order in which they began to wait.
        self._expected: dict[Call, None] = {}
        self._watcher = hub.loop.async_()
        self._clock = hub.loop.timer(_TICK_SECONDS, _TICK_SECONDS, ref=False)
        self._ticks = 0

    def expect(self, call: Call) -> None:
        """In the hub's thread: `call` is about to be posted."""
        call.completions = self
        call.waiter = Waiter(self.hub)
        call.tick = self._ticks
        if not self._expected:
            # Started only while answers are due: it keeps the loop from ending meanwhile, and a
            # program that is otherwise done from waiting for ever.
            self._watcher.start(self._deliver)
            if not self._clock.active:
                self._clock.start(self._tick)
        self._expected[call] = None

    def send(self, sink: CallSink, call: Call) -> None:
        batcher: CallBatcher | None = sink.batchers.get(self)
        if batcher is None:
            batcher = sink.batchers[self] = CallBatcher(sink, self.hub.loop)
        call.batcher = batcher
        batcher.send(call)

    def wait(self, call: Call, seconds: float | None = None) -> None:
        """Wait for `call`; raises `NotAnswered` after `seconds`, `WAIT_SECONDS` where not given."""
        if seconds is None:
            call.waiter.get()
            return
        try:
            with gevent.Timeout(seconds, NotAnswered()):
                call.waiter.get()
        except NotAnswered:
            if call in self._expected:
                self._forget(call)
            raise

    def abandon(self, call: Call) -> None:
        """Nobody waits for `call` any more, whether or not it is answered."""
        if call in self._expected:
            self._forget(call)
            if call.batcher is not None:
                call.batcher.give_up(call)

    def tell(self, job: Callable[[], None]) -> None:
        """In a native thread: have `job` done in a greenlet of this hub."""
        self.hub.loop.run_callback_threadsafe(gevent.spawn_raw, job)

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
            call = self._done.popleft()
            # Not for one that has been given up, or was answered before.
            if self._expected.pop(call, self) is None:
                calls.append(call)
        counts: dict[CallBatcher | None, int] = {}
        for call in calls:
            counts[call.batcher] = counts.get(call.batcher, 0) + 1
        for batcher, count in counts.items():
            if batcher is not None:
                batcher.answered(count)
        for call in calls:
            call.waiter.switch(None)
        if not self._expected:
            self._watcher.stop()

    def _tick(self) -> None:
        """Give up the calls that have waited too long.

        PERF: ticks are counted, since a timer for every call would cost more than the call's way.
        """
        self._ticks += 1
        for call in list(self._expected):
            if (self._ticks - call.tick) * _TICK_SECONDS <= WAIT_SECONDS:
                break
            self._give_up(call)
        if not self._expected:
            self._clock.stop()

    def _give_up(self, call: Call) -> None:
        self.abandon(call)
        call.waiter.throw(NotAnswered())

    def _forget(self, call: Call) -> None:
        call.is_abandoned = True
        del self._expected[call]
        if not self._expected:
            self._watcher.stop()


class LockCompletions:
    """The way back to a native thread without a hub."""

    def expect(self, call: Call) -> None:
        call.completions = self
        call.waiter = _allocate_lock()
        call.waiter.acquire()

    def send(self, sink: CallSink, call: Call) -> None:
        sink.put([call])

    def wait(self, call: Call, seconds: float | None = None) -> None:
        if not call.waiter.acquire(True, WAIT_SECONDS if seconds is None else seconds):
            call.is_abandoned = True
            raise NotAnswered

    def abandon(self, call: Call) -> None:
        call.is_abandoned = True

    def finish(self, calls: Sequence[Call]) -> None:
        for call in calls:
            # Open if it was answered before.
            if call.waiter.locked():
                call.waiter.release()


class _DiscardedCompletions(LockCompletions):
    """For calls that nobody waits for."""

    def wait(self, call: Call, seconds: float | None = None) -> None: ...


DISCARDED = _DiscardedCompletions()

_LOCK_COMPLETIONS = LockCompletions()
_per_thread = _local()


def get_completions() -> HubCompletions | LockCompletions:
    """Where a call made here and now comes from."""
    hub = get_hub_if_exists()
    if hub is None:
        return _LOCK_COMPLETIONS
    completions: HubCompletions | None = getattr(_per_thread, 'completions', None)
    if completions is None or completions.hub is not hub:
        completions = _per_thread.completions = HubCompletions(hub)
    return completions


def finish(calls: Sequence[Call]) -> None:
    """In a native thread: return `calls` to where they came from, each hub woken once."""
    first = calls[0].completions
    if all(call.completions is first for call in calls):
        first.finish(calls)
        return
    by_completions: dict[HubCompletions | LockCompletions, list[Call]] = {}
    for call in calls:
        by_completions.setdefault(call.completions, []).append(call)
    for completions, some in by_completions.items():
        completions.finish(some)


def _forget_completions() -> None:
    """In a forked child: the hub's loop has been made anew."""
    global _per_thread
    _per_thread = _local()


os.register_at_fork(after_in_child=_forget_completions)
