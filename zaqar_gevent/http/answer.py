"""Answers of a WSGI application, as the bytes that are written."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from zaqar_gevent.http.head import Head, Refused
from zaqar_gevent.request_ids import HEADER as REQUEST_ID

# A body of this length is not copied.
_LONG_BYTES = 1024 * 1024
_NO_CONTENT = ('1', '204', '304')
# A header, a name and a value, as a line.
_line_of = ': '.join


class Answer:
    """An application's answer to one request.

    status: with its reason, as WSGI has it; empty until the application has called `start`.
    headers: as the application gave them.
    closes: whether the connection is closed after it, once it is composed.
    size: of the body, in bytes.
    """

    __slots__ = ('closes', 'headers', 'size', 'status')

    def __init__(self) -> None:
        self.status = ''
        self.headers: list[tuple[str, str]] = []
        self.closes = False
        self.size = 0

    def start(
        self, status: str, headers: list[tuple[str, str]], _exc_info: object = None
    ) -> Callable[[bytes], object]:
        """WSGI's `start_response`; the old `write` is not supported."""
        self.status = status
        self.headers = headers
        return _refuse_to_write

    def compose(self, body: Iterable[bytes], head: Head, *, closes: bool) -> list[bytes]:
        """Head and body as they are written, a long body by itself.

        head: of the request. closes: whether the connection is closed after it, even if the
        application does not say so.
        """
        content = body[0] if type(body) is list and len(body) == 1 else _join(body)
        lines = [
            f'HTTP/1.1 {self.status}',
            *map(_line_of, self.headers),
            _date(int(time.time())),
        ]
        text = '\r\n'.join(lines)
        if text.count('\n') != len(lines) - 1:
            raise ValueError('A header of the answer has a line break.')
        # PERF: one search in all of it is faster than a look at each header.
        searched = text.lower()
        self.closes = closes
        if self.status.startswith(_NO_CONTENT):
            content = b''
        elif '\r\ncontent-length: ' not in searched:
            text += f'\r\nContent-Length: {len(content)}'
        if closes or head.is_old or '\r\nconnection: ' in searched:
            text += self._connection(searched, head)
        self.size = len(content)
        if head.variables['REQUEST_METHOD'] == 'HEAD':
            content = b''
        start = f'{text}\r\n\r\n'.encode('latin-1')
        return [start, content] if self.size > _LONG_BYTES else [start + content]

    def _connection(self, searched: str, head: Head) -> str:
        """The line that says whether the connection is kept, where there is to be one.

        searched: the lines that the answer has, in lower case.
        """
        if '\r\nconnection: close\r\n' in searched:
            self.closes = True
            return ''
        if self.closes:
            return '\r\nConnection: close'
        return '\r\nConnection: keep-alive' if head.is_old else ''


def refusal(refused: Refused, request_id: str) -> bytes:
    """The answer to a refused request; the connection is closed after it."""
    document = {
        'code': refused.code,
        'title': refused.title,
        'description': refused.description,
    }
    body = json.dumps(document, separators=(',', ':')).encode()
    lines = [
        f'HTTP/1.1 {refused.status} {HTTPStatus(refused.status).phrase}',
        'Connection: close',
        'Content-Type: application/json',
        f'Content-Length: {len(body)}',
        f'{REQUEST_ID}: {request_id}',
        _date(int(time.time())),
    ]
    return '\r\n'.join([*lines, '', '']).encode() + body


def _join(body: Iterable[bytes]) -> bytes:
    try:
        return b''.join(body)
    finally:
        close: Any = getattr(body, 'close', None)
        if close is not None:
            close()


@functools.lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return f'Date: {formatdate(seconds, usegmt=True)}'


def _refuse_to_write(data: bytes) -> object:
    raise NotImplementedError('Return the body; this server has no `write`.')
