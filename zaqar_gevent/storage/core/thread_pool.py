"""Native threads that perform calls of greenlets.

An exception in a thread does not end it: it fails the calls that the thread has taken, and the
thread goes on. A thread that ends all the same is replaced with the next call.

This module uses the interpreter's own primitives, since `threading` is usually patched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from gevent import monkey

from zaqar_gevent.storage.core.completions import (
    DISCARDED,
    Call,
    CallBatcher,
    HubCompletions,
    NotAnswered,
    finish,
    get_completions,
)
from zaqar_gevent.storage.core.fair_queue import FairQueue
from zaqar_gevent.storage.core.group_commit import APART

CLOSE_SECONDS = 10.0
"""How long `close` waits for the threads to end."""

_PAUSE_SECONDS = 2.0
"""How long a thread without calls does nothing after a failure."""

_start_new_thread = monkey.get_original('_thread', 'start_new_thread')
_allocate_lock = monkey.get_original('_thread', 'allocate_lock')
_SimpleQueue = monkey.get_original('queue', 'SimpleQueue')
_Empty = monkey.get_original('queue', 'Empty')


class ThreadPoolClosed(Exception):
    """The thread pool takes no more calls."""


class ThreadFailed(Exception):
    """No thread could be started, or one failed with the calls that it had taken."""


class Executor(Protocol):
    """The resources of a thread, used in that thread only.

    If a method raises, the calls that the thread has taken fail, and another executor is made.
    """

    def execute(self, calls: list[Call]) -> list[Call] | None:
        """Give calls their `result` or `error`, except for those that are returned.

        These are given again, with those that have come meanwhile.
        """

    def on_idle(self) -> float | None:
        """Called after each batch. Returns seconds until the next call; None for after a batch."""

    def close(self) -> None: ...


class ThreadPool:
    """Native threads that perform calls. The first call starts them.

    make_executor: makes what a thread works with; called in the thread, at first and after each
        failure. greedy: whether a thread takes all calls that have gathered, or one at a time.
    at_once: how many threads may serve one project at a time, where a thread takes one call at a
        time. Without it all threads may, and projects do not take turns.
    """

    def __init__(
        self,
        make_executor: Callable[[], Executor],
        *,
        threads: int = 1,
        greedy: bool = False,
        at_once: int | None = None,
    ) -> None:
        self._make_executor = make_executor
        self._threads = threads
        self.is_greedy = greedy
        self._running = 0
        self._closed = False
        self.batchers: dict[HubCompletions, CallBatcher] = {}
        self._lock = _allocate_lock()
        self._calls: Any = _SimpleQueue() if at_once is None else FairQueue(at_once, _is_end)

    def call(
        self, work: Callable[..., Any], arguments: tuple[Any, ...], seconds: float | None = None
    ) -> Any:
        """Have a thread do `work` with `arguments`, and wait for its result, at most `seconds`.

        Raises what `work` raised; `ThreadPoolClosed`, `ThreadFailed` or `NotAnswered`.
        """
        call = Call(work, arguments)
        completions = get_completions()
        completions.expect(call)
        if work in APART:
            # Nobody waits for others to gather with it.
            self.put([call])
        else:
            completions.send(self, call)
        try:
            completions.wait(call, seconds)
        except BaseException:
            # Also where the caller is interrupted: nobody waits for it any more.
            completions.abandon(call)
            raise
        if call.error is not None:
            raise call.error
        return call.result

    def close(self, *, wait: bool) -> bool:
        """Serve what has been posted, then stop the threads; wait `CLOSE_SECONDS` at most.

        Returns whether they have ended.
        """
        completions = get_completions()
        if isinstance(completions, HubCompletions) and completions in self.batchers:
            self.batchers[completions].flush()
        with self._lock:
            self._closed = True
            running = self._running
        if not wait:
            completions = DISCARDED
        ends = [Call(_end, ()) for _ in range(running)]
        for end in ends:
            completions.expect(end)
            self._calls.put([end])
        for end in ends:
            try:
                completions.wait(end, CLOSE_SECONDS)
            except NotAnswered:
                # It is left behind; a process does not wait for native threads when it ends.
                return False
        return wait or not running

    def put(self, calls: list[Call]) -> None:
        """Give `calls` to the threads; all of them fail at once if there is no thread."""
        try:
            # Native threads hold it for an instant only, so waiting for it does not block the hub.
            with self._lock:
                self._start()
                for some in [calls] if self.is_greedy else [[call] for call in calls]:
                    self._calls.put(some)
        except (ThreadPoolClosed, ThreadFailed) as error:
            for call in calls:
                call.error = error
            if calls:
                finish(calls)

    def wake(self) -> None:
        """Start the threads of a greedy pool, and have them call `on_idle`."""
        self.put([])

    def tell(self, job: Callable[[], None]) -> None:
        """In a thread of this pool: run `job` where patched locks may be taken.

        Without monkey patching that is this thread, otherwise a greenlet of a hub that has made
        calls.
        """
        if not monkey.is_module_patched('threading'):
            job()
            return
        for completions in list(self.batchers):
            try:
                completions.tell(job)
            except (RuntimeError, ValueError):
                # Its hub has been destroyed.
                continue
            return

    def _start(self) -> None:
        """Start the threads that are missing; raises only if there is none at all."""
        if self._closed:
            raise ThreadPoolClosed
        while self._running < self._threads:
            try:
                _start_new_thread(self._run, ())
            except (RuntimeError, MemoryError) as error:
                if self._running:
                    return
                raise ThreadFailed(f'no thread can be started for it ({_name(error)})') from error
            self._running += 1

    def _run(self) -> None:
        try:
            _ThreadLoop(self._calls, self._make_executor, is_greedy=self.is_greedy).run()
        finally:
            with self._lock:
                self._running -= 1


class _ThreadLoop:
    """The work of one thread."""

    def __init__(
        self, calls: Any, make_executor: Callable[[], Executor], *, is_greedy: bool
    ) -> None:
        self._calls = calls
        self._make_executor = make_executor
        self._is_greedy = is_greedy
        self._executor: Executor | None = None
        self._in_hand: list[Call] = []
        self._is_over = False

    def run(self) -> None:
        wait: float | None = 0.0
        while not self._is_over:
            try:
                wait = self._turn(wait)
            except BaseException as error:
                # Any exception at all: nothing else would catch it, and callers wait.
                self._fail(error)
                wait = _PAUSE_SECONDS

    def _turn(self, wait: float | None) -> float | None:
        """Serve what comes within `wait` seconds; returns how long to wait the next time."""
        try:
            self._gather(wait)
        except _Empty:
            return self._get_executor().on_idle()
        ends = [call for call in self._in_hand if call.work is _end]
        calls = [call for call in self._in_hand if call.work is not _end and not call.is_abandoned]
        rest = (self._get_executor().execute(calls) or []) if calls else []
        if rest:
            self._in_hand = rest + ends
            left = set(map(id, rest))
            finish([call for call in calls if id(call) not in left])
            self._get_executor().on_idle()
            return 0.0
        if calls:
            finish(calls)
        if ends:
            self._is_over = True
            self._drop_executor()
            finish(ends)
            return None
        self._in_hand = []
        return self._get_executor().on_idle()

    def _gather(self, wait: float | None) -> None:
        if not self._in_hand:
            self._in_hand = self._calls.get(timeout=wait)
        while self._is_greedy and not self._calls.empty():
            self._in_hand += self._calls.get()

    def _get_executor(self) -> Executor:
        if self._executor is None:
            self._executor = self._make_executor()
        return self._executor

    def _drop_executor(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.close()

    def _fail(self, error: BaseException) -> None:
        calls, self._in_hand = self._in_hand, []
        self._is_over = any(call.work is _end for call in calls)
        for call in calls:
            call.error = ThreadFailed(f'its thread failed ({_name(error)})')
        if calls:
            finish(calls)
        try:
            self._drop_executor()
        except BaseException:
            # It failed already, and is not used again.
            return


def _name(error: BaseException) -> str:
    return f'{type(error).__name__}: {error}' if str(error) else type(error).__name__


def _end() -> None:
    """The work of a call that ends a thread."""


def _is_end(call: Call) -> bool:
    return call.work is _end
