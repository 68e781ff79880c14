"""All that is pushed by this process: the feeds, and the connections that listen to them."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Group
from oslo_config import cfg
from oslo_log import log
from zaqar.storage import errors as storage_errors

from zaqar_gevent.api import documents, errors
from zaqar_gevent.api.broker import Broker
from zaqar_gevent.api.grants import UNLIMITED, Grant, Reason
from zaqar_gevent.api.push import Recipient, Source
from zaqar_gevent.push.consumer import Consumer
from zaqar_gevent.push.feed import Feed
from zaqar_gevent.push.subscription import State, Subscription
from zaqar_gevent.push.tail import ForgetfulTail, PagedTail, PooledTail, Tail
from zaqar_gevent.push.workers import HIDDEN, Workers, is_hidden, is_worker

LOG = log.getLogger(__name__)

_TICK_SECONDS = 1.0
_OUTAGE_SECONDS = 1.0
# News may get lost with the worker that brings them: each feed looks by itself this often.
_LOOK_SECONDS = 10.0
_INTEREST_SECONDS = 120


class Hub:
    """Tells the clients connected to this process; see `zaqar_gevent.api.push.Hub`.

    open_listener: starts the listener that other workers tell, and returns its URL; called when
        the first client subscribes.
    known_seconds: for how long other workers may not yet know of a new subscription.
    ids_keep_order: whether the ids of a queue's messages sort as they were posted.
    """

    def __init__(
        self, broker: Broker, open_listener: Callable[[Hub], str], known_seconds: float
    ) -> None:
        self._broker = broker
        self._open_listener = open_listener
        self._known_seconds = known_seconds
        self._url: str | None = None
        self._workers = Workers(broker)
        self._feeds: dict[Source, Feed] = {}
        self._endpoints: dict[str, Endpoint | Interest] = {}
        self._subscriptions: dict[tuple[Source, str], Endpoint] = {}
        self._interests: dict[Source, Interest] = {}
        self.is_draining = False
        self._keeper: gevent.Greenlet | None = None
        self._last_jobs = Group()
        self._tail = _tail_for(broker.conf)
        self.ids_keep_order = self._tail is Tail

    @property
    def url(self) -> str:
        """Where other workers reach this one."""
        if self._url is None:
            self._url = self._open_listener(self)
        return self._url

    def posted(self, source: Source) -> None:
        feed = self._feeds.get(source)
        if feed is not None:
            feed.wake()

    def tell_workers(self, source: Source, subscriptions: list[dict[str, Any]]) -> None:
        own = self._url
        others = [
            one for one in subscriptions if own is None or not one['subscriber'].startswith(own)
        ]
        self._workers.tell(source, others)

    def ended(self, source: Source, subscription_id: str) -> None:
        endpoint = self._subscriptions.get((source, subscription_id))
        if endpoint is not None:
            endpoint.drop(subscription_id)

    def is_worker(self, subscriber: str) -> bool:
        return is_worker(subscriber)

    def endpoint(self, *, compact: bool) -> Endpoint:
        """The subscriber that a new connection can be."""
        return Endpoint(self, compact=compact)

    @property
    def broker(self) -> Broker:
        return self._broker

    def is_hidden(self, subscriber: str) -> bool:
        return is_hidden(subscriber)

    @contextmanager
    def listening(self, source: Source) -> Iterator[Event]:
        news = Event()
        feed = self.feed(source)
        feed.waiting.add(news)
        try:
            self._interest_in(source).renew()
            yield news
        finally:
            feed.waiting.discard(news)

    def drain(self) -> None:
        """Nobody is to wait any more: the server is stopping."""
        self.is_draining = True
        for feed in self._feeds.values():
            feed.wake()

    def at_last(self, job: Callable[..., None], *arguments: Any) -> None:
        """Do what is left to do for a connection that has ended."""
        self._last_jobs.spawn(job, *arguments)

    def finish(self, timeout: float) -> None:
        """Wait for what is left to do, at most `timeout` seconds."""
        self._last_jobs.join(timeout)

    def _interest_in(self, source: Source) -> Interest:
        if source not in self._interests:
            self._interests[source] = Interest(self, self.feed(source))
        return self._interests[source]

    def register(self, endpoint: Endpoint | Interest) -> None:
        """A connection is about to subscribe, or this process itself."""
        self._endpoints[endpoint.name] = endpoint
        if self._keeper is None:
            self._keeper = gevent.spawn(self._keep)

    def unregister(self, endpoint: Endpoint | Interest) -> None:
        """A connection has ended."""
        self._endpoints.pop(endpoint.name, None)

    def news(self, token: str, queue_name: str, expected: int = 0) -> bool:
        """There is news of a queue, says whoever knows the token of one of its subscribers.

        expected: how many messages are about to be stored. False for a token that is not known.
        """
        endpoint = self._endpoints.get(token.partition('-')[0])
        if endpoint is None or not hmac.compare_digest(endpoint.token.encode(), token.encode()):
            return False
        return endpoint.news(queue_name, expected)

    def feed(self, source: Source) -> Feed:
        """The feed of a queue, which is there as long as somebody listens."""
        if source not in self._feeds:
            self._feeds[source] = Feed(source, self.tail(source), self.check)
        return self._feeds[source]

    def tail(self, source: Source) -> Tail:
        """A reader of a queue."""
        return self._tail(self._broker, source)

    def opened(self, subscription: Subscription, endpoint: Endpoint) -> None:
        """A subscription begins."""
        self._subscriptions[subscription.feed.source, subscription.id] = endpoint
        subscription.feed.followers += 1
        self.look_again(subscription.feed)

    def look_again(self, feed: Feed) -> None:
        """Look for what was posted by those who do not know yet that it is waited for."""
        for seconds in (self._known_seconds / 2, self._known_seconds * 1.2):
            gevent.spawn_later(seconds, feed.wake)

    def check(self, feed: Feed) -> None:
        """End the live subscriptions of a queue that another process has deleted."""
        began = time.monotonic()
        project_id, name = feed.source
        listed = self._broker.notifier.subscriptions_of(name, project_id)
        known = {one['id'] for one in listed}
        for subscription in feed.live:
            if subscription.id in known or subscription.created_at >= began:
                continue
            # What is listed may be less than all: of what has expired, Redis leaves gaps.
            if not self._broker.subscriptions.exists(name, subscription.id, project=project_id):
                LOG.info('Subscription %s is in the store no more, and ends', subscription.id)
                self.ended(feed.source, subscription.id)

    def end(self, subscription: Subscription) -> None:
        """A subscription has ended."""
        key = subscription.feed.source, subscription.id
        if self._subscriptions.pop(key, None) is not None:
            subscription.feed.followers -= 1
        subscription.stop(State.ENDED)

    def renew(self, subscription: Subscription, ttl: int) -> None:
        """Let a subscription live for `ttl` seconds more; one that was deleted ends."""
        project_id, name = subscription.feed.source
        while subscription.state is not State.ENDED:
            try:
                self._broker.subscriptions.update(
                    name, subscription.id, project=project_id, ttl=ttl
                )
            except storage_errors.SubscriptionDoesNotExist:
                self.ended(subscription.feed.source, subscription.id)
            except Exception as error:
                LOG.warning('Subscription %s is not renewed yet: %s', subscription.id, error)
                gevent.sleep(_OUTAGE_SECONDS)
            else:
                return

    def delete(self, subscriptions: Iterable[tuple[Source, str]]) -> None:
        """Take the subscriptions of a connection that has ended out of the store.

        What cannot be deleted is told of for nothing until its time to live is over.
        """
        for (project_id, name), subscription_id in subscriptions:
            try:
                self._broker.subscriptions.delete(name, subscription_id, project=project_id)
            except Exception as error:
                LOG.warning('Subscription %s is left to expire: %s', subscription_id, error)
            self._broker.notifier.forget(name, project_id)

    def show_interest(self, source: Source, url: str) -> None:
        """Let other processes know that this one waits for news of a queue."""
        subscriptions = self._broker.subscriptions
        project_id, name = source
        try:
            created = subscriptions.create(name, url, _INTEREST_SECONDS, {}, project=project_id)
            if not created:
                found = subscriptions.get_with_subscriber(name, url, project=project_id)
                subscriptions.update(name, found['id'], project=project_id, ttl=_INTEREST_SECONDS)
            elif self._broker.conf.notification.require_confirmation:
                subscriptions.confirm(name, created, project=project_id)
        except Exception as error:
            LOG.warning('Other processes cannot be told of a wait for %s: %s', name, error)

    def lose_interest(self, interest: Interest, source: Source) -> None:
        """Nobody has waited for some time."""
        self._interests.pop(source, None)
        self.unregister(interest)

    def _keep(self) -> None:
        looked_at = time.monotonic()
        while True:
            gevent.sleep(_TICK_SECONDS)
            now = time.monotonic()
            for endpoint in tuple(self._endpoints.values()):
                endpoint.attend(now)
            for source, feed in tuple(self._feeds.items()):
                if feed.is_unused and source not in self._interests:
                    del self._feeds[source]
            if now - looked_at >= _LOOK_SECONDS:
                looked_at = now
                for feed in self._feeds.values():
                    feed.look()


def _tail_for(conf: cfg.ConfigOpts) -> type[Tail]:
    """What reads the queues of the store that is configured."""
    if conf.pooling:
        return PooledTail
    tails: dict[str, type[Tail]] = {'sqlite': Tail, 'redis': ForgetfulTail}
    return tails.get(conf.drivers.message_store, PagedTail)


class Endpoint:
    """A connection as a subscriber; see `zaqar_gevent.api.push.Endpoint`.

    name: of the endpoint within this process; '' until it subscribes.
    token: `name` and a secret, in its URL.
    compact: whether its pushes are those of `zaqar.v2`.
    """

    __slots__ = (
        *('_compact', '_consumers', '_ends', '_hub', '_recipient', '_subscriptions'),
        *('name', 'token'),
    )

    def __init__(self, hub: Hub, *, compact: bool) -> None:
        self._hub = hub
        self._compact = compact
        self._recipient: Recipient | None = None
        self._subscriptions: dict[str, _Held] | None = None
        self._consumers: dict[str, Consumer] | None = None
        self._ends: dict[Source, tuple[str | None, Tail]] | None = None
        self.name = self.token = ''

    def attach(self, recipient: Recipient) -> None:
        """The connection that is pushed to."""
        self._recipient = recipient

    @property
    def url(self) -> str:
        if self._recipient is None:
            raise _gone()
        if not self.name:
            self.name = secrets.token_hex(8)
            self.token = f'{self.name}-{secrets.token_urlsafe(24)}'
            self._subscriptions = {}
            self._hub.register(self)
        return f'{self._hub.url}{self.token}'

    @property
    def is_open(self) -> bool:
        return self._recipient is not None and self._recipient.is_open

    def is_gone(self) -> bool:
        return self._recipient is not None and self._recipient.is_gone()

    def waiting(self) -> AbstractContextManager[None]:
        return nullcontext() if self._recipient is None else self._recipient.waiting()

    def now(self, source: Source) -> str | None:
        tail = self._hub.tail(source)
        marker = tail.end()
        self._ends = {**(self._ends or {}), source: (marker, tail)}
        return marker

    def subscribe(
        self,
        source: Source,
        subscription_id: str,
        marker: str | None,
        *,
        ttl: int,
        renewed: bool,
        binary: bool,
        grant: Grant,
    ) -> None:
        if self._recipient is None or self._subscriptions is None or grant.is_over:
            self._hub.at_last(self._hub.delete, [(source, subscription_id)])
            raise _gone(grant)
        # Who has seen the message of the marker can go on even where that is gone by now.
        end, tail = (self._ends or {}).pop(source, (None, None))
        subscription = Subscription(
            subscription_id,
            self._hub.feed(source),
            tail if tail is not None and end == marker else self._hub.tail(source),
            self._recipient,
            self._too_slow,
            self._over,
            marker,
            compact=self._compact,
            binary=binary,
            grant=grant,
        )
        self._subscriptions[subscription_id] = _Held(subscription, ttl, renewed)
        self._hub.opened(subscription, self)
        subscription.start()

    def consume(
        self, source: Source, lease: dict[str, int], *, credit: int, binary: bool, grant: Grant
    ) -> str:
        if not self._compact:
            raise errors.BadRequest('This needs the subprotocol zaqar.v2.')
        if self._recipient is None or grant.is_over:
            raise _gone(grant)
        consumer = Consumer(
            self._hub,
            source,
            self._recipient,
            lease,
            credit=credit,
            binary=binary,
            grant=grant,
        )
        others = (self._consumers or {}).values()
        self._consumers = {one.id: one for one in (*others, consumer) if not one.is_stopped}
        consumer.start()
        return consumer.id

    def consumer(self, consumer_id: str, project_id: str | None) -> Consumer:
        consumer = (self._consumers or {}).get(consumer_id)
        if (
            consumer is None
            or consumer.is_stopped
            or consumer.grant.is_over
            or consumer.source.project_id != project_id
        ):
            raise errors.NotFound(f'This connection has no consumer {consumer_id}.')
        return consumer

    def resume(self, subscription_id: str, project_id: str | None, marker: str | None) -> None:
        held = (self._subscriptions or {}).get(subscription_id)
        if held is None or held.subscription.feed.source.project_id != project_id:
            raise errors.NotFound(f'This connection has no subscription {subscription_id}.')
        if held.subscription.state is State.PAUSED:
            held.subscription.marker = marker or held.subscription.marker
            held.subscription.start()

    def close(self) -> None:
        """The connection has ended, and its subscriptions with it."""
        held, self._subscriptions, self._recipient = self._subscriptions, None, None
        consumers, self._consumers = self._consumers, None
        self._hub.unregister(self)
        for consumer in (consumers or {}).values():
            self._hub.at_last(consumer.finish)
        for one in (held or {}).values():
            self._hub.end(one.subscription)
        if held:
            rows = [(one.subscription.feed.source, key) for key, one in held.items()]
            self._hub.at_last(self._hub.delete, rows)

    def end_over(self) -> None:
        """End the subscriptions and consumers whose grant has ended, and tell the client."""
        rows = []
        for subscription_id, held in tuple((self._subscriptions or {}).items()):
            reason = held.subscription.grant.reason
            if reason is not None:
                rows.append((held.subscription.feed.source, subscription_id))
                self.drop(subscription_id)
                self._tell_end(held.subscription, reason)
        if rows:
            self._hub.at_last(self._hub.delete, rows)
        for consumer_id, consumer in tuple((self._consumers or {}).items()):
            reason = consumer.grant.reason
            if self._consumers is not None and reason is not None:
                del self._consumers[consumer_id]
                self._hub.at_last(consumer.finish)
                self._tell_end(consumer, reason)

    def drop(self, subscription_id: str) -> None:
        """One subscription has ended, and is in the store no more."""
        held = (self._subscriptions or {}).pop(subscription_id, None)
        if held is not None:
            self._hub.end(held.subscription)

    def news(self, queue_name: str, expected: int) -> bool:
        """There is news of a queue; False where none of that name is listened to."""
        found = False
        for held in (self._subscriptions or {}).values():
            if held.subscription.feed.source.name == queue_name:
                held.subscription.feed.wake(expected)
                found = True
        return found

    def attend(self, now: float) -> None:
        """Renew subscriptions, or let them end at their time; `now` is of `time.monotonic`."""
        if any(_has_ended(held.subscription) for held in (self._subscriptions or {}).values()):
            self.end_over()
        for subscription_id, held in tuple((self._subscriptions or {}).items()):
            if held.renewed and now >= held.expires_at - held.ttl / 2:
                held.expires_at = now + held.ttl
                gevent.spawn(self._hub.renew, held.subscription, held.ttl)
            elif now >= held.expires_at:
                self.drop(subscription_id)

    def _over(self, subscription: Subscription) -> None:
        """A message cannot be pushed: the grant of the subscription has ended."""
        if _has_ended(subscription):
            self.end_over()
        else:
            subscription.stop(State.PAUSED)

    def _tell_end(self, ended: Subscription | Consumer, reason: Reason) -> None:
        """Tell the client that a subscription or consumer has ended, in the form of its envelope.

        Upstream has a form for the end of a subscription too, which it posts to webhooks.
        """
        if self._recipient is None:
            return
        source = ended.source
        push: dict[str, Any]
        if self._compact:
            kind = 'consumer_id' if isinstance(ended, Consumer) else 'subscription_id'
            push = {
                'push': 'ended',
                kind: ended.id,
                'queue_name': source.name,
                'reason': reason.value,
                'description': reason.description,
            }
        else:
            push = {
                'body': {'reason': reason.value, 'description': reason.description},
                'ttl': 0,
                'queue_name': source.name,
                'Message_Type': 'UnsubscribeConfirmation',
            }
        encode = documents.encode_msgpack if ended.binary else documents.encode_json
        self._recipient.push(encode(push), binary=ended.binary, kind='ended')

    def _too_slow(self, subscription: Subscription) -> None:
        """Pause a subscription, or give up a client whose envelope cannot say so."""
        if self._recipient is None:
            return
        subscription.stop(State.PAUSED)
        if self._compact:
            push = {
                'push': 'paused',
                'subscription_id': subscription.id,
                'marker': subscription.marker,
            }
            subscription.say(push, kind='paused')
        else:
            self._recipient.give_up()


def _has_ended(subscription: Subscription) -> bool:
    """Whether the grant of a subscription has ended, and its connection has not.

    At the end of its token the whole connection is closed.
    """
    return subscription.grant.reason not in (None, Reason.TOKEN_EXPIRED)


def _gone(grant: Grant = UNLIMITED) -> errors.APIError:
    if grant.reason is not None:
        return errors.Forbidden(grant.reason.description)
    return errors.ServiceUnavailable('The connection has ended.')


class _Held:
    """A subscription of an endpoint, its time to live in seconds, and whether it is renewed."""

    __slots__ = ('expires_at', 'renewed', 'subscription', 'ttl')

    def __init__(self, subscription: Subscription, ttl: int, renewed: bool) -> None:
        self.subscription = subscription
        self.ttl = ttl
        self.renewed = renewed
        self.expires_at = time.monotonic() + ttl


class Interest:
    """This process as a subscriber, for those who wait for news of a queue without subscribing.

    Its row in the store is there for other processes to find; it is left to expire when nobody has
    waited for some time.
    """

    def __init__(self, hub: Hub, feed: Feed) -> None:
        self.name = HIDDEN + secrets.token_hex(8)
        self.token = f'{self.name}-{secrets.token_urlsafe(24)}'
        self._hub = hub
        self._feed = feed
        self._renew_at = 0.0
        hub.register(self)

    def renew(self) -> None:
        """Somebody waits."""
        now = time.monotonic()
        if now < self._renew_at:
            return
        is_new = not self._renew_at
        self._renew_at = now + _INTEREST_SECONDS / 2
        self._hub.show_interest(self._feed.source, f'{self._hub.url}{self.token}')
        if is_new:
            self._hub.look_again(self._feed)

    def news(self, queue_name: str, expected: int) -> bool:
        """There is news of the queue."""
        if queue_name != self._feed.source.name:
            return False
        self._feed.wake(expected)
        return True

    def attend(self, now: float) -> None:
        """Wait on while somebody does; `now` is of `time.monotonic`."""
        if self._feed.waiting:
            if now >= self._renew_at:
                gevent.spawn(self.renew)
        elif now >= self._renew_at + _INTEREST_SECONDS / 2:
            self._hub.lose_interest(self, self._feed.source)
