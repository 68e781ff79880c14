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

_LENGTH_OF_CONTENT_LENGTH = len('content-length')
_LENGTH_OF_CONNECTION = len('connection')
# A body of this length is not copied.
_LONG_BYTES = 1024 * 1024
_NO_CONTENT = ('1', '204', '304')


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
        content = _join(body)
        lines = [f'HTTP/1.1 {self.status}']
        has_length = says_that_it_closes = False
        for name, value in self.headers:
            lines.append(f'{name}: {value}')
            # PERF: by their lengths nearly all are told from these two.
            if len(name) == _LENGTH_OF_CONTENT_LENGTH and name.lower() == 'content-length':
                has_length = True
            elif len(name) == _LENGTH_OF_CONNECTION and name.lower() == 'connection':
                says_that_it_closes = value.lower() == 'close'
        if self.status.startswith(_NO_CONTENT):
            content = b''
        elif not has_length:
            lines.append(f'Content-Length: {len(content)}')
        lines.append(_date(int(time.time())))
        self.closes = closes or says_that_it_closes
        if closes and not says_that_it_closes:
            lines.append('Connection: close')
        elif head.is_old and not self.closes:
            lines.append('Connection: keep-alive')
        text = '\r\n'.join(lines)
        if text.count('\n') != len(lines) - 1:
            raise ValueError('A header of the answer has a line break.')
        self.size = len(content)
        if head.variables['REQUEST_METHOD'] == 'HEAD':
            content = b''
        start = f'{text}\r\n\r\n'.encode('latin-1')
        return [start, content] if self.size > _LONG_BYTES else [start + content]


def refusal(refused: Refused) -> bytes:
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
        _date(int(time.time())),
    ]
    return '\r\n'.join([*lines, '', '']).encode() + body


def _join(body: Iterable[bytes]) -> bytes:
    if isinstance(body, list) and len(body) == 1:
        content: bytes = body[0]
        return content
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
