"""Watches which server is the master, by asking the Sentinels.

In a planned failover all servers stay alive. The old master takes writes until Sentinel demotes it,
some 10 s later, and what it takes in that time is lost. So a write is acknowledged only if each
Sentinel that can be reached has said, in an answer to a question that was sent less than
`LEASE_SECONDS` before, that the server is the master and no failover is under way.

Why that is enough: a Sentinel tells of a failover from its first step on. It takes one step each
time its timer ticks, at most 20 times a second, and two ticks pass before it promotes the replica.

A native thread asks each Sentinel, so that it works with and without a hub.
"""

from __future__ import annotations

import _socket
import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import hiredis
from gevent import monkey

from zaqar_gevent.storage.redis.addresses import Address, Host
from zaqar_gevent.storage.redis.wire import Opinion, ask_sentinel, open_sentinel

LEASE_SECONDS = 0.1
"""How long an answer of a Sentinel counts, from when it was asked."""

_BUSY_SECONDS = 0.03
_IDLE_SECONDS = 0.5
"""Between two questions to a Sentinel, while calls are made and while none are."""
_USE_SECONDS = 1.0
"""How long after a call more are expected."""
_RETRY_SECONDS = 0.5
"""Between two attempts to connect to a Sentinel."""
_ANSWER_SHARE = 0.5
"""How long a Sentinel may take to answer, as a share of `socket_timeout`.

It is less than what a call waits for, so that a Sentinel that hangs makes no call fail.
"""

_allocate_lock = monkey.get_original('_thread', 'allocate_lock')
_start_new_thread = monkey.get_original('_thread', 'start_new_thread')
_sleep = monkey.get_original('time', 'sleep')


class MasterWatch:
    """What the Sentinels of an address say of its master.

    master: as the newest configuration names it; None while no Sentinel answers. is_failing_over:
        whether a Sentinel is about to make another server the master.
    """

    def __init__(self, address: Address) -> None:
        self.master: Host | None = None
        self.is_failing_over = False
        self._address = address
        self._opinions: dict[Host, Opinion] = {}
        self._valid_until = math.inf
        self._used_at = -math.inf
        self._is_awaited = False
        self._is_started = self._is_closed = False
        self._lock = _allocate_lock()
        self._subscribers: list[Callable[[], None]] = []
        self._alarms = {sentinel: _allocate_lock() for sentinel in address.hosts}

    def start(self) -> None:
        """Begin to ask, if that has not begun yet."""
        with self._lock:
            if self._is_started or self._is_closed:
                return
            self._is_started = True
        for sentinel, alarm in self._alarms.items():
            alarm.acquire()
            _start_new_thread(self._run, (sentinel, alarm))

    def close(self) -> None:
        """Stop asking; the threads end soon."""
        self._is_closed = True
        self._wake()

    def is_outdated(self, host: Host | None) -> bool:
        """Whether connections to `host` are to be given up."""
        return self.is_failing_over or (self.master is not None and self.master != host)

    def is_current(self, host: Host | None) -> bool:
        """Whether `host` is certain to be the master: what it has answered counts."""
        self._used_at = now = time.monotonic()
        return now <= self._valid_until and not self.is_outdated(host)

    def refresh(self) -> None:
        """Have the Sentinels asked at once; subscribers are called when they have answered."""
        self._is_awaited = True
        self._wake()

    def await_current(self, host: Host | None) -> None:
        """Wait, in a thread without a hub, until `host` is certain to be the master.

        Raises `OSError` if it is not.
        """
        until = time.monotonic() + self._address.timeout
        while not self.is_current(host):
            if self.is_outdated(host):
                raise OSError(self.reason)
            if time.monotonic() > until:
                raise OSError('the Sentinels do not answer')
            self._wake()
            _sleep(0.001)

    @property
    def reason(self) -> str:
        """Why connections are given up, as the end of a sentence."""
        if self.is_failing_over:
            return 'Sentinel makes another server the master'
        return 'Sentinel names another server as the master'

    def subscribe(self, hub: Any, react: Callable[[], None]) -> Callable[[], None]:
        """Have `react` called in `hub` when the master changes, and after `refresh`.

        Returns what ends it, to be called in that hub.
        """
        watcher = hub.loop.async_(ref=False)
        watcher.start(react)
        with self._lock:
            self._subscribers.append(watcher.send)

        def end() -> None:
            with self._lock, contextlib.suppress(ValueError):
                self._subscribers.remove(watcher.send)
            watcher.stop()
            watcher.close()

        return end

    def _run(self, sentinel: Host, alarm: Any) -> None:
        while not self._is_closed:
            try:
                self._keep_asking(sentinel, alarm)
            except (OSError, ValueError, hiredis.ReplyError):
                # Its silence is told when no other answers, by whoever needs to connect.
                self._hear(sentinel, None)
                _sleep(_RETRY_SECONDS)

    def _keep_asking(self, sentinel: Host, alarm: Any) -> None:
        wire = open_sentinel(self._address, sentinel, _socket)
        try:
            wire.sock.settimeout(self._address.timeout * _ANSWER_SHARE)
            while not self._is_closed:
                self._hear(sentinel, ask_sentinel(self._address, wire))
                is_used = time.monotonic() - self._used_at < _USE_SECONDS
                alarm.acquire(timeout=_BUSY_SECONDS if is_used else _IDLE_SECONDS)
        finally:
            wire.close()

    def _hear(self, sentinel: Host, opinion: Opinion | None) -> None:
        """Take what a Sentinel says; None: it does not answer."""
        with self._lock:
            before = self.master, self.is_failing_over
            if opinion is None:
                self._opinions.pop(sentinel, None)
            else:
                self._opinions[sentinel] = opinion
            self._conclude()
            is_new = before != (self.master, self.is_failing_over)
            is_answered = self._is_awaited and time.monotonic() <= self._valid_until
            if not is_new and not is_answered:
                return
            self._is_awaited = False
            for tell in list(self._subscribers):
                try:
                    tell()
                except ValueError:
                    # Its hub has ended.
                    self._subscribers.remove(tell)

    def _conclude(self) -> None:
        """Find what is true by all opinions."""
        opinions = self._opinions.values()
        # The Sentinels that have not heard of a failover yet have an older configuration.
        newest = max(opinions, key=lambda one: one.epoch, default=None)
        if newest is None:
            self.master, self.is_failing_over, self._valid_until = None, False, math.inf
            return
        self.master = newest.master
        self.is_failing_over = any(
            one.is_failing_over for one in opinions if one.epoch == newest.epoch
        )
        self._valid_until = min(one.asked_at for one in opinions) + LEASE_SECONDS

    def _wake(self) -> None:
        for alarm in self._alarms.values():
            # It may ring already.
            with contextlib.suppress(RuntimeError):
                alarm.release()
