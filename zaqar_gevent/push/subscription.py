"""One subscriber: a connection that listens to a queue."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from logging import ERROR
from typing import Any

import gevent
from oslo_log import log

from zaqar_gevent.api import documents
from zaqar_gevent.api.grants import Grant
from zaqar_gevent.api.push import Recipient, Source
from zaqar_gevent.filters import Filter
from zaqar_gevent.logs import level_of
from zaqar_gevent.markers import MarkerNotGiven
from zaqar_gevent.push.encoded import EncodedBatch, EncodedMessage, format_of, prefix_of
from zaqar_gevent.push.feed import Feed
from zaqar_gevent.push.tail import Tail

LOG = log.getLogger(__name__)

_OUTAGE_SECONDS = 1.0


Key = tuple[Source, str]
"""A queue and the id of a subscription, which may occur in another queue, too: of another pool."""


class State(enum.Enum):
    """The state of a subscription: reading older messages, listening, or idle."""

    CATCHING_UP = enum.auto()
    LIVE = enum.auto()
    PAUSED = enum.auto()
    ENDED = enum.auto()


# PERF: of an enumeration, a member is slow to look up.
_LIVE = State.LIVE


class PushSubscription:
    """Gets a queue's messages to one connection, each once and in order.

    marker: of the last message that was pushed.
    ahead: ids of messages pushed already that the feed has yet to come past.
    filter: which messages it gets; None for all. Its marker moves on past the others.
    form: how its messages are written. binary: whether that is MsgPack.
    created_at: in seconds of `time.monotonic`.
    too_slow: called when the client does not take what it is sent.
    grant: it ends with this. over: called when a message cannot be pushed since that has ended; it
    stops the subscription. astray: called when the store has never given the marker; likewise.
    """

    def __init__(
        self,
        subscription_id: str,
        feed: Feed,
        tail: Tail,
        recipient: Recipient,
        too_slow: Callable[[PushSubscription], None],
        over: Callable[[PushSubscription], None],
        astray: Callable[[PushSubscription], None],
        marker: str | None,
        *,
        compact: bool,
        binary: bool,
        extended: bool,
        grant: Grant,
        filter_: Filter | None = None,
    ) -> None:
        self.id = subscription_id
        self.filter = filter_
        self._compact = compact
        self._told_marker = marker
        self._tell_at = time.monotonic() + feed.tell_seconds
        self.feed = feed
        self.marker = marker
        self.ahead: set[str] = set()
        self.state = State.PAUSED
        self.created_at = time.monotonic()
        self.tail = tail
        self._recipient = recipient
        self._too_slow = too_slow
        self._over = over
        self._astray = astray
        self.grant = grant
        self.binary = binary
        self._prefix = prefix_of(subscription_id, binary=binary) if compact else b''
        self.form = format_of(
            len(self._prefix) if compact else None, binary, extended and not compact
        )
        self._frame_head = recipient.frame_head

    @property
    def key(self) -> Key:
        """A key that no other subscription has."""
        return self.feed.source, self.id

    @property
    def source(self) -> Source:
        """The queue."""
        return self.feed.source

    def start(self) -> None:
        """Push what follows the marker, then what is posted."""
        self.state = State.CATCHING_UP
        gevent.spawn(self._catch_up)

    def stop(self, state: State) -> None:
        """Push nothing any more; `state` is PAUSED or ENDED."""
        self.state = state
        self.ahead.clear()
        self.feed.leave(self)

    def take(self, batch: EncodedBatch) -> None:
        """Push messages that the feed has come to, unless they have been pushed already."""
        if self.state is not _LIVE:
            return
        head = self._frame_head
        if head is not None and not self.ahead and not self.grant.is_over:
            pieces, size = batch.frames(self.form, head)
            frames = self._prefix.join(pieces)
            if self._recipient.push_frames(frames, batch.count, size, binary=self.binary):
                self.marker = self._told_marker = batch.marker
                return
        for encoded in batch.messages:
            self._take_one(encoded)

    def pass_to(self, marker: str | None) -> None:
        """The feed has come as far as `marker` and had nothing else for this subscription."""
        if marker is not None and self.state is _LIVE and not self.ahead:
            self.marker = marker

    def tell_marker(self) -> None:
        """Tell the client how far it has come, so that it resumes from there.

        Nothing else tells a client for whom nothing has come for long.
        """
        self._tell_at = time.monotonic() + self.feed.tell_seconds
        if not self._compact or self.marker in (None, self._told_marker):
            return
        push = {
            'push': 'marker',
            'subscription_id': self.id,
            'queue_name': self.source.name,
            'marker': self.marker,
        }
        data = documents.encode(push, binary=self.binary)
        if self._recipient.has_room(len(data)) and not self.grant.is_over:
            self._told_marker = self.marker
            self._recipient.push(data, binary=self.binary, kind='marker', grant=self.grant)

    def lose_place(self) -> None:
        """Nothing can follow the marker, which this store has never given."""
        self._astray(self)

    def say(self, push: dict[str, Any], *, kind: str) -> None:
        """Push something about the subscription, whether there is room or not."""
        data = documents.encode(push, binary=self.binary)
        self._recipient.push(data, binary=self.binary, kind=kind)

    def _fall_behind(self) -> None:
        """There is no room for a message."""
        if self._recipient.is_answering:
            # The server is slow, not the client: it is read on when the requests are answered.
            self.feed.leave(self)
            self.start()
        else:
            self._too_slow(self)

    def _take_one(self, encoded: EncodedMessage) -> None:
        if self.state is not State.LIVE:
            return
        if encoded.id in self.ahead:
            self.ahead.discard(encoded.id)
        elif not self._push(encoded):
            self._fall_behind()

    def _push(self, encoded: EncodedMessage) -> bool:
        """Whether there was room for the message, or the subscription has ended."""
        if self.grant.is_over:
            self._over(self)
            return True
        binary = self.binary
        payload = self._prefix + self.form.shared(encoded)
        if not self._recipient.has_room(len(payload)):
            return False
        self._recipient.push(payload, binary=binary, kind='message', grant=self.grant)
        self.marker = self._told_marker = encoded.marker
        return True

    def _catch_up(self) -> None:
        """Read on to the end, at the client's pace, and join the feed there."""
        while self.state is State.CATCHING_UP and self._recipient.is_open:
            try:
                if self._read_on():
                    continue
                with self.feed.lock:
                    if self._join():
                        return
            except MarkerNotGiven:
                self.lose_place()
                return
            except Exception as error:
                LOG.log(
                    level_of(error, ERROR),
                    'Subscription %s cannot read its queue: %s',
                    self.id,
                    error,
                )
                gevent.sleep(_OUTAGE_SECONDS)
            self._recipient.wait_for_room()

    def _read_on(self) -> bool:
        """Push the next messages; False when there are none, or no room for them."""
        entries = self.tail.after(self.marker)
        for entry in entries:
            encoded = EncodedMessage(self.feed.source.name, entry)
            if not self._is_wanted(encoded):
                self.marker = encoded.marker
                continue
            while self.state is State.CATCHING_UP and not self._push(encoded):
                self._recipient.wait_for_room()
                if not self._recipient.is_open:
                    return False
        self._tell_marker_now_and_then()
        return bool(entries)

    def _tell_marker_now_and_then(self) -> None:
        if self.filter is not None and time.monotonic() >= self._tell_at:
            self.tell_marker()

    def _is_wanted(self, encoded: EncodedMessage) -> bool:
        return self.filter is None or self.filter.meets(encoded.attributes)

    def _join(self) -> bool:
        """Read the last messages and join the feed; False when there is no room for them.

        The feed is brought up to date first, so whatever was pushed from here before is behind it.
        What is pushed now may still lie before it.
        """
        self.feed.arrive()
        while entries := self.tail.after(self.marker):
            for entry in entries:
                if self.state is not State.CATCHING_UP:
                    return True
                encoded = EncodedMessage(self.feed.source.name, entry)
                if not self._is_wanted(encoded):
                    self.marker = encoded.marker
                    continue
                if not self._push(encoded):
                    return False
                self.ahead.add(encoded.id)
        if self.state is State.CATCHING_UP:
            self.state = State.LIVE
            self.feed.join(self)
            self._tell_marker_now_and_then()
        return True
