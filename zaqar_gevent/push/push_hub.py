"""All that is pushed by this process: the feeds, and the connections that listen to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from logging import WARNING
from typing import Any

import gevent
import msgspec
from gevent.pool import Group
from oslo_log import log
from zaqar.storage import errors as storage_errors

from zaqar_gevent import greenlets
from zaqar_gevent.api.broker import Broker
from zaqar_gevent.api.ending import End
from zaqar_gevent.api.push import Address, News, Source
from zaqar_gevent.logs import level_of
from zaqar_gevent.push.clock_steps import ClockStepDetector
from zaqar_gevent.push.endpoint import ConnectionEndpoint, Held
from zaqar_gevent.push.feed import Feed
from zaqar_gevent.push.fleet import Fleet, load_from
from zaqar_gevent.push.interest import INTEREST_SECONDS, Interest
from zaqar_gevent.push.subscription import Key, PushSubscription, State
from zaqar_gevent.push.tail import ForgetfulTail, MarkedTail, PagedTail, PooledTail, Tail
from zaqar_gevent.push.workers import (
    RemoteWorkers,
    Row,
    Told,
    address_of,
    is_hidden,
    is_worker,
)
from zaqar_gevent.storage.features import MarkerKind, StoreFeatures
from zaqar_gevent.storage.interface import NewsChannel

LOG = log.getLogger(__name__)

_TICK_SECONDS = 1.0
_OUTAGE_SECONDS = 1.0
# Queues that nobody waits for any more, but somebody did within two minutes.
_MOST_IDLE = 500
# Queues that are looked at in a second for what nobody tells of, where the store cannot say itself
# which ones have something.
_LOOKS = 200
# News may get lost with the worker that brings them: each feed looks by itself this often.
_LOOK_SECONDS = 10.0


class PushHub:
    """Tells the clients connected to this process; see `zaqar_gevent.api.push.PushService`.

    open_listener: starts the listener that other workers tell, and returns its URL; called when
        the first client subscribes.
    known_seconds: for how long other workers may not yet know of a new subscription.
    ids_keep_order: whether the ids of a queue's messages, or the positions of those that were
        delayed, sort in the queue's order.
    """

    def __init__(
        self, broker: Broker, open_listener: Callable[[PushHub], str], known_seconds: float
    ) -> None:
        self._broker = broker
        self._open_listener = open_listener
        self._known_seconds = known_seconds
        self._url: str | None = None
        self._workers = RemoteWorkers(broker, self._hear, self._look_everywhere)
        self._fleet = Fleet(load_from(broker.control))
        self._feeds: dict[Source, Feed] = {}
        self._endpoints: dict[str, ConnectionEndpoint | Interest] = {}
        self._subscriptions: dict[Key, ConnectionEndpoint] = {}
        self._interests: dict[Source, Interest] = {}
        self._look_for_idle_at = 2 * _MOST_IDLE
        self.is_draining = False
        self._keeper: gevent.Greenlet | None = None
        self._last_jobs = Group()
        self._tail = _tail_for(broker.features)
        self.ids_keep_order = self._tail is MarkedTail
        self._clock_steps = ClockStepDetector()
        self._looked_at = 0
        self._is_looking = False

    @property
    def url(self) -> str:
        """Where other workers reach this one."""
        if self._url is None:
            self._url = self._open_listener(self)
            self._workers.own = address_of(f'{self._url}{self.process}{"0" * 16}')
            self._workers.listen()
        return self._url

    @property
    def process(self) -> str:
        """The name of this process among those that share the store."""
        return self._workers.process

    def tell_by(self, channel: NewsChannel | None) -> None:
        """Tell other processes, and be told, through the store, if it can."""
        self._workers.channel = channel

    def _hear(self, data: bytes) -> None:
        """Another process has told something through the store."""
        try:
            told = msgspec.json.decode(data, type=Told)
        except msgspec.DecodeError as error:
            LOG.warning('What a process has told through the store cannot be read: %s', error)
            return
        gone = [token for token, queue in told.news if not self.news(token, queue)]
        if gone and told.sender:
            gevent.spawn(self._workers.tell_gone, told.sender, gone)
        if told.gone:
            gevent.spawn(self._workers.hear_gone, told.gone)

    def _look_everywhere(self) -> None:
        """News may have been missed."""
        for feed in self._feeds.values():
            feed.wake()

    def posted(self, source: Source) -> None:
        feed = self._feeds.get(source)
        if feed is not None:
            feed.wake()

    def tell_workers(self, source: Source, subscriptions: Mapping[Address, list[Row]]) -> None:
        self._workers.tell(source, subscriptions)

    def worker_of(self, source: Source, subscriber: str) -> Address | None:
        is_genuine = self._fleet.has_verified(subscriber, source) or (
            is_worker(subscriber) and self._fleet.is_genuine(subscriber, source)
        )
        return address_of(subscriber) if is_genuine else None

    def ended(self, source: Source, subscription_id: str, by: object = None) -> None:
        key = source, subscription_id
        endpoint = self._subscriptions.get(key)
        if endpoint is not None:
            endpoint.drop(key, None if by is endpoint else End.DELETED)

    def row_of(self, source: Source, subscription_id: str) -> str:
        key = source, subscription_id
        endpoint = self._subscriptions.get(key)
        return subscription_id if endpoint is None else endpoint.row_of(key)

    def endpoint(self, *, compact: bool) -> ConnectionEndpoint:
        """The subscriber that a new connection can be."""
        return ConnectionEndpoint(self, compact=compact)

    @property
    def broker(self) -> Broker:
        return self._broker

    def is_hidden(self, source: Source, subscriber: str) -> bool:
        return is_hidden(subscriber) and self._fleet.is_genuine(subscriber, source)

    def url_of(self, name: str, source: Source) -> str:
        """Where other workers tell the endpoint of this name of news of a queue."""
        return self._fleet.sign(f'{self.url}{name}', source)

    @contextmanager
    def listening(self, source: Source, *, takes: bool = False) -> Iterator[News]:
        with self.feed(source).listening(takes=takes) as news:
            self._interest_in(source).renew()
            yield news

    def drain(self) -> None:
        """Nobody is to wait any more: the server is stopping."""
        self.is_draining = True
        for feed in self._feeds.values():
            feed.release()

    def run_before_shutdown(self, job: Callable[..., None], *arguments: Any) -> None:
        """Do what is left to do for a connection that has ended."""
        self._last_jobs.spawn(job, *arguments)

    def finish(self, timeout: float) -> None:
        """Wait for what is left to do, at most `timeout` seconds."""
        self._last_jobs.join(timeout)

    def _interest_in(self, source: Source) -> Interest:
        """The interest of this process in a queue; those that are used last come last."""
        interest = self._interests.pop(source, None) or Interest(self, self.feed(source))
        self._interests[source] = interest
        if len(self._interests) >= self._look_for_idle_at:
            self._drop_idle()
        return interest

    def _drop_idle(self) -> None:
        """Of the queues that nobody waits for any more, remember only the latest."""
        idle = [source for source, interest in self._interests.items() if interest.is_idle]
        for source in idle[:-_MOST_IDLE]:
            self.lose_interest(self._interests[source], source)
        self._look_for_idle_at = len(self._interests) + _MOST_IDLE

    def register(self, endpoint: ConnectionEndpoint | Interest) -> None:
        """A connection is about to subscribe, or this process itself."""
        self._endpoints[endpoint.name] = endpoint
        if self._keeper is None:
            self._keeper = gevent.spawn(self._keep)

    def unregister(self, endpoint: ConnectionEndpoint | Interest) -> None:
        """A connection has ended."""
        self._endpoints.pop(endpoint.name, None)

    def news(self, token: str, queue_name: str, expected: int = 0) -> bool:
        """Take news of a queue from a sender that knows the token of one of its subscribers.

        expected: how many messages are about to be stored. False for a token that is not known.
        """
        endpoint = self._endpoints.get(token.partition('-')[0])
        return endpoint is not None and endpoint.news(token, queue_name, expected)

    def feed(self, source: Source) -> Feed:
        """The feed of a queue, which is there as long as somebody listens."""
        if source not in self._feeds:
            self._feeds[source] = Feed(source, self.tail(source), self.check)
        return self._feeds[source]

    def tail(self, source: Source) -> Tail:
        """A reader of a queue."""
        return self._tail(self._broker, source)

    def opened(self, subscription: PushSubscription, endpoint: ConnectionEndpoint) -> None:
        """A subscription begins; raises `errors.TooMany` where it may not."""
        self._broker.quotas.subscriptions.take(subscription.source.project_id)
        self._subscriptions[subscription.key] = endpoint
        subscription.feed.followers += 1
        self.look_again(subscription.feed)

    def look_again(self, feed: Feed) -> None:
        """Look for what was posted by those who do not know yet that it is waited for."""
        for seconds in (self._known_seconds / 2, self._known_seconds * 1.2):
            gevent.spawn_later(seconds, feed.wake)

    def check(self, feed: Feed) -> None:
        """End the live subscriptions of a queue that another process has deleted.

        Those that have ended by the wall clock only are made again.
        """
        began = time.monotonic()
        project_id, name = feed.source
        listed = self._broker.notifier.subscriptions_of(name, project_id)
        known = {one['id'] for one in listed}
        for subscription in greenlets.in_turns(feed.live):
            row = self.row_of(feed.source, subscription.id)
            if row in known or subscription.created_at >= began:
                continue
            # A page may be short: Redis leaves gaps for expired messages.
            if not self._broker.subscriptions.exists(name, row, project=project_id):
                self._lose(subscription)

    def _lose(self, subscription: PushSubscription) -> None:
        """A subscription is in the store no more."""
        endpoint = self._subscriptions.get(subscription.key)
        if endpoint is not None and not endpoint.keep(subscription.key):
            LOG.info('Subscription %s is in the store no more, and ends', subscription.id)
            endpoint.drop(subscription.key, End.DELETED)

    def end(self, subscription: PushSubscription) -> None:
        """A subscription has ended."""
        if self._subscriptions.pop(subscription.key, None) is not None:
            subscription.feed.followers -= 1
            self._broker.quotas.subscriptions.give_back(subscription.source.project_id)
        subscription.stop(State.ENDED)

    def renew(self, held: Held, ttl: int) -> None:
        """Let a subscription live for `ttl` seconds more; one that was deleted ends."""
        subscription = held.subscription
        project_id, name = subscription.source
        while subscription.state is not State.ENDED:
            try:
                self._broker.subscriptions.update(name, held.row, project=project_id, ttl=ttl)
            except storage_errors.SubscriptionDoesNotExist:
                self._lose(subscription)
                return
            except Exception as error:
                LOG.log(
                    level_of(error, WARNING),
                    'Subscription %s is not renewed yet: %s',
                    subscription.id,
                    error,
                )
                gevent.sleep(_OUTAGE_SECONDS)
            else:
                held.written(ttl)
                return

    def make_again(self, held: Held, url: str, ttl: int) -> None:
        """Put a subscription into the store that has ended there by the wall clock only.

        There it gets another id, which its client need not know.
        """
        subscription = held.subscription
        LOG.info('Subscription %s has ended by the wall clock: it is made again', subscription.id)
        project_id, name = subscription.source
        while subscription.state is not State.ENDED:
            try:
                held.row = self._put(subscription.source, url, ttl, held.options)
            except Exception as error:
                LOG.log(
                    level_of(error, WARNING),
                    'Subscription %s is not made again yet: %s',
                    subscription.id,
                    error,
                )
                gevent.sleep(_OUTAGE_SECONDS)
            else:
                held.written(ttl)
                self._broker.notifier.forget(name, project_id)
                self.look_again(subscription.feed)
                return
        # It has ended meanwhile.
        self.delete([(subscription.source, held.row)])

    def delete(self, subscriptions: Iterable[tuple[Source, str]]) -> None:
        """Take the subscriptions of a connection that has ended out of the store.

        What cannot be deleted is told of for nothing until its time to live is over.
        """
        for (project_id, name), subscription_id in subscriptions:
            try:
                self._broker.subscriptions.delete(name, subscription_id, project=project_id)
            except Exception as error:
                LOG.log(
                    level_of(error, WARNING),
                    'Subscription %s is left to expire: %s',
                    subscription_id,
                    error,
                )
            self._broker.notifier.forget(name, project_id)

    def show_interest(self, source: Source, url: str) -> None:
        """Let other processes know that this one waits for news of a queue."""
        try:
            self._put(source, url, INTEREST_SECONDS, {})
        except Exception as error:
            LOG.log(
                level_of(error, WARNING),
                'Other processes cannot be told of a wait for %s: %s',
                source.name,
                error,
            )

    def _put(self, source: Source, url: str, ttl: int, options: dict[str, Any]) -> str:
        """Have a row for a subscriber of this process in the store; its id."""
        subscriptions = self._broker.subscriptions
        project_id, name = source
        created = subscriptions.create(name, url, ttl, options, project=project_id)
        if not created:
            found = subscriptions.get_with_subscriber(name, url, project=project_id)
            subscriptions.update(name, found['id'], project=project_id, ttl=ttl)
            return str(found['id'])
        if self._broker.conf.notification.require_confirmation:
            subscriptions.confirm(name, created, project=project_id)
        return str(created)

    def lose_interest(self, interest: Interest, source: Source) -> None:
        """Nobody has waited for some time."""
        self._interests.pop(source, None)
        self.unregister(interest)

    def _keep(self) -> None:
        looked_at = time.monotonic()
        while True:
            gevent.sleep(_TICK_SECONDS)
            now = time.monotonic()
            has_stepped = self._clock_steps.has_stepped()
            if has_stepped:
                LOG.warning(
                    'The clock was set, or the machine suspended: subscriptions are renewed'
                )
            for endpoint in greenlets.in_turns(self._endpoints.values()):
                endpoint.attend(now, has_stepped=has_stepped)
            if not self._is_looking:
                self._is_looking = True
                gevent.spawn(self._look_for_takers)
            for source, feed in greenlets.in_turns(self._feeds.items()):
                if feed.is_unused and source not in self._interests:
                    self._feeds.pop(source, None)
            if now - looked_at >= _LOOK_SECONDS:
                looked_at = now
                for feed in greenlets.in_turns(self._feeds.values()):
                    feed.look()

    def _look_for_takers(self) -> None:
        """Wake one taker of each queue that may have something that nobody tells of.

        Claims expire and delays end without news.
        """
        try:
            waited = [source for source, feed in self._feeds.items() if feed.takers]
            for source in self._find_claimable(waited) if waited else ():
                if (feed := self._feeds.get(source)) is not None:
                    feed.wake_taker()
        except Exception as error:
            LOG.log(level_of(error, WARNING), 'Queues cannot be looked at: %s', error)
        finally:
            self._is_looking = False

    def _find_claimable(self, waited: list[Source]) -> list[Source]:
        """Those of some queues that may have a message to be claimed."""
        if self._broker.features.finds_claimable:
            return [waited[number] for number in self._broker.claims.find_claimable(waited)]
        begin = self._looked_at % len(waited)
        self._looked_at = begin + _LOOKS
        return (waited[begin:] + waited[:begin])[:_LOOKS]


def _tail_for(features: StoreFeatures) -> type[Tail]:
    """The reader for the queues of a store, by the kind of its markers."""
    tails: dict[MarkerKind, type[Tail]] = {
        MarkerKind.POSITION: MarkedTail,
        MarkerKind.MESSAGE_ID: ForgetfulTail,
        MarkerKind.MIXED: PooledTail,
    }
    return tails.get(features.markers, PagedTail)
