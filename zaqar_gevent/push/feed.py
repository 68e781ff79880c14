"""The one reader of a queue for all its subscribers in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from logging import ERROR
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event
from gevent.lock import RLock
from oslo_log import log

from zaqar_gevent import greenlets
from zaqar_gevent.api import errors
from zaqar_gevent.api.push import Source
from zaqar_gevent.logs import level_of
from zaqar_gevent.markers import MarkerNotGiven
from zaqar_gevent.push.parcel import Parcel
from zaqar_gevent.push.tail import Entry, Tail

if TYPE_CHECKING:
    from zaqar_gevent.push.subscription import Subscription

LOG = log.getLogger(__name__)

TURN_SECONDS = 0.005
# How long to look for messages that were announced before they were stored, and how often.
_PATIENCE_SECONDS = 5.0
_FIRST_DELAY_SECONDS = 0.01
# A store that fails is asked again after this time.
_OUTAGE_SECONDS = 1.0
# For how long a subscriber whose subscription another process has deleted may go on.
_CHECK_SECONDS = 1.0


class Feed:
    """Reads a queue on whenever there is news, and hands each message to the live subscribers.

    check: called now and then before messages are handed out, to end what is subscribed no more.
    lock: held while messages are handed out, and while a subscriber that has caught up joins.
    cursor: the marker of the last message read; meant only while there are live subscribers.
    followers: how many subscriptions there are, live or not.
    waiting: set whenever there is news, for those who read the queue themselves.
    """

    def __init__(self, source: Source, tail: Tail, check: Callable[[Feed], None]) -> None:
        self.source = source
        self.lock = RLock()
        self.cursor: str | None = None
        self.followers = 0
        self.waiting: set[Event] = set()
        self._tail = tail
        self._check = check
        self._checked_at = 0.0
        self._live: dict[str, Subscription] = {}
        self._news = Event()
        self._is_due = False
        self._expected = 0
        self._look_until = 0.0
        self._is_running = False

    @property
    def is_unused(self) -> bool:
        """Whether nobody listens, or is about to."""
        return not self.followers and not self.waiting

    @property
    def live(self) -> list[Subscription]:
        """The subscribers that messages are handed to."""
        return list(self._live.values())

    def wake(self, expected: int = 0) -> None:
        """There is news; `expected` messages are about to be stored, if they are not yet."""
        for event in self.waiting:
            event.set()
        self.look(expected)

    def look(self, expected: int = 0) -> None:
        """Read on, for the subscribers."""
        self._is_due = True
        self._news.set()
        if expected and self._live:
            self._expected += expected
            self._look_until = time.monotonic() + _PATIENCE_SECONDS
        if self._live and not self._is_running:
            self._is_running = True
            greenlets.spawn(self._run)

    def join(self, subscription: Subscription) -> None:
        """Hand `subscription` what comes from here on; with the lock held."""
        if not self._live:
            self._tail.learn(subscription.tail)
        self._live[subscription.id] = subscription

    def leave(self, subscription: Subscription) -> None:
        """Hand `subscription` nothing any more."""
        self._live.pop(subscription.id, None)

    def arrive(self) -> None:
        """Come to the end of the queue, whether or not somebody listens; with the lock held.

        The cursor is never a marker that a client has given: what is none would lead nowhere.
        """
        self._advance()
        if not self._live:
            self.cursor = self._tail.end()

    def _advance(self) -> None:
        """Hand out all that can be read; with the lock held."""
        while self._live:
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
        for subscription in self._live.values():
            subscription.ahead.clear()

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
        turn = time.monotonic() + TURN_SECONDS
        for entry in entries:
            parcel = Parcel(self.source.name, entry)
            for subscription in tuple(self._live.values()):
                subscription.take(parcel)
                if time.monotonic() > turn:
                    gevent.sleep(greenlets.MOMENT)
                    turn = time.monotonic() + TURN_SECONDS
            self.cursor = entry.marker
            self._expected = max(0, self._expected - 1)
