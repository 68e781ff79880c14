"""A WebSocket: one thread receives, any thread sends."""

from __future__ import annotations

import collections
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence

from zaqar_gevent.client import engines
from zaqar_gevent.client.engines import Engine, Payload
from zaqar_gevent.client.handshake import Accepted, Handshake
from zaqar_gevent.client.links import Unreachable
from zaqar_gevent.client.sync.socket_stream import SocketStream

DEFAULT_PORTS = {'ws': 80, 'wss': 443}
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
# Frames that wait for the server to read.
MAX_OUTGOING = 1000


class WebSocket:
    """An open connection; `connect` makes one.

    subprotocol: the one that the server chose, None for none.
    """

    def __init__(self, stream: SocketStream, engine: Engine, accepted: Accepted) -> None:
        self._stream = stream
        self._engine = engine
        self._write_lock = threading.Lock()
        # Frames, and messages that are to become frames when they are sent.
        self._outgoing: collections.deque[bytes | Payload] = collections.deque()
        self._is_closing = False
        self._early = accepted.early
        self.subprotocol = accepted.subprotocol

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        seconds: float,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        engine: str = 'websockets',
        compression: bool = False,
    ) -> WebSocket:
        """Connect to a ws or wss URL, all within `seconds`.

        tls: for wss; the system's certificates are trusted where it is left out. engine: one of
        `engines.ENGINES`. compression: whether to offer it. Raises Unreachable
        where the server is not to be had at all, TimeoutError where it does not answer, another
        OSError where it ends without an answer, and `handshake.Refused` where it answers anything
        but yes.
        """
        deadline = time.monotonic() + seconds
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f'Not the URL of a WebSocket: {url!r}')
        if parts.scheme == 'ws':
            tls = None
        elif tls is None:
            tls = ssl.create_default_context()
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        kind = engines.load(engine)
        offered = kind.offer() if compression else ()
        handshake = Handshake(url, subprotocols, headers, offered)
        try:
            stream = SocketStream.connect(parts.hostname, port, seconds, tls)
        except OSError as error:
            raise Unreachable(f'{parts.hostname}:{port} cannot be reached: {error}') from error
        try:
            stream.send(handshake.request, deadline - time.monotonic())
            accepted = _agree(stream, handshake, deadline)
            return cls(stream, kind(max_message_bytes, accepted.extensions), accepted)
        except BaseException:
            stream.close()
            raise

    @property
    def is_over(self) -> bool:
        """Whether nothing will be received any more."""
        return self._engine.is_over

    @property
    def pongs(self) -> int:
        """How many pongs have come."""
        return self._engine.pongs

    @property
    def close_code(self) -> int | None:
        """With which code it was closed: 1006 without one, None while it is open."""
        return self._engine.close_code

    @property
    def is_refused_for_size(self) -> bool:
        """Whether the server closed it because a message was longer than it takes."""
        return self.close_code == engines.MESSAGE_TOO_BIG and not self._engine.has_failed

    @property
    def close_reason(self) -> str:
        return self._engine.close_reason

    def receive(self, seconds: float, *, is_early: bool = False) -> tuple[bool, list[Payload]]:
        """Whether anything has come within `seconds`, and which messages it completed.

        For one thread only. Pings and closes are answered. is_early: whether it is unlikely that
        anything has come already.
        """
        if self._early:
            data: bytes | None = self._early
            self._early = b''
        else:
            data = self._stream.receive(
                seconds, until_writable=bool(self._outgoing), is_early=is_early
            )
        messages = [] if data is None else self._engine.receive(data)
        if self._engine.replies:
            self._outgoing.extend(self._engine.replies)
            self._engine.replies.clear()
            if len(self._outgoing) > MAX_OUTGOING:
                # A server that pings so much and reads nothing must not fill the memory.
                self._stream.cut()
        self.flush()
        return data is not None, messages

    def send(self, data: bytes | None, *, binary: bool, seconds: float) -> None:
        """Send a message after those that were left, or only those.

        Raises OSError if it cannot be sent. If a part may have been sent, the connection is cut: no
        server can have taken half a message for one.
        """
        deadline = time.monotonic() + seconds
        if not self._write_lock.acquire(timeout=max(seconds, 0)):
            raise TimeoutError('The server does not take what it is sent.')
        try:
            if self._is_closing or self._engine.is_over:
                raise ConnectionResetError('The connection is closed or about to be.')
            frames = self._take_outgoing() if self._outgoing else b''
            if data is not None:
                frames += self._engine.encode(data, binary=binary)
            self._stream.send(frames, deadline - time.monotonic())
        except OSError:
            self._stream.cut()
            raise
        finally:
            self._write_lock.release()
        self.flush()

    def send_soon(self, data: bytes, *, binary: bool) -> None:
        """Have a message sent as soon as can be, without waiting; lost with the connection."""
        self._outgoing.append(Payload(data, binary))
        self.flush()

    def leave(self, data: bytes, *, binary: bool) -> int:
        """Leave a message for whoever sends next; how many are left now."""
        self._outgoing.append(Payload(data, binary))
        return len(self._outgoing)

    def ping(self) -> None:
        """Have a ping sent as soon as can be, without waiting."""
        self._outgoing.append(self._engine.encode_ping())
        self.flush()

    def close(self, code: int = engines.NORMAL, reason: str = '') -> None:
        """Begin to close; the server's answer is received like anything else."""
        if not self._is_closing:
            self._is_closing = True
            self._outgoing.append(self._engine.encode_close(code, reason))
            self.flush()

    def cut(self) -> None:
        """End the connection without a word; `receive` is woken."""
        self._stream.cut()

    def release(self) -> None:
        """Give back the socket, when nothing will be received any more."""
        self._stream.cut()
        with self._write_lock:
            self._stream.close()

    def _take_outgoing(self) -> bytes:
        """The frames that wait to be sent; only for whoever holds the lock for writing."""
        frames = []
        while self._outgoing:
            one = self._outgoing.popleft()
            if isinstance(one, Payload):
                one = self._engine.encode(one.data, binary=one.binary)
            frames.append(one)
        return b''.join(frames)

    def flush(self) -> None:
        """Write what waits to be sent, without waiting; whoever is writing does it in passing.

        The reading thread must never wait to write: a server that waits to write does not read.
        """
        while self._outgoing and self._write_lock.acquire(blocking=False):
            try:
                data = self._take_outgoing()
                sent = self._stream.send_some(data)
                if sent < len(data):
                    self._outgoing.appendleft(data[sent:])
                    return
            except OSError:
                self._stream.cut()
                return
            finally:
                self._write_lock.release()


def _agree(stream: SocketStream, handshake: Handshake, deadline: float) -> Accepted:
    """Receive the answer to the handshake."""
    while True:
        data = stream.receive(deadline - time.monotonic())
        if data is None:
            raise TimeoutError('The server does not answer the handshake.')
        accepted = handshake.receive(data)
        if accepted is not None:
            return accepted
