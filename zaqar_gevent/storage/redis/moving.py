"""Moving a queue out of Redis, or into it; see `storage.moves`.

The mark of a queue is a key: its project, its name and the mark. One that closes the queue expires
by itself. There are no snapshots of one moment here: what changes while it is read is read again
when the queue is closed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from oslo_utils import timeutils

from zaqar_gevent import retry_delays
from zaqar_gevent.storage.moves import (
    Arrival,
    Head,
    Mark,
    MarkState,
    MovedMessage,
    MoveRefused,
    NumberedSubscription,
    QueueMoved,
    Range,
    RankedIds,
    Receipt,
    decode_arrival,
    digest,
    name,
)
from zaqar_gevent.storage.records import QueueRecord
from zaqar_gevent.storage.redis import bodies, copying, keys, messages
from zaqar_gevent.storage.redis.queues import QueueController, detach
from zaqar_gevent.storage.redis.servers import RedisServer, load

if TYPE_CHECKING:
    from zaqar_gevent.storage.redis.driver import DataDriver

_WRITE = load('record', 'move_write')
_PREPARE = load('move_prepare')
_OPEN = load('move_open')
_FINISH = load('move_finish')
_KEEP = load('move_receipts')
_CLOSE = load('move_close')
_MARK = load('move_mark')
_HEADS = load('move_heads', is_write=False)
_READ = load('move_read', is_write=False)

MAX_NUMBER = 10**14
"""The largest number that scripts can write in full."""

_LEFT_SECONDS = 24 * 60 * 60
"""How long it is told that a queue has left; nobody remembers its old place for longer."""

_OTHER_WORK, _REDRIVE = 2, 3
_STEP = 500
_SCANNED = 1000
_SUBSCRIPTIONS = 2**20
"""Subscriptions that a queue may have when it moves."""


def get_mark(server: RedisServer, queue: str, project: str | None) -> Mark | None:
    """What says that a queue is not used from a server now; None if nothing does."""
    found = server.ask('GET', keys.mark(queue, project))
    if found is None:
        return None
    return msgspec.json.decode(found, type=tuple[str, str, Mark])[2]


def check(server: RedisServer, queue: str, project: str | None) -> None:
    """Raise `QueueMoved` if a queue is not used from a server now."""
    mark = get_mark(server, queue, project)
    if mark is not None:
        raise QueueMoved(project or '', queue, mark)


def unmark(
    server: RedisServer, queue: str, project: str | None, state: MarkState, move: str = ''
) -> None:
    """Take the mark of a queue away if it has this state, by this migration if one is given."""
    server.run(_OPEN, (keys.mark(queue, project),), state.value, move)


def find_arrival(server: RedisServer, queue: str, project: str | None) -> Arrival | None:
    """How what clients know of a queue that came from another pool is known here."""
    found = server.ask('GET', keys.arrival(queue, project))
    return None if found is None else decode_arrival(found)


class _Place:
    """A queue on a server."""

    def __init__(self, driver: DataDriver, queue: QueueRecord) -> None:
        self._driver = driver
        self._server = driver.server
        self._queue = queue
        self._scope = (queue.name, queue.project)
        self._key = keys.messages(*self._scope)

    def get_mark(self) -> Mark | None:
        return get_mark(self._server, *self._scope)

    def close(self) -> None:
        """The driver has the connection."""

    def _encode(self, mark: Mark) -> bytes:
        return msgspec.json.encode((self._queue.project, self._queue.name, mark))


class Origin(_Place):
    """See `moves.Origin`."""

    room = 2**32

    def __init__(self, driver: DataDriver, queue: QueueRecord) -> None:
        super().__init__(driver, queue)
        self._arrival = find_arrival(self._server, *self._scope)

    @property
    def ranked(self) -> RankedIds | None:
        if self._arrival is not None and self._arrival.ranked is not None:
            return self._arrival.ranked
        until = 0 if self._arrival is not None else self._get_counter() + self.room
        return RankedIds(messages.start_of_ids(self._key), until)

    def get_last_numbers(self) -> tuple[int, int]:
        count = int(self._server.ask('ZCARD', keys.subscriptions(*self._scope)))
        if count > _SUBSCRIPTIONS:
            raise MoveRefused(f'it has more than {_SUBSCRIPTIONS} subscriptions')
        last = 0 if self._arrival is None else self._arrival.subscriptions.last
        return self._get_counter() + 1, last + _SUBSCRIPTIONS

    def snapshot(self) -> Snapshot:
        return Snapshot(self._driver, self._queue, self.ranked, self._arrival)

    def close_queue(self, mark: Mark) -> None:
        outcome = self._server.run(
            _CLOSE,
            (keys.mark(*self._scope), keys.running_redrives(self._queue.project)),
            self._encode(mark),
            int((mark.until - mark.since) * 1000),
            self._queue.name,
        )
        if outcome == _OTHER_WORK:
            raise MoveRefused('another migration of this queue is at work')
        if outcome == _REDRIVE:
            raise MoveRefused('a redrive of dead letters out of it, or into it, is not over')

    def reopen(self, move: str) -> None:
        unmark(self._server, *self._scope, MarkState.CLOSING, move)

    def commit(self, mark: Mark) -> bool:
        return self._change(MarkState.CLOSING, mark)

    def leave(self, mark: Mark) -> None:
        found = self.get_mark()
        if found is None or (found.state, found.move) != (MarkState.MOVED, mark.move):
            return
        # The mark is always there; with it, what is left is found if this is interrupted.
        detach(QueueController(self._driver), *self._scope, is_leaving=True)  # type: ignore[arg-type]
        self._change(MarkState.MOVED, mark, _LEFT_SECONDS)

    def _change(self, state: MarkState, mark: Mark, seconds: int = 0) -> bool:
        changed = self._server.run(
            _MARK,
            (keys.mark(*self._scope),),
            *(state.value, mark.move, self._encode(mark), seconds),
        )
        return bool(changed)

    def _get_counter(self) -> int:
        return int(self._server.ask('GET', keys.rank_counter(*self._scope)) or 0)


class Snapshot:
    """See `moves.Snapshot`. It is of one moment only while the queue is closed."""

    def __init__(
        self,
        driver: DataDriver,
        queue: QueueRecord,
        ranked: RankedIds | None,
        arrival: Arrival | None,
    ) -> None:
        self._server = driver.server
        self._seconds = driver.idempotency_seconds
        self._queue = queue
        self._scope = (queue.name, queue.project)
        self._key = keys.messages(*self._scope)
        self._ranked = ranked
        self._arrival = arrival
        # Ranks begin with 0, but for a queue that came from another pool.
        self._first = 1 if arrival is None else 0
        self._ids: dict[int, str] = {}

    def count(self) -> int:
        return sum(
            int(self._server.ask('ZCARD', key)) for key in (self._key, self._key + keys.DELAYED)
        )

    def heads(self, *, delayed: bool) -> Iterator[Head]:
        yield from self._read_heads(self._key, '')
        if delayed:
            yield from self._read_heads(self._key + keys.DELAYED, keys.by_posting(*self._scope))

    def read(self, heads: Sequence[Head]) -> list[MovedMessage]:
        ids = [self._ids[head.number] for head in heads]
        now = timeutils.utcnow_ts()
        found = self._server.run(_READ, (self._key,), now, *ids)
        numbers = dict(zip(ids, (head.number for head in heads), strict=True))
        return [self._present(numbers, one, now) for one in found]

    def receipts(self) -> Iterator[Receipt]:
        if not self._seconds:
            return
        start = keys.receipts(*self._scope)
        pattern = ''.join(f'\\{one}' if one in '*?[]\\' else one for one in start) + '*'
        named = keys.queue(*self._scope)
        holders = (named, named + keys.TOPIC, keys.posts(*self._scope))
        tokens = {self._server.ask('HGET', key, 'g') for key in holders}
        cursor = b'0'
        while True:
            cursor, found = self._server.ask('SCAN', cursor, 'MATCH', pattern, 'COUNT', _SCANNED)
            for key in found:
                receipt = self._read_receipt(key, tokens, len(start.encode()))
                if receipt is not None:
                    yield receipt
            if cursor == b'0':
                break
        if self._arrival is not None:
            carried = self._server.ask('HGETALL', keys.carried(*self._scope))
            for made, told in zip(carried[::2], carried[1::2], strict=True):
                first, expires, *ids = told.decode().split()
                if float(expires) > time.time():
                    yield Receipt(made.decode(), int(first), float(expires), tuple(ids))

    def subscriptions(self) -> Iterator[NumberedSubscription]:
        arrival = self._arrival
        known = {} if arrival is None else {v: k for k, v in arrival.subscription_ids.items()}
        last = 0 if arrival is None else arrival.subscriptions.last
        for record in copying.read_subscriptions(self._server, self._queue):
            public = record.id if arrival is None else arrival.subscription_out(record.id)
            if public != record.id:
                # As it was known before it came here.
                yield NumberedSubscription(int(public, 16), record._replace(id=''))
                continue
            number = known.get(record.id)
            if number is None:
                last += 1
                number = last
            yield NumberedSubscription(number, record)

    def close(self) -> None:
        """The driver has the connection."""

    def _read_heads(self, key: str, posted: str) -> Iterator[Head]:
        after: Any = ''
        while after is not None:
            now = timeutils.utcnow_ts()
            found, after = self._server.run(_HEADS, (key, posted), now, after, _STEP)
            for message_id, rank, fields in found:
                known = message_id.decode()
                number = self._number_of(known, rank)
                if self._ids.setdefault(number, known) != known:
                    raise MoveRefused(
                        f'its messages {self._ids[number]} and {known} would have the same number, '
                        'since some were copied from another Redis. Try again when one of them is '
                        'gone'
                    )
                yield Head(number, number, hash(tuple(fields)))

    def _number_of(self, message_id: str, rank: bytes | None) -> int:
        """The number of a message, by which it is known while it moves."""
        public = message_id
        if self._arrival is not None:
            public = self._arrival.message_out(message_id)
            if public != message_id:
                return int(public, 16)
        assert self._ranked is not None
        number = self._ranked.number(public)
        if number is None:
            raise MoveRefused(
                f"its message {message_id} was posted by a server of upstream's, or copied from a "
                'queue of another name: its id does not tell its place. Try again when such '
                'messages are gone'
            )
        if rank is not None and float(rank) % 1:
            raise MoveRefused(
                f'its message {message_id} was delayed, and has been taken and put back. Try again '
                'when it is gone'
            )
        return number

    def _present(self, numbers: dict[str, int], one: list[Any], now: int) -> MovedMessage:
        message_id, rank, score, claim_ttl, parts = one
        known = message_id.decode()
        record = copying.read_message(
            [message_id, score, claim_ttl, parts], now, is_delayed=rank is None, keeps_due=True
        )
        number = numbers[known]
        is_named = self._arrival is None or self._arrival.message_out(known) == known
        position = None if rank is None else int(float(rank)) + self._first
        return MovedMessage(number, position, record, None, known if is_named else None)

    def _read_receipt(self, key: bytes, tokens: set[Any], start: int) -> Receipt | None:
        found = self._server.ask('GET', key)
        left = int(self._server.ask('PTTL', key))
        if found is None or left <= 0:
            return None
        token, ids = bodies.unpack(found)
        if token is None or token.encode() not in tokens or self._ranked is None:
            return None
        first = self._ranked.number(ids[0])
        if first is None:
            return None
        made = digest(key[start:].decode('utf-8', 'surrogateescape'))
        return Receipt(made, first, time.time() + left / 1000, tuple(ids))


class Destination(_Place):
    """See `moves.Destination`."""

    _arrival: Arrival
    _move = ''

    def __init__(self, driver: DataDriver, queue: QueueRecord) -> None:
        super().__init__(driver, queue)
        self._retry = retry_delays.of(queue.metadata)
        # Those that have been written.
        self._ids: dict[int, str] = {}

    def prepare(
        self, queue: QueueRecord, mark: Mark, last: tuple[int, int], ranked: RankedIds | None
    ) -> Arrival:
        if last[0] >= MAX_NUMBER:
            raise MoveRefused('the numbers of its messages are too large for Redis')
        # Remains of an interrupted migration.
        self._detach()
        self._arrival = Arrival(
            Range(last[0], 0),
            Range(last[1], 0),
            prefix=messages.new_ids(self._key),
            subscription_prefix=messages.new_ids(keys.subscriptions(*self._scope)),
            ranked=ranked,
        )
        self._server.run(
            _PREPARE,
            (
                keys.arrival(*self._scope),
                keys.mark(*self._scope),
                keys.rank_counter(*self._scope),
            ),
            self._arrival.encode(),
            self._encode(mark),
            last[0] + 1,
        )
        self._move = mark.move
        return self._arrival

    def write(self, moved: Sequence[MovedMessage]) -> None:
        arguments: list[Any] = []
        for one in moved:
            own = one.known_as or name(self._prefix, one.number)
            self._ids[one.number] = own
            arguments += (
                own,
                '' if one.position is None else one.position,
                one.number,
                *copying.describe(one.record, self._retry),
            )
        self._run('', *arguments)

    def remove(self, numbers: Sequence[int]) -> None:
        self._run('1', *(self._ids[number] for number in numbers))

    def write_receipts(self, receipts: Sequence[Receipt]) -> None:
        if receipts:
            until = math.ceil(max(one.expires for one in receipts))
            fields = [
                part
                for one in receipts
                for part in (one.digest, ' '.join((f'{one.first} {one.expires}', *one.ids)))
            ]
            self._server.run(_KEEP, (keys.carried(*self._scope),), until, *fields)

    def write_subscriptions(self, subscriptions: Sequence[NumberedSubscription]) -> None:
        prefix = self._arrival.subscription_prefix
        assert prefix is not None
        for number, record in subscriptions:
            named = record._replace(id=record.id or name(prefix, number))
            copying.put_subscription(self._server, named, keep_id=True, is_arriving=True)

    def finish(self) -> None:
        start, is_over = 0, False
        while not is_over:
            start = self._server.run(_FINISH, (keys.claims(*self._scope),), start, messages.STEP)
            is_over = not start

    def open(self, move: str) -> None:
        unmark(self._server, *self._scope, MarkState.ARRIVING, move)

    def discard(self) -> None:
        # Only if no other migration has begun.
        self._run('1')
        self._detach()

    def _detach(self) -> None:
        """Remove all that is there of the queue."""
        detach(QueueController(self._driver), *self._scope, is_leaving=True)  # type: ignore[arg-type]

    def _run(self, is_removing: str, *arguments: Any) -> None:
        places = self._key, keys.claims(*self._scope), keys.mark(*self._scope)
        now = timeutils.utcnow_ts()
        if not self._server.run(_WRITE, places, now, self._move, is_removing, *arguments):
            raise MoveRefused('another migration of this queue has begun')

    @property
    def _prefix(self) -> str:
        assert self._arrival.prefix is not None
        return self._arrival.prefix


def find_receipt(found: bytes | None) -> int | list[str] | None:
    """The messages of a post that was made before the queue came: see `find_carried`."""
    if found is None:
        return None
    first, expires, *ids = found.decode().split()
    if float(expires) <= time.time():
        return None
    return ids or int(first)
