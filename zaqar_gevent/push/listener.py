"""A small WSGI application that receives news from other servers of the fleet.

Upstream's servers post each message to the URL of the subscription, as to any other webhook; ours
say, for many queues at once, that there is news.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from zaqar_gevent.api import documents, errors
from zaqar_gevent.push.workers import NEWS_PATH, PUSH_PATH

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class _News(msgspec.Struct):
    news: list[tuple[str, str]]


class _Notification(msgspec.Struct):
    queue_name: str


class NewsReceiver(Protocol):
    """The owner of the connections."""

    def news(self, token: str, queue_name: str, expected: int = 0) -> bool: ...


class Listener:
    """Tells `receiver` what it is told.

    max_bytes: the longest body that is read.
    """

    def __init__(self, receiver: NewsReceiver, max_bytes: int) -> None:
        self._receiver = receiver
        self._max_bytes = max_bytes

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            status, answer = '200 OK', self._answer(environ)
        except errors.APIError as error:
            status, answer = f'{error.status} {error.title}', error.to_document()
        body = documents.encode_json(answer)
        headers = [('Content-Type', 'application/json'), ('Content-Length', str(len(body)))]
        start_response(status, headers)
        return [body]

    def _answer(self, environ: Environ) -> dict[str, Any]:
        path = environ['PATH_INFO']
        if environ['REQUEST_METHOD'] != 'POST' or not path.startswith((NEWS_PATH, PUSH_PATH)):
            raise errors.NotFound('Only news is taken here.')
        document = documents.decode_json(self._read(environ))
        try:
            if path == NEWS_PATH:
                return self._hear(msgspec.convert(document, _News))
            return self._notify(path, msgspec.convert(document, _Notification))
        except msgspec.ValidationError as error:
            raise errors.from_decoding(error) from None

    def _hear(self, told: _News) -> dict[str, Any]:
        return {
            'gone': [token for token, queue in told.news if not self._receiver.news(token, queue)]
        }

    def _notify(self, path: str, told: _Notification) -> dict[str, Any]:
        """A message that a server like upstream's is about to store, or has stored."""
        token = path.removeprefix(PUSH_PATH)
        if not self._receiver.news(token, told.queue_name, expected=1):
            raise errors.NotFound('There is no such subscription.')
        return {}

    def _read(self, environ: Environ) -> bytes:
        length = environ.get('CONTENT_LENGTH') or ''
        if not length.isdecimal() or int(length) > self._max_bytes:
            raise errors.BodyTooLarge(f'A body of at most {self._max_bytes} bytes is needed.')
        try:
            body: bytes = environ['wsgi.input'].read(int(length))
        except OSError as error:
            raise errors.MalformedDocument(f'The request body is not whole: {error}') from None
        return body
