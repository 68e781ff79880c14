"""One connection as a subscriber: its subscriptions and consumers, and how they end."""

from __future__ import annotations

import hmac
import secrets
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import gevent

from zaqar_gevent.api import documents, errors
from zaqar_gevent.api.ending import End
from zaqar_gevent.api.filter_index import filter_in
from zaqar_gevent.api.grants import UNLIMITED, Grant, Reason
from zaqar_gevent.api.push import Recipient, Source
from zaqar_gevent.api.quotas import too_many
from zaqar_gevent.push.consumer import PushConsumer
from zaqar_gevent.push.subscription import Key, PushSubscription, State
from zaqar_gevent.push.tail import Tail
from zaqar_gevent.push.workers import token_in

if TYPE_CHECKING:
    from zaqar_gevent.push.push_hub import PushHub

# Stores count in whole seconds.
_MARGIN_SECONDS = 2.0
# One for all: each would have 216 bytes.
_NO_TOKENS: frozenset[str] = frozenset()


class ConnectionEndpoint:
    """A connection as a subscriber; see `zaqar_gevent.api.push.Endpoint`.

    name: of the endpoint within this process; '' until it subscribes.
    compact: whether its pushes are those of `zaqar.v2`.
    """

    __slots__ = (
        *('_compact', '_consumers', '_ends', '_expected', '_push_hub', '_recipient'),
        *('_subscriptions', 'name'),
    )

    def __init__(self, push_hub: PushHub, *, compact: bool) -> None:
        self._push_hub = push_hub
        self._compact = compact
        self._recipient: Recipient | None = None
        self._subscriptions: dict[Key, Held] | None = None
        self._consumers: dict[str, PushConsumer] | None = None
        # Tokens whose row may be in the store already while the subscription does not exist yet.
        self._expected = _NO_TOKENS
        self._ends: dict[Source, tuple[str | None, Tail]] | None = None
        self.name = ''

    def attach(self, recipient: Recipient) -> None:
        """The connection that is pushed to."""
        self._recipient = recipient

    def url_for(self, source: Source) -> str:
        if self._recipient is None:
            raise _gone()
        self._check_number(source)
        if not self.name:
            self.name = self._push_hub.process + secrets.token_hex(8)
            self._subscriptions = {}
            self._push_hub.register(self)
        url = self._push_hub.url_of(self.name, source)
        self._expected |= {token_in(url)}
        return url

    @property
    def is_open(self) -> bool:
        return self._recipient is not None and self._recipient.is_open

    def is_gone(self) -> bool:
        return self._recipient is not None and self._recipient.is_gone()

    def waiting(self) -> AbstractContextManager[None]:
        return nullcontext() if self._recipient is None else self._recipient.waiting()

    def now(self, source: Source) -> str | None:
        tail = self._push_hub.tail(source)
        marker = tail.end()
        self._ends = {**(self._ends or {}), source: (marker, tail)}
        return marker

    def verify(self, source: Source, marker: str) -> None:
        self._push_hub.tail(source).verify(marker)

    def subscribe(
        self,
        source: Source,
        subscription_id: str,
        marker: str | None,
        *,
        ttl: int,
        renewed: bool,
        options: dict[str, Any],
        binary: bool,
        extended: bool,
        grant: Grant,
    ) -> None:
        if self._recipient is None or self._subscriptions is None or grant.is_over:
            self._push_hub.run_before_shutdown(self._push_hub.delete, [(source, subscription_id)])
            raise _gone(grant)
        # Who has seen the message of the marker can go on even where that is gone by now.
        end, tail = (self._ends or {}).pop(source, (None, None))
        subscription = PushSubscription(
            subscription_id,
            self._push_hub.feed(source),
            tail if tail is not None and end == marker else self._push_hub.tail(source),
            self._recipient,
            self._too_slow,
            self._over,
            self._go_astray,
            marker,
            compact=self._compact,
            binary=binary,
            extended=extended,
            grant=grant,
            filter_=filter_in(options),
        )
        token = token_in(self._push_hub.url_of(self.name, source))
        self._expected = self._expected - {token} or _NO_TOKENS
        try:
            # Others may have been made meanwhile.
            self._check_number(source)
            self._push_hub.opened(subscription, self)
        except errors.TooMany:
            self._push_hub.run_before_shutdown(self._push_hub.delete, [(source, subscription_id)])
            raise
        self._subscriptions[subscription.key] = Held(subscription, token, ttl, renewed, options)
        subscription.start()

    def _check_number(self, source: Source) -> None:
        """Raise `errors.TooMany` where there are as many subscriptions as may be."""
        quotas = self._push_hub.broker.quotas
        quotas.subscriptions.check(source.project_id)
        most = quotas.subscriptions_per_connection
        if len(self._subscriptions or ()) >= most:
            raise too_many('subscriptions', 'connection', most, 'max_subscriptions_per_connection')

    def consume(
        self, source: Source, lease: dict[str, int], *, credit: int, binary: bool, grant: Grant
    ) -> str:
        if not self._compact:
            raise errors.BadRequest('This needs the subprotocol zaqar.v2.')
        if self._recipient is None or grant.is_over:
            raise _gone(grant)
        others = [one for one in (self._consumers or {}).values() if not one.is_stopped]
        most = self._push_hub.broker.quotas.consumers_per_connection
        if len(others) >= most:
            raise too_many('consumers', 'connection', most, 'max_consumers_per_connection')
        consumer = PushConsumer(
            self._push_hub,
            source,
            self._recipient,
            lease,
            credit=credit,
            binary=binary,
            grant=grant,
        )
        consumer.start()
        self._consumers = {one.id: one for one in (*others, consumer)}
        return consumer.id

    def consumer(self, consumer_id: str, project_id: str | None) -> PushConsumer:
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
        named = [
            held.subscription
            for (source, own_id), held in (self._subscriptions or {}).items()
            if (source.project_id, own_id) == (project_id, subscription_id)
        ]
        if not named:
            raise errors.NotFound(f'This connection has no subscription {subscription_id}.')
        for subscription in named:
            if marker:
                self.verify(subscription.source, marker)
            if subscription.state is State.PAUSED:
                subscription.marker = marker or subscription.marker
                subscription.start()

    def close(self) -> None:
        """The connection has ended, and its subscriptions with it."""
        held, self._subscriptions, self._recipient = self._subscriptions, None, None
        consumers, self._consumers = self._consumers, None
        self._push_hub.unregister(self)
        for consumer in (consumers or {}).values():
            self._push_hub.run_before_shutdown(consumer.stop)
        for one in (held or {}).values():
            self._push_hub.end(one.subscription)
        if held:
            rows = [(one.subscription.source, one.row) for one in held.values()]
            self._push_hub.run_before_shutdown(self._push_hub.delete, rows)

    def end_over(self) -> None:
        """End the subscriptions and consumers whose grant has ended, and tell the client."""
        rows = []
        for key, held in tuple((self._subscriptions or {}).items()):
            reason = held.subscription.grant.reason
            if reason is not None:
                rows.append((held.subscription.source, held.row))
                self.drop(key, reason)
        if rows:
            self._push_hub.run_before_shutdown(self._push_hub.delete, rows)
        for consumer_id, consumer in tuple((self._consumers or {}).items()):
            reason = consumer.grant.reason
            if self._consumers is not None and reason is not None:
                del self._consumers[consumer_id]
                self._push_hub.run_before_shutdown(consumer.stop)
                self._tell_end(consumer, reason)

    def drop(self, key: Key, reason: Reason | End | None) -> None:
        """One subscription has ended, which the client is told if there is a reason to."""
        held = (self._subscriptions or {}).pop(key, None)
        if held is not None:
            self._push_hub.end(held.subscription)
            if reason is not None:
                self._tell_end(held.subscription, reason)

    def row_of(self, key: Key) -> str:
        """The id of one subscription in the store."""
        held = (self._subscriptions or {}).get(key)
        return key[1] if held is None else held.row

    def keep(self, key: Key) -> bool:
        """Make a subscription again if it can have ended by the wall clock only; whether it can."""
        held = (self._subscriptions or {}).get(key)
        if held is None or not held.may_have_expired:
            return False
        if not held.is_being_made:
            held.is_being_made = True
            url = self._push_hub.url_of(self.name, held.subscription.source)
            gevent.spawn(self._push_hub.make_again, held, url, held.left)
        return True

    def news(self, token: str, queue_name: str, expected: int) -> bool:
        """There is news of a queue; False where it is not listened to under this token."""
        found = False
        for held in (self._subscriptions or {}).values():
            is_meant = held.subscription.source.name == queue_name
            if is_meant and hmac.compare_digest(held.token.encode(), token.encode()):
                held.subscription.feed.wake(expected)
                found = True
        return found or token in self._expected

    def attend(self, now: float, *, has_stepped: bool = False) -> None:
        """Renew subscriptions, or let them end at their time; `now` is of `time.monotonic`.

        has_stepped: whether the wall clock has, so that all are to be renewed at once.
        """
        if any(_has_ended(held.subscription) for held in (self._subscriptions or {}).values()):
            self.end_over()
        for key, held in tuple((self._subscriptions or {}).items()):
            if held.renewed and (has_stepped or now >= held.expires_at - held.ttl / 2):
                held.expires_at = now + held.ttl
                gevent.spawn(self._push_hub.renew, held, held.ttl)
            elif now >= held.expires_at:
                # In the store it may live on, whose clock may have been set back.
                self._end(key, End.EXPIRED)
            elif has_stepped:
                gevent.spawn(self._push_hub.renew, held, held.left)

    def _go_astray(self, subscription: PushSubscription) -> None:
        """The store has never given the marker of a subscription: it is another store by now."""
        self._end(subscription.key, End.UNKNOWN_MARKER)

    def _end(self, key: Key, reason: End) -> None:
        """End a subscription, and take it out of the store."""
        row = self.row_of(key)
        self.drop(key, reason)
        self._push_hub.run_before_shutdown(self._push_hub.delete, [(key[0], row)])

    def _over(self, subscription: PushSubscription) -> None:
        """A message cannot be pushed: the grant of the subscription has ended."""
        if _has_ended(subscription):
            self.end_over()
        else:
            subscription.stop(State.PAUSED)

    def _tell_end(self, ended: PushSubscription | PushConsumer, reason: Reason | End) -> None:
        """Tell the client that a subscription or consumer has ended, in the form of its envelope.

        Upstream has a form for the end of a subscription too, which it posts to webhooks.
        """
        if self._recipient is None:
            return
        source = ended.source
        push: dict[str, Any]
        if self._compact:
            kind = 'consumer_id' if isinstance(ended, PushConsumer) else 'subscription_id'
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
        data = documents.encode(push, binary=ended.binary)
        self._recipient.push(data, binary=ended.binary, kind='ended')

    def _too_slow(self, subscription: PushSubscription) -> None:
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


def _has_ended(subscription: PushSubscription) -> bool:
    """Whether the grant of a subscription has ended, and its connection has not.

    At the end of its token the whole connection is closed.
    """
    return subscription.grant.reason not in (None, Reason.TOKEN_EXPIRED, Reason.TOKEN_REVOKED)


def _gone(grant: Grant = UNLIMITED) -> errors.APIError:
    if grant.reason is not None:
        return grant.reason.refusal
    return errors.ServiceUnavailable('The connection has ended.')


class Held:
    """A subscription of an endpoint.

    token: that in its URL. ttl: in seconds. renewed: whether it is renewed while the connection
    lasts. options: as given. expires_at: by `time.monotonic`. row: its id in the store.
    is_being_made: whether it is about to be put into the store again.
    """

    __slots__ = (
        *('_ends_at', 'expires_at', 'is_being_made', 'options', 'renewed', 'row'),
        *('subscription', 'token', 'ttl'),
    )

    def __init__(
        self,
        subscription: PushSubscription,
        token: str,
        ttl: int,
        renewed: bool,
        options: dict[str, Any],
    ) -> None:
        self.subscription = subscription
        self.token = token
        self.ttl = ttl
        self.renewed = renewed
        self.options = options
        self.expires_at = time.monotonic() + ttl
        self.row = subscription.id
        self.is_being_made = False
        self.written(ttl)

    @property
    def left(self) -> int:
        """How long it is still to live, in seconds."""
        return self.ttl if self.renewed else max(1, int(self.expires_at - time.monotonic()))

    @property
    def may_have_expired(self) -> bool:
        """Whether its end in the store may have come, by the wall clock."""
        return time.time() >= self._ends_at - _MARGIN_SECONDS

    def written(self, ttl: int) -> None:
        """It has just been written to the store, to live for `ttl` seconds."""
        self.is_being_made = False
        # By the wall clock, as the store has it.
        self._ends_at = time.time() + ttl
