"""Waiting, in threads. `zaqar_gevent.client.aio.io` has the same for asyncio."""

from __future__ import annotations

import contextlib
import inspect
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Result = TypeVar('Result')

# A request that waits in a thread cannot be ended from another one: closing waits for it.
MAX_WAIT_SECONDS = 5.0

Condition = threading.Condition
sleep = time.sleep


class JobQueue:
    """Jobs for a thread. `put` may be called by any thread, also by the garbage collector."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()

    def put(self, job: Callable[[], Any] | None) -> None:
        """Add a job; None only wakes who waits for one."""
        self._jobs.put(job)

    def do_one(self, seconds: float) -> bool:
        """Wait for a job, at most so long, and do it; whether there was one."""
        try:
            job = self._jobs.get(timeout=seconds)
        except queue.Empty:
            return False
        if job is not None:
            job()
        return True


class Task:
    """Something that runs in the background."""

    def __init__(self, run: Callable[[], None], name: str) -> None:
        self._thread = threading.Thread(target=run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to run."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Wait until it has ended, at most so long; a thread does not wait for itself."""
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(seconds)

    def cancel(self) -> None:
        """A thread cannot be cancelled; the process does not wait for it at its end."""


Mutex = threading.Lock


@contextlib.contextmanager
def on_signals(numbers: Iterable[signal.Signals], callback: Callable[[], None]) -> Iterator[None]:
    """Call `callback` at the first of these signals; the next one has its usual effect.

    Only the main thread can handle signals: in others this does nothing.
    """
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    def handle(_number: int, _frame: object) -> None:
        restore()
        callback()

    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def check_handler(role: str, function: Any) -> None:
    """Raise TypeError for a function that cannot be called here: a coroutine function."""
    call = getattr(function, '__call__', None)  # noqa: B004
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
        raise TypeError(
            f'The {role} is a coroutine function (async def), which this worker cannot run: '
            'use zaqar_gevent.client.aio.Worker.'
        )


def ask(function: Callable[[], Result]) -> Result:
    """What a function of the user's gives; raises TypeError if that is an awaitable."""
    given = function()
    if inspect.isawaitable(given):
        if inspect.iscoroutine(given):
            given.close()
        raise TypeError(
            f'The function gave an awaitable ({type(given).__name__}), which nothing here awaits: '
            'use zaqar_gevent.client.aio.'
        )
    return given


def ask_blocking(function: Callable[[], Result]) -> Result:
    """What a function gives that may have to wait for a network."""
    return function()


class Cleanups:
    """Operations whose results must not be lost; a thread that asks is not cancelled."""

    def complete(self, result: Result, undo: Callable[[Result], Any]) -> Result:
        """The result of an operation."""
        return result

    def finish(self, seconds: float) -> None:
        """Wait for what is being undone, which is nothing."""
