# Written by `tox -e genblocking` from client/aio/subscription.py: change that one.
# fmt: off
"""A subscription: each message of a queue once and in order, whatever it comes over."""

from __future__ import annotations

import collections
import logging
import re
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Self

from zaqar_gevent.client.sync import io
from zaqar_gevent.client.sync.connection import Connection
from zaqar_gevent.client.sync.connector import Link
from zaqar_gevent.client.sync.message import Message
from zaqar_gevent.client.sync.stream import Stream
from zaqar_gevent.client.sync.target import Target
from zaqar_gevent.client.errors import (
    UNKNOWN_MARKER,
    AccessEnded,
    BadRequest,
    Conflict,
    ConnectionLost,
    ServiceUnavailable,
    Timeout,
    Unsupported,
)
from zaqar_gevent.client.fallback import Pace
from zaqar_gevent.client.filters import parse
from zaqar_gevent.client.links import Answer, Broken, check

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


class _Handler:
    """Passes news from a connection to a subscription, without keeping it alive.

    is_over: whether nothing more will come.
    """

    def __init__(self, subscription: weakref.ref[Subscription]) -> None:
        self._subscription = subscription
        self.is_over = False

    def on_ended(self, error: AccessEnded | None) -> None:
        self.is_over = True
        subscription = self._subscription()
        if subscription is not None:
            subscription._end_access(error)

    def on_disconnect(self) -> None:
        self.is_over = True
        subscription = self._subscription()
        if subscription is not None:
            subscription._wake()


class _Pushes(_Handler):
    """Receives the pushes for a subscription; see `zaqar_gevent.client.exchange.PushHandler`.

    If more comes than there is room for, the rest is dropped, and the server told to stop: it is
    read from the queue when its turn comes. The same when the subscription was dropped, which this
    does not keep alive.

    answer: to the request that subscribes, until somebody has looked at it.
    """

    def __init__(self, subscription: Subscription, target: Target, connection: Connection) -> None:
        soon = target.requester.connector.soon
        super().__init__(weakref.ref(subscription, lambda _: soon(self.stop)))
        self._deletion = target.action('subscription_delete')
        self._arguments = target.arguments()
        self.connection = connection
        self.id = ''
        self.marker: str | None = None
        self.answer: Answer | None = None

    def on_answer(self, answer: Answer | None) -> None:
        """The answer to the request that subscribes; nothing is read before this returns."""
        self.answer = answer
        if answer is None:
            self.on_disconnect()
        elif answer.status == 201:
            self.id = str(answer.body['subscription_id'])
            self.marker = answer.body.get('marker')
            if self.is_over:
                # It was given up while it was asked for.
                self._tell_server()
            else:
                self.connection.attach(self.id, self)
        subscription = self._subscription()
        if subscription is not None:
            subscription._wake()

    def on_message(self, document: dict[str, Any], size: int) -> None:
        subscription = self._subscription()
        if (
            subscription is not None
            and not self.is_over
            and not subscription._offer(self, document, size)
        ):
            self.stop()

    def on_marker(self, marker: str) -> None:
        subscription = self._subscription()
        if subscription is not None and not self.is_over:
            subscription._pass_to(marker)

    def on_paused(self) -> None:
        self.stop()

    def stop(self) -> None:
        """Have no more pushed."""
        if not self.is_over:
            if self.id:
                self.connection.detach(self.id)
                self._tell_server()
            self.on_disconnect()

    def _tell_server(self) -> None:
        arguments = {**self._arguments, 'subscription_id': self.id}
        self.connection.send_unanswered(self._deletion, arguments)


class _Notifications(_Handler):
    """A push in upstream's envelope: it only says that there is something to read.

    It says neither for which subscription nor from which place in the queue.
    """

    def __init__(self, subscription: Subscription, target: Target, connection: Connection) -> None:
        super().__init__(weakref.ref(subscription))
        self._queue_name = target.name
        self.connection = connection

    def on_answer(self, answer: Answer | None) -> None:
        """The answer to the request that subscribes."""
        if answer is not None and answer.status == 201:
            self.connection.attach(self._queue_name, self)

    def on_message(self, document: dict[str, Any], size: int) -> None:
        subscription = self._subscription()
        if subscription is not None:
            subscription._notify()

    def on_marker(self, marker: str) -> None:
        """Upstream's envelope has nothing of the kind."""

    def on_paused(self) -> None:
        """Upstream's envelope has nothing of the kind."""


class Subscription(Stream):
    """Iterates over the messages of a queue or topic: those there are, then those that are posted.

    A lost connection is made anew, and while the client polls, so does this: the messages are the
    same, each once and in order. For one caller at a time; anybody may call `close`.

    When the server's store was made anew or restored from a backup, it does not know the marker of
    the last message any more. Then this begins again with the oldest message of the queue, logs a
    warning and calls `on_restart`.

    marker: where to subscribe again to get what follows the last message that was taken. With a
    filter it moves on past messages that do not meet it.
    restarts: how often it has begun again.
    """

    def __init__(
        self,
        target: Target,
        marker: str | None,
        buffer: int,
        on_restart: Callable[[], None] | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
    ) -> None:
        self.restarts = 0
        # What the server does where it pushes, this does where it polls.
        self._filter = None if filter is None else parse(filter, 'filter')
        self._on_restart = on_restart
        self._target = target
        self.marker = marker
        self._requester = target.requester
        self._buffer: collections.deque[tuple[Message, int]] = collections.deque()
        self._buffer_messages = buffer
        self._buffer_bytes = 0
        self._fetched = marker
        self._seen: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._woken = io.Condition()
        self._is_notified = False
        self._pushes: _Pushes | None = None
        self._notifications: _Notifications | None = None
        self._is_behind = False
        self._denial: AccessEnded | None = None
        self._pace = Pace(io.MAX_WAIT_SECONDS)
        self._requester.connector.listen(self._wake)

    @classmethod
    def open(
        cls,
        target: Target,
        marker: str | None,
        buffer: int,
        on_restart: Callable[[], None] | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
    ) -> Self:
        """A subscription that misses nothing that is posted from now on."""
        subscription = cls(target, marker, buffer, on_restart, filter)
        try:
            subscription._begin()
        except BaseException:
            subscription.close()
            raise
        return subscription

    def close(self) -> None:
        """End it; waiting callers are woken."""
        self._is_closed = self._is_stopped = True
        if not self._requester.connector.fork_guard.is_here:
            return
        self._requester.connector.forget(self._wake)
        pushes, self._pushes = self._pushes, None
        if pushes is not None:
            pushes.stop()
        notifications, self._notifications = self._notifications, None
        if notifications is not None:
            notifications.connection.detach(self._target.name)
        with self._woken:
            self._buffer.clear()
            self._woken.notify_all()

    def _wake(self) -> None:
        """Let waiting callers look again whether there is anything to do."""
        with self._woken:
            self._woken.notify_all()

    def _end_access(self, error: AccessEnded | None) -> None:
        """The server has ended the subscription; `error` is raised when all that came is taken."""
        self._denial = error
        self._notify()

    def _notify(self) -> None:
        """There is something to be read."""
        with self._woken:
            self._is_notified = True
            self._woken.notify_all()

    def _offer(self, pushes: _Pushes, document: dict[str, Any], size: int) -> bool:
        """Take what was pushed; False where there is no room for it."""
        with self._woken:
            if self._is_closed or pushes.is_over:
                return True
            if (
                len(self._buffer) >= self._buffer_messages
                or self._buffer_bytes + size > MAX_BUFFER_BYTES
            ) and self._buffer:
                self._is_behind = True
                return False
            message = Message(self._target, document['message'], document.get('marker'))
            self._keep(message, size)
            self._woken.notify_all()
        return True

    def _keep(self, message: Message, size: int) -> None:
        self._buffer.append((message, size))
        self._buffer_bytes += size
        self._fetched = message.marker if message.marker is not None else self._fetched

    def _pass_to(self, marker: str) -> None:
        """Up to this marker there is nothing more for this subscription."""
        with self._woken:
            self._fetched = marker
            if not self._buffer:
                self.marker = marker

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
        deadline = time.monotonic() + self._requester.timeout
        while True:
            link = self._requester.connector.link(deadline - time.monotonic(), is_urgent=True)
            try:
                if isinstance(link, Connection) and link.kind != 'default':
                    self._pushes = self._subscribe(link)
                if self._fetched is None:
                    self._fetched = self.marker = self._end_of_queue(link)
                return
            except BadRequest as error:
                self._begin_again(error)
            except (ConnectionLost, Timeout, ServiceUnavailable) as error:
                left = deadline - time.monotonic()
                if left <= 0 and isinstance(error, Broken):
                    raise error.public() from error
                if left <= 0:
                    raise
                self._pause(min(self._pace.pause(), left))

    def _fetch(self, seconds: float) -> None:
        """Wait for messages, or for anything that changes what to do, at most so long."""
        if self._denial is not None:
            raise self._denial
        began = time.monotonic()
        wait = 0.0
        try:
            link = self._requester.connector.link(min(seconds, self._requester.timeout))
            max_wait = (link.get_capabilities()).max_wait
            wait = 0.0 if self._is_behind else min(self._pace.wait(max_wait), seconds)
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
            self._pause(min(self._pace.pause(), seconds))
            return
        self._is_behind = found >= PAGE_MESSAGES
        if found:
            self._pace.found()
        elif not wait:
            self._pause(min(self._pace.pause(), seconds))

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
        LOG.warning('%r begins again with the oldest message: %s', self._target, error)
        if self._on_restart is not None:
            self._on_restart()

    def _is_pushed(self, link: Connection, seconds: float) -> bool:
        """Whether the connection pushes: then it has been waited for that, at most so long."""
        if link.kind == 'default':
            self._be_notified(link)
            return False
        pushes = self._pushes
        if pushes is not None and (pushes.is_over or pushes.connection is not link):
            pushes.on_disconnect()
            pushes = self._pushes = None
        if self._is_behind:
            return False
        if pushes is None:
            pushes = self._subscribe(link)
        elif pushes.answer is not None:
            # A call that was cancelled had asked for it.
            pushes = self._accept(pushes, pushes.answer)
        if pushes is None:
            return False
        with self._woken:
            if self._buffer or pushes.is_over or self._is_closed:
                return True
            is_silent = not self._woken.wait(min(seconds, CHECK_SECONDS))
        if is_silent and seconds > CHECK_SECONDS:
            self._verify(link, pushes)
        return True

    def _verify(self, link: Connection, pushes: _Pushes) -> None:
        """Subscribe again if the server has ended the subscription, of which it says nothing.

        It does when the queue is deleted, or its subscriptions are purged.
        """
        action = self._target.action('subscription_get')
        arguments = self._target.arguments(subscription_id=pushes.id)
        answer = link.perform(action, arguments, self._requester.timeout)
        if answer.status == 404:
            link.detach(pushes.id)
            pushes.on_disconnect()

    def _subscribe(self, link: Connection) -> _Pushes | None:
        """Have what follows pushed.

        None if another subscription of the connection already has the queue's messages pushed, so
        that this one has to ask for them.
        """
        # A call that is cancelled leaves it to the next one.
        pushes = self._pushes = _Pushes(self, self._target, link)
        options = None if self._filter is None else {'filter': self._filter.document}
        arguments = self._target.arguments(marker=self._fetched, options=options)
        action = self._target.action('subscription_create')
        timeout = self._requester.timeout
        try:
            answer = link.perform(action, arguments, timeout, on_answer=pushes.on_answer)
        except (ConnectionLost, Timeout):
            pushes.stop()
            raise
        return self._accept(pushes, answer)

    def _accept(self, pushes: _Pushes, answer: Answer) -> _Pushes | None:
        """The pushes that the server has answered for, as `_subscribe` says."""
        pushes.answer = None
        if answer.status != 201:
            self._pushes = None
            try:
                check(answer)
            except Conflict:
                return None
        if self._fetched is None:
            self._fetched = self.marker = pushes.marker or ''
        self._pace.found()
        return pushes

    def _be_notified(self, link: Connection) -> None:
        """Have a connection of upstream's envelope say when there is something to read."""
        old = self._notifications
        if old is not None and old.connection is link and not old.is_over:
            return
        new = self._notifications = _Notifications(self, self._target, link)
        action = self._target.action('subscription_create')
        arguments = self._target.arguments()
        link.perform(action, arguments, self._requester.timeout, on_answer=new.on_answer)

    def _pull(self, link: Link, wait: float) -> int:
        """Read the next page into the buffer; how many messages it has."""
        before = self._fetched
        self._is_notified = False
        messages, following = self._page(link, before, wait)
        with self._woken:
            new = [one for one in messages if one.id not in self._seen]
            for message in messages:
                if self._filter is None or self._filter.meets(message.attributes):
                    self._keep(message, 0)
                elif message.marker is not None:
                    self._pass_to(message.marker)
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
        capabilities = link.get_capabilities()
        is_upstream = link.kind == 'rest' and not capabilities.protocols
        if self._filter is not None and not capabilities.server:
            raise Unsupported('This server keeps no attributes of messages, which a filter needs.')
        arguments = self._target.arguments(
            marker=marker or BEFORE_ALL,
            limit=PAGE_MESSAGES,
            echo=True,
            include_claimed=True,
            # A server of upstream's does not move a delayed message behind what was visible before.
            include_delayed=True if is_upstream else None,
            # Who may wait is told where an empty page stands.
            wait=wait if capabilities.max_wait else None,
        )
        action = self._target.action('message_list')
        answer = check(link.perform(action, arguments, self._requester.timeout + wait))
        return self._target.read_page(answer.body, marker), answer.body.get('marker')

    def _end_of_queue(self, link: Link) -> str:
        """The marker of the newest message, '' where there is none."""
        action = self._target.action('queue_get_stats')
        answer = link.perform(action, self._target.arguments(), self._requester.timeout)
        if answer.status == 404:
            return ''
        newest = check(answer).body['messages'].get('newest')
        if newest is not None:
            message_id = str(newest.get('id') or newest['href'].rsplit('/', 1)[-1])
            if not _OBJECT_ID.fullmatch(message_id):
                return self._marker_of(link, message_id)
        marker = ''
        while page := (self._page(link, marker, 0))[0]:
            if page[-1].marker == marker:
                break
            marker = page[-1].marker or ''
        return marker

    def _marker_of(self, link: Link, message_id: str) -> str:
        """The marker of a message whose id is one already, as far as that goes."""
        if not (link.get_capabilities()).max_wait:
            return message_id
        found, following = self._page(link, message_id, 0)
        if found or not following:
            return message_id
        return following

    def _pause(self, seconds: float) -> None:
        """Do nothing for so long, unless there is something to do."""
        with self._woken:
            if not (self._is_closed or self._is_notified):
                self._woken.wait(seconds)
