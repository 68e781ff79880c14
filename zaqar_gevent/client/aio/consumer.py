"""A consumer: works on a queue's messages, each leased to it until it is settled."""

from __future__ import annotations

import collections
import functools
import logging
import time
import weakref
from typing import Any

from zaqar_gevent.client.aio import io
from zaqar_gevent.client.aio.connection import Connection
from zaqar_gevent.client.aio.connector import Link
from zaqar_gevent.client.aio.message import ACK, Message, Settlement
from zaqar_gevent.client.aio.renewal import ClaimRenewer
from zaqar_gevent.client.aio.stream import Stream
from zaqar_gevent.client.aio.target import Target
from zaqar_gevent.client.errors import (
    AccessEnded,
    APIError,
    BadRequest,
    ClientClosed,
    ConnectionLost,
    Forbidden,
    LeaseLost,
    NotFound,
    ServiceUnavailable,
    Timeout,
    from_answer,
)
from zaqar_gevent.client.fallback import Pace
from zaqar_gevent.client.lifetime import weak_method
from zaqar_gevent.client.links import Answer, Broken, check

LOG = logging.getLogger(__name__)

# Upstream's default limit of messages a claim.
MAX_CLAIM_MESSAGES = 20
MAX_WAIT_SECONDS = 3600.0
# No server lets a claim live shorter than that, unless it is told to.
LEAST_TTL_SECONDS = 60.0
# How often it is looked whether the queue has ordered groups.
LOOK_SECONDS = 60.0
# How many messages one request acknowledges at most.
MAX_ACKS = 100

_TROUBLE = (ConnectionLost, Timeout, ServiceUnavailable)


class _Delivery:
    """A message that was given to a consumer and is not settled.

    pushes: whose lease it is under, which the server renews; None if the consumer renews the claim.
    has_released: whether another message of the same claim was given back, which takes effect when
    nothing of the claim is left. is_settling: whether an acknowledgement is under way.
    """

    __slots__ = ('claim_id', 'has_released', 'is_settling', 'pushes')

    def __init__(self, claim_id: str, pushes: _Pushes | None) -> None:
        self.claim_id = claim_id
        self.pushes = pushes
        self.has_released = False
        self.is_settling = False


class _Pushes:
    """Receives the pushes for a consumer; see `zaqar_gevent.client.exchange.PushHandler`.

    It does not keep the consumer alive: when that was dropped, the server is told to stop.

    answer: to the request that consumes, until somebody has looked at it. is_over: whether nothing
    more will come. to_acknowledge: messages whose acknowledgement waits for the answer to
    the one before it. is_acknowledging: whether there is such a one.
    """

    def __init__(self, consumer: Consumer, target: Target, connection: Connection) -> None:
        soon = target.requester.connector.soon
        self._consumer = weakref.ref(consumer, lambda _: soon(self.stop))
        self.connection = connection
        self.id = ''
        self.answer: Answer | None = None
        self.is_over = False
        self.to_acknowledge: collections.deque[Message] = collections.deque()
        self.is_acknowledging = False

    def on_answer(self, answer: Answer | None) -> None:
        """The answer to the request that consumes; nothing is read before this returns."""
        self.answer = answer
        if answer is None:
            self.on_disconnect()
        elif answer.status == 201:
            self.id = str(answer.body['consumer_id'])
            if self.is_over:
                # It was given up while it was asked for.
                self._tell_server()
            else:
                self.connection.attach(self.id, self)
        consumer = self._consumer()
        if consumer is not None:
            consumer._wake()

    def on_message(self, document: dict[str, Any], size: int) -> None:
        consumer = self._consumer()
        if consumer is not None:
            consumer._take_in(self, document['message'])

    def on_marker(self, marker: str) -> None:
        """A consumer reads after no marker."""

    def on_paused(self) -> None:
        """A consumer is not paused: its credit is limit enough."""

    def on_ended(self, error: AccessEnded | None) -> None:
        self.is_over = True
        consumer = self._consumer()
        if consumer is not None:
            consumer._end_access(self, error)

    def on_disconnect(self) -> None:
        self.is_over = True
        consumer = self._consumer()
        if consumer is not None:
            consumer._disconnected(self)

    def stop(self) -> None:
        """Have no more pushed, and give back what was, without waiting for it."""
        if not self.is_over:
            self.is_over = True
            if self.id:
                self.connection.detach(self.id)
                self._tell_server()

    def _tell_server(self) -> None:
        self.connection.send_unanswered('consumer_stop', {'consumer_id': self.id})


class Consumer(Stream):
    """Iterates over messages, each leased to it until `message.ack()` or `message.release()`.

    Over `zaqar.v2` the server pushes and renews the leases, otherwise the client claims and renews.
    When a connection is lost, the client renews the leases that the server renewed, unless the
    server has ended them. Leases that have ended are forgotten, and their messages come again.
    `close` gives back what is unsettled. Anybody may settle messages and close; one caller at a
    time may iterate.
    """

    def __init__(self, target: Target, credit: int, ttl: int | None, grace: int | None) -> None:
        if credit < 1:
            raise ValueError('The credit must be at least 1.')
        self._target = target
        self._requester = target.requester
        self._credit = credit
        self._terms = {'ttl': ttl, 'grace': grace}
        self._changed = io.Condition()
        self._buffer: collections.deque[Message] = collections.deque()
        self._deliveries: dict[str, _Delivery] = {}
        # The renewer's task does not keep alive what it works for, and ends with it.
        self._renewer = ClaimRenewer(
            weak_method(self._renew), weak_method(self._lost), weak_method(self._release)
        )
        weakref.finalize(self, self._renewer.close).atexit = False
        self._pushes: _Pushes | None = None
        self._denial: AccessEnded | None = None
        # Acknowledgements that nobody waited for: those that failed, and those to be sent again
        # since their connection was lost.
        self._failure: APIError | None = None
        self._failed_ids: list[str] = []
        self._unsent_acks: list[Message] = []
        # Whether the queue has ordered groups, and from when on that is to be asked again.
        self._is_ordered = False
        self._is_ordered_until = 0.0
        # A claim that was asked for by a call that was cancelled.
        self._is_claiming = False
        self._pace = Pace(io.MAX_WAIT_SECONDS)
        self._requester.connector.listen(self._wake)

    @property
    def unsettled(self) -> int:
        """How many messages are leased to this consumer, those not yet received included."""
        return len(self._deliveries)

    def stop(self) -> None:
        """Receive no more: `receive` returns None from now on, and iteration ends.

        Messages that were received may still be settled; `close` gives back the others.
        """
        self._is_stopped = True
        self._wake()

    async def close(self) -> None:
        """Give unsettled messages back, and end; waiting callers are woken.

        Raises LeaseLost or APIError for acknowledgements that nobody waited for and that failed.
        """
        if not self._requester.connector.fork_guard.is_here:
            self._is_closed = self._is_stopped = True
            return
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = self._is_stopped = True
            self._changed.notify_all()
        await self._requester.cleanups.complete(self._give_all_back(), self._nothing)
        self._raise_failures()

    async def _give_all_back(self) -> int:
        """Settle and give back what there is; how many messages were given back."""
        await self._finish_acks()
        with self._changed:
            self._buffer.clear()
            deliveries, self._deliveries = self._deliveries, {}
            pushes, self._pushes = self._pushes, None
        self._requester.connector.forget(self._wake)
        abandoned = self._renewer.close()
        if pushes is not None and not pushes.is_over:
            await self._stop(pushes, deliveries)
        own = {one.claim_id for one in deliveries.values() if one.pushes is None}
        for claim_id in own | abandoned:
            if not await self._give_back(claim_id):
                break
        return len(deliveries)

    def _take_in(self, pushes: _Pushes, document: dict[str, Any]) -> None:
        """A message was pushed, under a lease that the server renews."""
        with self._changed:
            if self._is_closed:
                return
            self._add(document, _Delivery(document['claim_id'], pushes))
            self._changed.notify_all()

    def _disconnected(self, pushes: _Pushes) -> None:
        """The server's connection is gone: renew the leases that it renewed, if they still are.

        Those of messages that nobody has received are given back: somebody else may have them now.
        """
        with self._changed:
            waiting = {message.id for message in self._buffer}
            for message_id, delivery in tuple(self._deliveries.items()):
                if delivery.pushes is pushes:
                    delivery.pushes = None
                    if message_id in waiting:
                        del self._deliveries[message_id]
                        self._renewer.abandon(delivery.claim_id)
                    else:
                        self._renewer.start(delivery.claim_id, 0)
            self._unsent_acks += pushes.to_acknowledge
            pushes.to_acknowledge.clear()
            self._drop_lost()
            self._changed.notify_all()

    def _end_access(self, pushes: _Pushes, error: AccessEnded | None) -> None:
        """The server has ended the consumer and given back its messages; `error` is raised next."""
        with self._changed:
            self._denial = error
            for message_id, delivery in tuple(self._deliveries.items()):
                if delivery.pushes is pushes:
                    del self._deliveries[message_id]
            self._drop_lost()
            self._changed.notify_all()

    def _wake(self) -> None:
        """Let waiting callers look again whether there is anything to do."""
        with self._changed:
            self._changed.notify_all()

    async def _settle_message(self, message: Message, settlement: Settlement, wait: bool) -> bool:
        """Settle a message; whether it was still leased to this consumer."""
        is_done = settlement.is_done
        self._requester.connector.fork_guard.check()
        with self._changed:
            delivery = self._delivery_of(message)
            if delivery is None:
                if not wait:
                    self._failed_ids.append(message.id)
                return not wait
            if is_done and delivery.is_settling:
                return True
            pushes = delivery.pushes
            if is_done and not wait and pushes is not None:
                delivery.is_settling = True
                pushes.to_acknowledge.append(message)
                if pushes.is_acknowledging:
                    return True
                pushes.is_acknowledging = True
        if is_done and not wait and pushes is not None:
            self._send_acks(pushes)
            return True
        settled = await self._settle(message.id, delivery, settlement)
        # What was released by itself is not part of its claim any more.
        await self._forget(message.id, delivery, is_done or bool(settlement.options))
        if not (settled or wait):
            self._failed_ids.append(message.id)
        return settled or not wait

    def _delivery_of(self, message: Message) -> _Delivery | None:
        """The delivery by which a message was received; None if it is over."""
        delivery = self._deliveries.get(message.id)
        return delivery if delivery is not None and delivery.claim_id == message.claim_id else None

    async def _forget(self, message_id: str, delivery: _Delivery, is_done: bool) -> None:
        """A message is settled."""
        with self._changed:
            if self._deliveries.get(message_id) is delivery:
                del self._deliveries[message_id]
            self._changed.notify_all()
        await self._end_claim(delivery, is_done=is_done)

    async def _settle(self, message_id: str, delivery: _Delivery, settlement: Settlement) -> bool:
        pushes = delivery.pushes
        if pushes is not None:
            arguments = {'consumer_id': pushes.id, 'message_ids': [message_id]}
            arguments |= settlement.options
            timeout = self._requester.timeout
            try:
                check(await pushes.connection.perform(settlement.action, arguments, timeout))
                return True
            except NotFound:
                return False
            except Broken:
                # The claim may have ended with the connection, or it may have been settled: what
                # follows is as good as that, and does no harm if it was.
                pass
        if not settlement.is_done and not settlement.options:
            return True
        try:
            if settlement is ACK:
                await self._target.delete_message(message_id, delivery.claim_id)
            else:
                await self._target.settle(
                    settlement.action, message_id, delivery.claim_id, **settlement.options
                )
        except BadRequest:
            # Of a deletion: the claim has ended.
            if settlement is not ACK:
                raise
            return False
        except (Forbidden, NotFound):
            return False
        return True

    def _send_acks(self, pushes: _Pushes) -> None:
        """Acknowledge what waits for it by one request; the answer to it sends the next one.

        So each acknowledgement is sent at once while there are few, and many travel together while
        there are many.
        """
        with self._changed:
            waiting = pushes.to_acknowledge
            messages = [waiting.popleft() for _ in range(min(len(waiting), MAX_ACKS))]
            if not messages:
                pushes.is_acknowledging = False
                self._changed.notify_all()
                return
        self._request_ack(pushes, messages)

    def _request_ack(self, pushes: _Pushes, messages: list[Message]) -> None:
        pushes.connection.send_soon(
            'message_ack',
            {'consumer_id': pushes.id, 'message_ids': [one.id for one in messages]},
            functools.partial(self._acknowledged, pushes, messages),
        )

    def _acknowledged(
        self, pushes: _Pushes, messages: list[Message], answer: Answer | None
    ) -> None:
        """The answer to acknowledgements that nobody waits for, None if there will be none."""
        with self._changed:
            if answer is None:
                self._unsent_acks += messages
            else:
                for message in messages:
                    if self._delivery_of(message) is not None:
                        del self._deliveries[message.id]
                if answer.status == 404:
                    # All others were acknowledged.
                    lost = answer.body.get('message_ids')
                    self._failed_ids += [one.id for one in messages if not lost or one.id in lost]
                elif answer.status >= 400:
                    self._failure = from_answer(answer.status, answer.body)
            self._changed.notify_all()
        self._send_acks(pushes)

    async def _finish_acks(self) -> None:
        """Wait for acknowledgements under way, and send again those whose connection was lost."""
        deadline = time.monotonic() + self._requester.timeout
        with self._changed:
            pushes = self._pushes
            while pushes is not None and pushes.is_acknowledging:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                await self._changed.wait(left)
        try:
            await self._repeat_acks()
        except (*_TROUBLE, ClientClosed) as error:
            LOG.warning('Messages that were acknowledged may come again: %s', error)

    async def _repeat_acks(self) -> None:
        while self._unsent_acks:
            message = self._unsent_acks[-1]
            delivery = self._delivery_of(message)
            if delivery is None:
                self._failed_ids.append(message.id)
            else:
                settled = await self._settle(message.id, delivery, ACK)
                await self._forget(message.id, delivery, True)
                if not settled:
                    self._failed_ids.append(message.id)
            self._unsent_acks.remove(message)

    @property
    def _has_failures(self) -> bool:
        return bool(self._failed_ids) or self._failure is not None

    def _raise_failures(self) -> None:
        with self._changed:
            failure, self._failure = self._failure, None
            failed, self._failed_ids = self._failed_ids, []
        if failure is not None:
            raise failure
        if failed:
            raise LeaseLost(failed)

    async def _end_claim(self, delivery: _Delivery, *, is_done: bool) -> None:
        """When nothing of a claim is unsettled, end it: that gives back what was released."""
        with self._changed:
            others = [one for one in self._deliveries.values() if one.claim_id == delivery.claim_id]
            if others:
                delivery.has_released |= not is_done
                for one in others:
                    one.has_released |= delivery.has_released
                return
        self._renewer.stop(delivery.claim_id)
        if delivery.pushes is None and (delivery.has_released or not is_done):
            await self._give_back(delivery.claim_id)

    async def _give_back(self, claim_id: str) -> bool:
        """Give messages back; False if they become free only when their claim expires."""
        try:
            await self._target.release_claim(claim_id)
        except (*_TROUBLE, APIError, ClientClosed) as error:
            LOG.warning('A claim is left to expire: %s', error)
            return False
        return True

    async def _stop(self, pushes: _Pushes, deliveries: dict[str, _Delivery]) -> None:
        if not pushes.id:
            # It is not answered yet.
            pushes.stop()
            return
        pushes.connection.detach(pushes.id)
        arguments = {'consumer_id': pushes.id}
        try:
            answer = await pushes.connection.perform(
                'consumer_stop', arguments, self._requester.timeout
            )
            check(answer)
        except (ConnectionLost, Timeout, APIError):
            # The leases end with the connection, or are given back one by one.
            for delivery in deliveries.values():
                delivery.pushes = None

    def _add(self, document: dict[str, Any], delivery: _Delivery) -> None:
        message = Message(self._target, document, settle=self._settle_message)
        self._deliveries[message.id] = delivery
        self._buffer.append(message)

    def _take(self) -> Message | None:
        if self._has_failures:
            self._raise_failures()
        with self._changed:
            return self._buffer.popleft() if self._buffer else None

    async def _fetch(self, seconds: float) -> None:
        """Wait for messages, or for anything that changes what to do, at most so long."""
        if self._denial is not None:
            raise self._denial
        began = time.monotonic()
        wait = 0.0
        try:
            if self._unsent_acks:
                await self._repeat_acks()
                return
            link = await self._requester.connector.link(min(seconds, self._requester.timeout))
            if isinstance(link, Connection) and link.kind != 'default':
                await self._have_pushed(link, seconds)
                return
            free = self._credit - len(self._deliveries)
            if free <= 0 or self._is_claiming:
                await self._pause(seconds)
                return
            capabilities = await link.get_capabilities()
            if capabilities.server:
                await self._look_for_order(link)
            wait = min(self._pace.wait(capabilities.max_wait), seconds)
            began = time.monotonic()
            # Of a group one claim at a time has messages: one of one message keeps their order.
            most = 1 if self._is_ordered else MAX_CLAIM_MESSAGES
            found = await self._claim(link, min(free, most), wait)
        except _TROUBLE:
            if wait:
                self._pace.cut(time.monotonic() - began)
            await self._pause(min(self._pace.pause(), seconds))
            return
        if found:
            self._pace.found()
        elif not wait:
            await self._pause(min(self._pace.pause(), seconds))

    async def _look_for_order(self, link: Link) -> None:
        """Know whether the queue has ordered groups; upstream's servers have none."""
        if time.monotonic() < self._is_ordered_until:
            return
        timeout = self._requester.timeout
        answer = await link.perform('queue_get', self._target.arguments(), timeout)
        if answer.status >= 500:
            check(answer)
        # Whoever may not see it keeps the order that there may be.
        self._is_ordered = answer.status >= 400 or bool(answer.body.get('_ordered_groups'))
        self._is_ordered_until = time.monotonic() + LOOK_SECONDS

    async def _have_pushed(self, link: Connection, seconds: float) -> None:
        pushes = self._pushes
        if pushes is None or pushes.is_over or pushes.connection is not link:
            # A call that is cancelled leaves it to the next one.
            pushes = self._pushes = _Pushes(self, self._target, link)
            arguments = self._target.arguments(credit=self._credit, **self._terms)
            timeout = self._requester.timeout
            try:
                await link.perform('queue_consume', arguments, timeout, on_answer=pushes.on_answer)
            except (ConnectionLost, Timeout):
                pushes.stop()
                raise
        answer, pushes.answer = pushes.answer, None
        if answer is not None and answer.status != 201:
            self._pushes = None
            check(answer)
        elif answer is not None:
            self._pace.found()
        with self._changed:
            if not (self._buffer or pushes.is_over or self._is_stopped or self._has_failures):
                await self._changed.wait(min(seconds, MAX_WAIT_SECONDS))

    async def _claim(self, link: Link, count: int, wait: float) -> int:
        """Claim messages and renew their claim; how many there were."""
        return await self._requester.cleanups.complete(
            self._claim_once(link, count, wait), self._nothing
        )

    async def _claim_once(self, link: Link, count: int, wait: float) -> int:
        arguments = self._target.arguments(limit=count, wait=wait or None, **self._terms)
        timeout = self._requester.timeout + wait
        self._is_claiming = True
        try:
            answer = check(await link.perform('claim_create', arguments, timeout))
        finally:
            self._is_claiming = False
            self._wake()
        claim = self._target.read_claim(answer.body)
        if claim.id is None:
            return 0
        with self._changed:
            is_closed = self._is_stopped
            if not is_closed:
                for document in answer.body['messages']:
                    self._add({**document, 'claim_id': claim.id}, _Delivery(claim.id, None))
                self._renewer.start(claim.id, self._ttl)
                self._changed.notify_all()
        if is_closed:
            await claim.release()
        return len(claim)

    async def _nothing(self, _result: int) -> None:
        """Keep what a cancelled call has done: its messages are there for the next call."""

    @property
    def _ttl(self) -> float:
        """For how long a lease is certain to last, in seconds."""
        return float(self._terms['ttl'] or LEAST_TTL_SECONDS)

    async def _renew(self, claim_id: str) -> float:
        """Renew a claim; for how many seconds. Raises NotFound if it has ended."""
        await self._target.renew_claim(claim_id, **self._terms)
        return self._ttl

    async def _release(self, claim_id: str) -> None:
        await self._target.release_claim(claim_id)

    def _lost(self, claim_id: str) -> None:
        """A claim has ended: this consumer does not hold its messages any more."""
        with self._changed:
            for message_id, delivery in tuple(self._deliveries.items()):
                if delivery.claim_id == claim_id:
                    del self._deliveries[message_id]
            self._drop_lost()
            self._changed.notify_all()

    def _drop_lost(self) -> None:
        """Give out no message any more whose lease is lost."""
        kept = [message for message in self._buffer if message.id in self._deliveries]
        self._buffer.clear()
        self._buffer.extend(kept)

    async def _pause(self, seconds: float) -> None:
        with self._changed:
            if not (self._buffer or self._is_stopped):
                await self._changed.wait(min(seconds, MAX_WAIT_SECONDS))
