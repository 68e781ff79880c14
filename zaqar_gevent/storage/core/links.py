"""Calls to a store that is another server: gathered from all greenlets of a hub, sent together.

PERF: there is no thread. A hub has its own connection. It writes to it what its greenlets have
asked for since it last looked, and reads the answers when they are there; neither waits. While a
batch is on its way the next one gathers, so that under load one system call serves many calls, and
the store works while the hub does. A native thread has to wait for the interpreter after each
answer.

Every wait ends. A call waits `patience` seconds to be sent. An answer is waited for `timeout`
seconds; then the connection is given up. Calls that were never sent, and those that can be repeated
without harm, are sent again on the next connection within that time. The others fail with
`OutcomeUnknown`.
"""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import gevent
from gevent import monkey
from gevent.hub import Waiter

from zaqar_gevent.storage.core.outages import OutageLog
from zaqar_gevent.storage.errors import OutcomeUnknown, StoreUnavailable, UnsuitableStore

PATIENCE_SECONDS = 3.0
"""How long a call waits for a connection, at most."""

MAX_WAITING = 10_000
"""Calls that may wait to be sent; further ones fail at once."""

PAUSE_SECONDS = 0.1
"""Between two attempts to connect."""

_QUIET_SECONDS = 0.0005
_TICK_SECONDS = 0.1
_READ, _WRITE = 1, 2

_allocate_lock = monkey.get_original('_thread', 'allocate_lock')
_sleep = monkey.get_original('time', 'sleep')


class Request:
    """A call on its way.

    size: its bytes, about. is_repeatable: whether performing it twice does no harm. until: when to
        give it up if it has not been sent, by `time.monotonic`. answer, error: its result.
    """

    __slots__ = ('answer', 'error', 'is_repeatable', 'size', 'until', 'waiter')

    def __init__(self, size: int, until: float, *, is_repeatable: bool) -> None:
        self.size = size
        self.until = until
        self.is_repeatable = is_repeatable
        self.answer: Any = None
        self.error: BaseException | None = None
        self.waiter: Any = None


R = TypeVar('R', bound=Request)


class HubLink(Generic[R]):
    """A connection of one hub, opened by the first call and whenever it is gone.

    store: the store as the subject of a sentence, for errors. patience: seconds that a call waits
    to be sent. timeout: seconds without a sign of the store, after which the connection is given
    up. outages: where failures are logged.
    max_batch, max_batch_bytes: calls that are sent together, and about how many bytes of them.
    is_choosy: whether `_may_join` says which calls are sent together.

    A store says how it connects (`_dial`, `_descriptor`, `_hang_up`), sends (`_send`,
    `_send_rest`) and reads (`_receive`), and what is on its way (`_in_flight`, `_may_send`).
    """

    max_batch = 256
    max_batch_bytes = 1024 * 1024
    is_choosy = False

    def __init__(
        self, store: str, hub: Any, *, patience: float, timeout: float, outages: OutageLog
    ) -> None:
        self.hub = hub
        self._store = store
        self._patience = patience
        self._timeout = timeout
        self._outages = outages
        self._waiting: collections.deque[R] = collections.deque()
        self._is_connected = False
        self._is_unsent = False
        self._watcher: Any = None
        # When anything was sent or came the last time.
        self._heard_at = 0.0
        self._reason = 'it cannot be reached'
        self._is_opening = False
        self._is_unfit = False
        self._is_closed = False
        self._is_due = False
        # It keeps the loop from ending while answers are due; the idle connection does not.
        self._clock = hub.loop.timer(_TICK_SECONDS, _TICK_SECONDS)

    def ask(self, request: R) -> Any:
        """Send a request and wait for its answer; raises `StoreUnavailable`, or its `error`."""
        if self._is_closed or len(self._waiting) >= MAX_WAITING:
            reason = 'it has been closed' if self._is_closed else 'too many calls wait for it'
            raise StoreUnavailable(self._store, reason)
        request.waiter = Waiter(self.hub)
        self._waiting.append(request)
        if not self._is_due:
            self._flush_soon()
        try:
            request.waiter.get()
        except BaseException:
            # Nobody waits for it any more, so it must not be begun.
            with contextlib.suppress(ValueError):
                self._waiting.remove(request)
            raise
        if request.error is not None:
            raise request.error
        return request.answer

    def new_until(self) -> float:
        """When a request that is made now is given up, unless it has been sent."""
        return time.monotonic() + self._patience

    def close(self) -> None:
        """Close the connection; all calls that wait fail."""
        self._is_closed = True
        self._reason = 'it has been closed'
        self._disconnect()
        self._fail(self._take_waiting(), StoreUnavailable)
        self._fail(self._take_in_flight(), OutcomeUnknown)
        self._clock.stop()

    def forget(self) -> None:
        """In a forked child: leave the connection to the parent."""
        self._is_closed = True
        self._waiting.clear()
        self._take_in_flight()
        self._watch(0)
        if self._is_connected:
            self._is_connected = False
            self._abandon()

    def _dial(self) -> None:
        """In a greenlet: connect. Raises `StoreUnavailable`, `UnsuitableStore`."""
        raise NotImplementedError

    @property
    def _descriptor(self) -> int:
        """The file descriptor of the connection."""
        raise NotImplementedError

    def _hang_up(self) -> None:
        """Close the connection."""
        raise NotImplementedError

    def _abandon(self) -> None:
        """In a forked child: forget the connection; by default it is closed, which harms nobody."""
        self._hang_up()

    def _was_hung_up(self) -> bool:
        """Whether the store has closed the connection, as far as can be seen without waiting."""
        raise NotImplementedError

    def _may_send(self) -> bool:
        """Whether another batch may be on its way."""
        raise NotImplementedError

    def _is_in_flight(self) -> bool:
        """Whether any request has been sent and not been answered."""
        raise NotImplementedError

    def _take_in_flight(self) -> list[R]:
        """Forget the requests that have been sent and not been answered; returns them."""
        raise NotImplementedError

    def _silence(self) -> float:
        """Seconds without a sign of the store after which the connection is given up."""
        return self._timeout

    def _send(self, requests: list[R]) -> bool:
        """Send a batch; whether all of it has been sent. Raises `OSError`."""
        raise NotImplementedError

    def _send_rest(self) -> bool:
        """Go on with a batch; whether all of it has been sent now. Raises `OSError`."""
        raise NotImplementedError

    def _receive(self) -> None:
        """Read what has come, and settle the requests that it answers. Raises `OSError`."""
        raise NotImplementedError

    def _may_join(self, request: R, requests: list[R]) -> bool:
        """Whether a request may be sent in one batch with others, if the store `is_choosy`."""
        raise NotImplementedError

    def _before_repeating(self, request: R) -> None:
        """A request is sent again, which may have been performed already."""

    def _flush_soon(self) -> None:
        """PERF: what all greenlets that are ready now ask for is sent together."""
        if not self._is_due and self._may_send():
            self._is_due = True
            self.hub.loop.run_callback(self._flush)

    def _flush(self) -> None:
        self._is_due = False
        if not self._waiting or self._is_closed or not self._may_send():
            return
        if not self._clock.active:
            self._clock.start(self._tick)
        if not self._is_in_flight():
            now = time.monotonic()
            # What is sent over a connection that has been closed may have been done or not, as far
            # as anybody can tell. PERF: one that has just been in use is not looked at.
            is_quiet = now - self._heard_at >= _QUIET_SECONDS
            if is_quiet and self._is_connected and self._was_hung_up():
                self._disconnect()
            self._heard_at = now
        if not self._is_connected:
            if not self._is_opening:
                self._is_opening = True
                gevent.spawn_raw(self._open)
            return
        try:
            is_sent = self._send(self._gather())
        except OSError as error:
            self._lose(str(error))
            return
        if self._is_unsent is is_sent:
            self._sent_all(is_sent)

    def _gather(self) -> list[R]:
        """The requests of the next batch."""
        waiting = self._waiting
        if len(waiting) == 1:
            # PERF: what one caller at a time costs.
            return [waiting.popleft()]
        requests: list[R] = []
        size = 0
        while waiting and len(requests) < self.max_batch and size < self.max_batch_bytes:
            if self.is_choosy and requests and not self._may_join(waiting[0], requests):
                break
            request = waiting.popleft()
            size += request.size
            requests.append(request)
        return requests

    def _sent_all(self, is_sent: bool) -> None:
        """Whether all has been sent is not what it was before."""
        self._is_unsent = not is_sent
        self._watch(_READ if is_sent else _READ | _WRITE)

    def _watch(self, events: int) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        if self._is_connected and events:
            self._watcher = self.hub.loop.io(self._descriptor, events, ref=False)
            self._watcher.start(self._on_event)

    def _on_event(self) -> None:
        if not self._is_connected:
            return
        try:
            if self._is_unsent and self._send_rest():
                self._sent_all(True)
            self._receive()
        except OSError as error:
            if self._is_connected:
                self._lose(str(error))

    def _settled(self, requests: list[R]) -> None:
        """Wake the callers of requests that have their `answer` or `error`.

        The next batch is sent before they run: the store works meanwhile.
        """
        if self._waiting:
            self._flush()
        for request in requests:
            request.waiter.switch(None)

    def _unavailable(self, reason: str) -> StoreUnavailable:
        return StoreUnavailable(self._store, reason)

    def _lose(self, reason: str) -> None:
        """The connection is of no use any more."""
        self._reason = reason
        if self._waiting or self._is_in_flight():
            self._outages.failed(self._unavailable(reason))
        in_flight = self._take_in_flight()
        self._disconnect()
        self._send_again([one for one in in_flight if one.is_repeatable])
        self._flush_soon()
        self._fail((one for one in in_flight if not one.is_repeatable), OutcomeUnknown)

    def _send_again(self, requests: list[R]) -> None:
        """Have requests sent before all that wait."""
        for request in requests:
            self._before_repeating(request)
        self._waiting.extendleft(reversed(requests))

    def _disconnect(self) -> None:
        was_connected, self._is_connected = self._is_connected, False
        self._is_unsent = False
        self._watch(0)
        if was_connected:
            self._hang_up()

    def _open(self) -> None:
        """In a greenlet: connect, and try it again as long as somebody waits."""
        try:
            if self._is_unfit:
                # Connected to at once, it would refuse the same calls at once.
                self._is_unfit = False
                gevent.sleep(PAUSE_SECONDS)
            while self._waiting and not self._is_closed:
                try:
                    self._dial()
                except (StoreUnavailable, UnsuitableStore) as error:
                    self._reason = error.reason
                    self._outages.failed(self._unavailable(error.reason))
                    gevent.sleep(PAUSE_SECONDS)
                    continue
                self._is_connected = True
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
        if self._is_in_flight() and now - self._heard_at > self._silence():
            self._lose('it does not answer')
        late = [one for one in self._waiting if one.until < now]
        if late:
            # Those that came last have waited least.
            self._waiting = collections.deque(one for one in self._waiting if one.until >= now)
            self._fail(late, StoreUnavailable)
        if not self._waiting and not self._is_in_flight():
            self._clock.stop()

    def _take_waiting(self) -> list[R]:
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def _fail(self, requests: Iterable[R], kind: type[StoreUnavailable]) -> None:
        for request in requests:
            request.error = kind(self._store, self._reason)
            self.hub.loop.run_callback(request.waiter.switch, None)


class ThreadLink:
    """The connection for native threads that have no hub: one call at a time, which waits.

    store, patience: as for `HubLink`. A store says how it connects (`_dial`) and `_hang_up`s.
    """

    def __init__(self, store: str, patience: float) -> None:
        self._store = store
        self._patience = patience
        self._is_connected = False
        self._lock = _allocate_lock()

    def new_until(self) -> float:
        """When a request that is made now is given up."""
        return time.monotonic() + self._patience

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._is_connected:
            self._is_connected = False
            self._hang_up()

    def forget(self) -> None:
        """In a forked child: leave the connection to the parent."""
        if self._is_connected:
            self._is_connected = False
            self._abandon()
        self._lock = _allocate_lock()

    def _dial(self) -> None:
        """Connect. Raises `StoreUnavailable`, `UnsuitableStore`."""
        raise NotImplementedError

    def _hang_up(self) -> None:
        """Close the connection."""
        raise NotImplementedError

    def _abandon(self) -> None:
        """In a forked child: forget the connection; by default it is closed, which harms nobody."""
        self._hang_up()

    def _connect(self, until: float) -> None:
        """Have a connection; raises `StoreUnavailable` if there is none by `until`."""
        while not self._is_connected:
            try:
                self._dial()
            except StoreUnavailable:
                if time.monotonic() > until:
                    raise
                _sleep(PAUSE_SECONDS)
            else:
                self._is_connected = True
