"""The opening handshake of RFC 6455 from the client's side, without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from zaqar_gevent.client import foreign

MAX_HEAD_BYTES = 64 * 1024
END_OF_HEAD = b'\r\n\r\n'


class Refused(Exception):
    """The server answered, but did not upgrade.

    status: of its answer; 101 if it upgraded to something else than was asked for, 0 if it does not
    speak HTTP/1.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Accepted(NamedTuple):
    """The result of a handshake: the subprotocol or None, and the extensions.

    early: what the server sent right behind its answer.
    """

    subprotocol: str | None
    extensions: Sequence[Any]
    early: bytes


class Handshake:
    """One handshake: send `request`, give `receive` what comes.

    url: ws or wss. extensions: factories of the `websockets` library.
    """

    def __init__(
        self,
        url: str,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        extensions: Sequence[Any] = (),
    ) -> None:
        self._received = b''
        offered: Any = list(subprotocols)
        self._protocol = ClientProtocol(
            parse_uri(url), subprotocols=offered or None, extensions=list(extensions) or None
        )
        request = self._protocol.connect()
        for name, value in (headers or {}).items():
            if '\r' in value or '\n' in value:
                raise ValueError(f'The header {name} has a line break in it')
            request.headers[name] = value
        self._protocol.send_request(request)
        self.request = b''.join(self._protocol.data_to_send())

    def receive(self, data: bytes) -> Accepted | None:
        """The result of the handshake, None while more is to come; empty `data` is the end.

        Raises Refused, and ConnectionResetError if the server ended the connection.
        """
        if not data:
            raise ConnectionResetError('The server ended the connection without an answer.')
        self._received += data
        head, end, early = self._received.partition(END_OF_HEAD)
        if not end:
            if len(head) > MAX_HEAD_BYTES:
                raise Refused(0, 'The answer to the handshake has no end.')
            return None
        status = _status(head)
        if status != HTTPStatus.SWITCHING_PROTOCOLS:
            raise Refused(status, _refusal(status, early))
        self._protocol.receive_data(head + end)
        problem = self._protocol.handshake_exc
        if problem is not None:
            raise Refused(status, f'The server did not upgrade the connection: {problem}.')
        return Accepted(self._protocol.subprotocol, self._protocol.extensions, early)


def _refusal(status: int, body: bytes) -> str:
    """What to tell of a refusal; of its body there is only what has come with the head."""
    said = f': {foreign.quote(body)}' if body.strip() else ''
    hint = ' It may be no Zaqar.' if foreign.is_foreign(status) else ''
    return f'The server answered the handshake with {status}{said}.{hint}'


def _status(head: bytes) -> int:
    line = head.partition(b'\r\n')[0].decode('latin-1')
    protocol, _, rest = line.partition(' ')
    number = rest[:3]
    if not protocol.startswith('HTTP/1.') or not number.isdecimal():
        raise Refused(0, f'The server does not speak HTTP/1: {line[:80]!r}.')
    return int(number)
