"""Calls to one Redis server: gathered from all greenlets of a hub, sent together, woken together.

PERF: there is no thread. A hub writes to its own connection what its greenlets have asked for since
it last looked, and reads the answers when they are there; neither waits. While a batch is on its
way the next one gathers, so that under load a system call serves many calls, and Redis works while
the hub does. A native thread has to wait for the interpreter after each answer.

Every wait ends: an answer is waited for `timeout` seconds, after which the connection is given up,
and a connection for `PATIENCE_SECONDS`. What was never sent, and what can be repeated without harm,
is sent again on the next connection within that time. The rest fails with `OutcomeUnknown`.

Where writes are to be confirmed (see `durability`), one confirmation is asked for behind each batch
and its calls are answered when it has been given. Without it they fail with `OutcomeUnknown`.
"""

from __future__ import annotations

import _socket
import collections
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.socket
import hiredis
from gevent import monkey
from gevent.hub import Waiter
from oslo_log import log

from zaqar_gevent.storage.redis.addresses import Address
from zaqar_gevent.storage.redis.durability import Confirmation, Durability
from zaqar_gevent.storage.redis.outage import (
    Meaning,
    OutcomeUnknown,
    RedisUnavailable,
    UnsuitableServer,
    read_error,
)
from zaqar_gevent.storage.redis.wire import CHUNK, Command, Wire, dial, pack

LOG = log.getLogger(__name__)

PATIENCE_SECONDS = 3.0
"""How long a call waits for a connection, at most; the options of the driver may say less."""

MAX_WAITING = 10_000
"""Calls that may wait to be sent; further ones fail at once."""

MAX_BATCH = 256
MAX_BATCH_BYTES = 1024 * 1024
"""Calls, and about how many bytes of them, that are sent together."""

_AGAIN_SECONDS = 60.0
_MOST_REASONS = 100
_PAUSE_SECONDS = 0.1
_QUIET_SECONDS = 0.0005
_TICK_SECONDS = 0.1
_READ, _WRITE = 1, 2

_allocate_lock = monkey.get_original('_thread', 'allocate_lock')
_sleep = monkey.get_original('time', 'sleep')


class PendingCommand:
    """A command on its way, packed.

    again: what to send where the server does not know a script. is_repeatable: whether performing
        it twice does no harm. until: when nobody waits any more for it to be sent.
    """

    __slots__ = ('again', 'answer', 'data', 'is_repeatable', 'until', 'waiter')

    def __init__(
        self, command: Command, again: Command | None, until: float, *, is_repeatable: bool
    ) -> None:
        # Here, so that what cannot be packed fails the call alone.
        self.data = pack(command)
        self.again = again
        self.is_repeatable = is_repeatable
        self.until = until
        self.answer: Any = None
        self.waiter: Any = None


class _Outages:
    """Logs outages, each once, and what single calls are refused for once a minute."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._reason: str | None = None
        self._refused_at: dict[str, float] = {}

    @property
    def is_on(self) -> bool:
        """Whether nothing has worked since the last failure."""
        return self._reason is not None

    def failed(self, reason: str) -> None:
        """The server cannot be used."""
        if reason != self._reason:
            LOG.error('Redis at %s is unavailable: %s', self._address, reason)
        self._reason = reason

    def refused(self, reason: str) -> None:
        """It refuses some calls, and serves others."""
        now = time.monotonic()
        if now >= self._refused_at.get(reason, 0.0):
            if len(self._refused_at) >= _MOST_REASONS:
                self._refused_at.clear()
            self._refused_at[reason] = now + _AGAIN_SECONDS
            LOG.error('Redis at %s refuses calls: %s', self._address, reason)

    def works(self) -> None:
        """It has answered."""
        LOG.info('Redis at %s is available again.', self._address)
        self._reason = None


class HubLink:
    """The connection of one hub to a server, opened by the first call and whenever it is gone.

    patience: seconds that a call waits to be sent. durability: what its calls are to survive.
    """

    def __init__(self, address: Address, patience: float, hub: Any, durability: Durability) -> None:
        self.hub = hub
        self._durability = durability
        self._address = address
        self._patience = patience
        self._outages = _Outages(address)
        self._waiting: collections.deque[PendingCommand] = collections.deque()
        self._sent: collections.deque[PendingCommand] = collections.deque()
        # Answered, and to be confirmed by what was sent behind them.
        self._unconfirmed: list[PendingCommand] = []
        self._confirming: Confirmation | None = None
        self._wire: Wire | None = None
        self._watcher: Any = None
        self._unsent = b''
        # When anything was sent or came the last time.
        self._heard_at = 0.0
        self._reason = 'it cannot be reached'
        self._is_opening = False
        self._is_unfit = False
        self._is_closed = False
        self._is_due = False
        # It keeps the loop from ending while answers are due; the idle connection does not.
        self._clock = hub.loop.timer(_TICK_SECONDS, _TICK_SECONDS)

    def call(self, command: Command, again: Command | None, *, is_repeatable: bool) -> Any:
        """The answer to a command; raises `RedisUnavailable`."""
        if self._is_closed or len(self._waiting) >= MAX_WAITING:
            reason = 'it has been closed' if self._is_closed else 'too many calls wait for it'
            raise RedisUnavailable(self._address, reason)
        until = time.monotonic() + self._patience
        call = PendingCommand(command, again, until, is_repeatable=is_repeatable)
        call.waiter = Waiter(self.hub)
        self._waiting.append(call)
        self._flush_soon()
        try:
            call.waiter.get()
        except BaseException:
            # Nobody waits for it any more, so it must not be begun.
            with contextlib.suppress(ValueError):
                self._waiting.remove(call)
            raise
        if isinstance(call.answer, BaseException):
            raise call.answer
        return call.answer

    def close(self) -> None:
        """Give the connection up; whoever waits is told."""
        self._is_closed = True
        self._reason = 'it has been closed'
        self._disconnect()
        self._fail(self._waiting, RedisUnavailable)
        self._fail(self._take_sent(), OutcomeUnknown)
        self._clock.stop()

    def forget(self) -> None:
        """In a forked child: leave the connection to the parent."""
        self._is_closed = True
        self._waiting.clear()
        self._take_sent()
        self._disconnect()

    def _flush_soon(self) -> None:
        """PERF: what all greenlets that are ready now ask for is sent together."""
        if not self._is_due and not self._awaits_answers:
            self._is_due = True
            self.hub.loop.run_callback(self._flush)

    def _flush(self) -> None:
        self._is_due = False
        if self._awaits_answers or not self._waiting:
            return
        if not self._clock.active:
            self._clock.start(self._tick)
        if self._wire is not None and self._was_closed():
            self._disconnect()
        if self._wire is None:
            if not self._is_opening:
                self._is_opening = True
                gevent.spawn_raw(self._open)
            return
        size = 0
        while self._waiting and len(self._sent) < MAX_BATCH and size < MAX_BATCH_BYTES:
            call = self._waiting.popleft()
            size += len(call.data)
            self._sent.append(call)
        self._heard_at = time.monotonic()
        packed = [call.data for call in self._sent]
        self._confirming = self._wire.confirmation
        if self._confirming is not None:
            packed.append(pack(self._confirming.command))
        try:
            data = self._wire.encode(b''.join(packed))
        except OSError as error:
            self._lose(str(error))
            return
        self._send(data)

    def _was_closed(self) -> bool:
        """Whether Redis has closed the connection while nothing was asked.

        What is sent all the same may have been done or not, as far as anybody can tell.
        PERF: a connection that has just been in use is not looked at.
        """
        if self._wire is None or time.monotonic() - self._heard_at < _QUIET_SECONDS:
            return False
        try:
            return not self._wire.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _send(self, data: bytes) -> None:
        assert self._wire is not None
        try:
            count = self._wire.sock.send(data)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self._lose(str(error))
            return
        was_writing, self._unsent = bool(self._unsent), data[count:]
        if was_writing != bool(self._unsent):
            self._watch(_READ | _WRITE if self._unsent else _READ)

    def _watch(self, events: int) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        if self._wire is not None and events:
            self._watcher = self.hub.loop.io(self._wire.sock.fileno(), events, ref=False)
            self._watcher.start(self._on_event)

    def _on_event(self) -> None:
        if self._unsent:
            self._send(self._unsent)
        answers: list[Any] = []
        try:
            while self._wire is not None:
                data = self._wire.sock.recv(CHUNK)
                if not data:
                    raise OSError('it has closed the connection')
                self._heard_at = time.monotonic()
                answers += self._wire.decode(data)
                if len(data) < CHUNK:
                    break
        except BlockingIOError:
            pass
        except OSError as error:
            self._take(answers)
            self._lose(str(error))
            return
        self._take(answers)

    def _take(self, answers: list[Any]) -> None:
        """Wake those whose answers have come."""
        answered: list[PendingCommand] = []
        retried: list[PendingCommand] = []
        lost: str | None = None
        for answer in answers:
            if self._sent:
                lost = self._sort(self._sent.popleft(), answer, answered, retried) or lost
            elif self._confirming is not None:
                answered += self._confirm(answer)
            else:
                lost = 'it answers what nobody asked'
                break
        self._waiting.extendleft(reversed(retried))
        if answered and self._outages.is_on and not isinstance(answers[-1], hiredis.ReplyError):
            self._outages.works()
        if lost is not None:
            self._lose(lost)
        elif not self._awaits_answers:
            # Before those who are woken run: Redis works meanwhile.
            self._flush()
        for call in answered:
            call.waiter.switch(None)

    def _sort(
        self,
        call: PendingCommand,
        answer: Any,
        answered: list[PendingCommand],
        retried: list[PendingCommand],
    ) -> str | None:
        """Put a call where it belongs by its answer; why the server is of no use, if it is not."""
        if not isinstance(answer, hiredis.ReplyError):
            call.answer = answer
            (answered if self._confirming is None else self._unconfirmed).append(call)
            return None
        meaning, reason = read_error(str(answer))
        if meaning is Meaning.UNKNOWN_SCRIPT and call.again is not None:
            call.data, call.again = pack(call.again), None
            retried.append(call)
        elif meaning in (Meaning.WRONG_SERVER, Meaning.NOT_NOW):
            # Not begun: it is asked again on a new connection, as long as there is time.
            self._waiting.appendleft(call)
            self._is_unfit = True
            return reason
        else:
            self._outages.refused(reason)
            call.answer = RedisUnavailable(self._address, reason)
            answered.append(call)
        return None

    @property
    def _awaits_answers(self) -> bool:
        return bool(self._sent) or self._confirming is not None

    def _confirm(self, answer: Any) -> list[PendingCommand]:
        """Calls whose confirmation has been given, or not: then their outcome is not known."""
        assert self._confirming is not None
        confirming, self._confirming = self._confirming, None
        calls, self._unconfirmed = self._unconfirmed, []
        if calls and not confirming.is_given(answer):
            self._outages.refused(confirming.failure)
            for call in calls:
                call.answer = OutcomeUnknown(self._address, confirming.failure)
        return calls

    def _take_sent(self) -> collections.deque[PendingCommand]:
        """What has been sent and is not done, which is forgotten."""
        sent = collections.deque([*self._unconfirmed, *self._sent])
        self._sent.clear()
        self._unconfirmed.clear()
        self._confirming = None
        return sent

    def _lose(self, reason: str) -> None:
        """The connection is of no use any more."""
        self._reason = reason
        if self._awaits_answers or self._waiting:
            self._outages.failed(reason)
        sent = self._take_sent()
        self._disconnect()
        lost = collections.deque(call for call in sent if not call.is_repeatable)
        self._waiting.extendleft(reversed([call for call in sent if call.is_repeatable]))
        self._flush_soon()
        self._fail(lost, OutcomeUnknown)

    def _disconnect(self) -> None:
        wire, self._wire, self._unsent = self._wire, None, b''
        self._watch(0)
        if wire is not None:
            wire.close()

    def _open(self) -> None:
        """In a greenlet: connect, and try it again as long as somebody waits."""
        try:
            if self._is_unfit:
                # Connected to at once, it would refuse the same calls at once.
                self._is_unfit = False
                gevent.sleep(_PAUSE_SECONDS)
            while self._waiting and not self._is_closed:
                try:
                    wire = dial(self._address, gevent.socket, self._durability)
                except (RedisUnavailable, UnsuitableServer) as error:
                    self._reason = error.reason
                    self._outages.failed(self._reason)
                    gevent.sleep(_PAUSE_SECONDS)
                    continue
                self._wire = _without_gevent(wire)
                self._watch(_READ)
                return
        finally:
            self._is_opening = False
            if self._is_closed:
                self._disconnect()
            else:
                self._flush_soon()

    def _tick(self) -> None:
        """Give up what has waited too long."""
        now = time.monotonic()
        silence = self._address.timeout
        if self._confirming is not None:
            silence += self._confirming.seconds
        if self._awaits_answers and now - self._heard_at > silence:
            self._lose('it does not answer')
        late = [call for call in self._waiting if call.until < now]
        if late:
            # Those that came last have waited least.
            self._waiting = collections.deque(one for one in self._waiting if one.until >= now)
            self._fail(collections.deque(late), RedisUnavailable)
        if not self._awaits_answers and not self._waiting:
            self._clock.stop()

    def _fail(
        self, calls: collections.deque[PendingCommand], error: type[RedisUnavailable]
    ) -> None:
        while calls:
            call = calls.popleft()
            call.answer = error(self._address, self._reason)
            self.hub.loop.run_callback(call.waiter.switch, None)


class ThreadLink:
    """The connection for native threads that have no hub: one call at a time, which waits."""

    def __init__(self, address: Address, patience: float, durability: Durability) -> None:
        self._address = address
        self._patience = patience
        self._durability = durability
        self._wire: Wire | None = None
        self._lock = _allocate_lock()

    def call(self, command: Command, again: Command | None, *, is_repeatable: bool) -> Any:
        """The answer to a command; raises `RedisUnavailable`."""
        until = time.monotonic() + self._patience
        with self._lock:
            while True:
                wire = self._connect(until)
                try:
                    return self._ask(wire, command)
                except hiredis.ReplyError as error:
                    meaning, reason = read_error(str(error))
                    if meaning is Meaning.UNKNOWN_SCRIPT and again is not None:
                        command, again = again, None
                        continue
                    if meaning in (Meaning.REFUSED, Meaning.UNKNOWN_SCRIPT):
                        raise RedisUnavailable(self._address, reason) from None
                    self.close()
                    if time.monotonic() > until:
                        raise RedisUnavailable(self._address, reason) from None
                    _sleep(_PAUSE_SECONDS)
                except OSError as error:
                    self.close()
                    if not is_repeatable or time.monotonic() > until:
                        raise OutcomeUnknown(self._address, str(error)) from None

    def _ask(self, wire: Wire, command: Command) -> Any:
        confirming = wire.confirmation
        if confirming is None:
            return wire.ask([command])[0]
        answer, confirmed = wire.ask([command, confirming.command])
        if not confirming.is_given(confirmed):
            raise OutcomeUnknown(self._address, confirming.failure)
        return answer

    def close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def _connect(self, until: float) -> Wire:
        while self._wire is None:
            try:
                self._wire = dial(self._address, _socket, self._durability)
            except RedisUnavailable:
                if time.monotonic() > until:
                    raise
                _sleep(_PAUSE_SECONDS)
        return self._wire


def _without_gevent(wire: Wire) -> Wire:
    """The same connection by a bare socket that never waits.

    PERF: gevent's would begin to wait, and raise, on each read that is one too many.
    """
    sock = wire.sock
    bare = _socket.socket(sock.family, sock.type, sock.proto, sock.detach())
    bare.setblocking(False)
    wire.sock = bare
    return wire


Link = HubLink | ThreadLink
NewLink = Callable[[], Link]
