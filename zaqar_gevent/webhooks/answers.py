"""Reading an answer: its status, and no more of the rest than a connection needs to be kept."""

from __future__ import annotations

import http.client
import io
from typing import Any, NamedTuple

MAX_BYTES = 8192
"""Bytes that are read of an answer, head and body together."""


class Malformed(Exception):
    """An answer is not HTTP, or its head is too long."""


class Head(NamedTuple):
    """The parts of an answer's head that matter."""

    status: int
    location: str | None
    retry_after: str | None


class _Bounded(io.RawIOBase):
    """The first `MAX_BYTES` bytes that a socket receives; after them, the end."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.left = MAX_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self.left]
        count: int = self._sock.recv_into(view) if len(view) else 0
        self.left -= count
        return count


class _Buffer(io.BufferedReader):
    """Stays open when the answer has been read, so that it can be seen what came after it."""

    def close(self) -> None:
        """It is let go with the answer."""


class Answer:
    """The answer to a request that was sent over `sock`.

    has_begun: whether a byte of it has come.
    """

    def __init__(self, sock: Any) -> None:
        self._raw = _Bounded(sock)
        self._buffer = _Buffer(self._raw, MAX_BYTES)

    def makefile(self, mode: str) -> io.BufferedReader:
        """The file that `http.client` reads from."""
        return self._buffer

    @property
    def has_begun(self) -> bool:
        return self._raw.left < MAX_BYTES

    def read_head(self) -> Head:
        """Read as far as the status is known.

        Raises `Malformed`, or `ConnectionError` where the peer hangs up before it has answered.
        """
        self._response = http.client.HTTPResponse(self, method='POST')  # type: ignore[arg-type]
        try:
            self._response.begin()
        except http.client.RemoteDisconnected:
            raise
        except (http.client.HTTPException, ValueError) as error:
            raise Malformed('its answer is not HTTP, or its head is too long') from error
        response = self._response
        return Head(response.status, response.headers['Location'], response.headers['Retry-After'])

    def read_rest(self) -> bool:
        """Read the rest; whether another request can be sent over the same connection."""
        try:
            # Not all: a buffer is made for as much as the answer says it has.
            self._response.read(MAX_BYTES)
        except (http.client.HTTPException, ValueError):
            return False
        is_whole = self._response.isclosed() and self._raw.left > 0
        self._raw.left = 0
        return is_whole and not self._response.will_close and not self._buffer.peek(1)
