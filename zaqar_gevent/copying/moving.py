"""Moves a queue from one pool to another while it is used; see `storage.moves`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import uuid
from collections.abc import Callable, Sequence
from typing import TypeVar

from oslo_utils import timeutils
from zaqar.storage import errors

from zaqar_gevent.storage.interface import CatalogueController
from zaqar_gevent.storage.moves import (
    Arrival,
    Destination,
    Head,
    Mark,
    MarkState,
    MoveRefused,
    Origin,
    Snapshot,
)
from zaqar_gevent.storage.pooled_queues import PLACE_SECONDS
from zaqar_gevent.storage.records import QueueRecord

CLOSED_SECONDS = 15.0
"""How long a queue is closed at most; requests of its users wait for 5 s, and get 503 then."""

AWAY_SECONDS = 2 * PLACE_SECONDS
"""How long ago a queue must have left a pool to which it returns: servers remember where it was."""

MAX_ROUNDS = 8
SHORT_ROUND = 0.3
"""Rounds go over what has changed since the last one, until one takes no longer than this, in
seconds."""

BATCH = 100
"""Messages that are written in one transaction, at most."""

_REMOVED = 1000

_T = TypeVar('_T')


@dataclasses.dataclass
class Counts:
    """Counts of what has been moved.

    messages: that the queue had in the end. claimed, delayed: of these. copied: records written,
    those that changed meanwhile more than once. rounds: how often the queue was gone over. pause:
    how long it was closed, in seconds. was_interrupted: whether this was the end of a migration
    that had been interrupted.
    """

    messages: int = 0
    claimed: int = 0
    delayed: int = 0
    subscriptions: int = 0
    copied: int = 0
    rounds: int = 0
    pause: float = 0.0
    was_interrupted: bool = False


class Mover:
    """Moves one queue between two pools, which the catalogue names.

    progress: called with the messages that have been copied, and about how many there are.
    """

    def __init__(
        self,
        queue: QueueRecord,
        origin: Origin,
        destination: Destination,
        catalogue: CatalogueController,
        target: str,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._queue = queue
        self._origin = origin
        self._destination = destination
        self._catalogue = catalogue
        self._target = target
        self._progress = progress
        self._move = uuid.uuid4().hex
        self._seen: dict[int, int] = {}
        self._claimed: set[int] = set()
        self._delayed = 0
        self._may_be_moved = False
        self._counts = Counts()
        self._total = 0

    def run(self) -> Counts:
        """Move it; raises `MoveRefused`, and what the stores raise."""
        mark = self._wait_for_others()
        if mark is not None and mark.state is MarkState.MOVED:
            return self._end_interrupted(mark)
        self._check_destination()
        try:
            self._copy_all()
        except BaseException:
            if not self._may_be_moved:
                # What a killed command leaves, the next one removes.
                with contextlib.suppress(errors.ExceptionBase, MoveRefused):
                    self._destination.discard()
            raise
        self._counts.messages = len(self._seen)
        self._counts.claimed = len(self._claimed)
        self._counts.delayed = self._delayed
        return self._counts

    def _copy_all(self) -> None:
        last, last_subscription = self._origin.get_last_numbers()
        arriving = Mark(MarkState.ARRIVING, self._move, since=_now())
        room = self._origin.room
        arrival = self._destination.prepare(
            self._queue, arriving, (last + room, last_subscription + room), self._origin.ranked
        )
        for _ in range(MAX_ROUNDS):
            began = time.monotonic()
            self._go_over(delayed=False)
            if time.monotonic() - began <= SHORT_ROUND:
                break
        self._move_rest(arrival)

    def _wait_for_others(self) -> Mark | None:
        """The mark of the queue, once no other migration has closed it."""
        deadline = time.monotonic() + CLOSED_SECONDS + 1
        while True:
            mark = self._origin.get_mark()
            if mark is None or mark.state is not MarkState.CLOSING:
                return mark
            if time.monotonic() >= deadline:
                raise MoveRefused('another migration of this queue is at work')
            time.sleep(0.1)

    def _end_interrupted(self, mark: Mark) -> Counts:
        if mark.pool != self._target:
            raise MoveRefused(
                f'a migration to the pool {mark.pool!r} was interrupted when all had been moved. '
                f'Run it again with --to-pool {mark.pool}, to end it'
            )
        self._complete(mark.move)
        return Counts(was_interrupted=True)

    def _check_destination(self) -> None:
        mark = self._destination.get_mark()
        if mark is None or mark.state is not MarkState.LEFT:
            return
        left = mark.since + AWAY_SECONDS - _now()
        if left > 0:
            raise MoveRefused(
                f'it left the pool {self._target!r} a moment ago, which servers may not have '
                f'noticed. Try again in {left:.0f} seconds'
            )

    def _move_rest(self, arrival: Arrival) -> None:
        """Close the queue, copy what has changed, and open it in the other pool."""
        began = time.monotonic()
        now = _now()
        closing = Mark(MarkState.CLOSING, self._move, until=now + CLOSED_SECONDS, since=now)
        self._origin.close_queue(closing)
        try:
            self._check_catalogue()
            last, last_subscription = self._origin.get_last_numbers()
            if last > arrival.messages.last or last_subscription > arrival.subscriptions.last:
                raise MoveRefused('too many messages were posted meanwhile. Try again')
            self._go_over(delayed=True)
            moved = Mark(MarkState.MOVED, self._move, pool=self._target, since=_now())
            # If no answer comes, it is not known: nothing must be removed then.
            self._may_be_moved = True
            if not self._origin.commit(moved):
                self._may_be_moved = False
                raise MoveRefused(
                    f'the last messages could not be moved within {CLOSED_SECONDS:g} s. The queue '
                    'is where it was; try again when less is changed in it, or fewer messages are '
                    'delayed'
                )
        except BaseException:
            # If this fails, too, it is open again when its time is over.
            with contextlib.suppress(errors.ExceptionBase):
                self._origin.reopen(self._move)
            raise
        self._complete(self._move, began)

    def _check_catalogue(self) -> None:
        try:
            self._catalogue.get(self._queue.project or None, self._queue.name)
        except errors.QueueNotMapped:
            raise MoveRefused('it has been deleted meanwhile') from None

    def _complete(self, move: str, began: float | None = None) -> None:
        """Finish the move, as servers that meet the mark also do."""
        self._destination.open(move)
        self._catalogue.update(self._queue.project or None, self._queue.name, self._target)
        if began is not None:
            self._counts.pause = time.monotonic() - began
        self._origin.leave(Mark(MarkState.LEFT, move, pool=self._target, since=_now()))

    def _go_over(self, *, delayed: bool) -> None:
        """Bring the destination to what the queue is now; with `delayed`, for the last time."""
        self._counts.rounds += 1
        snapshot = self._origin.snapshot()
        try:
            self._total = snapshot.count()
            self._copy(snapshot, delayed=delayed)
            if delayed:
                for batch in _batches(list(snapshot.receipts()), _REMOVED):
                    self._destination.write_receipts(batch)
                subscriptions = list(snapshot.subscriptions())
                self._destination.write_subscriptions(subscriptions)
                self._counts.subscriptions = len(subscriptions)
                self._destination.finish()
        finally:
            snapshot.close()

    def _copy(self, snapshot: Snapshot, *, delayed: bool) -> None:
        missing = set(self._seen)
        changed: list[Head] = []
        for head in snapshot.heads(delayed=delayed):
            missing.discard(head.number)
            if self._seen.get(head.number) != head.state:
                changed.append(head)
            if len(changed) == BATCH:
                self._write(snapshot, changed)
                changed = []
        self._write(snapshot, changed)
        for batch in _batches(list(missing), _REMOVED):
            self._destination.remove(batch)
        for number in missing:
            del self._seen[number]
        self._claimed -= missing

    def _write(self, snapshot: Snapshot, heads: Sequence[Head]) -> None:
        if not heads:
            return
        again = [head.number for head in heads if head.number in self._seen]
        if again:
            self._destination.remove(again)
            for number in again:
                del self._seen[number]
        messages = snapshot.read(heads)
        self._destination.write(messages)
        # Where a snapshot is not of one moment, some may have gone.
        written = {one.number for one in messages}
        self._seen.update((head.number, head.state) for head in heads if head.number in written)
        for one in messages:
            self._delayed += one.position is None
            self._claimed.discard(one.number)
            if one.record.claim is not None:
                self._claimed.add(one.number)
        self._counts.copied += len(messages)
        if self._progress is not None:
            self._progress(len(self._seen), max(self._total, len(self._seen)))


def _batches(found: Sequence[_T], size: int) -> list[Sequence[_T]]:
    return [found[start : start + size] for start in range(0, len(found), size)]


def _now() -> float:
    return float(timeutils.utcnow_ts(microsecond=True))
