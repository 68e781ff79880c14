"""A connection: a WebSocket with a thread that reads it, and requests in flight together."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zaqar_gevent.client.envelopes import Envelope
from zaqar_gevent.client.errors import Timeout, ZaqarError
from zaqar_gevent.client.exchange import Exchange, OnAnswer, PendingRequest, PushHandler
from zaqar_gevent.client.lifetime import ForkGuard
from zaqar_gevent.client.links import Answer, Broken, Capabilities, no_answer
from zaqar_gevent.client.settings import Settings
from zaqar_gevent.client.sync.waiters import Waiter, WaiterPool
from zaqar_gevent.client.sync.websocket import WebSocket

# How long to wait for the server's part of the closing handshake.
CLOSING_SECONDS = 2.0
# For so long after an answer the reading thread leaves reading to the next caller.
_STEP_BACK_SECONDS = 0.05
# How soon threads that have their answers are expected to ask again: each, and at most.
_EXPECTED_SECONDS = 0.0001
_MAX_EXPECTED_SECONDS = 0.001
# For so long after some did not, nothing is expected.
_NOTHING_EXPECTED_SECONDS = 0.02
# So many requests are sent without waiting for more: the server begins with them meanwhile.
_SENT_TOGETHER = 4
# Longer requests are sent by themselves.
_MAX_LEFT_BYTES = 16 * 1024


class _Pending(PendingRequest):
    """A request whose answer a thread waits for.

    resolved: where requests are put whose threads are to be woken. is_resolved: whether `answer` is
    final: None if the connection died before there was one.
    """

    __slots__ = ('_resolved', '_waiter', 'answer', 'is_resolved')

    def __init__(
        self, size: int, on_answer: OnAnswer | None, resolved: collections.deque[_Pending]
    ) -> None:
        super().__init__(size, on_answer)
        self._resolved = resolved
        self._waiter: Waiter | None = None
        self.answer: Answer | None = None
        self.is_resolved = False

    def resolve(self, answer: Answer | None) -> None:
        super().resolve(answer)
        self.answer = answer
        self.is_resolved = True
        self._resolved.append(self)

    def wake(self) -> None:
        """Wake the thread that waits for the answer, if it waits already."""
        waiter = self._waiter
        if waiter is not None:
            waiter.wake()

    def wait(self, waiter: Waiter, deadline: float) -> None:
        """Wait until it is resolved, or the deadline is over."""
        # First this, then the look: whoever resolves it does so in the other order.
        self._waiter = waiter
        while not self.is_resolved:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            waiter.wait(left)


class Connection(Exchange):
    """A WebSocket connection to perform operations over; `open` makes one.

    A thread of its own reads it. PERF: but while there is only one caller, and nothing is pushed,
    the caller reads its answer itself, since two switches between threads cost more than all else
    that is done for a request. After an answer the reading thread steps back for a moment, for the
    caller's next request. Whoever reads holds `_reading`.

    PERF: callers whose answers have come together are expected to ask again together. Each leaves
    its request in the WebSocket, and the last of them, or whoever reads if some do not come, sends
    them all: a system call for each would cost more than all else, also for the server.

    keepalive: after how many seconds without a word the server is pinged; after twice as many it is
    taken for dead. on_end: called once, by the reading thread. problem: why it has ended.
    """

    def __init__(
        self,
        websocket: WebSocket,
        envelope: Envelope,
        *,
        settings: Settings,
        on_end: Callable[[Connection], None],
    ) -> None:
        super().__init__(envelope, binary=settings.encoding == 'msgpack', default=settings.default)
        self._fork_guard = ForkGuard()
        self._websocket = websocket
        self._keepalive = settings.keepalive
        self._on_end = on_end
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name='zaqar-reader', daemon=True)
        self._reading = threading.Lock()
        # Requests that have their answers, whose threads are to be woken.
        self._resolved: collections.deque[_Pending] = collections.deque()
        self._waiters = WaiterPool()
        self._has_crowd = False
        # How many threads have just been woken and are likely to ask something soon.
        self._expected = 0
        self._expected_by = 0.0
        self._expects_again_at = 0.0
        self._stepped_back_until = 0.0
        # Set when the reading thread is to read at once.
        self._needed = threading.Event()
        self._heard_at = time.monotonic()
        self._is_pinged = False
        self._close_by: float | None = None
        self.is_open = True
        self.problem = ''

    @classmethod
    def open(
        cls,
        url: str,
        envelope: Callable[[str | None], Envelope],
        *,
        seconds: float,
        settings: Settings,
        subprotocols: Sequence[str],
        on_end: Callable[[Connection], None],
    ) -> Connection:
        """Connect within `seconds`; see `WebSocket.connect` for what it raises.

        envelope: gives the envelope for the subprotocol that the server has chosen.
        """
        websocket = WebSocket.connect(
            url,
            seconds=seconds,
            subprotocols=subprotocols,
            tls=settings.tls,
            max_message_bytes=settings.max_message_size,
            engine=settings.engine,
            compression=settings.compression,
        )
        connection = cls(
            websocket, envelope(websocket.subprotocol), settings=settings, on_end=on_end
        )
        connection._thread.start()
        return connection

    @property
    def close_code(self) -> int | None:
        """With which code it was closed, None while it is open."""
        return self._websocket.close_code

    def get_capabilities(self) -> Capabilities:
        """What the server can do."""
        return self.capabilities

    def perform(
        self,
        action: str,
        arguments: Mapping[str, Any],
        seconds: float,
        *,
        headers: Mapping[str, str] | None = None,
        on_answer: OnAnswer | None = None,
    ) -> Answer:
        """Perform an operation and wait for the answer, an error's as well.

        on_answer: called by the reading thread before it reads on; it must not wait. Raises Broken
        if the connection dies, Timeout if no answer comes in time, TypeError or ValueError for
        arguments that cannot be written.

        A request that is longer than the server takes is answered with 413: by this side if the
        server has said its limit, otherwise when the server closes the connection over it.
        """
        self._fork_guard.check()
        deadline = time.monotonic() + seconds
        ident = next(self._idents)
        data = self._encode(ident, action, arguments, headers or {})
        refusal = self._refusal_of(data)
        if refusal is not None:
            if on_answer is not None:
                on_answer(refusal)
            return refusal
        pending = _Pending(len(data), on_answer, self._resolved)
        is_expected = self._register(ident, pending)
        try:
            self._send(data, pending, deadline, is_expected=is_expected)
            if self._may_read() and self._reading.acquire(blocking=False):
                self._read_until(pending, deadline)
            if not pending.is_resolved:
                self._wait(pending, deadline)
        finally:
            self._pending.pop(ident, None)
        if not pending.is_resolved:
            raise no_answer(seconds)
        if pending.answer is None:
            raise Broken('The connection died before the answer.', was_sent=True)
        return pending.answer

    def send_soon(
        self, action: str, arguments: Mapping[str, Any], on_answer: OnAnswer | None = None
    ) -> None:
        """Ask for something without waiting; `on_answer` is told None if the connection dies."""
        if not self._fork_guard.is_here:
            return
        ident = next(self._idents)
        data = self._encode(ident, action, arguments, {})
        try:
            self._register(ident, PendingRequest(len(data), on_answer))
        except Broken:
            if on_answer is not None:
                on_answer(None)
            return
        self._websocket.send_soon(data, binary=self._binary)

    def send_unanswered(self, action: str, arguments: Mapping[str, Any]) -> None:
        """Ask for something whose answer does not matter; it is lost with the connection."""
        if self._fork_guard.is_here:
            data = self._encode(next(self._idents), action, arguments, {})
            self._websocket.send_soon(data, binary=self._binary)

    def check(self, seconds: float) -> None:
        """Ping the server and wait for its pong; raises Timeout or Broken."""
        deadline = time.monotonic() + seconds
        before = self._websocket.pongs
        self._websocket.ping()
        while self._websocket.pongs == before:
            if not self.is_open:
                raise Broken(self.problem, was_sent=False)
            if time.monotonic() >= deadline:
                raise Timeout('The server does not answer a ping.')
            time.sleep(0.005)

    def attach(self, name: str, handler: PushHandler) -> None:
        """Give what is pushed under a name, a subscription's or consumer's id, to `handler`.

        In the default envelope the name is the queue's.
        """
        with self._lock:
            is_open = self.is_open
            if is_open:
                self._push_handlers[name] = handler
        if is_open:
            self._needed.set()
        else:
            handler.on_disconnect()

    def detach(self, name: str) -> None:
        """Drop what is pushed under a name."""
        with self._lock:
            self._push_handlers.pop(name, None)

    def close(self) -> None:
        """Close in order, and wait until that is done, but not long."""
        self._close_by = time.monotonic() + CLOSING_SECONDS
        self._websocket.close()
        self._needed.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSING_SECONDS)
        self.cut()

    def cut(self) -> None:
        """End the connection at once."""
        self._websocket.cut()
        self._needed.set()

    def _register(self, ident: int, pending: PendingRequest) -> bool:
        """Note a request that is to be sent; whether it is one of those that were expected."""
        with self._lock:
            if not self.is_open:
                raise Broken(self.problem, was_sent=False)
            self._pending[ident] = pending
            is_expected = self._expected > 0
            if is_expected:
                self._expected -= 1
        return is_expected

    def _send(self, data: bytes, pending: _Pending, deadline: float, *, is_expected: bool) -> None:
        """Send a request, or leave it to be sent with others that are expected."""
        left: bytes | None = data
        if is_expected and len(data) <= _MAX_LEFT_BYTES:
            count = self._websocket.leave(data, binary=self._binary)
            # Whoever was expected last looks after all others have been counted: it sends.
            if self._expected and count < _SENT_TOGETHER:
                return
            left = None
        try:
            self._websocket.send(left, binary=self._binary, seconds=deadline - time.monotonic())
        except OSError as error:
            # The server may have closed the connection before it read all of it.
            self._wait(pending, time.monotonic() + CLOSING_SECONDS)
            if pending.answer is None:
                reason = f'The request could not be sent: {error}'
                raise Broken(reason, was_sent=left is None) from error

    def _wait(self, pending: _Pending, deadline: float) -> None:
        """Wait until a request is answered or its time is over; for its caller."""
        waiter = self._waiters.take()
        try:
            pending.wait(waiter, deadline)
        finally:
            self._waiters.give_back(waiter)

    def _read(self) -> None:
        try:
            self._receive()
        except ZaqarError as error:
            self.problem = str(error)
        finally:
            self._end()

    def _receive(self) -> None:
        websocket = self._websocket
        while not websocket.is_over:
            silence = time.monotonic() - self._heard_at
            if silence >= 2 * self._keepalive or self._is_overdue():
                self.problem = f'The server has been silent for {silence:.0f} s.'
                return
            if silence >= self._keepalive and not self._is_pinged:
                self._is_pinged = True
                websocket.ping()
            limit = 2 * self._keepalive if self._is_pinged else self._keepalive
            seconds = min(limit - silence, CLOSING_SECONDS)
            self._step_back()
            if not self._reading.acquire(timeout=seconds):
                # A caller reads; it is not the one to look after a server that is silent.
                continue
            try:
                # What many ask is not answered yet. To poll lets others run, also under gevent.
                is_early = self._has_crowd
                self._receive_once(self._send_expected(seconds), is_early=is_early)
                self._wake()
            finally:
                self._reading.release()
            if not is_early:
                # Under gevent nothing else would run while there is something to read.
                time.sleep(0)
        if not self.problem:
            code, reason = websocket.close_code, websocket.close_reason
            self.problem = f'Closed with {code} {reason}'.rstrip()

    def _receive_once(self, seconds: float, *, is_early: bool = False) -> None:
        """Take what comes within so many seconds; for whoever holds `_reading`."""
        has_come, messages = self._websocket.receive(seconds, is_early=is_early)
        if has_come:
            self._heard_at, self._is_pinged = time.monotonic(), False
            self._dispatch(messages)
            if not self._pending and messages and len(self._resolved) < 2:
                self._stepped_back_until = self._heard_at + _STEP_BACK_SECONDS

    def _wake(self) -> None:
        """Wake the threads whose answers have come; several are expected to ask again at once."""
        resolved = self._resolved
        count = len(resolved)
        if count > 1:
            self._has_crowd, self._stepped_back_until = True, 0.0
            if self._heard_at >= self._expects_again_at:
                seconds = min(count * _EXPECTED_SECONDS, _MAX_EXPECTED_SECONDS)
                self._expected_by = self._heard_at + seconds
                with self._lock:
                    self._expected += count
        elif not self._pending:
            self._has_crowd = False
        while resolved:
            resolved.popleft().wake()

    def _send_expected(self, seconds: float) -> float:
        """Send what threads have left if that is due; how long to wait, at most so long, if not."""
        if not self._expected:
            return seconds
        left = self._expected_by - time.monotonic()
        if left > 0:
            return min(left, seconds)
        with self._lock:
            self._expected = 0
        self._expects_again_at = self._expected_by + _NOTHING_EXPECTED_SECONDS
        self._websocket.flush()
        return seconds

    def _step_back(self) -> None:
        """Leave reading to a caller for a moment, if there was one; only for the thread."""
        while not self._push_handlers and not self._websocket.is_over:
            left = self._stepped_back_until - time.monotonic()
            # A request that was made while this thread was reading is nobody's else to read for.
            is_waited_for = bool(self._pending) and not self._reading.locked()
            if left <= 0 or is_waited_for or self._needed.wait(left):
                break
        self._needed.clear()

    def _may_read(self) -> bool:
        """Whether a caller may read its answer itself: it is the only one to wait for anything."""
        return not self._push_handlers and len(self._pending) == 1 and not self._has_crowd

    def _read_until(self, pending: _Pending, deadline: float) -> None:
        """Read until a request is answered, or its time is over; for its caller."""
        try:
            while not (pending.is_resolved or self._websocket.is_over):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                seconds = self._send_expected(min(left, CLOSING_SECONDS))
                self._receive_once(seconds, is_early=True)
                self._wake()
        except ZaqarError as error:
            self.problem = str(error)
            self._websocket.cut()
        finally:
            self._reading.release()
            if self._pending or self._push_handlers or self._websocket.is_over:
                self._needed.set()

    def _is_overdue(self) -> bool:
        return self._close_by is not None and time.monotonic() > self._close_by

    def _end(self) -> None:
        with self._lock:
            self.is_open = False
            pending = [self._pending.pop(ident) for ident in tuple(self._pending)]
            handlers, self._push_handlers = list(self._push_handlers.values()), {}
        self._websocket.release()
        self._abandon(pending, handlers, refused_for_size=self._websocket.is_refused_for_size)
        self._wake()
        self._waiters.close()
        self._on_end(self)
