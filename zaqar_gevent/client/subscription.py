"""A subscription: each message of a queue once and in order, whatever it comes over."""

from __future__ import annotations

import collections
import logging
import re
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zaqar_gevent.client.connection import Connection
from zaqar_gevent.client.errors import (
    UNKNOWN_MARKER,
    AccessEnded,
    BadRequest,
    Conflict,
    ConnectionLost,
    ServiceUnavailable,
    Timeout,
)
from zaqar_gevent.client.fallback import Pace
from zaqar_gevent.client.links import Answer, Link, check
from zaqar_gevent.client.message import Message
from zaqar_gevent.client.stream import Stream

if TYPE_CHECKING:
    from zaqar_gevent.client.queue import Source

LOG = logging.getLogger(__name__)

PAGE_MESSAGES = 20
# Ids that have come are remembered: some stores begin anew after a marker that is gone.
REMEMBERED_IDS = 10_000
# Whatever the number, so much may wait to be taken.
MAX_BUFFER_BYTES = 8 * 1024 * 1024
# After so long without a message it is looked whether there still is a subscription.
CHECK_SECONDS = 60.0

# Upstream's driver for Redis cannot list claimed messages without a marker; in no store has a
# message one that comes before this. The embedded store takes none of another length.
BEFORE_ALL = '0000000000000000'

# MongoDB's ids, which are no markers.
_OBJECT_ID = re.compile('[0-9a-f]{24}')


class _Feed:
    """What a connection pushes for a subscription; see `zaqar_gevent.client.connection.Feed`.

    Of more than there is room for, the rest is dropped, and the server told to stop: it is read
    from the queue when its turn comes. The same when the subscription was dropped, which this does
    not keep alive. is_over: whether nothing more will come.
    """

    def __init__(self, subscription: Subscription, connection: Connection) -> None:
        source = subscription.source
        soon = source.client.connector.soon
        self._subscription = weakref.ref(subscription, lambda _: soon(self.stop))
        self._deletion = source.action('subscription_delete')
        self._arguments = source.arguments()
        self.connection = connection
        self.id = ''
        self.marker: str | None = None
        self.is_over = False

    def begin(self, answer: Answer) -> None:
        """The answer to the request that subscribes; called by the reading thread."""
        if answer.status == 201:
            self.id = str(answer.body['subscription_id'])
            self.marker = answer.body.get('marker')
            self.connection.attach(self.id, self)

    def push(self, document: dict[str, Any], size: int) -> None:
        subscription = self._subscription()
        if (
            subscription is not None
            and not self.is_over
            and not subscription.offer(self, document, size)
        ):
            self.stop()

    def pause(self) -> None:
        self.stop()

    def expel(self, error: AccessEnded | None) -> None:
        self.is_over = True
        subscription = self._subscription()
        if subscription is not None:
            subscription.expelled(error)

    def end(self) -> None:
        self.is_over = True
        subscription = self._subscription()
        if subscription is not None:
            subscription.wake()

    def stop(self) -> None:
        """Have no more pushed."""
        if not self.is_over:
            self.connection.detach(self.id)
            arguments = {**self._arguments, 'subscription_id': self.id}
            self.connection.tell(self._deletion, arguments)
            self.end()


class _Bell:
    """What upstream's envelope pushes: neither whose it is nor where it stands, but that there is
    something to be read."""

    def __init__(self, subscription: Subscription, connection: Connection) -> None:
        self._subscription = weakref.ref(subscription)
        self.connection = connection
        self.is_over = False

    def push(self, document: dict[str, Any], size: int) -> None:
        subscription = self._subscription()
        if subscription is not None:
            subscription.ring()

    def pause(self) -> None:
        """Upstream's envelope has nothing of the kind."""

    def expel(self, error: AccessEnded | None) -> None:
        self.is_over = True
        subscription = self._subscription()
        if subscription is not None:
            subscription.expelled(error)

    def end(self) -> None:
        self.is_over = True
        subscription = self._subscription()
        if subscription is not None:
            subscription.wake()


class Subscription(Stream):
    """Iterates over the messages of a queue or topic, those there are and those that are posted.

    A connection that is lost is made anew, and where the client polls, this does: the messages are
    the same, each once and in order. For one thread at a time; `close` may be called by any.

    When the server's store was made anew or restored from a backup, it does not know the marker of
    the last message any more. Then this begins again with the oldest message of the queue, logs a
    warning and calls `on_restart`.

    marker: where to subscribe again to get what follows the last message that was taken.
    restarts: how often it has begun again.
    """

    def __init__(
        self,
        source: Source,
        marker: str | None,
        buffer: int,
        on_restart: Callable[[], None] | None = None,
    ) -> None:
        self.restarts = 0
        self._on_restart = on_restart
        self.source = source
        self.marker = marker
        self._client = source.client
        self._buffer: collections.deque[tuple[Message, int]] = collections.deque()
        self._buffer_messages = buffer
        self._buffer_bytes = 0
        self._fetched = marker
        self._seen: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._woken = threading.Condition()
        self._is_rung = False
        self._feed: _Feed | None = None
        self._bell: _Bell | None = None
        self._is_behind = False
        self._denial: AccessEnded | None = None
        self._pace = Pace()
        self._client.connector.listen(self.wake)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it; whoever waits for a message is woken."""
        self._is_closed = True
        if not self._client.connector.home.is_here:
            return
        self._client.connector.forget(self.wake)
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.stop()
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.connection.detach(self.source.name)
        with self._woken:
            self._buffer.clear()
            self._woken.notify_all()

    def wake(self) -> None:
        """Whoever waits is to look again whether there is anything to do."""
        with self._woken:
            self._woken.notify_all()

    def expelled(self, error: AccessEnded | None) -> None:
        """The server has ended the subscription; `error` is raised when all that came is taken."""
        self._denial = error
        self.ring()

    def ring(self) -> None:
        """There is something to be read."""
        with self._woken:
            self._is_rung = True
            self._woken.notify_all()

    def offer(self, feed: _Feed, document: dict[str, Any], size: int) -> bool:
        """Take what was pushed; False where there is no room for it."""
        with self._woken:
            if self._is_closed or feed.is_over:
                return True
            if (
                len(self._buffer) >= self._buffer_messages
                or self._buffer_bytes + size > MAX_BUFFER_BYTES
            ) and self._buffer:
                self._is_behind = True
                return False
            message = Message(self.source, document['message'], document.get('marker'))
            self._keep(message, size)
            self._woken.notify_all()
        return True

    def _keep(self, message: Message, size: int) -> None:
        self._buffer.append((message, size))
        self._buffer_bytes += size
        self._fetched = message.marker if message.marker is not None else self._fetched

    def _take(self) -> Message | None:
        """The next message that has come already and has not been given out yet."""
        with self._woken:
            while self._buffer:
                message, size = self._buffer.popleft()
                self._buffer_bytes -= size
                if message.marker is not None:
                    self.marker = message.marker
                if message.id not in self._seen:
                    self._seen[message.id] = None
                    if len(self._seen) > REMEMBERED_IDS:
                        self._seen.popitem(last=False)
                    return message
        return None

    def _begin(self) -> None:
        """Be subscribed, or know where to read on: nothing posted from now on is to be missed."""
        deadline = time.monotonic() + self._client.timeout
        while True:
            link = self._client.connector.link(deadline - time.monotonic(), is_urgent=True)
            try:
                if isinstance(link, Connection) and link.kind != 'default':
                    self._feed = self._subscribe(link)
                if self._fetched is None:
                    self._fetched = self.marker = self._end_of_queue(link)
                return
            except BadRequest as error:
                self._begin_again(error)
            except (ConnectionLost, Timeout, ServiceUnavailable):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                self._rest(min(self._pace.pause(), left))

    def _fetch(self, seconds: float) -> None:
        """Wait for messages, or for anything that changes what to do, at most so long."""
        if self._denial is not None:
            raise self._denial
        began = time.monotonic()
        wait = 0.0
        try:
            link = self._client.connector.link(min(seconds, self._client.timeout))
            wait = 0.0 if self._is_behind else min(self._longest_wait(link), seconds)
            if isinstance(link, Connection) and self._is_pushed(link, seconds):
                return
            began = time.monotonic()
            found = self._pull(link, wait)
        except BadRequest as error:
            self._begin_again(error)
            return
        except (ConnectionLost, Timeout, ServiceUnavailable):
            if wait:
                self._pace.cut(time.monotonic() - began)
            self._rest(min(self._pace.pause(), seconds))
            return
        self._is_behind = found >= PAGE_MESSAGES
        if found:
            self._pace.found()
        elif not wait:
            self._rest(min(self._pace.pause(), seconds))

    def _begin_again(self, error: BadRequest) -> None:
        """Read from the start if the store does not know the marker; else raise the error."""
        if error.code != UNKNOWN_MARKER or not self._fetched:
            raise error
        with self._woken:
            if self._buffer:
                # They come first.
                return
            self._fetched = self.marker = ''
            # The ids of another store are others' by now.
            self._seen.clear()
        self.restarts += 1
        LOG.warning('%r begins again with the oldest message: %s', self.source, error)
        if self._on_restart is not None:
            self._on_restart()

    def _longest_wait(self, link: Link) -> float:
        return self._pace.wait(link.capabilities.max_wait)

    def _is_pushed(self, link: Connection, seconds: float) -> bool:
        """Whether the connection pushes: then it has been waited for that, at most so long."""
        if link.kind == 'default':
            self._have_rung(link)
            return False
        feed = self._feed
        if feed is not None and (feed.is_over or feed.connection is not link):
            feed.end()
            feed = self._feed = None
        if self._is_behind:
            return False
        if feed is None:
            feed = self._feed = self._subscribe(link)
        if feed is None:
            return False
        with self._woken:
            if self._buffer or feed.is_over or self._is_closed:
                return True
            is_silent = not self._woken.wait(min(seconds, CHECK_SECONDS))
        if is_silent and seconds > CHECK_SECONDS:
            self._verify(link, feed)
        return True

    def _verify(self, link: Connection, feed: _Feed) -> None:
        """Subscribe again where the server has ended the subscription, of which it says nothing: as
        when the queue is deleted, or its subscriptions are purged."""
        action = self.source.action('subscription_get')
        arguments = self.source.arguments(subscription_id=feed.id)
        if link.perform(action, arguments, self._client.timeout).status == 404:
            link.detach(feed.id)
            feed.end()

    def _subscribe(self, link: Connection) -> _Feed | None:
        """Have what follows pushed; None where another subscription of the connection already has
        the queue's messages pushed, so that this one has to ask for them."""
        feed = _Feed(self, link)
        arguments = self.source.arguments(marker=self._fetched)
        action = self.source.action('subscription_create')
        answer = link.perform(action, arguments, self._client.timeout, on_answer=feed.begin)
        try:
            check(answer)
        except Conflict:
            return None
        if self._fetched is None:
            self._fetched = self.marker = feed.marker or ''
        self._pace.found()
        return feed

    def _have_rung(self, link: Connection) -> None:
        """Be told by a connection of upstream's envelope that there is something to be read."""
        bell = self._bell
        if bell is not None and bell.connection is link and not bell.is_over:
            return
        self._bell = _Bell(self, link)
        arguments = self.source.arguments()
        action = self.source.action('subscription_create')
        if link.perform(action, arguments, self._client.timeout).status == 201:
            link.attach(self.source.name, self._bell)

    def _pull(self, link: Link, wait: float) -> int:
        """Read the next page into the buffer; how many messages it has."""
        before = self._fetched
        self._is_rung = False
        messages, following = self._page(link, before, wait)
        with self._woken:
            new = [one for one in messages if one.id not in self._seen]
            for message in messages:
                self._keep(message, 0)
            if not messages and following:
                # The same place, as the store knows it again for certain.
                self._fetched = following
                if not self._buffer:
                    self.marker = following
        # A page that brings nothing new may be on the way to one that does, but not for ever.
        return len(messages) if new or self._fetched != before else 0

    def _page(
        self, link: Link, marker: str | None, wait: float
    ) -> tuple[list[Message], str | None]:
        """The messages that follow a marker, and the marker of the page, if it has one."""
        is_upstream = link.kind == 'rest' and not link.capabilities.protocols
        arguments = self.source.arguments(
            marker=marker or BEFORE_ALL,
            limit=PAGE_MESSAGES,
            echo=True,
            include_claimed=True,
            # A server of upstream's does not move a delayed message behind what was visible before.
            include_delayed=True if is_upstream else None,
            # Who may wait is told where an empty page stands.
            wait=wait if link.capabilities.max_wait else None,
        )
        action = self.source.action('message_list')
        answer = check(link.perform(action, arguments, self._client.timeout + wait))
        return self.source.read_page(answer.body, marker), answer.body.get('marker')

    def _end_of_queue(self, link: Link) -> str:
        """The marker of the newest message, '' where there is none."""
        action = self.source.action('queue_get_stats')
        answer = link.perform(action, self.source.arguments(), self._client.timeout)
        if answer.status == 404:
            return ''
        newest = check(answer).body['messages'].get('newest')
        if newest is not None:
            message_id = str(newest.get('id') or newest['href'].rsplit('/', 1)[-1])
            if not _OBJECT_ID.fullmatch(message_id):
                return self._marker_of(link, message_id)
        marker = ''
        while page := self._page(link, marker, 0)[0]:
            if page[-1].marker == marker:
                break
            marker = page[-1].marker or ''
        return marker

    def _marker_of(self, link: Link, message_id: str) -> str:
        """The marker of a message whose id is one already, as far as that goes."""
        if not link.capabilities.max_wait:
            return message_id
        found, following = self._page(link, message_id, 0)
        if found or not following:
            return message_id
        return following

    def _rest(self, seconds: float) -> None:
        """Do nothing for so long, unless there is something to do."""
        with self._woken:
            if not (self._is_closed or self._is_rung):
                self._woken.wait(seconds)
