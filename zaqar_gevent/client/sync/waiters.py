"""How a thread waits until another thread wakes it."""

from __future__ import annotations

import os
import select
import threading
from typing import Protocol

# So many threads of a connection wait on files, two each; further ones wait on locks.
MAX_FILE_WAITERS = 32
# `epoll` takes at most some weeks; whoever waits longer waits again.
_MAX_WAIT_SECONDS = 3600.0


class Waiter(Protocol):
    """One thread waits, any other thread wakes it."""

    def wait(self, seconds: float) -> None:
        """Wait until `wake` is called, at most so long.

        It may also end too early: check what was waited for, and wait again.
        """
        ...

    def wake(self) -> None:
        """Wake the thread that waits, or have the next wait end at once."""
        ...


class _LockWaiter:
    """Waits on a lock: works everywhere, also in greenlets if gevent has patched the locks."""

    __slots__ = ('_lock',)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, seconds: float) -> None:
        self._lock.acquire(timeout=seconds)

    def wake(self) -> None:
        self._lock.release()


class _FileWaiter:
    """Waits on an eventfd (Linux).

    PERF: whoever releases a lock holds the interpreter meanwhile. The kernel often switches at once
    to the thread that it wakes, which then only finds that it has to wait for the interpreter: of
    many threads that are woken together each costs six switches. To write to a file lets go of the
    interpreter, so that a woken thread can do its work at once, and costs one or two.
    """

    __slots__ = ('_epoll', '_fd')

    def __init__(self) -> None:
        self._epoll = select.epoll(1)
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Each write is told once, so that nothing need be read.
        self._epoll.register(self._fd, select.EPOLLIN | select.EPOLLET)

    def __del__(self) -> None:
        if hasattr(self, '_fd'):
            os.close(self._fd)

    def wait(self, seconds: float) -> None:
        self._epoll.poll(min(seconds, _MAX_WAIT_SECONDS), 1)

    def wake(self) -> None:
        os.eventfd_write(self._fd, 1)


class WaiterPool:
    """Gives waiters, and keeps them for the next ones to wait; for one connection of one process.

    After a fork, a waiter must not be used in both processes: each could take the other's wake-up.
    """

    def __init__(self) -> None:
        self._free: list[_FileWaiter] = []
        self._is_closed = False
        self._count = 0 if _has_native_threads() else MAX_FILE_WAITERS

    def take(self) -> Waiter:
        """A waiter for one wait, to be given back by `give_back`."""
        # No locks: at worst a few more files are opened.
        try:
            return self._free.pop()
        except IndexError:
            pass
        if self._count < MAX_FILE_WAITERS:
            try:
                waiter = _FileWaiter()
            except OSError:
                # The process has too many open files.
                return _LockWaiter()
            self._count += 1
            return waiter
        return _LockWaiter()

    def give_back(self, waiter: Waiter) -> None:
        """Keep a waiter for another wait, which a late wake-up from this one may end too early."""
        if isinstance(waiter, _FileWaiter) and not self._is_closed:
            self._free.append(waiter)

    def close(self) -> None:
        """Close the files of those that nobody uses; the others' as soon as they are given back."""
        self._is_closed = True
        self._free.clear()


def _has_native_threads() -> bool:
    """Whether threads are the system's, on Linux, and not greenlets."""
    is_patched = threading.Lock.__module__ != '_thread'
    return not is_patched and hasattr(os, 'eventfd') and hasattr(select, 'epoll')
