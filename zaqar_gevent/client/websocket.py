"""A WebSocket: one thread receives, any thread sends."""

from __future__ import annotations

import base64
import collections
import os
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence

from zaqar_gevent.client import frames, handshake
from zaqar_gevent.client.frames import FrameReader, Message
from zaqar_gevent.client.wire import Wire

DEFAULT_PORTS = {'ws': 80, 'wss': 443}
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_REPLIES = 1000


class Unreachable(OSError):
    """There is no connection to be had, be it for want of a server, a name or a certificate."""


class WebSocket:
    """An open connection; `connect` makes one.

    subprotocol: the one that the server chose, None for none.
    """

    def __init__(self, wire: Wire, subprotocol: str | None, max_message_bytes: int) -> None:
        self._wire = wire
        self._reader = FrameReader(max_message_bytes)
        self._write_lock = threading.Lock()
        self._replies: collections.deque[bytes] = collections.deque()
        self._is_closing = False
        self._early = b''
        self.subprotocol = subprotocol

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
    ) -> WebSocket:
        """Connect to a ws or wss URL, all within `seconds`.

        tls: for wss; the system's certificates are trusted where it is left out. Raises Unreachable
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
        try:
            wire = Wire.connect(parts.hostname, port, seconds, tls)
        except OSError as error:
            raise Unreachable(f'{parts.hostname}:{port} cannot be reached: {error}') from error
        try:
            key = base64.b64encode(os.urandom(16)).decode()
            path = urllib.parse.urlunsplit(('', '', parts.path or '/', parts.query, ''))
            authority = parts.netloc.rpartition('@')[2]
            asked = handshake.request(authority, path, key, subprotocols, headers or {})
            wire.send(asked, deadline - time.monotonic())
            head, early = _read_head(wire, deadline)
            opened = cls(wire, handshake.check(head, key, subprotocols), max_message_bytes)
        except BaseException:
            wire.close()
            raise
        opened._early = early
        return opened

    @property
    def is_over(self) -> bool:
        """Whether nothing will be received any more."""
        return self._reader.is_over

    @property
    def pongs(self) -> int:
        """How many pongs have come."""
        return self._reader.pongs

    @property
    def close_code(self) -> int | None:
        """With which code it was closed: 1006 without one, None while it is open."""
        return self._reader.close_code

    @property
    def is_refused_for_size(self) -> bool:
        """Whether the server closed it because a message was longer than it takes."""
        return self.close_code == frames.MESSAGE_TOO_BIG and not self._reader.has_failed

    @property
    def close_reason(self) -> str:
        return self._reader.close_reason

    def receive(self, seconds: float) -> tuple[bool, list[Message]]:
        """Whether anything has come within `seconds`, and which messages it completed.

        For one thread only. Pings and closes are answered.
        """
        if self._early:
            data: bytes | None = self._early
            self._early = b''
        else:
            data = self._wire.receive(seconds, until_writable=bool(self._replies))
        messages = [] if data is None else self._reader.receive(data)
        if self._reader.replies:
            self._replies.extend(self._reader.replies)
            self._reader.replies.clear()
            if len(self._replies) > MAX_REPLIES:
                # Whoever asks so much and takes no answers is not to fill the memory.
                self._wire.cut()
        self._flush()
        return data is not None, messages

    def send(self, payload: bytes, *, binary: bool, seconds: float) -> None:
        """Send a message.

        Raises OSError where it cannot be sent. Where some of it may have been, the connection is
        cut: no server can have taken half a message for one.
        """
        self._write(frames.build_message(payload, binary=binary), seconds)

    def tell(self, payload: bytes, *, binary: bool) -> None:
        """Have a message sent as soon as can be, without waiting; lost with the connection."""
        self._replies.append(frames.build_message(payload, binary=binary))
        self._flush()

    def ping(self) -> None:
        """Have a ping sent as soon as can be, without waiting."""
        self._replies.append(frames.build_ping())
        self._flush()

    def close(self, code: int = frames.NORMAL, reason: str = '') -> None:
        """Begin to close; the server's answer is received like anything else."""
        if not self._is_closing:
            self._is_closing = self._reader.has_closed = True
            self._replies.append(frames.build_close(code, reason))
            self._flush()

    def cut(self) -> None:
        """End the connection without a word; `receive` is woken."""
        self._wire.cut()

    def release(self) -> None:
        """Give back the socket, when nothing will be received any more."""
        self._wire.cut()
        with self._write_lock:
            self._wire.close()

    def _write(self, data: bytes, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        if not self._write_lock.acquire(timeout=max(seconds, 0)):
            raise TimeoutError('The server does not take what it is sent.')
        try:
            if self._is_closing or self._reader.is_over:
                raise ConnectionResetError('The connection is closed or about to be.')
            waiting = self._take_replies()
            self._wire.send(waiting + data, deadline - time.monotonic())
        except OSError:
            self._wire.cut()
            raise
        finally:
            self._write_lock.release()
        self._flush()

    def _take_replies(self) -> bytes:
        replies = []
        while self._replies:
            replies.append(self._replies.popleft())
        return b''.join(replies)

    def _flush(self) -> None:
        """Write what is to be said without waiting, unless somebody is writing, who then does.

        The reading thread must never wait to write: a server that waits to write does not read.
        """
        while self._replies and self._write_lock.acquire(blocking=False):
            try:
                data = self._take_replies()
                sent = self._wire.send_some(data)
                if sent < len(data):
                    self._replies.appendleft(data[sent:])
                    return
            except OSError:
                self._wire.cut()
                return
            finally:
                self._write_lock.release()


def _read_head(wire: Wire, deadline: float) -> tuple[bytes, bytes]:
    """The head of the answer to the handshake, and what came behind it."""
    received = b''
    while handshake.END_OF_HEAD not in received:
        if len(received) > handshake.MAX_HEAD_BYTES:
            raise handshake.Refused(0, 'The answer to the handshake has no end.')
        data = wire.receive(deadline - time.monotonic())
        if data is None:
            raise TimeoutError('The server does not answer the handshake.')
        if not data:
            raise ConnectionResetError('The server ended the connection without an answer.')
        received += data
    head, _, early = received.partition(handshake.END_OF_HEAD)
    return head, early
