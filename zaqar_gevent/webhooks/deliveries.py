"""All deliveries of a process: who is told how, counted and logged."""

from __future__ import annotations

import collections
import datetime
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gevent
from gevent import monkey
from oslo_log import log
from zaqar.storage import errors as storage_errors

from zaqar_gevent import greenlets, metrics
from zaqar_gevent.api.delivery import DeliveryState, Notification, Subscription
from zaqar_gevent.api.push import Source
from zaqar_gevent.api.subscribers import is_webhook
from zaqar_gevent.webhooks.backlog import Backlog, Outcome, Reason, Timer
from zaqar_gevent.webhooks.connections import ConnectionPool
from zaqar_gevent.webhooks.scheduler import Limits, Scheduler

LOG = log.getLogger(__name__)

LOG_SECONDS = 10.0
"""The least between two lines in the log about what fails and is dropped."""

_TICK_SECONDS = 0.5
_FINISH_TICK_SECONDS = 0.02

Find = Callable[[Source, str], Subscription | None]
Send = Callable[[Subscription, Notification, str | None], Outcome]


class Channel:
    """One way to tell subscribers.

    name: in metrics and in the log. send: tries once, and blocks only its greenlet. find: reads a
        subscription, which may have changed, before another try.
    """

    def __init__(self, name: metrics.Channel, limits: Limits, send: Send) -> None:
        self.name = name
        self.find: Find | None = None
        self._send = send
        self.scheduler = Scheduler(limits, self._start, _later, time.monotonic, _Observer(name))
        self._due: collections.deque[Backlog] = collections.deque()

    def _start(self, backlog: Backlog) -> None:
        self._due.append(backlog)
        if len(self._due) == 1:
            greenlets.spawn(self._start_all)

    def _start_all(self) -> None:
        """Begin one after the other, and let requests be read and answered in between."""
        while self._due:
            greenlets.spawn(self._try, self._due[0])
            gevent.sleep(greenlets.MOMENT)
            self._due.popleft()

    def _try(self, backlog: Backlog) -> None:
        outcome = Outcome('refused', 'the server failed')
        try:
            if self._is_there(backlog):
                outcome = self._send(
                    backlog.row or {}, backlog.waiting[0], backlog.source.project_id
                )
            else:
                outcome = Outcome('refused', 'the subscription has ended')
        except Exception:
            LOG.exception('The subscription %s could not be told', backlog.ident)
        finally:
            self.scheduler.finish(backlog, outcome)

    def _is_there(self, backlog: Backlog) -> bool:
        """Whether a subscription is still there, which is looked up before another try."""
        if not backlog.attempt or self.find is None:
            return True
        try:
            row = self.find(backlog.source, backlog.ident)
        except storage_errors.ExceptionBase:
            # It is as it was when it was read last.
            return True
        if row is None:
            self.scheduler.ended(backlog.source, backlog.ident)
            return False
        self.scheduler.refresh(backlog, row)
        return True


class Deliveries:
    """Tells subscribers over HTTP and by tasks; see `zaqar_gevent.api.delivery.Deliverer`.

    Where the thread that serves requests lets greenlets run, deliveries are some of them; elsewhere
    they have a thread of their own, in which stores are not used.
    """

    def __init__(self, webhooks: Channel, tasks: Channel, connections: ConnectionPool) -> None:
        self._webhooks = webhooks
        self._tasks = tasks
        self._connections = connections
        self._keeper: gevent.Greenlet | None = None
        self._loop: Any = None
        self._starting = threading.Lock()

    def find_by(self, find: Find) -> None:
        """Read a subscription by `find` before another try."""
        if monkey.is_module_patched('socket'):
            self._webhooks.find = self._tasks.find = find

    def deliver(
        self,
        source: Source,
        subscription: Subscription,
        notifications: Sequence[Notification],
        retry_policy: Mapping[str, Any],
    ) -> None:
        scheduler = self._channel_of(subscription).scheduler
        self._call(scheduler.deliver, source, subscription, notifications, retry_policy)

    def changed(self, source: Source, subscription: Subscription) -> None:
        if not self._has_begun:
            return
        chosen = self._channel_of(subscription)
        for channel in (self._webhooks, self._tasks):
            if channel is chosen:
                self._call(channel.scheduler.changed, source, subscription)
            else:
                self._call(channel.scheduler.ended, source, subscription['id'])

    def ended(self, source: Source, subscription_id: str) -> None:
        if not self._has_begun:
            return
        for channel in (self._webhooks, self._tasks):
            self._call(channel.scheduler.ended, source, subscription_id)

    def state_of(self, source: Source, subscription_id: str) -> DeliveryState | None:
        for channel in (self._webhooks, self._tasks):
            backlog = channel.scheduler.find(source, subscription_id)
            if backlog is not None:
                return _state(backlog)
        return None

    def finish(self, timeout: float) -> None:
        """Wait for what is being sent, at most `timeout` seconds; the rest is given up."""
        if self._keeper is None:
            return
        schedulers = [channel.scheduler for channel in (self._webhooks, self._tasks)]
        deadline = time.monotonic() + timeout
        while any(each.running for each in schedulers) and time.monotonic() < deadline:
            gevent.sleep(_FINISH_TICK_SECONDS)
        left = sum(each.waiting for each in schedulers)
        if left:
            LOG.warning('%d notifications are not sent any more: the server stops', left)
        self._connections.close_idle(0)

    @property
    def _has_begun(self) -> bool:
        return self._keeper is not None or self._loop is not None

    def _channel_of(self, subscription: Subscription) -> Channel:
        return self._webhooks if is_webhook(subscription['subscriber']) else self._tasks

    def _call(self, job: Callable[..., None], *arguments: Any) -> None:
        """Call a scheduler in the thread of the deliveries; does not wait."""
        if not monkey.is_module_patched('socket'):
            self._thread().run_callback_threadsafe(job, *arguments)
            return
        if self._keeper is None:
            self._keeper = gevent.spawn(self._keep)
        job(*arguments)

    def _thread(self) -> Any:
        """The event loop of a thread of its own."""
        with self._starting:
            if self._loop is None:
                started = threading.Event()
                arguments = (started,)
                threading.Thread(target=self._run, args=arguments, daemon=True).start()
                started.wait()
        return self._loop

    def _run(self, started: threading.Event) -> None:
        self._loop = gevent.get_hub().loop
        started.set()
        self._keep()

    def _keep(self) -> None:
        """Jobs that are repeated now and then."""
        while True:
            gevent.sleep(_TICK_SECONDS)
            for channel in (self._webhooks, self._tasks):
                scheduler = channel.scheduler
                scheduler.set_lingering_apart()
                metrics.set_delivery_depth(
                    channel.name, scheduler.running, scheduler.waiting, scheduler.bytes
                )
            self._connections.close_idle()
            metrics.set_webhook_connections(self._connections.idle)


class _Observer:
    """Counts, and says in the log now and then what fails."""

    def __init__(self, name: metrics.Channel) -> None:
        self._name = name
        self._failed = 0
        self._dropped: collections.Counter[Reason] = collections.Counter()
        self._latest: tuple[str, Source, str] = ('', Source(None, ''), '')
        self._said_at = -LOG_SECONDS
        self._timer: Timer | None = None

    def tried(self, backlog: Backlog, outcome: Outcome, seconds: float) -> None:
        metrics.observe_delivery(self._name, outcome.result, seconds)
        if outcome.result != 'delivered':
            self._failed += 1
            self._say_soon(backlog, outcome.reason)

    def dropped(self, backlog: Backlog, reason: Reason, count: int) -> None:
        metrics.count_undelivered(self._name, reason, count)
        if reason != 'ended':
            self._dropped[reason] += count
            self._say_soon(backlog, backlog.failure)

    def _say_soon(self, backlog: Backlog, why: str) -> None:
        self._latest = (backlog.ident, backlog.source, why)
        if self._timer is None:
            wait = self._said_at + LOG_SECONDS - time.monotonic()
            self._timer = _later(max(0.0, wait), self._say)

    def _say(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        self._said_at = time.monotonic()
        ident, source, why = self._latest
        dropped = ', '.join(f'{count} {reason}' for reason, count in self._dropped.items())
        LOG.log(
            log.WARNING if dropped else log.INFO,
            'Notifications by %s: %d tries failed; dropped: %s. The latest: subscription %s of '
            'queue %s, project %r: %s',
            *(self._name, self._failed, dropped or 'none'),
            *(ident, source.name, source.project_id, why),
        )
        self._failed = 0
        self._dropped.clear()


def _later(seconds: float, job: Callable[[], None]) -> Timer:
    """Call `job`, which does not wait, after so many seconds."""
    timer: Any = gevent.get_hub().loop.timer(seconds)
    timer.start(job)
    started: Timer = timer
    return started


def _state(backlog: Backlog) -> DeliveryState:
    failed_at = _as_time(backlog.failed_at)
    return {
        'last_success': _as_time(backlog.succeeded_at),
        'last_failure': None if failed_at is None else {'at': failed_at, 'reason': backlog.failure},
        'next_try': _as_time(backlog.next_try_at if backlog.waiting else None),
        'waiting': len(backlog.waiting),
        'dropped': backlog.dropped,
    }


def _as_time(moment: float | None) -> str | None:
    """A moment of `time.monotonic` as a time in ISO 8601."""
    if moment is None:
        return None
    stamp = time.time() + moment - time.monotonic()
    return datetime.datetime.fromtimestamp(stamp, datetime.UTC).isoformat(timespec='milliseconds')
