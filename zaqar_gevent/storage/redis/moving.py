"""Moving a queue into Redis; see `storage.moves`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from oslo_utils import timeutils

from zaqar_gevent import retry_delays
from zaqar_gevent.storage.moves import (
    Arrival,
    Mark,
    MovedMessage,
    MoveRefused,
    NumberedSubscription,
    Range,
    Receipt,
    name,
)
from zaqar_gevent.storage.records import QueueRecord
from zaqar_gevent.storage.redis import copying, keys, messages
from zaqar_gevent.storage.redis.queues import QueueController, detach
from zaqar_gevent.storage.redis.servers import load

if TYPE_CHECKING:
    from zaqar_gevent.storage.redis.driver import DataDriver

_WRITE = load('record', 'move_write')
_PREPARE = load('move_prepare')
_OPEN = load('move_open')
_FINISH = load('move_finish')
_KEEP = load('move_receipts')

MAX_NUMBER = 10**14
"""The largest number that scripts can write in full."""


class Destination:
    """See `moves.Destination`. A queue is never used from here before it has come."""

    _arrival: Arrival
    _move = ''

    def __init__(self, driver: DataDriver, queue: QueueRecord) -> None:
        self._driver = driver
        self._server = driver.server
        self._queue = queue
        self._scope = (queue.name, queue.project)
        self._key = keys.messages(*self._scope)
        self._retry = retry_delays.of(queue.metadata)

    def get_mark(self) -> Mark | None:
        return None

    def prepare(self, queue: QueueRecord, mark: Mark, last: tuple[int, int]) -> Arrival:
        if last[0] >= MAX_NUMBER:
            raise MoveRefused('the numbers of its messages are too large for Redis')
        # What an interrupted migration has left.
        self._detach()
        self._arrival = Arrival(
            Range(last[0], 0),
            Range(last[1], 0),
            prefix=messages.new_ids(self._key),
            subscription_prefix=messages.new_ids(keys.subscriptions(*self._scope)),
        )
        self._server.run(
            _PREPARE,
            (
                keys.arrival(*self._scope),
                keys.arriving(*self._scope),
                keys.rank_counter(*self._scope),
            ),
            self._arrival.encode(),
            mark.move,
            last[0] + 1,
        )
        self._move = mark.move
        return self._arrival

    def write(self, moved: Sequence[MovedMessage]) -> None:
        arguments: list[Any] = []
        for one in moved:
            arguments += (
                self._name(one.number),
                '' if one.position is None else one.position,
                one.number,
                *copying.describe(one.record, self._retry),
            )
        self._run('', *arguments)

    def remove(self, numbers: Sequence[int]) -> None:
        self._run('1', *map(self._name, numbers))

    def write_receipts(self, receipts: Sequence[Receipt]) -> None:
        if receipts:
            until = math.ceil(max(one.expires for one in receipts))
            fields = [
                part for one in receipts for part in (one.digest, f'{one.first} {one.expires}')
            ]
            self._server.run(_KEEP, (keys.carried(*self._scope),), until, *fields)

    def write_subscriptions(self, subscriptions: Sequence[NumberedSubscription]) -> None:
        prefix = self._arrival.subscription_prefix
        assert prefix is not None
        for number, record in subscriptions:
            named = record._replace(id=name(prefix, number))
            copying.put_subscription(self._server, named, keep_id=True)

    def finish(self) -> None:
        start, is_over = 0, False
        while not is_over:
            start = self._server.run(_FINISH, (keys.claims(*self._scope),), start, messages.STEP)
            is_over = not start

    def open(self, move: str) -> None:
        self._server.run(_OPEN, (keys.arriving(*self._scope),), move)

    def discard(self) -> None:
        # Only if no other migration has begun.
        self._run('1')
        self._detach()

    def close(self) -> None:
        """The driver has the connection."""

    def _detach(self) -> None:
        """Remove all that is there of the queue."""
        detach(QueueController(self._driver), *self._scope)  # type: ignore[arg-type]

    def _run(self, is_removing: str, *arguments: Any) -> None:
        places = self._key, keys.claims(*self._scope), keys.arriving(*self._scope)
        now = timeutils.utcnow_ts()
        if not self._server.run(_WRITE, places, now, self._move, is_removing, *arguments):
            raise MoveRefused('another migration of this queue has begun')

    def _name(self, number: int) -> str:
        assert self._arrival.prefix is not None
        return name(self._arrival.prefix, number)


def find_receipt(found: bytes | None) -> int | None:
    """The first message, as clients know it, of a post that was made before the queue came."""
    if found is None:
        return None
    first, expires = found.split()
    return int(first) if float(expires) > time.time() else None
