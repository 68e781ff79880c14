"""Queues that move from one pool to another while they are used.

A queue has a mark in each pool that it is not used from, as a part of its entry there. Whoever
comes to a mark, since what it remembers of the catalogue is old, looks the catalogue up again. The
mark in the old pool decides: it is changed from `closing` to `moved` in one step, and from then on
the queue is in the new pool, whatever the catalogue says.

closing     the last messages are being copied; of no effect after `until`, when whoever set it has
            been killed
moved       the queue is in `pool`, which the catalogue may not say yet
left        the same, and the catalogue says so
arriving    the messages are being copied here; the queue is used from another pool
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec
from zaqar.storage import errors

from zaqar_gevent.storage.core import position_markers
from zaqar_gevent.storage.core.pages import decode_id, encode_id
from zaqar_gevent.storage.records import MessageRecord, QueueRecord, SubscriptionRecord


class MarkState(enum.Enum):
    """See above."""

    CLOSING = 'closing'
    MOVED = 'moved'
    LEFT = 'left'
    ARRIVING = 'arriving'


class Mark(msgspec.Struct, frozen=True):
    """What says that a queue is not used from a pool.

    move: the id of the migration. until: for `closing`, in seconds since the epoch. pool: where the
    queue is, for `moved` and `left`. since: when the mark was set, in seconds since the epoch.
    """

    state: MarkState
    move: str
    until: float = 0.0
    pool: str | None = None
    since: float = 0.0

    def is_in_effect(self, now: float) -> bool:
        return self.state is not MarkState.CLOSING or self.until > now

    def encode(self) -> str:
        return msgspec.json.encode(self).decode()


_decode_mark = msgspec.json.Decoder(Mark).decode


def decode_mark(stored: str) -> Mark:
    """What `Mark.encode` gave."""
    return _decode_mark(stored)


class QueueMoved(errors.ConnectionError):
    """A queue is not used from this pool: it moves, or has moved; nothing has been done."""

    msg_format = 'The queue {queue} is being moved to another pool'

    def __init__(self, project: str, queue: str, mark: Mark) -> None:
        super().__init__(queue=queue)
        self.project = project
        self.queue = queue
        self.mark = mark


class Range(NamedTuple):
    """Numbers that were given by another store, and are others here.

    last: the last number that was given there. shift: what is added to them here.
    """

    last: int
    shift: int

    def inward(self, number: int) -> int:
        """The number here of one that clients know."""
        return number + self.shift if number <= self.last else number

    def outward(self, number: int) -> int:
        """The number that clients know of one here."""
        return number - self.shift if self.shift < number <= self.last + self.shift else number


class Arrival(msgspec.Struct, frozen=True):
    """How the ids and markers that clients know are those of the store that a queue came to.

    They stay as they were: the store has numbers of its own for what came with the queue.

    messages, subscriptions: their numbers. epoch: of these numbers, where the store has epochs.
    prefix, subscription_prefix: for a store whose ids are no numbers: what the ids of messages, and
    of subscriptions, begin with. The two share their names there.
    """

    messages: Range
    subscriptions: Range
    epoch: str | None = None
    prefix: str | None = None
    subscription_prefix: str | None = None

    def encode(self) -> str:
        return msgspec.json.encode(self).decode()

    def message_in(self, public: str) -> str:
        """The id of a message here."""
        return _inward(public, self.messages, self.prefix)

    def message_out(self, own: str) -> str:
        """The id of a message that clients know."""
        return _outward(own, self.messages, self.prefix)

    def subscription_in(self, public: str) -> str:
        """The id of a subscription here."""
        return _inward(public, self.subscriptions, self.subscription_prefix)

    def subscription_out(self, own: str) -> str:
        """The id of a subscription that clients know."""
        return _outward(own, self.subscriptions, self.subscription_prefix)

    def marker_in(self, public: str | None) -> str | None:
        """The marker of this store."""
        marker = position_markers.decode(public)
        if public is None or marker is None or not 0 < marker.id <= self.messages.last:
            return public
        if self.prefix is not None:
            return name(self.prefix, marker.id)
        number = self.messages.inward(marker.id)
        if marker.epoch is None or self.epoch is None:
            return encode_id(number)
        return position_markers.encode(number, self.epoch)

    def marker_out(self, own: str | None) -> str | None:
        """The marker that clients know."""
        if own is None or self.prefix is not None:
            # Names of another store are markers as well, which need not be translated.
            return own
        marker = position_markers.decode(own)
        if marker is None or not marker.id:
            return own
        number = self.messages.outward(marker.id)
        if number == marker.id or marker.epoch is None:
            return own if number == marker.id else encode_id(number)
        return position_markers.encode(number, marker.epoch)


def name(prefix: str, number: int) -> str:
    """The id in a store whose ids are no numbers."""
    return f'{prefix}{number:012x}'


def _inward(public: str, numbers: Range, prefix: str | None) -> str:
    number = decode_id(public)
    if number is None or not 0 < number <= numbers.last:
        return public
    return encode_id(numbers.inward(number)) if prefix is None else name(prefix, number)


def _outward(own: str, numbers: Range, prefix: str | None) -> str:
    if prefix is not None:
        return encode_id(int(own[len(prefix) :], 16)) if own.startswith(prefix) else own
    number = decode_id(own)
    return own if number is None else encode_id(numbers.outward(number))


_decode_arrival = msgspec.json.Decoder(Arrival).decode


def decode_arrival(stored: str | bytes) -> Arrival:
    """What `Arrival.encode` gave."""
    return _decode_arrival(stored)


class MovedMessage(NamedTuple):
    """A message as it is copied from one pool to another; numbers are those that clients know.

    number: its id. position: its place; None for one that has not been visible yet. passed: the
    queues that a delayed one came through by webhooks.
    """

    number: int
    position: int | None
    record: MessageRecord
    passed: str | None = None


class Head(NamedTuple):
    """What changes of a message while it is in a queue. own: its number in the store."""

    number: int
    own: int
    state: int


class Receipt(NamedTuple):
    """What a post with an id was answered. digest: of that id, see `digest`. first: its message."""

    digest: str
    first: int
    expires: float


class NumberedSubscription(NamedTuple):
    """A subscription, whose number clients know."""

    number: int
    record: SubscriptionRecord


class Snapshot(Protocol):
    """A queue as it is at one moment."""

    def count(self) -> int:
        """How many messages there are, about."""
        ...

    def heads(self, *, delayed: bool) -> Iterator[Head]:
        """The visible messages in order; with `delayed`, those that are not yet as well."""
        ...

    def read(self, heads: Sequence[Head]) -> list[MovedMessage]:
        """Those of the messages that exist, in the order of `heads`."""
        ...

    def receipts(self) -> Iterator[Receipt]: ...

    def subscriptions(self) -> Iterator[NumberedSubscription]: ...

    def close(self) -> None: ...


class Origin(Protocol):
    """A queue in the pool that it leaves. Each call is one transaction.

    room: more numbers than are given there while a queue moves.
    """

    room: int

    def get_mark(self) -> Mark | None: ...

    def get_last_numbers(self) -> tuple[int, int]:
        """The last number that a message can have, and a subscription."""
        ...

    def snapshot(self) -> Snapshot: ...

    def close_queue(self, mark: Mark) -> None:
        """Mark the queue; what others had begun before is done when this returns.

        Raises `MoveRefused`.
        """
        ...

    def reopen(self, move: str) -> None:
        """Take a mark `closing` away."""
        ...

    def commit(self, mark: Mark) -> bool:
        """Change `closing` to `mark`, which is `moved`; False if it is of no effect any more."""
        ...

    def leave(self, mark: Mark) -> None:
        """Remove what is left of the queue, but for `mark`."""
        ...

    def close(self) -> None: ...


class Destination(Protocol):
    """A queue in the pool that it comes to. Each call is one transaction."""

    def get_mark(self) -> Mark | None: ...

    def prepare(self, queue: QueueRecord, mark: Mark, last: tuple[int, int]) -> Arrival:
        """Make room for messages and subscriptions up to these numbers, in place of what is there.

        Raises `MoveRefused`.
        """
        ...

    def write(self, messages: Sequence[MovedMessage]) -> None: ...

    def remove(self, numbers: Sequence[int]) -> None: ...

    def write_receipts(self, receipts: Sequence[Receipt]) -> None: ...

    def write_subscriptions(self, subscriptions: Sequence[NumberedSubscription]) -> None: ...

    def finish(self) -> None:
        """Called when all has been written."""
        ...

    def open(self, move: str) -> None:
        """Take the mark `arriving` away."""
        ...

    def discard(self) -> None:
        """Remove what has been written since `prepare`."""
        ...

    def close(self) -> None: ...


class MoveRefused(Exception):
    """A queue cannot be moved; the message says why."""


def digest(post_id: str) -> str:
    """By which the id of a post is known in another store."""
    made = hashlib.blake2b(post_id.encode('utf-8', 'surrogatepass'), digest_size=16)
    return made.hexdigest()
