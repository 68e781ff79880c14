"""A connection: a WebSocket with a thread that reads it, and requests in flight together."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from zaqar_gevent.client import codecs
from zaqar_gevent.client.envelopes import Answered, Envelope
from zaqar_gevent.client.errors import AccessEnded, Timeout, ZaqarError, from_end
from zaqar_gevent.client.frames import MESSAGE_TOO_BIG, Message
from zaqar_gevent.client.lifetime import Home
from zaqar_gevent.client.links import Answer, Broken, Capabilities
from zaqar_gevent.client.websocket import WebSocket

LOG = logging.getLogger(__name__)

# How long to wait for the server's part of the closing handshake.
CLOSING_SECONDS = 2.0
_MAX_IN_FLIGHT = 64
# The kinds of pushes that are no messages, by what upstream's envelope calls them.
_KINDS = {'UnsubscribeConfirmation': 'ended'}


class Feed(Protocol):
    """Whoever is pushed to. The reading thread calls it, and must not have to wait."""

    def push(self, document: dict[str, Any], size: int) -> None:
        """A message was pushed; `size` in bytes."""
        ...

    def pause(self) -> None:
        """The server does not push on by itself."""
        ...

    def expel(self, error: AccessEnded | None) -> None:
        """The server has ended what is pushed; `error` where it cannot be had again."""
        ...

    def end(self) -> None:
        """The connection has ended."""
        ...


class _Pending:
    """A request that waits for its answer; `size` in bytes."""

    __slots__ = ('_answer', '_event', '_on_answer', 'size')

    def __init__(self, size: int, on_answer: Callable[[Answer], None] | None) -> None:
        self.size = size
        self._event = threading.Event()
        self._answer: Answer | None = None
        self._on_answer = on_answer

    def resolve(self, answer: Answer | None) -> None:
        """The answer has come; None says that none will."""
        if answer is not None and self._on_answer is not None:
            self._on_answer(answer)
        self._answer = answer
        self._event.set()

    def wait(self, seconds: float) -> Answer:
        if not self._event.wait(max(seconds, 0)):
            raise Timeout(f'No answer within {seconds:.1f} s.')
        if self._answer is None:
            raise Broken('The connection died before the answer.', was_sent=True)
        return self._answer

    def refusal(self) -> Answer | None:
        """The answer to a request that could not be sent whole; it is not waited for long."""
        self._event.wait(CLOSING_SECONDS)
        return self._answer


class Connection:
    """See `zaqar_gevent.client.links.Link`.

    binary: whether to write MsgPack. keepalive: after how many seconds without a word the server is
    pinged; after twice as many it is taken for dead. on_end: called once, by the reading thread.
    capabilities: what the server has said that it can do.
    reconnect_after_ms: when to come back, if the server has said so; `problem`: why it ended.
    """

    def __init__(
        self,
        websocket: WebSocket,
        envelope: Envelope,
        *,
        binary: bool,
        keepalive: float,
        on_end: Callable[[Connection], None],
    ) -> None:
        self._home = Home()
        self._websocket = websocket
        self._envelope = envelope
        self._binary = binary
        self._keepalive = keepalive
        self._on_end = on_end
        self._lock = threading.Lock()
        self._idents = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._feeds: dict[str, Feed] = {}
        self._slots = threading.BoundedSemaphore(_MAX_IN_FLIGHT)
        self._thread = threading.Thread(target=self._read, name='zaqar-reader', daemon=True)
        self._close_by: float | None = None
        self.capabilities = Capabilities()
        self.reconnect_after_ms: int | None = None
        self.is_open = True
        self.problem = ''

    @property
    def kind(self) -> Literal['zaqar.v2', 'default']:
        return self._envelope.kind

    @property
    def close_code(self) -> int | None:
        """With which code it was closed, None while it is open."""
        return self._websocket.close_code

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def perform(
        self,
        action: str,
        arguments: Mapping[str, Any],
        seconds: float,
        *,
        headers: Mapping[str, str] | None = None,
        on_answer: Callable[[Answer], None] | None = None,
    ) -> Answer:
        """See `Link`. `on_answer` is called by the reading thread before it reads on, and must not
        have to wait.

        A request that is longer than the server takes is answered with 413: by this side where the
        server has said its limit, else when the server closes the connection over it.
        """
        self._home.check()
        deadline = time.monotonic() + seconds
        if not self._slots.acquire(timeout=max(seconds, 0)):
            raise Timeout('Too many requests are in flight.')
        ident = next(self._idents)
        try:
            payload = self._encode(ident, action, arguments, headers or {})
            if self._is_too_long(payload):
                limit = self.capabilities.max_message_size
                return _too_long(len(payload), f'at most {limit} are allowed')
            pending = self._register(ident, _Pending(len(payload), on_answer))
            left = deadline - time.monotonic()
            try:
                self._websocket.send(payload, binary=self._binary, seconds=left)
            except OSError as error:
                # The server may have closed the connection before it read all of it.
                refusal = pending.refusal()
                if refusal is not None:
                    return refusal
                raise Broken(f'The request could not be sent: {error}', was_sent=False) from error
            return pending.wait(deadline - time.monotonic())
        finally:
            self._pending.pop(ident, None)
            self._slots.release()

    def tell(self, action: str, arguments: Mapping[str, Any]) -> None:
        """Ask for something without waiting for anything; it is lost with the connection."""
        if not self._home.is_here:
            return
        payload = self._encode(next(self._idents), action, arguments, {})
        self._websocket.tell(payload, binary=self._binary)

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

    def attach(self, name: str, feed: Feed) -> None:
        """Hand what is pushed under a name, a subscription's or a consumer's id, to `feed`.

        In the default envelope the name is the queue's.
        """
        with self._lock:
            if self.is_open:
                self._feeds[name] = feed
                return
        feed.end()

    def detach(self, name: str) -> None:
        """Drop what is pushed under a name."""
        with self._lock:
            self._feeds.pop(name, None)

    def close(self) -> None:
        """Close in order, and wait until that is done, but not long."""
        self._close_by = time.monotonic() + CLOSING_SECONDS
        self._websocket.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSING_SECONDS)
        self.cut()

    def cut(self) -> None:
        """End the connection at once."""
        self._websocket.cut()

    def _encode(
        self, ident: int, action: str, arguments: Mapping[str, Any], headers: Mapping[str, str]
    ) -> bytes:
        document = self._envelope.wrap(ident, action, arguments, headers)
        return codecs.encode(document, binary=self._binary)

    def _is_too_long(self, payload: bytes) -> bool:
        """Whether the server has said that it takes no message of this length."""
        return self.kind != 'default' and len(payload) > self.capabilities.max_message_size

    def _register(self, ident: int, pending: _Pending) -> _Pending:
        with self._lock:
            if not self.is_open:
                raise Broken(self.problem, was_sent=False)
            self._pending[ident] = pending
        return pending

    def _read(self) -> None:
        try:
            self._receive()
        except ZaqarError as error:
            self.problem = str(error)
        finally:
            self._end()

    def _receive(self) -> None:
        websocket = self._websocket
        heard_at = time.monotonic()
        is_pinged = False
        while not websocket.is_over:
            silence = time.monotonic() - heard_at
            if silence >= 2 * self._keepalive or self._is_overdue():
                self.problem = f'The server has been silent for {silence:.0f} s.'
                return
            if silence >= self._keepalive and not is_pinged:
                is_pinged = True
                websocket.ping()
            limit = 2 * self._keepalive if is_pinged else self._keepalive
            has_come, messages = websocket.receive(min(limit - silence, CLOSING_SECONDS))
            if has_come:
                heard_at, is_pinged = time.monotonic(), False
                for message in messages:
                    self._take(message)
                # Under gevent nothing else would run while there is something to read.
                time.sleep(0)
        self.problem = f'Closed with {websocket.close_code} {websocket.close_reason}'.rstrip()

    def _is_overdue(self) -> bool:
        return self._close_by is not None and time.monotonic() > self._close_by

    def _take(self, message: Message) -> None:
        document = self._envelope.unwrap(codecs.decode(message.payload, binary=message.binary))
        if isinstance(document, Answered):
            self._answer(document)
        else:
            self._push(document, len(message.payload))

    def _answer(self, answered: Answered) -> None:
        ident = answered.ident
        if ident is None:
            ident = self._ident_without(answered.answer)
        pending = self._pending.pop(ident, None)
        if pending is not None:
            pending.resolve(answered.answer)

    def _ident_without(self, answer: Answer) -> int:
        """The id of the request that an answer without one is for; 0 where that is not known.

        Upstream's server answers in order. In `zaqar.v2` such an answer refuses a frame that could
        not be read: where several requests wait, none may be given the refusal of another. They get
        their own answers, and the one that was refused times out.
        """
        waiting = tuple(self._pending)
        if self.kind == 'default':
            return next(iter(waiting), 0)
        if len(waiting) == 1 and answer.status >= 400:
            return waiting[0]
        LOG.warning(
            'The server sent an answer without an id (status %d) while %d requests waited; it is '
            'given to none of them',
            answer.status,
            len(waiting),
        )
        return 0

    def _push(self, document: dict[str, Any], size: int) -> None:
        kind = document.get('push') or _KINDS.get(document.get('Message_Type', ''), 'message')
        if kind == 'closing':
            after = document.get('reconnect_after_ms')
            self.reconnect_after_ms = after if isinstance(after, int) and after >= 0 else 0
            return
        feed = self._feeds.get(self._name_of(document))
        if feed is not None and kind == 'message':
            feed.push(document, size)
        elif feed is not None and kind == 'paused':
            feed.pause()
        elif feed is not None and kind == 'ended':
            self.detach(self._name_of(document))
            told = document if 'push' in document else document.get('body') or {}
            feed.expel(from_end(str(told.get('reason')), str(told.get('description', ''))))

    def _name_of(self, document: dict[str, Any]) -> str:
        names = ('subscription_id', 'consumer_id')
        if self.kind == 'default':
            names = ('queue_name', '')
        return str(document.get(names[0]) or document.get(names[1]))

    def _end(self) -> None:
        with self._lock:
            self.is_open = False
            pending = [self._pending.pop(ident) for ident in tuple(self._pending)]
            feeds, self._feeds = tuple(self._feeds.values()), {}
        self._websocket.release()
        refused = self._find_too_long(pending)
        for one in pending:
            reason = f'the server closed the connection over it ({MESSAGE_TOO_BIG})'
            one.resolve(_too_long(one.size, reason) if one is refused else None)
        for feed in feeds:
            feed.end()
        self._on_end(self)

    def _find_too_long(self, pending: Sequence[_Pending]) -> _Pending | None:
        """The request for whose length the server has closed the connection, None for none.

        It is the longest: where another one is too long, so is this.
        """
        if not self._websocket.is_refused_for_size:
            return None
        return max(pending, key=lambda one: one.size, default=None)


def _too_long(size: int, reason: str) -> Answer:
    """The answer to a request that is longer than the server takes."""
    description = f'The request has {size} bytes as a WebSocket message; {reason}.'
    title = 'Request body too large'
    return Answer(413, {'code': 'body_too_large', 'title': title, 'description': description})
