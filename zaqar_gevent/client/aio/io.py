"""Waiting, in asyncio. `zaqar_gevent.client.sync.io` has the same for threads.

Everything here belongs to one event loop and is used by its thread only, except where it says so.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import inspect
import logging
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from typing import Any, Generic, NoReturn, Self, TypeVar

LOG = logging.getLogger(__name__)

Result = TypeVar('Result')
Opened = TypeVar('Opened', bound=Any)

# A request that waits for messages is cancelled when its task is: it may wait as long as servers
# let it.
MAX_WAIT_SECONDS = 20.0
_background: set[asyncio.Task[Any]] = set()


class Condition:
    """Wakes those who wait. There is nothing to lock: nothing runs between two awaits."""

    __slots__ = ('_waiters',)

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[bool]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def notify_all(self) -> None:
        """Wake all who wait."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(True)

    async def wait(self, seconds: float) -> bool:
        """Wait to be woken, at most so long; whether that happened."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(max(seconds, 0), _expire, waiter)
        self._waiters.add(waiter)
        try:
            return await waiter
        finally:
            self._waiters.discard(waiter)
            timer.cancel()


def _expire(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)


class JobQueue:
    """Jobs for a task. `put` may be called by any thread, also by the garbage collector."""

    def __init__(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                'There is no running event loop. Make the client inside a coroutine (async def) '
                'that asyncio.run() runs.'
            ) from None
        self._jobs: collections.deque[Callable[[], Any] | None] = collections.deque()
        self._added = asyncio.Event()

    def put(self, job: Callable[[], Any] | None) -> None:
        """Add a job; None only wakes who waits for one."""
        self._jobs.append(job)
        # A closed loop runs no jobs.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._added.set)

    async def do_one(self, seconds: float) -> bool:
        """Wait for a job, at most so long, and do it; whether there was one."""
        if not self._jobs:
            self._added.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._added.wait()
            except TimeoutError:
                return False
        if self._jobs:
            job = self._jobs.popleft()
            if job is not None:
                done = job()
                if inspect.isawaitable(done):
                    await done
        return True


class Task:
    """Something that runs in the background."""

    def __init__(self, run: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self._run = run
        self._name = name
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to run."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self._name)
        # The loop itself holds tasks weakly.
        _background.add(self._task)
        self._task.add_done_callback(_background.discard)

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def join(self, seconds: float) -> None:
        """Wait until it has ended, at most so long; a task does not wait for itself."""
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait([self._task], timeout=seconds)

    def cancel(self) -> None:
        """Cancel it."""
        if self._task is not None:
            self._task.cancel()


class Mutex(asyncio.Lock):
    """Lets one task in at a time."""


@contextlib.contextmanager
def on_signals(numbers: Iterable[signal.Signals], callback: Callable[[], None]) -> Iterator[None]:
    """Call `callback` at the first of these signals; the next one has its usual effect.

    Only a loop in the main thread can handle signals: in others this does nothing.
    """
    loop = asyncio.get_running_loop()
    handled: list[signal.Signals] = []

    def restore() -> None:
        while handled:
            loop.remove_signal_handler(handled.pop())

    def handle() -> None:
        restore()
        callback()

    with contextlib.suppress(RuntimeError, ValueError):
        for number in numbers:
            loop.add_signal_handler(number, handle)
            handled.append(number)
    try:
        yield
    finally:
        restore()


async def sleep(seconds: float) -> None:
    """Do nothing for so long."""
    await asyncio.sleep(seconds)


def check_handler(_role: str, function: Any) -> None:
    """Raise TypeError for a function that cannot be called here; any can."""


async def ask(function: Callable[[], Any]) -> Any:
    """The result of a user's function, which may be a coroutine function."""
    given = function()
    return await given if inspect.isawaitable(given) else given


async def ask_blocking(function: Callable[[], Result]) -> Result:
    """The result of a function that may wait for a network, run in a thread of the loop's pool."""
    return await asyncio.to_thread(function)


class Cleanups:
    """Operations whose results must not be lost when the task that asked is cancelled."""

    def __init__(self) -> None:
        self._undoing: set[asyncio.Task[None]] = set()

    async def complete(
        self,
        coroutine: Coroutine[Any, Any, Result],
        undo: Callable[[Result], Coroutine[Any, Any, Any]],
    ) -> Result:
        """The result of a coroutine, which goes on if the caller is cancelled.

        In that case its result is given to `undo`.
        """
        task = asyncio.get_running_loop().create_task(coroutine)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(functools.partial(self._undo, undo))
            _background.add(task)
            task.add_done_callback(_background.discard)
            raise

    def _undo(
        self,
        undo: Callable[[Result], Coroutine[Any, Any, Any]],
        task: asyncio.Task[Result],
    ) -> None:
        if task.cancelled() or task.exception() is not None:
            return
        undoing = task.get_loop().create_task(_attempt(undo(task.result())))
        self._undoing.add(undoing)
        undoing.add_done_callback(self._undoing.discard)

    async def finish(self, seconds: float) -> None:
        """Wait for what is being undone, at most so long."""
        if self._undoing:
            await asyncio.wait(tuple(self._undoing), timeout=seconds)


async def _attempt(coroutine: Coroutine[Any, Any, Any]) -> None:
    try:
        await coroutine
    except Exception as error:
        LOG.info('What a cancelled task had asked for could not be undone: %s', error)


class Opening(Generic[Opened]):
    """Something that is opened by `await`, by `async with`, or by `async for` over it."""

    def __init__(self, coroutine: Coroutine[Any, Any, Opened]) -> None:
        self._coroutine = coroutine
        self._opened: Opened | None = None

    def __await__(self) -> Generator[Any, None, Opened]:
        return self._coroutine.__await__()

    def __enter__(self) -> NoReturn:
        self._coroutine.close()
        raise TypeError('Use "async with": this is the client for asyncio.')

    def __exit__(self, *exc_info: object) -> None:
        """Never called."""

    async def __aenter__(self) -> Opened:
        self._opened = await self._coroutine
        return self._opened

    async def __aexit__(self, *exc_info: object) -> None:
        if self._opened is not None:
            await self._opened.__aexit__(*exc_info)

    async def __aiter__(self) -> AsyncIterator[Any]:
        async with self as opened:
            async for one in opened:
                yield one
