"""Tells the subscribers of a queue what was posted to it.

Those that are URLs of others are told by upstream's notification tasks, and those that are
connections of this or of other workers by the hub.
"""

from __future__ import annotations

import functools
import queue
import threading
from typing import Any

import stevedore
from oslo_config import cfg
from oslo_log import log
from zaqar.notification.notifier import MessageType
from zaqar.storage import base

from zaqar_gevent.api.brief import Brief
from zaqar_gevent.api.push import Hub, Source

LOG = log.getLogger(__name__)

# Notifications that wait for a worker; the messages themselves stay in their queue.
MAX_WAITING = 10_000

Subscription = dict[str, Any]


@functools.cache
def task(scheme: str) -> Any:
    """The notification task of subscribers whose URI has this scheme."""
    return stevedore.DriverManager('zaqar.notification.tasks', scheme, invoke_on_load=True).driver


class Notifier:
    """Sends what was posted to the subscribers, in the background.

    seconds: for how long the subscriptions of a queue are remembered; changes made in this process
        are seen at once.
    hub: tells those that are connections, where clients can be connected.
    tells_others: whether to tell the others too.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        subscriptions: base.Subscription,
        seconds: float,
    ) -> None:
        self.hub: Hub | None = None
        self.tells_others = False
        self._conf = conf
        self._subscriptions = subscriptions
        self._known: Brief[list[Subscription]] = Brief(seconds)
        self._waiting: queue.Queue[tuple[Any, ...]] = queue.Queue(MAX_WAITING)
        self._workers: list[threading.Thread] = []

    def notify(
        self,
        queue_name: str,
        project: str | None,
        messages: list[dict[str, Any]],
        retry_policy: dict[str, Any],
    ) -> None:
        """Tell the subscribers of a queue of `messages`; returns at once."""
        source = Source(project, queue_name)
        subscriptions = self.subscriptions_of(queue_name, project)
        self._announce(source, subscriptions)
        if self.tells_others:
            for subscription in subscriptions:
                if self.hub is None or not self.hub.is_worker(source, subscription['subscriber']):
                    self._send(subscription, _notifications(messages, queue_name), retry_policy)

    def freed(self, queue_name: str, project: str | None) -> None:
        """Tell whoever waits for messages of a queue that some can be claimed again."""
        subscriptions = self.subscriptions_of(queue_name, project)
        self._announce(Source(project, queue_name), subscriptions)

    def forget(self, queue_name: str, project: str | None) -> None:
        """The subscriptions of a queue have changed."""
        self._known.forget((project, queue_name))

    def _announce(self, source: Source, subscriptions: list[Subscription]) -> None:
        """Tell the connections of this process, and of others."""
        if self.hub is None:
            return
        self.hub.posted(source)
        if subscriptions:
            is_worker = self.hub.is_worker
            connected = [one for one in subscriptions if is_worker(source, one['subscriber'])]
            self.hub.tell_workers(source, connected)

    def subscriptions_of(self, queue_name: str, project: str | None) -> list[Subscription]:
        """All subscriptions of a queue that are to be told, as they were a moment ago."""
        return self._known.get((project, queue_name), lambda: self._read(queue_name, project))

    def _read(self, queue_name: str, project: str | None) -> list[Subscription]:
        """All subscriptions of a queue that are to be told."""
        found: list[Subscription] = []
        marker = None
        while True:
            pages = self._subscriptions.list(queue_name, project=project, marker=marker)
            page = list(next(pages))
            found += page
            marker = next(pages, None)
            if not page or not marker:
                break
        if self._conf.notification.require_confirmation:
            return [one for one in found if one.get('confirmed', True)]
        return found

    def _send(
        self,
        subscription: Subscription,
        messages: list[dict[str, Any]],
        retry_policy: dict[str, Any],
    ) -> None:
        self._start_worker()
        try:
            self._waiting.put_nowait((subscription, messages, retry_policy))
        except queue.Full:
            LOG.warning(
                'The subscriber %s is not told of %d messages: %d notifications wait already.',
                subscription['id'],
                len(messages),
                MAX_WAITING,
            )

    def _start_worker(self) -> None:
        """One more worker, up to as many as configured.

        They are daemons: a task may retry for minutes, and is not to keep the server from stopping.
        """
        if len(self._workers) < self._conf.notification.max_notifier_workers:
            worker = threading.Thread(target=self._work, name='notifier', daemon=True)
            self._workers.append(worker)
            worker.start()

    def _work(self) -> None:
        while True:
            subscription, messages, retry_policy = self._waiting.get()
            scheme = subscription['subscriber'].partition(':')[0].lower()
            try:
                task(scheme).execute(
                    subscription, messages, conf=self._conf, queue_retry_policy=retry_policy
                )
            except Exception:
                LOG.exception('The subscriber %s could not be told', subscription['id'])


def _notifications(messages: list[dict[str, Any]], queue_name: str) -> list[dict[str, Any]]:
    """What a task is given: of its own, since tasks add to it."""
    kind = MessageType.Notification.name
    return [{**message, 'queue_name': queue_name, 'Message_Type': kind} for message in messages]
