"""The one reader of a queue for all its subscribers in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import ERROR
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event
from gevent.lock import RLock
from oslo_log import log

from zaqar_gevent import greenlets
from zaqar_gevent.api import errors
from zaqar_gevent.api.filter_index import FilterIndex, Group
from zaqar_gevent.api.push import News, Source
from zaqar_gevent.logs import level_of
from zaqar_gevent.markers import MarkerNotGiven
from zaqar_gevent.push.encoded import EncodedBatch, EncodedMessage, batches
from zaqar_gevent.push.tail import Entry, Tail

if TYPE_CHECKING:
    from zaqar_gevent.push.subscription import PushSubscription

LOG = log.getLogger(__name__)

# Of those who wait for news, so many are woken before others have a turn: each reads the queue.
_WOKEN_AT_ONCE = 8
# For how long messages are handed out before others have a turn: others' answers wait for it.
TIME_SLICE_SECONDS = 0.002
# How long to look for messages that were announced before they were stored, and how often.
_PATIENCE_SECONDS = 5.0
_FIRST_DELAY_SECONDS = 0.01
# A store that fails is asked again after this time.
_OUTAGE_SECONDS = 1.0
# For how long a subscriber whose subscription another process has deleted may go on.
_CHECK_SECONDS = 1.0


class _TakingListener:
    """The takers of messages from a queue; see `zaqar_gevent.api.push.News`.

    While it does not wait it may be taking, and learns of all news.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._event = Event()
        feed.waiting.add(self._event)

    def wait(self, timeout: float) -> object:
        """Wait until there may be something to take, or for `timeout` seconds."""
        feed, event = self._feed, self._event
        if event.is_set():
            return True
        feed.waiting.discard(event)
        feed.takers[event] = None
        try:
            return event.wait(timeout)
        finally:
            feed.takers.pop(event, None)
            feed.waiting.add(event)

    def clear(self) -> object:
        return self._event.clear()

    def set(self) -> None:
        """End a wait."""
        self._event.set()

    def leave(self) -> None:
        """Take nothing any more."""
        self._feed.waiting.discard(self._event)
        self._feed.wake_taker()


class Feed:
    """Reads a queue on whenever there is news, and hands each message to the live subscribers.

    check: called now and then before messages are handed out, to end what is subscribed no more.
    lock: held while messages are handed out, and while a subscriber that has caught up joins.
    cursor: the marker of the last message read; meant only while there are live subscribers.
    followers: how many subscriptions there are, live or not.
    waiting: told whenever there is news: they read the queue themselves.
    tell_seconds: how often clients with a filter are told how far the queue was read.
    takers: those that wait to take messages from the queue, who has waited longest first. With news
        one of them is woken; when it has taken something, or does not want it, it wakes the next.
    """

    tell_seconds = 10.0

    def __init__(self, source: Source, tail: Tail, check: Callable[[Feed], None]) -> None:
        self.source = source
        self.lock = RLock()
        self.cursor: str | None = None
        self.followers = 0
        self.waiting: set[Event] = set()
        self.takers: dict[Event, None] = {}
        self._tail = tail
        self._check = check
        self._checked_at = 0.0
        self._tell_at = 0.0
        # Of those that messages are handed to, those without a filter and those with one.
        self._unfiltered: dict[str, PushSubscription] = {}
        self._filtered: FilterIndex[PushSubscription] = FilterIndex()
        # Those that have joined since the end of the queue was reached last.
        self._joined: list[PushSubscription] = []
        self._news = Event()
        self._is_due = False
        self._expected = 0
        self._slice_end = 0.0
        self._look_until = 0.0
        self._is_running = False
        self._is_told_of = True
        self._is_waking = False

    @property
    def is_unused(self) -> bool:
        """Whether nobody listens, or is about to."""
        return not self.followers and not self.is_waited_for

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody reads or takes from the queue, beside the subscribers."""
        return bool(self.waiting or self.takers)

    @property
    def live(self) -> list[PushSubscription]:
        """The subscribers that messages are handed to."""
        return [*self._unfiltered.values(), *self._filtered.members()]

    @property
    def _has_live(self) -> bool:
        return bool(self._unfiltered or len(self._filtered))

    def wake(self, expected: int = 0) -> None:
        """There is news; `expected` messages are about to be stored, if they are not yet."""
        self._is_told_of = False
        if not self._is_waking:
            self._wake_waiting()
        self.wake_taker()
        self.look(expected)

    def _wake_waiting(self) -> None:
        """Tell those who wait, some at a time; news that comes meanwhile is told of after it."""
        if len(self.waiting) > _WOKEN_AT_ONCE:
            self._is_waking = True
            greenlets.spawn(self._wake_in_turns)
            return
        self._is_told_of = True
        for event in self.waiting:
            event.set()

    def _wake_in_turns(self) -> None:
        while not self._is_told_of:
            self._is_told_of = True
            for number, event in enumerate(tuple(self.waiting), 1):
                event.set()
                if not number % _WOKEN_AT_ONCE:
                    gevent.sleep(greenlets.MOMENT)
        self._is_waking = False

    def wake_taker(self) -> None:
        """There may be something to take, for one."""
        for taker in self.takers:
            # It is waited for no more, so that the next time another one is woken.
            del self.takers[taker]
            taker.set()
            return

    def release(self) -> None:
        """Nobody is to wait any more."""
        for event in (*self.waiting, *self.takers):
            event.set()
        self.takers.clear()
        self.look()

    def look(self, expected: int = 0) -> None:
        """Read on, for the subscribers."""
        self._is_due = True
        self._news.set()
        if expected and self._has_live:
            self._expected += expected
            self._look_until = time.monotonic() + _PATIENCE_SECONDS
        if self._has_live and not self._is_running:
            self._is_running = True
            greenlets.spawn(self._run)

    @contextmanager
    def listening(self, *, takes: bool) -> Iterator[News]:
        """Be told of news; who `takes` messages is woken one after the other."""
        if takes:
            taker = _TakingListener(self)
            try:
                yield taker
            finally:
                taker.leave()
        else:
            event = Event()
            self.waiting.add(event)
            try:
                yield event
            finally:
                self.waiting.discard(event)

    def join(self, subscription: PushSubscription) -> None:
        """Hand `subscription` what comes from here on; with the lock held."""
        if not self._has_live:
            self._tail.learn(subscription.tail)
        if subscription.filter is None:
            self._unfiltered[subscription.id] = subscription
        else:
            if not len(self._filtered):
                self._tell_at = time.monotonic() + self.tell_seconds
            self._filtered.add(subscription.id, subscription, subscription.filter)
        self._joined.append(subscription)

    def leave(self, subscription: PushSubscription) -> None:
        """Hand `subscription` nothing any more."""
        self._unfiltered.pop(subscription.id, None)
        self._filtered.discard(subscription.id)

    def arrive(self) -> None:
        """Come to the end of the queue, whether or not somebody listens; with the lock held.

        The cursor is never a marker that a client has given: what is none would lead nowhere.
        """
        self._advance()
        if not self._has_live:
            self.cursor = self._tail.end()

    def _advance(self) -> None:
        """Hand out all that can be read; with the lock held."""
        while self._has_live:
            try:
                entries = self._tail.after(self.cursor)
            except MarkerNotGiven:
                # The store is another one than before.
                for subscription in self.live:
                    subscription.lose_place()
                break
            if not entries:
                break
            self._check_now_and_then()
            self._hand_out(entries)
        for subscription in self._joined:
            subscription.ahead.clear()
        self._joined.clear()
        self._tell_markers()

    def _tell_markers(self) -> None:
        """Tell those with a filter how far the queue was read, from time to time."""
        now = time.monotonic()
        if not len(self._filtered) or now < self._tell_at:
            return
        self._tell_at = now + self.tell_seconds
        for subscription in greenlets.in_turns(list(self._filtered.members())):
            subscription.pass_to(self.cursor)
            subscription.tell_marker()

    def _check_now_and_then(self) -> None:
        now = time.monotonic()
        if now >= self._checked_at + _CHECK_SECONDS:
            self._check(self)
            self._checked_at = now

    def _run(self) -> None:
        delay = _FIRST_DELAY_SECONDS
        while self._is_due or self._is_expecting():
            if self._is_due or self._news.wait(delay):
                delay = _FIRST_DELAY_SECONDS
            else:
                delay *= 2
            self._is_due = False
            self._news.clear()
            self._advance_safely()
        self._expected = 0
        self._is_running = False

    def _is_expecting(self) -> bool:
        return self._expected > 0 and time.monotonic() < self._look_until

    def _advance_safely(self) -> None:
        """A store that fails is tried again later: what is in the queue stays there."""
        try:
            with self.lock:
                self._advance()
        except Exception as error:
            if not isinstance(error, errors.APIError):
                LOG.log(
                    level_of(error, ERROR),
                    'Queue %s cannot be read for its subscribers: %s',
                    self.source.name,
                    error,
                )
            self._is_due = True
            gevent.sleep(_OUTAGE_SECONDS)

    def _hand_out(self, entries: list[Entry]) -> None:
        messages = [EncodedMessage(self.source.name, entry) for entry in entries]
        self._slice_end = time.monotonic() + TIME_SLICE_SECONDS
        if len(self._filtered):
            self._hand_out_filtered(messages)
        if self._unfiltered:
            form = next(iter(self._unfiltered.values())).form
            for batch in batches(messages, form):
                self._give(batch, list(self._unfiltered.values()))
                self._pass_to(batch.marker, batch.count)
        else:
            self._pass_to(messages[-1].marker, len(messages))

    def _pass_to(self, marker: str, count: int) -> None:
        """So many messages have been handed out, up to a marker."""
        self.cursor = marker
        self._expected = max(0, self._expected - count)

    def _hand_out_filtered(self, messages: list[EncodedMessage]) -> None:
        """Hand messages to those whose filter they meet.

        PERF: nobody else is looked at. The others' markers are that of the feed, which they are
        given when it matters.
        """
        met: dict[Group[PushSubscription], list[EncodedMessage]] = {}
        for encoded in messages:
            for group in self._filtered.meeting(encoded.attributes):
                met.setdefault(group, []).append(encoded)
        for group, wanted in met.items():
            subscriptions = list(group.members.values())
            if not subscriptions:
                # They have ended meanwhile.
                continue
            for subscription in subscriptions:
                subscription.pass_to(self.cursor)
            for batch in batches(wanted, subscriptions[0].form):
                self._give(batch, subscriptions)

    def _give(self, batch: EncodedBatch, subscriptions: list[PushSubscription]) -> None:
        """Hand a batch to subscribers; others have a turn in between."""
        for subscription in subscriptions:
            subscription.take(batch)
            if time.monotonic() > self._slice_end:
                gevent.sleep(greenlets.MOMENT)
                self._slice_end = time.monotonic() + TIME_SLICE_SECONDS
