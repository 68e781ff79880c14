"""A consumer: works on a queue's messages, each leased to it until it is settled."""

from __future__ import annotations

import collections
import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from zaqar_gevent.client.connection import Connection
from zaqar_gevent.client.errors import (
    AccessEnded,
    APIError,
    BadRequest,
    ClientClosed,
    ConnectionLost,
    Forbidden,
    NotFound,
    ServiceUnavailable,
    Timeout,
)
from zaqar_gevent.client.fallback import Pace
from zaqar_gevent.client.leases import Keeper, Lease
from zaqar_gevent.client.lifetime import weakly
from zaqar_gevent.client.links import Answer, Broken, Link, check
from zaqar_gevent.client.message import Message
from zaqar_gevent.client.stream import Stream

if TYPE_CHECKING:
    from zaqar_gevent.client.queue import Queue

LOG = logging.getLogger(__name__)

# Upstream's default limit of messages a claim.
MAX_CLAIM_MESSAGES = 20
MAX_WAIT_SECONDS = 3600.0
# No server lets a claim live shorter than that, unless it is told to.
LEAST_TTL_SECONDS = 60.0

_TROUBLE = (ConnectionLost, Timeout, ServiceUnavailable)
# What the server says of a message whose claim has ended.
_LOST = (BadRequest, Forbidden, NotFound)


class _Feed:
    """What a connection pushes to a consumer; see `zaqar_gevent.client.connection.Feed`.

    It does not keep the consumer alive: when that was dropped, the server is told to stop.
    """

    def __init__(self, consumer: Consumer, connection: Connection) -> None:
        soon = consumer.queue.client.connector.soon
        self._consumer = weakref.ref(consumer, lambda _: soon(self._stop))
        self.connection = connection
        self.id = ''
        self.is_over = False

    def begin(self, answer: Answer) -> None:
        """The answer to the request that consumes; called by the reading thread."""
        if answer.status == 201:
            self.id = str(answer.body['consumer_id'])
            self.connection.attach(self.id, self)

    def push(self, document: dict[str, Any], size: int) -> None:
        consumer = self._consumer()
        if consumer is not None:
            consumer.take(self, document['message'])

    def pause(self) -> None:
        """A consumer is not paused: its credit is limit enough."""

    def expel(self, error: AccessEnded | None) -> None:
        self.is_over = True
        consumer = self._consumer()
        if consumer is not None:
            consumer.expelled(self, error)

    def end(self) -> None:
        self.is_over = True
        consumer = self._consumer()
        if consumer is not None:
            consumer.orphan(self)

    def _stop(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.connection.detach(self.id)
            self.connection.tell('consumer_stop', {'consumer_id': self.id})


class Consumer(Stream):
    """Iterates over messages, each leased to it until `message.ack()` or `message.release()`.

    Over `zaqar.v2` the server pushes and keeps the leases, else the client claims and renews. When
    a connection is lost, the leases that were the server's to keep are the client's from then on,
    where the server has not ended them; those that have ended are forgotten, and their messages
    come again. `close` gives back what is unsettled. Any thread may settle and close; one at a time
    may iterate.
    """

    def __init__(self, queue: Queue, credit: int, ttl: int | None, grace: int | None) -> None:
        if credit < 1:
            raise ValueError('The credit must be at least 1.')
        self.queue = queue
        self._client = queue.client
        self._credit = credit
        self._terms = {'ttl': ttl, 'grace': grace}
        self._changed = threading.Condition()
        self._buffer: collections.deque[Message] = collections.deque()
        self._leases: dict[str, Lease] = {}
        # The keeper's thread does not keep alive what it works for, and ends with it.
        self._keeper = Keeper(weakly(self._renew), weakly(self._lost), weakly(self._release))
        weakref.finalize(self, self._keeper.close).atexit = False
        self._feed: _Feed | None = None
        self._denial: AccessEnded | None = None
        self._pace = Pace()
        self._client.connector.listen(self._wake)

    @property
    def unsettled(self) -> int:
        """How many messages are leased to this consumer, those not yet taken included."""
        return len(self._leases)

    def close(self) -> None:
        """Give back what is unsettled, and end; whoever waits for a message is woken."""
        if not self._client.connector.home.is_here:
            self._is_closed = True
            return
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            self._buffer.clear()
            leases, self._leases = self._leases, {}
            feed, self._feed = self._feed, None
            self._changed.notify_all()
        self._client.connector.forget(self._wake)
        abandoned = self._keeper.close()
        if feed is not None and not feed.is_over:
            feed.connection.detach(feed.id)
            self._stop(feed, leases)
        own = {lease.claim_id for lease in leases.values() if lease.feed is None}
        for claim_id in own | abandoned:
            if not self._give_back(claim_id):
                return

    def take(self, feed: _Feed, document: dict[str, Any]) -> None:
        """A message was pushed, under a lease that the server keeps."""
        with self._changed:
            if self._is_closed:
                return
            self._add(document, Lease(document['claim_id'], feed))
            self._changed.notify_all()

    def orphan(self, feed: _Feed) -> None:
        """The server's connection is gone: keep the leases that it kept, if they still are.

        Those of messages that nobody has taken are given back: they may be somebody else's by now.
        """
        with self._changed:
            waiting = {message.id for message in self._buffer}
            for message_id, lease in tuple(self._leases.items()):
                if lease.feed is feed:
                    lease.feed = None
                    if message_id in waiting:
                        del self._leases[message_id]
                        self._keeper.abandon(lease.claim_id)
                    else:
                        self._keeper.keep(lease.claim_id, 0)
            self._drop_lost()
            self._changed.notify_all()

    def expelled(self, feed: _Feed, error: AccessEnded | None) -> None:
        """The server has ended the consumer and given back its messages; `error` is raised next."""
        with self._changed:
            self._denial = error
            for message_id, lease in tuple(self._leases.items()):
                if lease.feed is feed:
                    del self._leases[message_id]
            self._drop_lost()
            self._changed.notify_all()

    def settle(self, message: Message, is_done: bool) -> bool:
        """Delete or give back a message; whether it was still leased to this consumer."""
        self._client.connector.home.check()
        with self._changed:
            lease = self._leases.get(message.id)
            if lease is None or lease.claim_id != message.claim_id:
                return False
        settled = self._settle(message.id, lease, is_done)
        with self._changed:
            if self._leases.get(message.id) is lease:
                del self._leases[message.id]
            self._changed.notify_all()
        self._close_claim(lease, is_done=is_done)
        return settled

    def _settle(self, message_id: str, lease: Lease, is_done: bool) -> bool:
        feed = lease.feed
        if feed is not None:
            action = 'message_ack' if is_done else 'message_release'
            arguments = {'consumer_id': feed.id, 'message_ids': [message_id]}
            try:
                check(feed.connection.perform(action, arguments, self._client.timeout))
                return True
            except NotFound:
                return False
            except Broken:
                # The claim may have ended with the connection, or it may have been settled: what
                # follows is as good as that, and is no harm where it was.
                pass
        if not is_done:
            return True
        try:
            self.queue.delete_message(message_id, lease.claim_id)
        except _LOST:
            return False
        return True

    def _close_claim(self, lease: Lease, *, is_done: bool) -> None:
        """When nothing of a claim is unsettled, end it: so is given back what was released."""
        with self._changed:
            if any(one.claim_id == lease.claim_id for one in self._leases.values()):
                lease.has_released |= not is_done
                for one in self._leases.values():
                    if one.claim_id == lease.claim_id:
                        one.has_released |= lease.has_released
                return
        self._keeper.forget(lease.claim_id)
        if lease.feed is None and (lease.has_released or not is_done):
            self._give_back(lease.claim_id)

    def _give_back(self, claim_id: str) -> bool:
        """What cannot be given back is free when its claim expires; whether it could be."""
        try:
            self.queue.release_claim(claim_id)
        except (*_TROUBLE, APIError, ClientClosed) as error:
            LOG.warning('A claim is left to expire: %s', error)
            return False
        return True

    def _stop(self, feed: _Feed, leases: dict[str, Lease]) -> None:
        arguments = {'consumer_id': feed.id}
        try:
            check(feed.connection.perform('consumer_stop', arguments, self._client.timeout))
        except (ConnectionLost, Timeout, APIError):
            # The leases end with the connection, or are given back one by one.
            for lease in leases.values():
                lease.feed = None

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _add(self, document: dict[str, Any], lease: Lease) -> None:
        message = Message(self.queue, document, settle=self.settle)
        self._leases[message.id] = lease
        self._buffer.append(message)

    def _take(self) -> Message | None:
        with self._changed:
            return self._buffer.popleft() if self._buffer else None

    def _fetch(self, seconds: float) -> None:
        """Wait for messages, or for anything that changes what to do, at most so long."""
        if self._denial is not None:
            raise self._denial
        began = time.monotonic()
        wait = 0.0
        try:
            link = self._client.connector.link(min(seconds, self._client.timeout))
            if isinstance(link, Connection) and link.kind != 'default':
                self._have_pushed(link, seconds)
                return
            free = self._credit - len(self._leases)
            if free <= 0:
                self._rest(seconds)
                return
            wait = min(self._pace.wait(link.capabilities.max_wait), seconds)
            began = time.monotonic()
            found = self._claim(link, min(free, MAX_CLAIM_MESSAGES), wait)
        except _TROUBLE:
            if wait:
                self._pace.cut(time.monotonic() - began)
            self._rest(min(self._pace.pause(), seconds))
            return
        if found:
            self._pace.found()
        elif not wait:
            self._rest(min(self._pace.pause(), seconds))

    def _have_pushed(self, link: Connection, seconds: float) -> None:
        feed = self._feed
        if feed is None or feed.is_over or feed.connection is not link:
            feed = _Feed(self, link)
            arguments = self.queue.arguments(credit=self._credit, **self._terms)
            timeout = self._client.timeout
            check(link.perform('queue_consume', arguments, timeout, on_answer=feed.begin))
            with self._changed:
                self._feed = feed
            self._pace.found()
        with self._changed:
            if not (self._buffer or feed.is_over or self._is_closed):
                self._changed.wait(min(seconds, MAX_WAIT_SECONDS))

    def _claim(self, link: Link, count: int, wait: float) -> int:
        """Claim messages and keep their claim; how many there were."""
        arguments = self.queue.arguments(limit=count, wait=wait or None, **self._terms)
        answer = check(link.perform('claim_create', arguments, self._client.timeout + wait))
        claim = self.queue.read_claim(answer.body)
        if claim.id is None:
            return 0
        with self._changed:
            is_closed = self._is_closed
            if not is_closed:
                for document in answer.body['messages']:
                    self._add({**document, 'claim_id': claim.id}, Lease(claim.id, None))
                self._keeper.keep(claim.id, self._ttl)
        if is_closed:
            claim.release()
        return len(claim)

    @property
    def _ttl(self) -> float:
        """For how long a lease is certain to last, in seconds."""
        return float(self._terms['ttl'] or LEAST_TTL_SECONDS)

    def _renew(self, claim_id: str) -> float:
        """Renew a claim; for how many seconds. Raises NotFound where it has ended."""
        self.queue.renew_claim(claim_id, **self._terms)
        return self._ttl

    def _release(self, claim_id: str) -> None:
        self.queue.release_claim(claim_id)

    def _lost(self, claim_id: str) -> None:
        """A claim has ended: whoever has its messages now, this consumer has not."""
        with self._changed:
            for message_id, lease in tuple(self._leases.items()):
                if lease.claim_id == claim_id:
                    del self._leases[message_id]
            self._drop_lost()
            self._changed.notify_all()

    def _drop_lost(self) -> None:
        """Give out no message any more whose lease is lost."""
        kept = [message for message in self._buffer if message.id in self._leases]
        self._buffer.clear()
        self._buffer.extend(kept)

    def _rest(self, seconds: float) -> None:
        with self._changed:
            if not (self._buffer or self._is_closed):
                self._changed.wait(min(seconds, MAX_WAIT_SECONDS))
