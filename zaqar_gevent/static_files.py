"""Answers WSGI requests with files that were read once, when the server was put together.

They are looked up by their whole names: no name that a client sends ever reaches the file system.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from importlib.resources.abc import Traversable
from typing import NamedTuple
from wsgiref.types import StartResponse, WSGIEnvironment

Headers = Sequence[tuple[str, str]]

_CONTENT_TYPES = {
    'html': 'text/html; charset=utf-8',
    'css': 'text/css; charset=utf-8',
    'js': 'text/javascript; charset=utf-8',
    'svg': 'image/svg+xml',
}


class StaticFile(NamedTuple):
    """A file's content and how to describe it."""

    content: bytes
    content_type: str
    etag: str


def read_file(entry: Traversable) -> StaticFile:
    """Read a file whose kind is known by the end of its name."""
    content = entry.read_bytes()
    content_type = _CONTENT_TYPES[entry.name.rpartition('.')[2]]
    return StaticFile(content, content_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def answer(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    file: StaticFile | None,
    headers: Headers,
    location: str | None = None,
) -> Iterable[bytes]:
    """Answer a GET or HEAD with `file`, with a redirect to `location`, or with 404.

    headers: added to each answer. location: relative to the path of the request.
    """
    if environ['REQUEST_METHOD'] not in ('GET', 'HEAD'):
        allowed = ('Allow', 'GET, HEAD')
        return _say(environ, start_response, HTTPStatus.METHOD_NOT_ALLOWED, [*headers, allowed])
    if location is not None:
        target = ('Location', location)
        return _say(environ, start_response, HTTPStatus.PERMANENT_REDIRECT, [*headers, target])
    if file is None:
        return _say(environ, start_response, HTTPStatus.NOT_FOUND, headers)
    # Files change with a release: a browser may keep them, and asks each time whether it has.
    described = [('ETag', file.etag), ('Cache-Control', 'no-cache'), *headers]
    if _has(environ, file.etag):
        start_response(_line(HTTPStatus.NOT_MODIFIED), described)
        return []
    return _send(environ, start_response, HTTPStatus.OK, file.content, file.content_type, described)


def _has(environ: WSGIEnvironment, etag: str) -> bool:
    """Whether the client has the file already, by If-None-Match (RFC 9110, section 13.1.2)."""
    sent: str = environ.get('HTTP_IF_NONE_MATCH', '')
    return any(tag.strip().removeprefix('W/') in ('*', etag) for tag in sent.split(','))


def _say(
    environ: WSGIEnvironment, start_response: StartResponse, status: HTTPStatus, headers: Headers
) -> Iterable[bytes]:
    text = f'{_line(status)}\n'.encode()
    return _send(environ, start_response, status, text, 'text/plain; charset=utf-8', headers)


def _send(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    status: HTTPStatus,
    content: bytes,
    content_type: str,
    headers: Headers,
) -> Iterable[bytes]:
    described = [('Content-Type', content_type), ('Content-Length', str(len(content)))]
    start_response(_line(status), [*described, *headers])
    return [] if environ['REQUEST_METHOD'] == 'HEAD' else [content]


def _line(status: HTTPStatus) -> str:
    return f'{status.value} {status.phrase}'
