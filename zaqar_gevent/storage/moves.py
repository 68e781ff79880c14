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
import re
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
    """A mark in a pool: the queue is not used from there.

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
    """Decode the result of `Mark.encode`."""
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
        return number - self.shift if self.has(number) else number

    def has(self, number: int) -> bool:
        """Whether a number here was given by the other store."""
        return self.shift < number <= self.last + self.shift


class RankedIds(msgspec.Struct, frozen=True):
    """How the numbers of messages follow from ids that Redis has given.

    Such an id ends with the rank at which it was posted. That of a message with a delay has the
    rank in its middle, see `unplaced_id` in shared.lua. Ranks begin with 0, and numbers with 1.

    start: what the ids of the queue begin with. until: up to this number, it is the rank and 1;
        later ones, which another Redis has given, are the ranks.
    """

    start: str
    until: int

    def number(self, public: str) -> int | None:
        """The number that an id stands for; None for what is no such id."""
        if not public.startswith(self.start) or _RANKED.fullmatch(public) is None:
            return None
        _, high, middle, low, last = public.split('-')
        rank = int(high + middle[1:] + low[1:] if low[0] == _DELAYED else last, 16)
        return rank + 1 if rank < self.until else rank


_DELAYED = 'b'
_RANKED = re.compile('[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[ab][0-9a-f]{3}-[0-9a-f]{12}')


class Arrival(msgspec.Struct, frozen=True):
    """How the ids and markers that clients know are those of the store that a queue came to.

    They stay as they were: the store has numbers of its own for what came with the queue.

    messages, subscriptions: their numbers. epoch: of these numbers, where the store has epochs.
    prefix, subscription_prefix: for a store whose ids are no numbers: what the ids of messages, and
    of subscriptions, begin with. The two share their names there. ranked: how messages are named
    that were posted to a Redis. subscription_ids: those of subscriptions that were made there, by
    number.
    """

    messages: Range
    subscriptions: Range
    epoch: str | None = None
    prefix: str | None = None
    subscription_prefix: str | None = None
    ranked: RankedIds | None = None
    subscription_ids: dict[int, str] = {}

    def encode(self) -> str:
        return msgspec.json.encode(self).decode()

    def message_in(self, public: str) -> str:
        """The id of a message here."""
        if self.ranked is not None and self.prefix is None:
            number = self.ranked.number(public)
            if number is not None and number <= self.messages.last:
                return encode_id(self.messages.inward(number))
        return _inward(public, self.messages, self.prefix)

    def message_out(self, own: str, known_as: str | None = None) -> str:
        """The id of a message that clients know. known_as: what is stored of that."""
        if known_as is not None and self.has_message(own):
            return known_as
        return _outward(own, self.messages, self.prefix)

    def has_message(self, own: str) -> bool:
        """Whether a message here came with the queue, by its id; in a store of numbers."""
        number = decode_id(own)
        return number is not None and self.messages.has(number)

    def subscription_in(self, public: str) -> str:
        """The id of a subscription here."""
        if self.subscription_prefix is None:
            for number, known_as in self.subscription_ids.items():
                if known_as == public:
                    return encode_id(self.subscriptions.inward(number))
        return _inward(public, self.subscriptions, self.subscription_prefix)

    def subscription_out(self, own: str) -> str:
        """The id of a subscription that clients know."""
        public = _outward(own, self.subscriptions, self.subscription_prefix)
        number = decode_id(own)
        if number is None or not self.subscriptions.has(number):
            return public
        return self.subscription_ids.get(self.subscriptions.outward(number), public)

    def marker_in(self, public: str | None) -> str | None:
        """The marker of this store."""
        if public is not None and self.ranked is not None and self.prefix is None:
            own = self.message_in(public)
            if own != public:
                return own
            if _UUID.fullmatch(public) is not None:
                # Of a message that is gone, and had no place in its id: Redis begins anew, too.
                return None
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


_UUID = re.compile('[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')

_decode_arrival = msgspec.json.Decoder(Arrival).decode


def decode_arrival(stored: str | bytes) -> Arrival:
    """Decode the result of `Arrival.encode`."""
    return _decode_arrival(stored)


class MovedMessage(NamedTuple):
    """A message as it is copied from one pool to another; numbers are those that clients know.

    number: its id. position: its place; None for one that has not been visible yet. passed: the
    queues that a delayed one came through by webhooks. known_as: its id where that is no number.
    """

    number: int
    position: int | None
    record: MessageRecord
    passed: str | None = None
    known_as: str | None = None


class Head(NamedTuple):
    """The parts of a message that change while it is in a queue. own: its number in the store."""

    number: int
    own: int
    state: int


class Receipt(NamedTuple):
    """What a post with an id was answered.

    digest: of that id, see `digest`. first: the number of its first message. ids: of its messages,
    if they are no numbers.
    """

    digest: str
    first: int
    expires: float
    ids: tuple[str, ...] = ()


class NumberedSubscription(NamedTuple):
    """A subscription, whose number clients know; or its id, where that is no number."""

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

    room: more numbers than are given there while a queue moves. ranked: how messages are named that
        have been posted to a Redis.
    """

    room: int

    @property
    def ranked(self) -> RankedIds | None: ...

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

    def prepare(
        self, queue: QueueRecord, mark: Mark, last: tuple[int, int], ranked: RankedIds | None
    ) -> Arrival:
        """Make room for messages and subscriptions up to these numbers, in place of what is there.

        ranked: see `Origin`.

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
