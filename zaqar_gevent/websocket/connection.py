"""A connected client: one greenlet reads its socket, any greenlet may write to it.

Requests of the default envelope are answered by the reading greenlet itself, so in order. Those of
`zaqar.v2` get a greenlet each, started in order, up to a number.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import gevent
from gevent.event import Event
from oslo_context.context import RequestContext
from oslo_log import log

from zaqar_gevent import greenlets, metrics
from zaqar_gevent.api.grants import UNLIMITED, Grant
from zaqar_gevent.api.push import FrameHead, Recipient
from zaqar_gevent.greenlets import MOMENT
from zaqar_gevent.metrics import ConnectionKind
from zaqar_gevent.sockets.batch import get_batch
from zaqar_gevent.sockets.hangup import has_hung_up
from zaqar_gevent.sockets.inbox import Inbox
from zaqar_gevent.sockets.outbox import Outbox
from zaqar_gevent.sockets.received import FREE_BYTES, NoRoom, Received, Reservation
from zaqar_gevent.sockets.time_slice import BREAK_SECONDS, TIME_SLICE_SECONDS
from zaqar_gevent.sockets.unsent import Unsent
from zaqar_gevent.websocket.engines import Engine, WebSocketMessage
from zaqar_gevent.websocket.limits import Limits
from zaqar_gevent.websocket.pushes import Push, Pushes
from zaqar_gevent.websocket.session import Retractable, Work

LOG = log.getLogger(__name__)

# A message of 4 KB at once. What is read is parsed before others have a turn, and in the smallest
# frames that is nearly a thousand of them.
READ_BYTES = 5 * 1024
# Where the end of a short message is still to come, with the messages that follow it. A client that
# pipelines messages of some KB would have each of them cut by a read, which takes twice as long.
READ_AHEAD_BYTES = 16 * 1024
# Of one long message as much as this: it is parsed once all of it is there.
READ_LONG_BYTES = 128 * 1024
# Requests in flight with long answers that are served at once: as many answers may be more than the
# outbox holds, and keep others waiting for the store.
LONG_AT_ONCE = 4
# Answers that are written together; more would hide from the outbox how full it is.
TOGETHER_BYTES = 64 * 1024
# Of these the first few are written at once: the client deals with them while the server makes the
# others. Not where so much is in flight that neither ever waits for the other.
FIRST_TOGETHER = 4
_MOST_TO_HURRY_FOR = 32
TICK_SECONDS = 0.5

AUTHENTICATION_EXPIRED = 4003
SLOW_CONSUMER = 4008
GOING_AWAY = 1001
NORMAL = 1000
ABNORMAL = 1006
POLICY_VIOLATION = 1008
TRY_AGAIN_LATER = 1013


# One for all connections of a kind.
_kind_of = functools.cache(ConnectionKind)


class Receiver(Protocol):
    """Answers messages.

    protocol: the subprotocol's name, or `default`.
    expires_at: when to end the conversation, in seconds since the epoch; None for never.
    is_known: whether the client has said who it is, where it has to.
    """

    protocol: str
    expires_at: float | None
    is_known: bool

    def receive(self, payload: bytes, *, binary: bool) -> bytes | Retractable | Work:
        """The answer, or what gives it and may be done in a greenlet of its own."""
        ...

    def check_token(self) -> bool:
        """Whether the client's token is still valid, if it has one; may wait for Keystone."""
        ...

    def attach(self, recipient: Recipient) -> None:
        """The connection, for pushes to the client."""
        ...

    def end(self) -> None:
        """The connection has ended."""
        ...

    def farewell(self, reason: str, reconnect_after_ms: int) -> WebSocketMessage | None:
        """A notice to a client before the server closes the connection."""
        ...


class Ending(NamedTuple):
    """How the server ends a connection, once what was received is answered."""

    code: int
    reason: str
    reconnect_after_ms: int | None = None


class WebSocketConnection:
    """Carries messages between a socket and a receiver until either side closes.

    unsent: what waits to be written to all clients of the process. received: what they have sent
        that is not handled yet. address: of the client; '' where it is not known.
    opened_at: in seconds of `time.monotonic`. receiver: answers the messages.
    """

    __slots__ = (
        *(
            '_answered',
            '_close_by',
            '_context',
            '_ending',
            '_engine',
            '_gathered',
            '_heard_at',
            '_in_flight',
            '_unwritten',
        ),
        *(
            '_is_waiting',
            '_kind',
            '_latest',
            '_limits',
            '_slice_end',
            '_pace',
            '_pinged_at',
        ),
        *('_address', '_received', '_reservation'),
        *(
            '_batch',
            '_behind',
            '_inbox',
            '_long',
            '_placed',
            '_pushes',
            '_socket',
            'opened_at',
            'outbox',
            'request_at',
        ),
        'receiver',
    )

    def __init__(
        self,
        sock: socket.socket,
        engine: Engine,
        receiver: Receiver,
        limits: Limits,
        unsent: Unsent | None = None,
        received: Received | None = None,
        address: str = '',
    ) -> None:
        self._socket = sock
        self._received = received
        self._address = address
        self._reservation: Reservation | None = None
        self._engine = engine
        self.receiver = receiver
        self._limits = limits
        # Clients wait for the end of the handshake before they send anything.
        self._inbox = Inbox(sock, is_drained=True)
        self.outbox = Outbox(sock, limits.outbox_bytes, limits.outbox_messages, unsent)
        self._batch = get_batch()
        self._pushes = Pushes(self._send_push)
        self.opened_at = self.request_at = self._heard_at = time.monotonic()
        self._pinged_at: float | None = None
        self._slice_end = 0.0
        rate = limits.max_requests_per_second
        self._pace = Pace(rate) if rate else None
        self._is_waiting = False
        self._in_flight = 0
        self._unwritten = 0
        # Answers since the loop's last turn.
        self._gathered = 0
        self._answered: Event | None = None
        self._long = 0
        self._placed: set[gevent.Greenlet] | None = None
        self._behind: collections.deque[tuple[Work, Reservation | None, bool]] | None = None
        self._ending: Ending | None = None
        self._close_by: float | None = None
        self._context: RequestContext | None = None
        self._latest: bool | None = None
        self._kind = _kind_of(engine.name, receiver.protocol)

    def run(self, early: bytes = b'') -> None:
        """Serve the client until the connection is over; returns, whatever the client does.

        early: what was received with the handshake already.
        """
        metrics.move_connection(None, self._kind)
        self.receiver.attach(self)
        try:
            self._serve(early)
            self._await_end()
        except OSError as error:
            LOG.debug('A WebSocket connection was lost: %s', error)
        except gevent.GreenletExit:
            self._engine.close(GOING_AWAY, 'The server is stopping.')
            self._flush()
        finally:
            self.receiver.end()
            self._give_room_back()
            self._pushes.close()
            self.outbox.close()
            self._inbox.close()
            self._socket.close()
            metrics.move_connection(self._kind, None)
            metrics.count_close(self._engine.close_code or ABNORMAL)

    def finish(self, ending: Ending) -> None:
        """Close the connection as soon as what has been received is answered; does not wait."""
        if self._ending is None:
            self._ending = ending
            self._end_if_answered()

    @property
    def is_open(self) -> bool:
        """Whether messages still reach the client."""
        return self._engine.is_open

    def is_gone(self) -> bool:
        """Whether the client has hung up, as far as can be told without waiting."""
        return not self._engine.is_open or self.outbox.is_lost or has_hung_up(self._socket)

    def push(self, payload: bytes, *, binary: bool, kind: str, grant: Grant = UNLIMITED) -> None:
        """Send what the client has not asked for; does not wait. `kind` is for the metrics.

        It is sent after the answers to the requests that are performed, unless `grant` has ended
        by then.
        """
        self._pushes.add(Push(payload, binary, kind, grant))

    @property
    def frame_head(self) -> FrameHead | None:
        """What stands before a push where the same bytes are sent to many; see `push_frames`."""
        return self._engine.frame_head

    def push_frames(self, frames: bytes, count: int, size: int, *, binary: bool) -> bool:
        """Send messages in their frames, unless anything is to be sent before them.

        PERF: nearly always nothing is, and the system takes them at once.
        """
        outbox = self.outbox
        if outbox.size or self._unwritten or self._pushes.performed or not self._engine.is_open:
            return False
        metrics.count_messages(count, size, binary=binary)
        outbox.write(frames)
        return True

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While this greenlet's request waits, neither pushes nor other requests wait for it.

        It goes on when its answer would find room.
        """
        self._leave_place()
        with self._pushes.waiting():
            yield
        self._await_room()

    @property
    def is_answering(self) -> bool:
        """Whether pushes wait for the answer to a request."""
        return bool(self._pushes.size)

    def has_room(self, size: int) -> bool:
        """Whether `size` bytes more may wait to be sent; of an empty outbox, always."""
        waiting = self.outbox.size + self._unwritten + self._pushes.size
        return not waiting or (
            waiting + size <= self._limits.outbox_bytes and not self.outbox.is_full
        )

    def wait_for_room(self) -> None:
        """Wait until the client has taken all that waits, or is gone."""
        self._pushes.wait_until_released()
        self.outbox.wait_until_empty()

    def give_up(self) -> None:
        """Close the connection of a client that does not take what it is pushed."""
        self.finish(Ending(SLOW_CONSUMER, 'Too slow for what is pushed.'))

    def check_token(self) -> None:
        """Close the connection if its token is not valid any more."""
        if self._ending is None and not self.receiver.check_token():
            self.finish(Ending(AUTHENTICATION_EXPIRED, 'The token is not valid any more.'))

    def attend(self, now: float) -> None:
        """Look after the connection, every TICK_SECONDS; `now` is of `time.monotonic`."""
        if self._close_by is not None:
            if now >= self._close_by:
                self.outbox.cut()
            return
        if self._ending is None:
            self._check_rights(now)
        self._check_life(now)

    def _serve(self, data: bytes) -> None:
        """Answer messages until the connection is to be closed, and then what remains of them."""
        self._flush()
        if data:
            self._take(data)
        while self._engine.is_open:
            if self.outbox.size:
                self._await_room()
            if self._ending is not None:
                break
            self._take(self._read())
        self._flush()
        self._await_answers(0)
        self._send_close()

    def _take(self, data: bytes) -> None:
        for message in self._engine.receive(data):
            self._answer(message)
        if not self._unwritten:
            self._flush()

    def _read(self) -> bytes:
        began = time.monotonic()
        self._is_waiting = True
        if self._engine.unfinished > FREE_BYTES and self._reservation is None:
            self._reserve()
        lets_others_run = self._inbox.is_drained
        data = self._inbox.read(self._read_size())
        self._is_waiting = False
        now = self._heard_at = time.monotonic()
        if self._reservation is not None:
            self._reservation.moved_at = now
        if lets_others_run or now - began > BREAK_SECONDS:
            self._slice_end = now + TIME_SLICE_SECONDS
        else:
            self._give_way(now)
        return data

    def _read_size(self) -> int:
        missing = self._engine.missing
        if 0 < missing < READ_AHEAD_BYTES:
            return READ_AHEAD_BYTES
        return max(READ_BYTES, min(missing, READ_LONG_BYTES))

    def _reserve(self) -> None:
        """Wait for room for the message that has begun; without any, the connection is closed."""
        if self._received is None:
            return
        engine = self._engine
        size = engine.unfinished if engine.missing else engine.max_bytes
        try:
            self._reservation = self._received.take(size, self._address, self._end_slow)
        except NoRoom:
            self._try_later()

    def _end_slow(self) -> None:
        """The rest of a message comes too slowly, and others wait."""
        self._give_room_back()
        self._try_later()

    def _try_later(self) -> None:
        self.finish(Ending(TRY_AGAIN_LATER, 'Too many long messages are being received.'))

    def _give_room_back(self) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            reservation.give_back()

    def _answer(self, message: WebSocketMessage) -> None:
        """Answer a message, and give back the room that it has: a long one."""
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            reservation.has_come()
        work = None
        try:
            work = self._answer_now(message)
        finally:
            if work is None and reservation is not None:
                reservation.give_back()
        if work is not None:
            self._start(work, reservation, binary=message.binary)

    def _answer_now(self, message: WebSocketMessage) -> Work | None:
        """Answer a message, unless that may be done beside others."""
        self._await_turn()
        if self.receiver.expires_at is not None and self._has_expired():
            self._expire()
            return None
        binary = message.binary
        metrics.RECEIVED[binary].add(len(message.payload))
        if binary is not self._latest:
            self._note_encoding(binary)
        self._pushes.begin()
        try:
            answer = self.receiver.receive(message.payload, binary=binary)
            if isinstance(answer, bytes):
                self._send_in_batch(answer, binary=binary)
            elif isinstance(answer, Retractable):
                self._send_retractable(answer, binary=binary)
        finally:
            self._pushes.end()
        return answer if isinstance(answer, Work) else None

    def _note_encoding(self, binary: bool) -> None:
        """The client changes to another encoding, or says something for the first time."""
        if self._latest is None:
            self._context = RequestContext()
        self._latest = binary
        encoding = 'msgpack' if binary else 'json'
        kind = _kind_of(self._kind.engine, self._kind.protocol, encoding)
        metrics.move_connection(self._kind, kind)
        self._kind = kind

    def _await_turn(self) -> None:
        """Wait until the next request may begin: by the client's rights, and for others' sake."""
        if self.outbox.size:
            self._await_room()
        now = self.request_at = time.monotonic()
        if now >= self._slice_end:
            self._give_way(now)
        if self._pace is not None:
            gevent.sleep(self._pace.delay(now))

    def _await_room(self) -> None:
        """Wait while too much waits to be sent, pongs included."""
        if self.outbox.size and self.outbox.is_full:
            self.outbox.wait_for_room()

    def _give_way(self, now: float) -> None:
        """Let others have their turn; a socket that always has something to read never does."""
        if now >= self._slice_end:
            gevent.sleep(MOMENT)
            self._slice_end = now + TIME_SLICE_SECONDS

    def _start(self, work: Work, reservation: Reservation | None, *, binary: bool) -> None:
        """Serve a request beside others; waits while there are as many as may be."""
        self._await_answers(self._limits.max_in_flight - 1)
        self._in_flight += 1
        if work.is_long:
            if self._long >= LONG_AT_ONCE:
                # Without a greenlet, which would take 20 KB.
                if self._behind is None:
                    self._behind = collections.deque()
                self._behind.append((work, reservation, binary))
                return
            self._long += 1
        greenlets.spawn(self._perform, work, reservation, binary)

    def _await_answers(self, most: int) -> None:
        """Wait until no more than `most` requests are in flight."""
        while self._in_flight > most:
            if self._answered is None:
                self._answered = Event()
            self._answered.clear()
            self._answered.wait()

    def _perform(self, work: Work, reservation: Reservation | None, binary: bool) -> None:
        if self._context is not None:
            self._context.update_store()
        if work.is_long:
            self._take_place()
        try:
            if not (work.is_long and self.outbox.is_lost):
                self._answer_beside(work, binary)
        finally:
            self._in_flight -= 1
            if reservation is not None:
                reservation.give_back()
            self._leave_place()
            if self._answered is not None:
                self._answered.set()
            self._end_if_answered()

    def _answer_beside(self, work: Work, binary: bool) -> None:
        self._await_room()
        self._pushes.begin()
        try:
            answer = work.perform()
            if isinstance(answer, Retractable):
                self._send_retractable(answer, binary=binary)
            else:
                self._send_soon(answer, binary=binary)
        finally:
            self._pushes.end()

    def _take_place(self) -> None:
        """The request of this greenlet is one of the few with long answers that are served."""
        if self._placed is None:
            self._placed = set()
        self._placed.add(gevent.getcurrent())

    def _leave_place(self) -> None:
        """It is not any more: begin the one that has waited longest."""
        current = gevent.getcurrent()
        if not self._placed or current not in self._placed:
            return
        self._placed.discard(current)
        if self._behind:
            greenlets.spawn(self._perform, *self._behind.popleft())
        else:
            self._long -= 1

    def _send(self, payload: bytes, *, binary: bool) -> None:
        metrics.SENT[binary].add(len(payload))
        self._engine.send(payload, binary=binary)
        self._flush()

    def _send_in_batch(self, payload: bytes, *, binary: bool) -> None:
        """Send right before or after the answers to other clients."""
        metrics.SENT[binary].add(len(payload))
        self._engine.send(payload, binary=binary)
        is_first = not self._unwritten
        self._unwritten += len(payload)
        if self._unwritten > TOGETHER_BYTES:
            self._flush()
        elif is_first:
            # It may flush at once.
            self._batch.add(self._flush)

    def _send_retractable(self, answer: Retractable, *, binary: bool) -> None:
        if self.is_gone():
            answer.take_back()
            return
        self._send(answer.payload, binary=binary)
        self.outbox.unless_written(answer.take_back)

    def _send_push(self, push: Push) -> None:
        metrics.count_push(push.kind)
        self._send(push.payload, binary=push.binary)

    def _send_soon(self, payload: bytes, *, binary: bool) -> None:
        """Send once the greenlets that are ready to run have added theirs.

        PERF: what the store has committed together is answered together, in two writes: the first
        few, and the others. Not so what is large: it has to be in the outbox for the next request
        to see that there is no room.
        """
        metrics.SENT[binary].add(len(payload))
        self._engine.send(payload, binary=binary)
        if not self._gathered:
            gevent.get_hub().loop.run_callback(self._flush_gathered)
        self._gathered += 1
        self._unwritten += len(payload)
        is_urgent = self._gathered == FIRST_TOGETHER and self._in_flight <= _MOST_TO_HURRY_FOR
        if is_urgent or self._unwritten > TOGETHER_BYTES:
            self._flush()

    def _flush_gathered(self) -> None:
        self._gathered = 0
        self._flush()

    def _flush(self) -> None:
        self._unwritten = 0
        pieces = self._engine.outgoing()
        if pieces:
            self.outbox.put(pieces)

    def _end_if_answered(self) -> None:
        if self._ending is not None and self._is_waiting and not self._in_flight:
            self._send_close()

    def _send_close(self) -> None:
        """Send the close frame, unless one was sent; from here on the peer's is waited for."""
        if self._ending is not None and self._engine.is_open:
            code, reason, reconnect_after_ms = self._ending
            if reconnect_after_ms is not None:
                farewell = self.receiver.farewell(reason, reconnect_after_ms)
                if farewell is not None:
                    self.push(farewell.payload, binary=farewell.binary, kind='closing')
            self._engine.close(code, reason)
            self._flush()
        if self._close_by is None:
            self._close_by = time.monotonic() + self._limits.close_timeout

    def _await_end(self) -> None:
        """Read on until the peer hangs up too, so that it gets the close frame."""
        while not self._engine.is_over:
            for _ in self._engine.receive(self._inbox.read(READ_BYTES)):
                pass
            self._flush()
            if not self._engine.is_over:
                gevent.sleep(MOMENT)

    def _check_rights(self, now: float) -> None:
        limits, receiver = self._limits, self.receiver
        if self._has_expired():
            self._expire()
        elif not receiver.is_known and now - self.opened_at >= limits.authentication_timeout:
            self.finish(Ending(POLICY_VIOLATION, 'Not authenticated in time.'))
        elif limits.idle_timeout and now - self.request_at >= limits.idle_timeout:
            self.finish(Ending(NORMAL, 'Idle for too long.'))

    def _has_expired(self) -> bool:
        expires_at = self.receiver.expires_at
        return expires_at is not None and time.time() >= expires_at

    def _expire(self) -> None:
        self.finish(Ending(AUTHENTICATION_EXPIRED, 'Authentication expired.'))

    def _check_life(self, now: float) -> None:
        """Ping a silent client, and give one up that stays silent.

        Silent is who has neither sent anything nor taken any of what waits for it. While requests
        are being served nobody listens, so nothing is known.
        """
        limits = self._limits
        if not limits.ping_interval:
            return
        if not self._is_waiting and not self.outbox.size:
            self._heard_at = now
        if now - self._heard_at + TICK_SECONDS >= limits.ping_interval:
            self.outbox.look(now)
        heard_at = max(self._heard_at, self.outbox.moved_at)
        has_answered = self._pinged_at is not None and heard_at >= self._pinged_at
        if has_answered or now - heard_at + TICK_SECONDS < limits.ping_interval:
            self._pinged_at = None
        elif self._pinged_at is None:
            self._pinged_at = now
            self._engine.ping()
            self._flush()
        elif now - self._pinged_at + TICK_SECONDS >= limits.ping_timeout:
            self._engine.close(POLICY_VIOLATION, 'No answer to a ping.')
            self._flush()
            self.outbox.cut()


class Pace:
    """Spreads requests so that at most `per_second` begin within any second."""

    __slots__ = ('_due', '_interval')

    def __init__(self, per_second: int) -> None:
        self._interval = 1 / per_second
        self._due = 0.0

    def delay(self, now: float) -> float:
        """How long the next request has to wait, in seconds; counts it as begun then."""
        begins = max(self._due, now)
        self._due = begins + self._interval
        return begins - now
