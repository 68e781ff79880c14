"""The opening handshake of RFC 6455 from the client's side, without I/O."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from http import HTTPStatus

MAX_HEAD_BYTES = 64 * 1024
END_OF_HEAD = b'\r\n\r\n'

_GUID = b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
_VERSION = '13'


class Refused(Exception):
    """The server answered, but did not upgrade.

    status: of its answer; 101 where it upgraded to something that is not what was asked for.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def request(
    authority: str, path: str, key: str, subprotocols: Sequence[str], headers: Mapping[str, str]
) -> bytes:
    """What to send.

    authority: host and port, as in the URL. key: 16 random bytes in base64.
    """
    lines = {
        'Host': authority,
        'Upgrade': 'websocket',
        'Connection': 'Upgrade',
        'Sec-WebSocket-Key': key,
        'Sec-WebSocket-Version': _VERSION,
    }
    if subprotocols:
        lines['Sec-WebSocket-Protocol'] = ', '.join(subprotocols)
    lines.update(headers)
    for name, value in lines.items():
        if '\r' in value or '\n' in value:
            raise ValueError(f'The header {name} has a line break in it')
    head = [f'GET {path} HTTP/1.1', *(f'{name}: {value}' for name, value in lines.items())]
    return '\r\n'.join([*head, '', '']).encode('latin-1')


def check(head: bytes, key: str, subprotocols: Sequence[str]) -> str | None:
    """The subprotocol that the server chose, None for none.

    head: of its answer. Raises Refused where it does not accept what `request` asked for.
    """
    status_line, _, rest = head.decode('latin-1').partition('\r\n')
    status = _status(status_line)
    if status != HTTPStatus.SWITCHING_PROTOCOLS:
        raise Refused(status, f'The server answered the handshake with {status_line!r}.')
    headers = _read(rest)
    if headers.get('upgrade', '').lower() != 'websocket':
        raise Refused(status, 'The server upgraded to something other than a WebSocket.')
    if 'upgrade' not in (one.strip().lower() for one in headers.get('connection', '').split(',')):
        raise Refused(status, 'The server did not upgrade the connection.')
    if headers.get('sec-websocket-accept') != accept(key):
        raise Refused(status, 'The server did not understand the key of the handshake.')
    if headers.get('sec-websocket-extensions'):
        raise Refused(status, 'The server uses an extension that was not offered.')
    chosen = headers.get('sec-websocket-protocol')
    if chosen is not None and chosen not in subprotocols:
        raise Refused(status, f'The server chose a subprotocol that was not offered: {chosen!r}.')
    return chosen


def accept(key: str) -> str:
    """What proves that a server has understood the key (RFC 6455, 4.2.2)."""
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def _status(line: str) -> int:
    protocol, _, rest = line.partition(' ')
    number = rest[:3]
    if not protocol.startswith('HTTP/1.') or not number.isdecimal():
        raise Refused(0, f'The server does not speak HTTP/1: {line[:80]!r}.')
    return int(number)


def _read(lines: str) -> dict[str, str]:
    """The headers by lower-case name; of those that are given twice, both."""
    headers: dict[str, str] = {}
    for line in lines.split('\r\n'):
        name, _, value = line.partition(':')
        name, value = name.strip().lower(), value.strip()
        headers[name] = f'{headers[name]}, {value}' if name in headers else value
    return headers
