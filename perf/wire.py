"""Requests as the bytes that a client sends, and answers as the bytes it gets.

A dialect is a way to speak to a server: REST, or WebSocket messages in one of the two envelopes, in
JSON or MsgPack. It builds requests before a measurement begins, and tells where an answer ends.
"""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import msgpack
import msgspec
from websockets.speedups import apply_mask

CLIENT_ID = '3381af92-2b9e-11e3-b191-71861300734c'
HEADERS = {'Client-ID': CLIENT_ID, 'X-Project-ID': 'demo'}
SUBPROTOCOL = 'zaqar.v2'

_MASK = b'\x9a\x3c\x51\xe7'
_CONTENT_LENGTH = re.compile(rb'(?i)\r\ncontent-length: *(\d+)')
_CLOSES = re.compile(rb'(?i)\r\nconnection: *close')
_BODILESS = (b' 204 ', b' 304 ')
_CONTROL = 8
_NEAR = 640


class Answer(NamedTuple):
    status: int
    body: Any


class Dialect(Protocol):
    """How to speak to a server.

    upgrade: whether connections are WebSockets. subprotocol: of the handshake.
    in_order: whether answers come in the order of their requests.
    """

    upgrade: bool
    subprotocol: str
    in_order: bool

    def encode(self, action: str, body: Mapping[str, Any], ident: int) -> bytes:
        """A request."""
        ...

    def size(self, received: bytes | bytearray) -> int:
        """The size of the answer that begins here, in bytes; 0 where it cannot be told yet."""
        ...

    def decode(self, answer: bytes | bytearray) -> Answer: ...

    def is_ok(self, answer: bytes | bytearray) -> bool:
        """Whether it reports success; told fast, so for answers of this dialect only."""
        ...

    def ident_of(self, answer: bytes | bytearray) -> int:
        """Which request it answers, where answers come in any order."""
        ...

    def is_last(self, answer: bytes | bytearray) -> bool:
        """Whether the server closes the connection after it."""
        ...


def masked(payload: bytes, *, binary: bool) -> bytes:
    """A client's frame."""
    head = bytes([0x82 if binary else 0x81])
    length = len(payload)
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 65536:
        head += b'\xfe' + struct.pack('>H', length)
    else:
        head += b'\xff' + struct.pack('>Q', length)
    return head + _MASK + apply_mask(payload, _MASK)


def head_size(received: bytes | bytearray) -> int:
    """The size of a server's frame's head, in bytes."""
    length = received[1] & 127
    return 10 if length == 127 else 4 if length == 126 else 2


def frame_size(received: bytes | bytearray) -> int:
    """The size of the server's frame that begins here; 0 where it cannot be told yet."""
    if len(received) < 2:
        return 0
    length = received[1] & 127
    if length < 126:
        return 2 + length
    if len(received) < 10:
        return 0
    if length == 126:
        return 4 + int.from_bytes(received[2:4])
    return 10 + int.from_bytes(received[2:10])


def is_control(answer: bytes | bytearray) -> bool:
    """Whether a frame is a ping, a pong or a close."""
    return answer[0] & 15 >= _CONTROL


class _Frames:
    """What both envelopes have in common."""

    upgrade = True
    subprotocol = ''
    in_order = True

    def __init__(self, *, binary: bool) -> None:
        self._binary = binary
        self._pack: Callable[[Any], bytes] = msgpack.packb if binary else msgspec.json.encode
        self._unpack: Callable[[bytes], Any] = msgpack.unpackb if binary else msgspec.json.decode
        codes = rb'\xa6status\xcc[\xc8-\xce]' if binary else rb'"status": ?20[0-6]'
        self._success = re.compile(codes, re.DOTALL)

    def size(self, received: bytes | bytearray) -> int:
        return frame_size(received)

    def is_ok(self, answer: bytes | bytearray) -> bool:
        # It stands at the beginning or the end: a long body need not be searched.
        return (
            self._success.search(answer, 0, _NEAR) is not None
            or self._success.search(answer, max(0, len(answer) - _NEAR)) is not None
            or self._success.search(answer) is not None
        )

    def is_last(self, answer: bytes | bytearray) -> bool:
        return False

    def ident_of(self, answer: bytes | bytearray) -> int:
        return 0

    def _document(self, answer: bytes | bytearray) -> Any:
        return self._unpack(bytes(answer[head_size(answer) :]))


class Default(_Frames):
    """Upstream's envelope."""

    def encode(self, action: str, body: Mapping[str, Any], ident: int) -> bytes:
        document = {'action': action, 'headers': HEADERS, 'body': body}
        return masked(self._pack(document), binary=self._binary)

    def decode(self, answer: bytes | bytearray) -> Answer:
        document = self._document(answer)
        return Answer(document['headers']['status'], document['body'])


class Compact(_Frames):
    """The envelope of `zaqar.v2`, its headers given once, in the handshake."""

    subprotocol = SUBPROTOCOL
    in_order = False

    def encode(self, action: str, body: Mapping[str, Any], ident: int) -> bytes:
        document = {'id': ident, 'action': action, 'body': body}
        return masked(self._pack(document), binary=self._binary)

    def decode(self, answer: bytes | bytearray) -> Answer:
        document = self._document(answer)
        return Answer(document['status'], document['body'])

    def ident_of(self, answer: bytes | bytearray) -> int:
        """The id stands first; those of ours are below 128."""
        at = head_size(answer)
        if self._binary:
            return answer[at + 4]
        digits = answer[at + 6 : at + 10].partition(b',')[0]
        return int(digits)


class Rest:
    """REST, one request at a time on a connection that is kept."""

    upgrade = False
    subprotocol = ''
    in_order = True

    def encode(self, action: str, body: Mapping[str, Any], ident: int) -> bytes:
        method, path, document = _ROUTES[action](dict(body))
        return http_request(method, path, document)

    def size(self, received: bytes | bytearray) -> int:
        end = received.find(b'\r\n\r\n')
        if end < 0:
            return 0
        found = _CONTENT_LENGTH.search(received, 0, end + 4)
        if found is not None:
            return end + 4 + int(found[1])
        if received[8:13] in _BODILESS:
            return end + 4
        raise ValueError(f'an answer of unknown length: {bytes(received[:end])!r}')

    def decode(self, answer: bytes | bytearray) -> Answer:
        body = bytes(answer).partition(b'\r\n\r\n')[2]
        return Answer(int(answer[9:12]), json.loads(body) if body else None)

    def is_ok(self, answer: bytes | bytearray) -> bool:
        return answer[9] == ord('2')

    def ident_of(self, answer: bytes | bytearray) -> int:
        return 0

    def is_last(self, answer: bytes | bytearray) -> bool:
        return _CLOSES.search(answer, 0, 1024) is not None


def http_request(method: str, path: str, document: Any = None) -> bytes:
    """A request with a JSON body, as a client with no headers to spare would send it."""
    body = b'' if document is None else msgspec.json.encode(document)
    lines = [f'{method} {path} HTTP/1.1', 'Host: localhost', 'Accept: application/json']
    lines += [f'{name}: {value}' for name, value in HEADERS.items()]
    if body:
        lines += ['Content-Type: application/json', f'Content-Length: {len(body)}']
    elif method in ('POST', 'PUT'):
        lines += ['Content-Length: 0']
    return '\r\n'.join([*lines, '', '']).encode() + body


def _queue(body: dict[str, Any]) -> str:
    return f'/v2/queues/{quote(body.pop("queue_name"), safe="")}'


_ROUTES: dict[str, Callable[[dict[str, Any]], tuple[str, str, Any]]] = {
    'queue_create': lambda body: ('PUT', _queue(body), None),
    'queue_delete': lambda body: ('DELETE', _queue(body), None),
    'queue_get': lambda body: ('GET', _queue(body), None),
    'queue_get_stats': lambda body: ('GET', _queue(body) + '/stats', None),
    'message_post': lambda body: ('POST', _queue(body) + '/messages', body),
    'message_list': lambda body: (
        *('GET', _queue(body) + f'/messages?echo=true&limit={body["limit"]}'),
        None,
    ),
    'claim_create': lambda body: (
        *('POST', _queue(body) + f'/claims?limit={body.pop("limit")}'),
        body,
    ),
    'message_delete': lambda body: (
        *('DELETE', f'{_queue(body)}/messages/{body["message_id"]}?claim_id={body["claim_id"]}'),
        None,
    ),
    'message_delete_many': lambda body: (
        *('DELETE', _queue(body) + f'/messages?ids={",".join(body["message_ids"])}'),
        None,
    ),
    'ping_node': lambda _: ('GET', '/v2/ping', None),
}


def connect(
    port: int, dialect: Dialect, source: str = '127.0.0.1', path: str = '/'
) -> socket.socket:
    """A connection, after its handshake if it is a WebSocket.

    Raises `ConnectionError` where the upgrade is refused.
    """
    connection = socket.create_connection(
        ('127.0.0.1', port), timeout=60, source_address=(source, 0)
    )
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if dialect.upgrade:
        upgrade(connection, dialect.subprotocol, path)
    return connection


def upgrade(connection: socket.socket, subprotocol: str = '', path: str = '/') -> None:
    """Make a WebSocket of a connection."""
    lines = [f'GET {path} HTTP/1.1', 'Host: localhost', 'Connection: Upgrade', 'Upgrade: websocket']
    lines += ['Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==']
    lines += [f'Sec-WebSocket-Protocol: {subprotocol}'] if subprotocol else []
    lines += [f'{name}: {value}' for name, value in HEADERS.items()]
    connection.sendall('\r\n'.join([*lines, '', '']).encode())
    received = b''
    while not (end := received.find(b'\r\n\r\n') + 1):
        # What follows the head is not ours to read.
        received = connection.recv(4096, socket.MSG_PEEK)
        if not received:
            raise ConnectionError('the handshake was not answered')
    if b' 101 ' not in received.partition(b'\r\n')[0]:
        raise ConnectionError(f'the upgrade was refused: {received!r}')
    connection.recv(end + 3)


def receive(connection: socket.socket, dialect: Dialect) -> bytes:
    """Wait for a whole answer."""
    received = bytearray()
    while not (size := dialect.size(received)) or len(received) < size:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError('the connection ended within an answer')
        received += part
    return bytes(received[:size])


class Conversation:
    """Requests one after the other, over a connection that is opened again where it is closed."""

    def __init__(self, port: int, dialect: Dialect) -> None:
        self.dialect = dialect
        self._port = port
        self._socket = connect(port, dialect)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()

    def send(self, request: bytes) -> Answer:
        """Send a request and wait for its answer."""
        self._socket.sendall(request)
        answer = receive(self._socket, self.dialect)
        if self.dialect.is_last(answer):
            self._socket.close()
            self._socket = connect(self._port, self.dialect)
        return self.dialect.decode(answer)

    def ask(self, action: str, **body: Any) -> Answer:
        return self.send(self.dialect.encode(action, body, 1))
