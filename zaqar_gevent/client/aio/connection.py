"""A connection: a WebSocket in the event loop, and requests in flight together."""

from __future__ import annotations

import asyncio
import collections
import ssl
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zaqar_gevent.client import engines
from zaqar_gevent.client.engines import Engine
from zaqar_gevent.client.envelopes import Envelope
from zaqar_gevent.client.errors import Timeout, ZaqarError
from zaqar_gevent.client.exchange import Exchange, OnAnswer, PendingRequest, PushHandler
from zaqar_gevent.client.handshake import Accepted, Handshake
from zaqar_gevent.client.lifetime import ForkGuard
from zaqar_gevent.client.links import Answer, Broken, Capabilities, Unreachable, no_answer
from zaqar_gevent.client.settings import Settings

DEFAULT_PORTS = {'ws': 80, 'wss': 443}
# How long to wait for the server's part of the closing handshake.
CLOSING_SECONDS = 2.0
# When so much waits to be written, requests wait until the server has read.
MAX_BUFFER_BYTES = 1024 * 1024
# Pings that the server has sent without reading the pongs.
MAX_REPLY_BYTES = 4 * 1024 * 1024


class _Pending(PendingRequest):
    """A request whose answer a task waits for."""

    __slots__ = ('future',)

    def __init__(
        self, size: int, on_answer: OnAnswer | None, future: asyncio.Future[Answer | None]
    ) -> None:
        super().__init__(size, on_answer)
        self.future = future

    def resolve(self, answer: Answer | None) -> None:
        super().resolve(answer)
        if not self.future.done():
            self.future.set_result(answer)


class _Opening(asyncio.Protocol):
    """Waits for the answer to the handshake, then hands the transport over.

    accepted: what was agreed on.
    """

    def __init__(self, handshake: Handshake) -> None:
        self._handshake = handshake
        self.accepted: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._receive(data)

    def eof_received(self) -> None:
        self._receive(b'')

    def connection_lost(self, exc: Exception | None) -> None:
        self._receive(b'')

    def _receive(self, data: bytes) -> None:
        if self.accepted.done():
            return
        try:
            accepted = self._handshake.receive(data)
        except Exception as error:
            self.accepted.set_exception(error)
        else:
            if accepted is not None:
                self.accepted.set_result(accepted)


class Connection(Exchange, asyncio.Protocol):
    """A WebSocket connection to perform operations over; `open` makes one.

    keepalive: after how many seconds without a word the server is pinged; after twice as many it is
    taken for dead. on_end: called once. problem: why it has ended.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        engine: Engine,
        envelope: Envelope,
        *,
        settings: Settings,
        on_end: Callable[[Connection], None],
    ) -> None:
        super().__init__(envelope, binary=settings.encoding == 'msgpack', default=settings.default)
        self._fork_guard = ForkGuard()
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._engine = engine
        self._keepalive = settings.keepalive
        self._on_end = on_end
        self._frames: list[bytes] = []
        self._is_writable = True
        self._writers: collections.deque[asyncio.Future[None]] = collections.deque()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._pongs: list[asyncio.Future[None]] = []
        self._heard_at = time.monotonic()
        self._is_pinged = False
        self._is_closing = False
        self._watch = self._loop.call_later(self._keepalive, self._look)
        self.is_open = True
        self.problem = ''

    @classmethod
    async def open(
        cls,
        url: str,
        envelope: Callable[[str | None], Envelope],
        *,
        seconds: float,
        settings: Settings,
        subprotocols: Sequence[str],
        on_end: Callable[[Connection], None],
    ) -> Connection:
        """Connect within `seconds`.

        envelope: gives the envelope for the subprotocol that the server has chosen. Raises
        Unreachable if there is no connection to be had, TimeoutError if the server does not answer,
        another OSError if it ends without an answer, and `handshake.Refused` if it does not accept.
        """
        deadline = time.monotonic() + seconds
        kind = engines.load(settings.engine)
        offered = kind.offer() if settings.compression else ()
        handshake = Handshake(url, subprotocols, extensions=offered)
        transport, opening = await _connect(url, handshake, seconds, settings.tls)
        try:
            transport.write(handshake.request)
            async with asyncio.timeout(deadline - time.monotonic()):
                accepted = await opening.accepted
            connection = cls(
                transport,
                kind(settings.max_message_size, accepted.extensions),
                envelope(accepted.subprotocol),
                settings=settings,
                on_end=on_end,
            )
        except BaseException:
            transport.abort()
            raise
        transport.set_protocol(connection)
        transport.set_write_buffer_limits(high=MAX_BUFFER_BYTES)
        if accepted.early:
            connection.data_received(accepted.early)
        if transport.is_closing():
            connection.connection_lost(None)
        return connection

    @property
    def close_code(self) -> int | None:
        """With which code it was closed, None while it is open."""
        return self._engine.close_code

    async def get_capabilities(self) -> Capabilities:
        """The capabilities of the server."""
        return self.capabilities

    async def perform(
        self,
        action: str,
        arguments: Mapping[str, Any],
        seconds: float,
        *,
        headers: Mapping[str, str] | None = None,
        on_answer: OnAnswer | None = None,
    ) -> Answer:
        """Perform an operation and wait for the answer, an error's as well.

        on_answer: called with the answer before anything that follows it is read, also if the task
        that asked was cancelled. Raises Broken if the connection dies, Timeout if no answer comes
        in time, TypeError or ValueError for arguments that cannot be written.

        A request that is longer than the server takes is answered with 413: by this side if the
        server has said its limit, otherwise when the server closes the connection over it.
        """
        ident = next(self._idents)
        data = self._encode(ident, action, arguments, headers or {})
        refusal = self._refusal_of(data)
        if refusal is not None:
            if on_answer is not None:
                on_answer(refusal)
            return refusal
        future: asyncio.Future[Answer | None] = self._loop.create_future()
        timer = self._loop.call_later(max(seconds, 0), _expire, future)
        try:
            while not self._is_writable:
                await self._until_writable(future)
            self._register(ident, _Pending(len(data), on_answer, future))
            self._send(data)
            answer = await future
        except asyncio.CancelledError:
            if on_answer is None:
                self._pending.pop(ident, None)
            raise
        finally:
            timer.cancel()
        if answer is None:
            if self._pending.pop(ident, None) is not None:
                raise no_answer(seconds)
            raise Broken('The connection died before the answer.', was_sent=True)
        return answer

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
        self._send(data)

    def send_unanswered(self, action: str, arguments: Mapping[str, Any]) -> None:
        """Ask for something whose answer does not matter; it is lost with the connection."""
        if self._fork_guard.is_here and self.is_open:
            self._send(self._encode(next(self._idents), action, arguments, {}))

    async def check(self, seconds: float) -> None:
        """Ping the server and wait for its pong; raises Timeout or Broken."""
        if not self.is_open:
            raise Broken(self.problem, was_sent=False)
        pong: asyncio.Future[None] = self._loop.create_future()
        self._pongs.append(pong)
        self._write(self._engine.encode_ping())
        try:
            async with asyncio.timeout(seconds):
                await pong
        except TimeoutError:
            raise Timeout('The server does not answer a ping.') from None
        if not self.is_open:
            raise Broken(self.problem, was_sent=False)

    def attach(self, name: str, handler: PushHandler) -> None:
        """Give what is pushed under a name, a subscription's or consumer's id, to `handler`.

        In the default envelope the name is the queue's.
        """
        if self.is_open:
            self._push_handlers[name] = handler
        else:
            handler.on_disconnect()

    def detach(self, name: str) -> None:
        """Drop what is pushed under a name."""
        self._push_handlers.pop(name, None)

    async def close(self) -> None:
        """Close in order, and wait until that is done, but not long."""
        if self.is_open and not self._is_closing:
            self._is_closing = True
            self._write(self._engine.encode_close(engines.NORMAL))
        try:
            await asyncio.wait([self._ended], timeout=CLOSING_SECONDS)
        finally:
            self.cut()

    def cut(self) -> None:
        """End the connection at once."""
        if self._fork_guard.is_here:
            self._transport.abort()

    # What asyncio calls:

    def data_received(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        self._is_pinged = False
        messages = self._engine.receive(data)
        self._reply()
        try:
            self._dispatch(messages)
        except ZaqarError as error:
            self.problem = str(error)
            self._transport.abort()
        self._close_if_over()

    def eof_received(self) -> None:
        self._engine.receive(b'')
        self._close_if_over()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_open:
            return
        self._engine.receive(b'')
        self.is_open = False
        self._watch.cancel()
        engine = self._engine
        if not self.problem:
            self.problem = f'Closed with {engine.close_code} {engine.close_reason}'.rstrip()
        pending = list(self._pending.values())
        self._pending.clear()
        handlers, self._push_handlers = list(self._push_handlers.values()), {}
        for waiter in (*self._pongs, *self._writers):
            if not waiter.done():
                waiter.set_result(None)
        is_refused = engine.close_code == engines.MESSAGE_TOO_BIG and not engine.has_failed
        self._abandon(pending, handlers, refused_for_size=is_refused)
        if not self._ended.done():
            self._ended.set_result(None)
        self._on_end(self)

    def pause_writing(self) -> None:
        self._is_writable = False

    def resume_writing(self) -> None:
        self._is_writable = True
        while self._writers:
            writer = self._writers.popleft()
            if not writer.done():
                writer.set_result(None)

    def _reply(self) -> None:
        """Answer pings and a close, before any request that follows from what was received."""
        engine = self._engine
        if engine.replies:
            if self._transport.get_write_buffer_size() > MAX_REPLY_BYTES:
                # A server that pings so much and reads nothing must not fill the memory.
                self._transport.abort()
            self._write(b''.join(engine.replies))
            engine.replies.clear()
        while self._pongs and engine.pongs:
            engine.pongs -= 1
            pong = self._pongs.pop(0)
            if not pong.done():
                pong.set_result(None)

    def _close_if_over(self) -> None:
        if self._engine.is_over:
            # What waits to be written, an answer to a close, still is.
            self._flush()
            self._transport.close()

    def _look(self) -> None:
        """Ping a server that is silent, and give up one that stays so."""
        silence = time.monotonic() - self._heard_at
        if silence >= 2 * self._keepalive:
            self.problem = f'The server has been silent for {silence:.0f} s.'
            self._transport.abort()
            return
        if silence >= self._keepalive and not self._is_pinged:
            self._is_pinged = True
            self._write(self._engine.encode_ping())
        limit = 2 * self._keepalive if self._is_pinged else self._keepalive
        self._watch = self._loop.call_later(max(limit - silence, 0.001), self._look)

    def _register(self, ident: int, pending: PendingRequest) -> None:
        if not self.is_open or self._is_closing:
            raise Broken(self.problem or 'The connection is being closed.', was_sent=False)
        self._pending[ident] = pending

    async def _until_writable(self, future: asyncio.Future[Answer | None]) -> None:
        """Wait until the server has read; raises Timeout when the request's time is over."""
        writer: asyncio.Future[None] = self._loop.create_future()
        self._writers.append(writer)
        waiting: list[asyncio.Future[Any]] = [writer, future]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            raise Timeout('The server does not take what it is sent.')

    def _send(self, data: bytes) -> None:
        self._write(self._engine.encode(data, binary=self._binary))

    def _write(self, frame: bytes) -> None:
        """Write a frame at the end of the loop's turn, together with others.

        PERF: a write costs more than all else that is done for a request.
        """
        self._frames.append(frame)
        if len(self._frames) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._frames:
            frames = b''.join(self._frames)
            self._frames.clear()
            self._transport.write(frames)


def _expire(future: asyncio.Future[Answer | None]) -> None:
    if not future.done():
        future.set_result(None)


async def _connect(
    url: str, handshake: Handshake, seconds: float, tls: ssl.SSLContext | None
) -> tuple[asyncio.Transport, _Opening]:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ValueError(f'Not the URL of a WebSocket: {url!r}')
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    context = None
    if parts.scheme == 'wss':
        context = tls or ssl.create_default_context()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            return await loop.create_connection(
                lambda: _Opening(handshake), parts.hostname, port, ssl=context
            )
    except OSError as error:
        raise Unreachable(f'{parts.hostname}:{port} cannot be reached: {error}') from error
