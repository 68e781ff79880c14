"""Whose turn it is: fair between projects and between subscriptions, with everything bounded.

No I/O and no clock of its own.
"""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from zaqar_gevent.api import retries
from zaqar_gevent.api.delivery import Notification, Subscription
from zaqar_gevent.api.push import Source
from zaqar_gevent.webhooks.backlog import Backlog, Outcome, Reason, Timer
from zaqar_gevent.webhooks.shares import Share

PROMPT_SECONDS = 1.0
"""A subscriber that takes longer for an answer shares its turns with those that fail."""

MAX_IDLE = 10_000
"""Subscriptions that are remembered while nothing waits for them."""

_ENTRY_BYTES = 128
_RETRIES_AFTER_GIVING_UP = 3
_SHED_TO = 0.9

Key = tuple[Source, str]
"""A subscription: its queue, and its id, which may count within the queue only."""


class Limits(NamedTuple):
    """The limits of all deliveries of a process together.

    running: deliveries at a time; a half is for subscriptions whose latest one was prompt, and a
        half for all others. of_project: the same, of one project. backlog_length: notifications
        that wait for one subscription. backlog_bytes: bytes that wait for all.
    """

    running: int
    of_project: int
    backlog_length: int
    backlog_bytes: int


class Observer(Protocol):
    """Counts and logs deliveries."""

    def tried(self, backlog: Backlog, outcome: Outcome, seconds: float) -> None:
        """One try has ended."""
        ...

    def dropped(self, backlog: Backlog, reason: Reason, count: int) -> None:
        """Notifications will not be sent any more."""
        ...


class Scheduler:
    """Starts deliveries when it is their turn, one at a time for each subscription.

    start: begins to send the first notification of a backlog, and does not wait; `finish` is to be
        called in the end. later: calls a function after so many seconds. clock: seconds, as of
        `time.monotonic`.
    """

    def __init__(
        self,
        limits: Limits,
        start: Callable[[Backlog], None],
        later: Callable[[float, Callable[[], None]], Timer],
        clock: Callable[[], float],
        observer: Observer,
    ) -> None:
        self._limits = limits
        self._start = start
        self._later = later
        self._clock = clock
        self._observer = observer
        halves = (max(1, limits.running // 2), max(1, limits.of_project // 2))
        self._prompt = Share(*halves)
        self._others = Share(*halves)
        self._backlogs: dict[Key, Backlog] = {}
        self._at_work: set[Backlog] = set()
        self._idle: collections.OrderedDict[Key, Backlog] = collections.OrderedDict()
        self._held: collections.Counter[str | None] = collections.Counter()
        self.waiting = 0
        self.bytes = 0

    @property
    def running(self) -> int:
        """Deliveries under way."""
        return self._prompt.running + self._others.running

    def find(self, source: Source, ident: str) -> Backlog | None:
        """The backlog of a subscription, if it is known."""
        return self._backlogs.get((source, ident))

    def deliver(
        self,
        source: Source,
        row: Subscription,
        notifications: Iterable[Notification],
        policy: Mapping[str, Any],
    ) -> None:
        """Have a subscription told, in order.

        Where too much waits, what has waited longest is dropped: of this subscription, or of the
        project that has most.
        """
        key = (source, row['id'])
        backlog = self._backlogs.get(key)
        if backlog is None:
            backlog = self._backlogs[key] = Backlog(*key)
        self._idle.pop(key, None)
        backlog.policy = policy
        self._renew(backlog, row)
        for notification in notifications:
            self._append(backlog, notification)
        excess = len(backlog.waiting) - self._limits.backlog_length
        if excess > 0:
            self._drop(backlog, 'backlog', excess)
        if self.bytes > self._limits.backlog_bytes:
            self._shed()
        self._wake(backlog)

    def changed(self, source: Source, row: Subscription) -> None:
        """A subscription was changed: it is tried again at once."""
        backlog = self.find(source, row['id'])
        if backlog is None or backlog.row is None:
            return
        self._renew(backlog, row)
        backlog.attempt, backlog.delays = 0, ()
        self._stop_waiting(backlog)
        self._wake(backlog)

    def refresh(self, backlog: Backlog, row: Subscription) -> None:
        """A subscription was read again before another try."""
        if backlog.row is not None:
            self._renew(backlog, row)

    def ended(self, source: Source, ident: str) -> None:
        """A subscription was deleted."""
        key = (source, ident)
        backlog = self._backlogs.pop(key, None)
        if backlog is None:
            return
        self._idle.pop(key, None)
        backlog.is_gone = True
        self._stop_waiting(backlog)
        self._drop(backlog, 'ended', len(backlog.waiting))
        if not backlog.is_busy:
            self._hold(backlog, backlog.renew(None))

    def finish(self, backlog: Backlog, outcome: Outcome) -> None:
        """A delivery has ended."""
        now = self._clock()
        seconds = now - backlog.began
        self._observer.tried(backlog, outcome, seconds)
        self._release(backlog)
        backlog.is_busy = False
        self._at_work.discard(backlog)
        backlog.is_prompt = outcome.result != 'failed' and seconds < PROMPT_SECONDS
        self._note(backlog, outcome, now)
        if backlog.is_gone:
            self._remove_first(backlog)
            self._hold(backlog, backlog.renew(None))
        elif outcome.result == 'failed':
            self._postpone(backlog, outcome, now)
        else:
            backlog.attempt, backlog.delays = 0, ()
            self._remove_first(backlog)
            if outcome.result == 'refused':
                self._count(backlog, 'refused', 1)
        self._wake(backlog)
        self._run()

    def set_lingering_apart(self) -> None:
        """Let deliveries that take long no longer count among the prompt ones.

        To be called now and then, so that prompt subscribers need not wait for them.
        """
        late = self._clock() - PROMPT_SECONDS
        for backlog in self._at_work:
            if (
                backlog.share is self._prompt
                and backlog.began < late
                and self._others.has_room(backlog.project)
            ):
                self._prompt.release(backlog.project)
                self._others.take_over(backlog)
        self._run()

    def _renew(self, backlog: Backlog, row: Subscription) -> None:
        if row is not backlog.row:
            left = row['ttl'] - row['age'] if 'ttl' in row and 'age' in row else None
            backlog.ends_at = None if left is None else self._clock() + left
        self._hold(backlog, backlog.renew(row))

    @staticmethod
    def _release(backlog: Backlog) -> None:
        if backlog.share is not None:
            backlog.share.release(backlog.project)
            backlog.share = None

    def _append(self, backlog: Backlog, notification: Notification) -> None:
        backlog.waiting.append(notification)
        self.waiting += 1
        notification.holders += 1
        first = len(notification.body) if notification.holders == 1 else 0
        self._hold(backlog, _ENTRY_BYTES + first)

    def _remove_first(self, backlog: Backlog) -> None:
        self._let_go(backlog, backlog.waiting.popleft())

    def _let_go(self, backlog: Backlog, notification: Notification) -> None:
        self.waiting -= 1
        notification.holders -= 1
        last = 0 if notification.holders else len(notification.body)
        self._hold(backlog, -_ENTRY_BYTES - last)

    def _hold(self, backlog: Backlog, size: int) -> None:
        """So many bytes more are held for a backlog's project."""
        self.bytes += size
        self._held[backlog.project] += size
        if not self._held[backlog.project]:
            del self._held[backlog.project]

    def _drop(self, backlog: Backlog, reason: Reason, count: int) -> None:
        """Drop the oldest, but for one that is on its way."""
        first = int(backlog.is_busy)
        count = min(count, len(backlog.waiting) - first)
        for _ in range(count):
            notification = backlog.waiting[first]
            del backlog.waiting[first]
            self._let_go(backlog, notification)
        self._count(backlog, reason, count)

    def _count(self, backlog: Backlog, reason: Reason, count: int) -> None:
        if count > 0:
            backlog.dropped += count
            self._observer.dropped(backlog, reason, count)

    def _shed(self) -> None:
        """Drop from the project that has most, of its longest backlogs first."""
        [(project, _)] = self._held.most_common(1)
        backlogs = [backlog for backlog in self._backlogs.values() if backlog.project == project]
        enough = self._limits.backlog_bytes * _SHED_TO
        for backlog in sorted(backlogs, key=lambda backlog: len(backlog.waiting), reverse=True):
            if self.bytes <= enough:
                break
            self._drop(backlog, 'memory', (len(backlog.waiting) + 1) // 2)
            if not backlog.waiting:
                self._hold(backlog, backlog.renew(None))

    def _wake(self, backlog: Backlog) -> None:
        """Let a backlog take its turn, if it has something to send and need not wait."""
        if backlog.is_busy or backlog.is_ready or backlog.is_gone or backlog.timer is not None:
            return
        if backlog.waiting:
            backlog.is_ready = True
            (self._prompt if backlog.is_prompt else self._others).add(backlog)
            self._run()
        else:
            self._rest(backlog)

    def _rest(self, backlog: Backlog) -> None:
        """Remember a backlog for which nothing waits, but not for ever."""
        self._hold(backlog, backlog.renew(None))
        self._idle[backlog.source, backlog.ident] = backlog
        if len(self._idle) > MAX_IDLE:
            key, _ = self._idle.popitem(last=False)
            del self._backlogs[key]

    def _run(self) -> None:
        """Start what can be started."""
        for share in (self._prompt, self._others):
            while (backlog := share.next()) is not None:
                now = self._clock()
                self._drop_useless(backlog, now)
                if backlog.waiting:
                    backlog.is_busy = True
                    backlog.began = now
                    self._at_work.add(backlog)
                    self._start(backlog)
                else:
                    self._release(backlog)
                    self._rest(backlog)

    def _drop_useless(self, backlog: Backlog, now: float) -> None:
        """Drop what has expired, and all where the subscription has."""
        if backlog.ends_at is not None and backlog.ends_at <= now:
            self._drop(backlog, 'ended', len(backlog.waiting))
        self._drop(backlog, 'expired', _expired(backlog.waiting, now))

    def _note(self, backlog: Backlog, outcome: Outcome, now: float) -> None:
        if outcome.result == 'delivered':
            backlog.succeeded_at = now
        else:
            backlog.failed_at, backlog.failure = now, outcome.reason

    def _postpone(self, backlog: Backlog, outcome: Outcome, now: float) -> None:
        """Try again later; where that was done often enough, drop it and try the next one then."""
        if not backlog.delays:
            policy = retries.choose_policy(backlog.options.get('_retry_policy'), backlog.policy)
            backlog.delays = retries.delays(policy)
        if backlog.attempt < len(backlog.delays):
            delay = backlog.delays[backlog.attempt]
            backlog.attempt += 1
        else:
            delay = backlog.delays[-1]
            backlog.attempt = max(0, len(backlog.delays) - _RETRIES_AFTER_GIVING_UP)
            self._remove_first(backlog)
            self._count(backlog, 'given_up', 1)
        seconds = max(delay * _jitter(), min(outcome.retry_after, retries.MAX_DELAY))
        backlog.next_try_at = now + seconds
        backlog.timer = self._later(seconds, lambda: self._retry(backlog))

    def _retry(self, backlog: Backlog) -> None:
        self._stop_waiting(backlog)
        self._wake(backlog)

    @staticmethod
    def _stop_waiting(backlog: Backlog) -> None:
        if backlog.timer is not None:
            backlog.timer.close()
            backlog.timer = None
        backlog.next_try_at = None


def _expired(waiting: Sequence[Notification], now: float) -> int:
    """How many at the front are of no use any more."""
    count = 0
    for notification in waiting:
        if notification.expires_at is None or notification.expires_at > now:
            break
        count += 1
    return count


def _jitter() -> float:
    return 1 + random.random() * retries.JITTER  # noqa: S311
