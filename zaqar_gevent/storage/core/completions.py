"""Calls to native threads: how greenlets gather them, wait for them, and are woken.

The hub must not wait for a disk. So a native thread performs the call, and the greenlet waits. All
answers to one hub are announced by one `async` watcher, for all calls and all thread pools. A
native thread that has no hub waits on a lock instead.

Every wait ends: after `WAIT_SECONDS` it raises `NotAnswered`.
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

# Longest delay of a commit while more calls for it gather.
_PATIENCE_SECONDS = 0.002

# How soon callers that are answered together ask again, for others to wait for them.
_RETURN_SECONDS = 0.002
# Fewer calls than these are not worth a delay.
_MIN_GROUP = 4
# After so many groups that came back whole, the next ones are waited for. Each group that does not
# doubles the number; it halves after so many times the number.
_MIN_PROOFS, _MAX_PROOFS = 4, 64
_PROOFS_TO_HALVE = 16

_allocate_lock = monkey.get_original('_thread', 'allocate_lock')
_local = monkey.get_original('threading', 'local')


class NotAnswered(Exception):
    """The thread has not answered in time; it may still perform the call."""

    def __init__(self) -> None:
        super().__init__('its thread does not answer')


class Call:
    """One piece of work for a native thread: `work(..., *arguments)`, then `result` or `error`.

    is_abandoned: the caller no longer waits, so the call must not be begun.
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
    """The destination of calls."""

    is_greedy: bool
    batchers: dict[HubCompletions, CallBatcher]

    def put(self, calls: list[Call]) -> None:
        """Take `calls`; those that cannot be performed get an error at once. Raises nothing."""
        ...


class _Returns:
    """Whether callers that were answered soon ask again, all of them.

    missing: how many of them have not asked again.
    """

    __slots__ = ('_began_at', '_needed', '_size', '_whole', 'missing')

    def __init__(self) -> None:
        self.missing = 0
        self._size = 0
        self._began_at = 0.0
        self._whole = 0
        self._needed = _MIN_PROOFS

    @property
    def are_likely(self) -> bool:
        """Whether it pays to wait for those that are missing."""
        return self._whole >= self._needed

    def answered(self, count: int) -> None:
        """So many have been answered."""
        self.missing += count
        self._size = self.missing
        self._began_at = 0.0

    def asked(self) -> bool:
        """One of those that are missing has asked again; whether it was the last."""
        self.missing -= 1
        if not self._began_at:
            self._began_at = time.monotonic()
        if self.missing:
            return False
        if time.monotonic() - self._began_at > _RETURN_SECONDS:
            self.give_up()
        elif self._size >= _MIN_GROUP:
            self._whole += 1
            if self._whole >= _PROOFS_TO_HALVE * self._needed:
                self._needed = max(self._needed // 2, _MIN_PROOFS)
                self._whole = self._needed
        return True

    def give_up(self) -> None:
        """Those that are missing do not come soon."""
        if self.are_likely:
            self._needed = min(2 * self._needed, _MAX_PROOFS)
        self._whole = self.missing = 0


class CallBatcher:
    """Gathers the calls of one hub to one thread pool, so that they share a commit."""

    __slots__ = (
        *('_answered', '_gathered', '_in_work', '_loop', '_sink', '_outgoing', '_pause'),
        *('_returns', '_turn', '_wait_until'),
    )

    def __init__(self, sink: CallSink, loop: Any) -> None:
        self._sink = sink
        self._loop = loop
        self._turn = loop.timer(MOMENT)
        self._pause = loop.timer(_RETURN_SECONDS)
        self._outgoing: list[Call] = []
        self._in_work = 0
        self._answered = 0
        self._gathered = 0
        self._wait_until = 0.0
        self._returns = _Returns()

    def send(self, call: Call) -> None:
        """Put `call` in the queue of the thread pool before the loop waits for events again.

        PERF: what all greenlets that are ready now have to write is committed together, and the
        writer does not compete with them for the interpreter.
        """
        if not self._outgoing:
            self._begin()
        self._outgoing.append(call)
        returns = self._returns
        if returns.missing and returns.asked() and self._pause.active:
            self._pause.stop()
            self._look_soon()

    def answered(self, count: int) -> None:
        """`count` calls have been answered together."""
        self._in_work -= count
        self._answered = count
        self._returns.answered(count)
        if self._outgoing:
            self._begin()

    def give_up(self, call: Call) -> None:
        """Forget `call`, which has waited too long, so that no batch waits for it."""
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
            self._pause.stop()
            self._sink.put(calls)

    def _look(self) -> None:
        if not (self._sink.is_greedy and self._is_expecting()):
            self.flush()

    def _is_expecting(self) -> bool:
        """Whether the calls that have gathered should wait for more.

        PERF: a commit costs the same whatever is in it. So calls wait while more calls than these
        are in work. Then the callers that were answered together ask again: the calls wait for
        them, as long as each turn of the loop brings at least one more.
        """
        count = len(self._outgoing)
        if count < self._in_work:
            return True
        is_group = count + self._in_work + self._returns.missing >= _MIN_GROUP
        if count and is_group and self._returns.are_likely:
            return self._is_expecting_all()
        if not self._gathered < count < self._answered or time.monotonic() > self._wait_until:
            return False
        self._gathered = count
        # Wait two loop turns: one to read the sockets, one to run the woken greenlets.
        self._turn.start(self._loop.run_callback, self._look_soon)
        return True

    def _is_expecting_all(self) -> bool:
        """The same where callers have come back together again and again.

        PERF: so the threads of one client do. The first of them is here before the last has its
        answer, and without a pause two groups would form that take turns: twice the commits.
        """
        if self._in_work:
            return True
        if not self._returns.missing:
            return False
        if not self._pause.active:
            self._pause.start(self._end_pause)
        return True

    def _end_pause(self) -> None:
        self._returns.give_up()
        self._look_soon()


class HubCompletions:
    """Wakes the greenlets of one hub when their calls are done."""

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self._done: collections.deque[Call] = collections.deque()
        # In the order in which they began to wait.
        self._expected: dict[Call, None] = {}
        self._watcher = hub.loop.async_()
        self._clock = hub.loop.timer(_TICK_SECONDS, _TICK_SECONDS, ref=False)
        self._ticks = 0

    def expect(self, call: Call) -> None:
        """In the thread of the hub: register `call`, which is about to be sent."""
        call.completions = self
        call.waiter = Waiter(self.hub)
        call.tick = self._ticks
        if not self._expected:
            # An active watcher keeps the loop running. So it is active only while answers are due:
            # a program that has nothing else to do can end.
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
        """The caller no longer waits for `call`, whether or not it is answered."""
        if call in self._expected:
            self._forget(call)
            if call.batcher is not None:
                call.batcher.give_up(call)

    def tell(self, job: Callable[[], None]) -> None:
        """In a native thread: run `job` in a greenlet of this hub."""
        self.hub.loop.run_callback_threadsafe(gevent.spawn_raw, job)

    def finish(self, calls: Sequence[Call]) -> None:
        """In a native thread: wake the greenlets that made `calls`."""
        self._done.extend(calls)
        try:
            self._watcher.send()
        except ValueError:
            # The hub has been destroyed, and its greenlets with it.
            self._done.clear()

    def _deliver(self) -> None:
        calls = []
        while self._done:
            call = self._done.popleft()
            # Not if it has been given up, or was answered before.
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

        PERF: ticks are counted, since a timer for each call would cost more than the call.
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
    """Wakes a native thread that has no hub."""

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
    """For calls whose caller does not wait."""

    def wait(self, call: Call, seconds: float | None = None) -> None: ...


DISCARDED = _DiscardedCompletions()

_LOCK_COMPLETIONS = LockCompletions()
_per_thread = _local()


def get_completions() -> HubCompletions | LockCompletions:
    """Wakes the caller of a call that is made in this thread."""
    hub = get_hub_if_exists()
    if hub is None:
        return _LOCK_COMPLETIONS
    completions: HubCompletions | None = getattr(_per_thread, 'completions', None)
    if completions is None or completions.hub is not hub:
        completions = _per_thread.completions = HubCompletions(hub)
    return completions


def finish(calls: Sequence[Call]) -> None:
    """In a native thread: wake the callers of `calls`, each hub once."""
    several = {call.completions for call in calls}
    if len(several) == 1:
        several.pop().finish(calls)
        return
    by_completions: dict[HubCompletions | LockCompletions, list[Call]] = {}
    for call in calls:
        by_completions.setdefault(call.completions, []).append(call)
    for completions, some in by_completions.items():
        completions.finish(some)


def _forget_completions() -> None:
    """In a forked child: the loop of the hub is a new one."""
    global _per_thread
    _per_thread = _local()


os.register_at_fork(after_in_child=_forget_completions)
