"""Notifies the subscribers of a queue of posted messages.

The hub notifies subscribers that are connected to this or another worker; `Delivery` notifies
all others, over HTTP and by mail.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import stevedore
from oslo_config import cfg
from zaqar.notification import notifier as upstream
from zaqar.storage import errors as storage_errors

from zaqar_gevent.api import documents
from zaqar_gevent.api.delivery import Deliverer, DeliveryState, Notification, Subscription
from zaqar_gevent.api.filter_index import FilterIndex, filter_in
from zaqar_gevent.api.loops import Loops
from zaqar_gevent.api.push import Address, Endpoint, PushService, Source
from zaqar_gevent.api.ttl_cache import TTLCache
from zaqar_gevent.greenlets import Locks, in_turns
from zaqar_gevent.storage.interface import SubscriptionController


@functools.cache
def task(scheme: str) -> Any:
    """The notification task of subscribers whose URI has this scheme."""
    return stevedore.DriverManager('zaqar.notification.tasks', scheme, invoke_on_load=True).driver


# PERF: to make one for each post takes four times as long. Both names are short.
_source = functools.lru_cache(maxsize=1024)(Source)

_KNOWN_BYTES = 32 * 1024 * 1024
"""Bytes of subscriptions that are remembered, of all queues."""

_ROW_BYTES = 512
"""Bytes of a subscription without its subscriber and its options."""

BESIDE_BODY = ('attributes', 'group')
"""Members of messages that notifications have beside what upstream's subscribers are sent."""

_FIRST_PAGE = 100
_LONGEST_PAGE = 1000
_PAGE_BYTES = 1024 * 1024
"""Pages are so long that a queue with many subscriptions is read soon, and so short that one whose
subscriptions have large options does not hold up others."""


_AT_ONCE = 100
"""Subscribers that are told at once of a post; with more, others have their turn in between."""


class _Subscribers(NamedTuple):
    """The subscriptions of a queue that are to be told.

    every: all of them. connected: those that are connections to servers of the fleet, by the
    address of the server. others: the rest without a filter; filtered: with one. has_others:
    whether there are any of the rest. size: of all of them, in bytes.
    """

    every: list[Subscription]
    connected: dict[Address, list[Subscription]]
    others: list[Subscription]
    filtered: FilterIndex[Subscription]
    has_others: bool
    size: int

    def wanted_by(
        self, notifications: list[Notification]
    ) -> Iterator[tuple[Subscription, list[Notification]]]:
        """The subscriptions that are no connections, with what each is to be told.

        PERF: of those with a filter, only the ones that are told anything are looked at.
        """
        for subscription in self.others:
            yield subscription, notifications
        wanted: dict[str, tuple[Subscription, list[Notification]]] = {}
        for notification in notifications if len(self.filtered) else ():
            for group in self.filtered.meeting(notification.attributes):
                for key, subscription in group.members.items():
                    wanted.setdefault(key, (subscription, []))[1].append(notification)
        yield from wanted.values()


class Notifier:
    """Sends what was posted to the subscribers, in the background.

    seconds: for how long the subscriptions of a queue are remembered; changes made in this process
        are seen at once.
    hub: tells those that are connections, where clients can be connected.
    deliverer: tells the others. tells_others: whether it is told of messages.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        subscriptions: SubscriptionController,
        seconds: float,
        loops: Loops,
    ) -> None:
        self.push_hub: PushService | None = None
        self.deliverer: Deliverer | None = None
        self.tells_others = False
        self._conf = conf
        self._loops = loops
        self._subscriptions = subscriptions
        self._known: TTLCache[_Subscribers] = TTLCache(
            seconds, most=_KNOWN_BYTES, weigh=lambda found: found.size
        )
        self._found: TTLCache[list[Subscription]] = TTLCache(seconds)
        self._is_remembering = seconds > 0
        self._loading = Locks()
        self._delivering = Locks()

    def notify(
        self,
        queue_name: str,
        project: str | None,
        messages: list[dict[str, Any]],
        retry_policy: Mapping[str, Any],
        passed: str | None,
    ) -> None:
        """Tell the subscribers of a queue of `messages`, which are not delayed.

        It is not waited for that they have been told.

        passed: the queues that the messages have come through, see `zaqar_gevent.api.loops`.
        """
        source = _source(project, queue_name)
        subscribers = self._subscribers_of(source)
        self._announce(source, subscribers)
        if self.deliverer is not None and self.tells_others and subscribers.has_others:
            passed = self._loops.extend(passed, project, queue_name)
            notifications = _notifications(messages, queue_name, passed)
            self._deliver(self.deliverer, source, subscribers, notifications, retry_policy)

    def became_due(
        self, source: Source, messages: Sequence[Mapping[str, Any]], policy: Mapping[str, Any]
    ) -> None:
        """Tell the subscribers of a queue of delayed messages that are visible now.

        messages: for webhooks, each with its `delay` and what it has `passed`; there are none where
            nobody is sent any. policy: the queue's retry policy.
        """
        project, queue_name = source
        subscribers = self._subscribers_of(source)
        self._announce(source, subscribers)
        is_told = self.tells_others and bool(messages) and subscribers.has_others
        if not is_told or self.deliverer is None:
            return
        notifications: list[Notification] = []
        for message in messages:
            documents = {name: message[name] for name in ('ttl', 'body', 'delay')}
            documents.update({one: message[one] for one in BESIDE_BODY if one in message})
            passed = self._loops.extend(message['passed'], project, queue_name)
            notifications += _notifications([documents], queue_name, passed)
        self._deliver(self.deliverer, source, subscribers, notifications, policy)

    def _deliver(
        self,
        deliverer: Deliverer,
        source: Source,
        subscribers: _Subscribers,
        notifications: list[Notification],
        policy: Mapping[str, Any],
    ) -> None:
        """Hand notifications to the deliverer, for each subscriber in the order of the posts.

        Others have their turn between many subscribers, and the next post to the queue waits.
        """
        told = list(subscribers.wanted_by(notifications))
        if len(told) <= _AT_ONCE and source not in self._delivering:
            for subscription, wanted in told:
                deliverer.deliver(source, subscription, wanted, policy)
            return
        with self._delivering.held(source):
            for subscription, wanted in in_turns(told):
                deliverer.deliver(source, subscription, wanted, policy)

    def freed(self, queue_name: str, project: str | None) -> None:
        """Wake clients that wait for messages of a queue: some can be claimed again."""
        source = Source(project, queue_name)
        self._announce(source, self._subscribers_of(source))

    def forget(self, queue_name: str, project: str | None) -> None:
        """The subscriptions of a queue have changed."""
        self._known.forget(Source(project, queue_name))

    def ended(self, source: Source, subscription_id: str, by: Endpoint | None = None) -> None:
        """A subscription was deleted, perhaps by a connection."""
        self._found.forget((source, subscription_id))
        if self.push_hub is not None:
            self.push_hub.ended(source, subscription_id, by)
        if self.deliverer is not None:
            self.deliverer.ended(source, subscription_id)

    def changed(self, source: Source, subscription: Subscription) -> None:
        """A subscription has another subscriber or other options."""
        self._found.forget((source, subscription['id']))
        if self.deliverer is not None:
            self.deliverer.changed(source, subscription)

    def state_of(self, source: Source, subscription_id: str) -> DeliveryState | None:
        """How the delivery to a subscription goes, if anything was sent to it by this process."""
        return None if self.deliverer is None else self.deliverer.state_of(source, subscription_id)

    def find(self, source: Source, subscription_id: str) -> Subscription | None:
        """A subscription as it was a moment ago; None where it has ended."""
        key = (source, subscription_id)
        found = self._found.get(key, lambda: [*self._find(source, subscription_id)])
        return found[0] if found else None

    def _find(self, source: Source, subscription_id: str) -> Iterator[Subscription]:
        with contextlib.suppress(storage_errors.DoesNotExist):
            yield self._subscriptions.get(source.name, subscription_id, project=source.project_id)

    def confirmations(self, source: Source) -> Confirmations:
        """The notification that asks a subscriber of a queue to confirm."""
        return Confirmations(self.deliverer, source)

    def _announce(self, source: Source, subscribers: _Subscribers) -> None:
        """Tell the connections of this process, and of others."""
        if self.push_hub is None:
            return
        self.push_hub.posted(source)
        if subscribers.connected:
            self.push_hub.tell_workers(source, subscribers.connected)

    def subscriptions_of(self, queue_name: str, project: str | None) -> list[Subscription]:
        """All subscriptions of a queue that are to be told, as they were a moment ago."""
        return self._subscribers_of(Source(project, queue_name)).every

    def _subscribers_of(self, source: Source) -> _Subscribers:
        """The same by kind. PERF: a post to a thousand connections must not look at each."""
        known = self._known.find(source)
        if known is not None:
            return known
        if not self._is_remembering:
            return self._sort(source)
        # Read once for all who want to know at the same time.
        with self._loading.held(source):
            return self._known.get(source, lambda: self._sort(source))

    def _sort(self, source: Source) -> _Subscribers:
        every, size = self._read(source.name, source.project_id)
        push_hub = self.push_hub
        connected: dict[Address, list[Subscription]] = {}
        others: list[Subscription] = []
        filtered: FilterIndex[Subscription] = FilterIndex()
        for one in in_turns(every):
            worker = None if push_hub is None else push_hub.worker_of(source, one['subscriber'])
            wanted = filter_in(one.get('options')) if worker is None else None
            if wanted is not None:
                filtered.add(str(one['id']), one, wanted)
            elif worker is None:
                others.append(one)
            else:
                connected.setdefault(worker, []).append(one)
        has_others = bool(others or len(filtered))
        return _Subscribers(every, connected, others, filtered, has_others, size)

    def _read(self, queue_name: str, project: str | None) -> tuple[list[Subscription], int]:
        """All subscriptions of a queue that are to be told, and their size in bytes."""
        found: list[Subscription] = []
        size = _ROW_BYTES
        needs_confirmation = self._conf.notification.require_confirmation
        limit, marker = _FIRST_PAGE, None
        while True:
            pages = self._subscriptions.list(
                queue_name, project=project, marker=marker, limit=limit
            )
            page = list(next(pages))
            marker = next(pages, None)
            page_bytes = sum(map(_size_of, page))
            size += page_bytes
            found += (
                [one for one in page if one.get('confirmed', True)] if needs_confirmation else page
            )
            if not page or not marker:
                return found, size
            limit = max(1, min(_LONGEST_PAGE, _PAGE_BYTES * len(page) // page_bytes))


class Confirmations(upstream.NotifierDriver):
    """Upstream's requests to confirm, delivered as other notifications are."""

    def __init__(self, deliverer: Deliverer | None, source: Source) -> None:
        """Without upstream's threads."""
        self._deliverer = deliverer
        self._source = source

    def _execute(
        self,
        s_type: str,
        subscription: Subscription,
        messages: list[dict[str, Any]],
        conf: Any = None,
        retry_policy: Any = None,
    ) -> None:
        if self._deliverer is not None:
            found = [
                Notification({**message, 'queue_name': subscription['source']}, '', None)
                for message in messages
            ]
            self._deliverer.deliver(self._source, subscription, found, retry_policy or {})


def _size_of(subscription: Subscription) -> int:
    """About how many bytes a subscription takes; its options count as JSON."""
    options = subscription.get('options')
    size = len(documents.encode_json(options)) if options else 0
    return _ROW_BYTES + len(subscription['subscriber']) + size


def _notifications(
    messages: list[dict[str, Any]], queue_name: str, passed: str
) -> list[Notification]:
    named = {'queue_name': queue_name, 'Message_Type': upstream.MessageType.Notification.name}
    notifications = []
    for message in messages:
        document = {**message, **named}
        document.pop('post_id', None)
        beside = {one: document.pop(one) for one in BESIDE_BODY if one in document}
        notifications.append(Notification(document, passed, document.get('ttl'), **beside))
    return notifications
