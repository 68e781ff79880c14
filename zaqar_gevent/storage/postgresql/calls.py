"""Calls to PostgreSQL, of which those that are sent together are one transaction.

See `storage.core.links`. A hub has a few connections, each for calls of one kind. The next
transaction may be sent before the last is answered (`Kind.depth`): PostgreSQL then works while the
hub does, and in the order of the calls still. Calls whose transaction was undone are made again.
"""

from __future__ import annotations

import _socket
import collections
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gevent.socket
import msgspec
from gevent import monkey
from oslo_log import log
from psycopg import pq
from zaqar.transport.validation import ValidationFailed

from zaqar_gevent.storage.core import links
from zaqar_gevent.storage.core.clocks import Clock
from zaqar_gevent.storage.core.links import PAUSE_SECONDS
from zaqar_gevent.storage.core.outages import OutageLog
from zaqar_gevent.storage.errors import OutcomeUnknown, StoreUnavailable
from zaqar_gevent.storage.postgresql import schema
from zaqar_gevent.storage.postgresql.addresses import Address
from zaqar_gevent.storage.postgresql.outage import Meaning, read_mark, read_state
from zaqar_gevent.storage.postgresql.wire import (
    Lost,
    Row,
    Sent,
    Statement,
    Wait,
    Wire,
    connect,
    finish,
    wait_in_thread,
)

LOG = log.getLogger(__name__)

MAX_ATTEMPTS = 10
"""How often a call is sent whose transactions are undone for the sake of others."""

UNPREPARED_SECONDS = 600.0
"""For how long statements are not prepared after some were lost."""

_TRUE = b't'

_sleep = monkey.get_original('time', 'sleep')


class _NoAnswer(Exception):
    """A question about the database was answered with an error."""


class TooLong(Exception):
    """PostgreSQL has broken a call off."""


class Binary(bytes):
    """A parameter in PostgreSQL's binary format."""

    __slots__ = ()


class PendingCall(links.Request):
    """A call on its way.

    statement, values, formats, before: what is sent; see `Sent`. rows: the answer. failure: the
    SQLSTATE and the text of an error. is_alone: whether its transaction has no other calls.
    """

    __slots__ = (
        *('attempts', 'before', 'failure', 'formats', 'is_alone', 'rows', 'statement', 'values'),
    )

    def __init__(self, statement: Statement, parameters: Sequence[Any], until: float) -> None:
        self.statement = statement
        self.values = [encode(one) for one in parameters]
        self.formats = [int(isinstance(one, Binary)) for one in parameters]
        self.before: PendingCall | None = None
        self.is_alone = False
        self.attempts = 0
        self.rows: list[Row] = []
        self.failure: tuple[str, str] | None = None
        size = sum(len(one) for one in self.values if one is not None)
        super().__init__(size, until, is_repeatable=statement.is_repeatable)

    def distribute(self) -> None:
        """The answer is its own."""


def encode(value: Any) -> bytes | None:
    """A parameter as it is sent; raises `ValidationFailed` for a text that cannot be stored."""
    if value is None or isinstance(value, bytes):
        return value
    if value is True or value is False:
        return _TRUE if value else b'f'
    if isinstance(value, float):
        return repr(value).encode()
    text = str(value)
    if '\0' in text:
        # It would end there.
        raise ValidationFailed('A text must not contain the character NUL.')
    return text.encode()


class Kind(NamedTuple):
    """The purpose of a connection.

    patience: how many times as long as usual an answer is waited for. depth: transactions that are
    on their way at once. merge: makes what is sent of the calls of a transaction, in place of
    themselves; each `distribute`s its answer when the transaction is done. begin: makes, for a
    schema, what is sent before the calls of a transaction.
    """

    name: str
    patience: int = 1
    depth: int = 2
    merge: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    begin: Callable[[str, Sequence[Any]], Any] | None = None


class Batch:
    """Calls that share a transaction."""

    __slots__ = ('_is_merged', 'calls', 'sent')

    def __init__(self, calls: list[Any], kind: Kind, schema: str) -> None:
        self.calls = calls
        self._is_merged = kind.merge is not None
        for call in calls:
            call.failure = None
            call.attempts += 1
        self.sent: Sequence[Sent] = calls
        if kind.merge is not None:
            self.sent = kind.merge(calls)
        if kind.begin is not None:
            self.sent = [kind.begin(schema, calls), *self.sent]
        elif kind.merge is None and calls[0].before is not None:
            self.sent = [calls[0].before, calls[0]]

    def take_failure(self) -> tuple[str, str] | None:
        """Why the transaction was undone; None for one that was done."""
        for one in self.sent:
            if one.failure is not None:
                return one.failure
        if self._is_merged:
            merged: Sequence[Any] = self.sent
            for one in merged:
                one.distribute()
        return None


class Habits:
    """State that the connections to one server share.

    timeout: seconds that an answer is waited for. may_prepare: whether statements are prepared;
    given up for a while when that turns out not to work. most_ahead: see `Clock`.
    """

    def __init__(
        self, address: Address, timeout: float, *, may_prepare: bool, most_ahead: float
    ) -> None:
        self.address = address
        self.timeout = timeout
        self.clock = Clock(address.store, most_ahead)
        self.outages = OutageLog()
        self._may_prepare = may_prepare
        self._prepare_at = 0.0
        self._seen = 0

    @property
    def is_preparing(self) -> bool:
        """Whether the next connection prepares statements."""
        return self._may_prepare and time.monotonic() >= self._prepare_at

    def forget_statements(self) -> None:
        """Prepare no statements for a while."""
        if self.is_preparing:
            LOG.warning(
                '%s loses prepared statements, as behind a pool of connections that are shared by '
                'transaction: for %g minutes, statements are not prepared. If it is behind such a '
                'pool, set prepared_statements to false.',
                self.address.store,
                UNPREPARED_SECONDS / 60,
            )
        self._prepare_at = time.monotonic() + UNPREPARED_SECONDS

    def saw(self, position: int) -> None:
        """Note that a position of the database has been given."""
        if position > self._seen:
            self._seen = position

    def look(self, ask: Callable[[], Any]) -> bool:
        """Compare the database with what is known of it; whether it has lost its end.

        ask: has `LOOK` answered. What was lost may have been followed: an epoch must begin.
        """
        seen, asked = self._seen, time.time()
        theirs, last = ask()
        self.clock.compare(theirs, asked, time.time())
        if (last + 1) * schema.BATCH > seen:
            return False
        LOG.warning(
            '%s has lost its end, as when an older state is restored: it had given positions up to '
            '%x, and is at %x. Markers of messages that were lost are refused.',
            self.address.store,
            seen,
            last * schema.BATCH,
        )
        self._seen = last * schema.BATCH
        return True

    def dial(self, wait: Wait, resolve: Callable[..., Any]) -> Wire:
        """A connection whose server has been looked at; raises `StoreUnavailable`."""
        connection = connect(self.address, wait, resolve)
        try:
            self._meet(connection, wait)
        except BaseException as error:
            connection.finish()
            if isinstance(error, Lost):
                raise StoreUnavailable(self.address.store, str(error)) from None
            raise
        return Wire(connection, is_preparing=self.is_preparing)

    def _meet(self, connection: Any, wait: Wait) -> None:
        def ask(statement: str) -> Any:
            connection.send_query(statement.encode())
            result = finish(connection, wait, self.timeout)
            if result is None or result.status != pq.ExecStatus.TUPLES_OK:
                raise _NoAnswer
            return result.get_value(0, 0)

        look, begin_epoch = (one(self.address.schema) for one in (schema.look, schema.begin_epoch))
        # Where there are no tables, or no rights, calls tell it.
        with contextlib.suppress(_NoAnswer):
            if self.look(lambda: msgspec.json.decode(ask(look))):
                ask(begin_epoch)


class HubLink(links.HubLink[Any]):
    """A connection of one hub, for calls of one kind."""

    max_batch = 128
    is_choosy = True

    def __init__(self, habits: Habits, kind: Kind, hub: Any) -> None:
        super().__init__(
            habits.address.store,
            hub,
            patience=habits.address.timeout,
            timeout=habits.timeout * kind.patience,
            outages=habits.outages,
        )
        self._kind = kind
        self._habits = habits
        self._sent: collections.deque[Batch] = collections.deque()
        self._wire: Wire

    def _dial(self) -> None:
        self._wire = self._habits.dial(wait_in_greenlet, gevent.socket.getaddrinfo)

    @property
    def _descriptor(self) -> int:
        return self._wire.fileno

    def _hang_up(self) -> None:
        self._wire.close()

    def _abandon(self) -> None:
        _inherited.append(self._wire)

    def _was_hung_up(self) -> bool:
        return not self._wire.is_alive()

    def _may_send(self) -> bool:
        return len(self._sent) < self._kind.depth

    def _is_in_flight(self) -> bool:
        return bool(self._sent)

    def _take_in_flight(self) -> list[Any]:
        in_flight = [call for batch in self._sent for call in batch.calls]
        self._sent.clear()
        return in_flight

    def _may_join(self, request: Any, requests: list[Any]) -> bool:
        if request.is_alone or requests[0].is_alone:
            return False
        key = getattr(request, 'key', None)
        return key is None or all(key != one.key for one in requests)

    def _before_repeating(self, request: Any) -> None:
        if request.statement.again is not None:
            request.values[request.statement.again] = _TRUE

    def _send(self, requests: list[Any]) -> bool:
        batch = Batch(requests, self._kind, self._habits.address.schema)
        self._sent.append(batch)
        return self._wire.send(batch.sent)

    def _send_rest(self) -> bool:
        return self._wire.flush()

    def _receive(self) -> None:
        done: list[Batch] = []
        lost: str | None = None
        self._heard_at = time.monotonic()
        try:
            # Those before an error are kept.
            done.extend(self._sent.popleft() for _ in self._wire.receive())
        except Lost as error:
            lost = str(error)
        self._settle(done, lost)

    def _settle(self, batches: list[Batch], lost: str | None) -> None:
        """Wake those whose answers have come.

        lost: why the connection is of no use any more, if it is not.
        """
        answered: list[Any] = []
        for batch in batches:
            failure = batch.take_failure()
            if failure is None:
                answered += batch.calls
                if self._outages.is_on:
                    self._outages.succeeded()
                continue
            meaning, reason = read_state(*failure)
            if meaning in (Meaning.LOST, Meaning.UNPREPARED):
                if meaning is Meaning.UNPREPARED:
                    self._habits.forget_statements()
                self._is_unfit = meaning is Meaning.LOST
                self._waiting.extendleft(reversed(batch.calls))
                lost = lost or reason
            else:
                answered += self._undo(batch.calls, meaning, reason)
        if lost is not None:
            self._lose(lost)
        self._settled(answered)

    def _undo(self, calls: list[Any], meaning: Meaning, reason: str) -> list[Any]:
        """Nothing of a transaction has been done; those of its calls that have failed for good."""
        if len(calls) > 1 or (meaning is Meaning.AGAIN and calls[0].attempts < MAX_ATTEMPTS):
            # One of several is to blame, and is not to be in the way of the others.
            for call in calls:
                call.is_alone = True
            self._waiting.extendleft(reversed(calls))
            return []
        [call] = calls
        if meaning is Meaning.TOO_LONG:
            call.error = TooLong()
        elif meaning is Meaning.MOVED:
            call.error = read_mark(reason)
        else:
            call.error = self._unavailable(reason)
            self._outages.refused(call.error)
        return calls


class ThreadLink(links.ThreadLink):
    """The connection for native threads that have no hub: one call at a time, which waits."""

    def __init__(self, habits: Habits) -> None:
        super().__init__(habits.address.store, habits.address.timeout)
        self._habits = habits
        self._wire: Wire | None = None

    def ask(self, call: Any, kind: Kind) -> None:
        """Make a call; raises `StoreUnavailable`, `TooLong`."""
        with self._lock:
            while True:
                self._connect(call.until)
                batch = Batch([call], kind, self._habits.address.schema)
                try:
                    self._wait(batch, self._habits.timeout * kind.patience)
                except Lost as lost:
                    self.close()
                    if not call.is_repeatable or time.monotonic() > call.until:
                        raise OutcomeUnknown(self._store, str(lost)) from None
                    if call.statement.again is not None:
                        call.values[call.statement.again] = _TRUE
                    continue
                failure = batch.take_failure()
                if failure is None:
                    return
                self._sort(call, *failure)

    def _sort(self, call: Any, state: str, text: str) -> None:
        """Raise what a call has failed with, unless it is to be made again."""
        meaning, reason = read_state(state, text)
        if meaning is Meaning.TOO_LONG:
            raise TooLong
        if meaning is Meaning.MOVED:
            raise read_mark(reason)
        if meaning is Meaning.REFUSED or time.monotonic() > call.until:
            raise StoreUnavailable(self._store, reason)
        if meaning is Meaning.UNPREPARED:
            self._habits.forget_statements()
        if meaning is not Meaning.AGAIN:
            self.close()
            _sleep(PAUSE_SECONDS)

    def _dial(self) -> None:
        self._wire = self._habits.dial(wait_in_thread, _socket.getaddrinfo)

    def _hang_up(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def _abandon(self) -> None:
        if self._wire is not None:
            _inherited.append(self._wire)
        self._wire = None

    def _wait(self, batch: Batch, seconds: float) -> None:
        wire = self._wire
        assert wire is not None
        deadline = time.monotonic() + seconds
        is_sent = wire.send(batch.sent)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not wait_in_thread(wire.fileno, not is_sent, left):
                raise Lost('it does not answer')
            if not is_sent:
                is_sent = wire.flush()
                continue
            for _ in wire.receive():
                return


_inherited: list[Wire] = []
"""Connections of the parent of a forked process, which must not be closed here."""


def wait_in_greenlet(descriptor: int, is_writing: bool, seconds: float) -> bool:
    """Wait for a socket while other greenlets run."""
    wait = gevent.socket.wait_write if is_writing else gevent.socket.wait_read
    try:
        wait(descriptor, timeout=seconds, timeout_exc=TimeoutError())
    except TimeoutError:
        return False
    return True
