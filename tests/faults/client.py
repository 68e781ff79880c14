"""A WebSocket client on a bare socket, which may do what no client should."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple

import msgpack

from tests.callers import Identity, new_identity
from tests.faults.frames import Frame, Opcode, StatusCode, closing, frame

SECONDS = 60
KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
UPGRADE = {
    'Host': 'localhost',
    'Connection': 'Upgrade',
    'Upgrade': 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': KEY,
}


class Dialect(NamedTuple):
    """How requests are written: the subprotocol, if any, and the encoding."""

    subprotocol: str | None
    binary: bool

    def __str__(self) -> str:
        return f'{self.subprotocol or "default"}-{"msgpack" if self.binary else "json"}'

    @property
    def opcode(self) -> Opcode:
        return Opcode.BINARY if self.binary else Opcode.TEXT

    def encode(self, document: Any) -> bytes:
        encoded: bytes = msgpack.packb(document) if self.binary else json.dumps(document).encode()
        return encoded

    def decode(self, payload: bytes) -> Any:
        return msgpack.unpackb(payload) if self.binary else json.loads(payload)

    def status(self, answer: Any) -> int:
        status: int = answer['status'] if self.subprotocol else answer['headers']['status']
        return status


DEFAULT = Dialect(None, binary=False)
COMPACT = Dialect('zaqar.v2', binary=False)
DIALECTS = tuple(
    Dialect(subprotocol, binary) for subprotocol in (None, 'zaqar.v2') for binary in (False, True)
)


class HandshakeRefused(Exception):
    """The server has not upgraded the connection.

    status: of its answer. headers: by lower-case name. body: all of it.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f'{status} {body.decode(errors="replace")}')
        self.status = status
        self.headers = headers
        self.body = body


class Client:
    """A connected client.

    source: the loopback address to connect from.
    headers: more of them for the handshake.
    receive_buffer: how much the system may receive for a client that does not read, in bytes.
    """

    def __init__(
        self,
        port: int,
        dialect: Dialect = DEFAULT,
        *,
        source: str = '',
        headers: Mapping[str, str] | None = None,
        receive_buffer: int | None = None,
        identity: Identity | None = None,
    ) -> None:
        self.dialect = dialect
        self.identity = identity or new_identity()
        self._ids = itertools.count(1)
        self._received = bytearray()
        self.socket = socket.socket()
        self.socket.settimeout(SECONDS)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect(('127.0.0.1', port))
        offered = {'Sec-WebSocket-Protocol': dialect.subprotocol} if dialect.subprotocol else {}
        try:
            self.response = self._shake_hands({**UPGRADE, **offered, **(headers or {})})
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def _shake_hands(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        lines = [f'{name}: {value}' for name, value in headers.items()]
        request = '\r\n'.join(['GET /v2/ws HTTP/1.1', *lines, '', ''])
        self.socket.sendall(request.encode())
        status, answered, early = read_head(self.socket)
        if status != 101:
            raise HandshakeRefused(status, answered, early + read_to_end(self.socket))
        self._received += early
        return answered

    def send(self, data: bytes) -> None:
        """Send any bytes."""
        self.socket.sendall(data)

    def request(self, action: str, **body: Any) -> bytes:
        """The frame of a request."""
        return self.frame(
            {
                'id': next(self._ids),
                'action': action,
                'headers': self.identity.headers(),
                'body': body,
            }
        )

    def frame(self, document: Any) -> bytes:
        """The frame of a document."""
        return frame(self.dialect.opcode, self.dialect.encode(document))

    def ask(self, action: str, **body: Any) -> Any:
        """Make a request, and return its answer."""
        self.send(self.request(action, **body))
        return self.answer()

    def answer(self) -> Any:
        """The next message; pings are answered meanwhile."""
        received = self.receive()
        while received.opcode == Opcode.PING:
            self.send(frame(Opcode.PONG, received.payload))
            received = self.receive()
        assert received.opcode == self.dialect.opcode, received
        return self.dialect.decode(received.payload)

    def status(self) -> int:
        """The status of the next answer."""
        return self.dialect.status(self.answer())

    def lives(self) -> bool:
        """Whether the connection serves requests."""
        return self.dialect.status(self.ask('ping_node')) == 204

    def receive(self) -> Frame:
        """The next frame."""
        first, second = self._take(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(self._take(2 if length == 126 else 8))
        assert not second & 0x80, 'the server masks'
        return Frame(first & 0x0F, self._take(length), bool(first & 0x80), first & 0x70)

    @property
    def has_more(self) -> bool:
        """Whether something has been received that was not looked at."""
        return bool(self._received)

    def status_code(self) -> StatusCode:
        """Read up to the close frame of the server, and return what it says."""
        received = self.receive()
        while received.opcode != Opcode.CLOSE:
            received = self.receive()
        return StatusCode.of(received.payload)

    def is_cut(self, within: float) -> bool:
        """Whether the server ends the stream in that time."""
        deadline = time.monotonic() + within
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.socket.settimeout(left)
                if not self.socket.recv(65536):
                    return True
        except TimeoutError:
            return False
        except OSError:
            return True
        return False

    def close(self) -> StatusCode:
        """Close as one should, and return with what the server does."""
        self.send(closing(1000))
        code = self.status_code()
        self.socket.close()
        return code

    def receive_some(self, size: int) -> None:
        """Take at most so many bytes, for whatever is received next."""
        self._received += self.socket.recv(size)

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            data = self.socket.recv(max(65536, size - len(self._received)))
            if not data:
                raise ConnectionError('the server has ended the stream')
            self._received += data
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken


def read_head(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status and headers, by lower-case name, of an answer, and what came behind them."""
    received = b''
    while b'\r\n\r\n' not in received:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError(f'no whole answer but {received!r}')
        received += data
    head, _, rest = received.partition(b'\r\n\r\n')
    first, *lines = head.decode('latin-1').split('\r\n')
    headers = {name.lower(): value for name, value in (line.split(': ', 1) for line in lines)}
    return int(first.split(' ')[1]), headers, rest


def read_to_end(connection: socket.socket) -> bytes:
    """What comes until the server ends the stream."""
    received = b''
    while data := connection.recv(65536):
        received += data
    return received
