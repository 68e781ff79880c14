"""The console's files over WSGI.

They are read once, when the server is put together, and looked up by their whole names: no name
that a client sends ever reaches the file system.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
from collections.abc import Iterable
from http import HTTPStatus
from importlib.resources.abc import Traversable
from typing import NamedTuple
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

PATH = '/console'
INDEX = 'index.html'
CLIENT = 'zaqar.js'

_CONTENT_TYPES = {
    'html': 'text/html; charset=utf-8',
    'css': 'text/css; charset=utf-8',
    'js': 'text/javascript; charset=utf-8',
    'svg': 'image/svg+xml',
}

# Of the WebSocket's origin: 'self' means the page's host and port by ws and wss as well (CSP 3).
_POLICY = '; '.join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_HEADERS = [
    ('Content-Security-Policy', _POLICY),
    ('X-Content-Type-Options', 'nosniff'),
    ('Referrer-Policy', 'no-referrer'),
    ('Cross-Origin-Opener-Policy', 'same-origin'),
    ('Cross-Origin-Resource-Policy', 'same-origin'),
]


class _File(NamedTuple):
    content: bytes
    content_type: str
    etag: str


def serve_console(app: WSGIApplication) -> WSGIApplication:
    """`app` with the console beside it, at `/console` and below.

    It stands before authentication: the files hold no data, and what they ask the API for needs a
    token as ever. What is under the path is answered here, whether it exists or not.
    """
    files = _read_files()

    def serving(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path: str = environ.get('PATH_INFO', '')
        if not path.startswith(PATH):
            return app(environ, start_response)
        if path == PATH:
            return _answer(environ, start_response, None, 'console/')
        if path[len(PATH)] != '/':
            return app(environ, start_response)
        return _answer(environ, start_response, files.get(path[len(PATH) + 1 :] or INDEX))

    return serving


@functools.cache
def _read_files() -> dict[str, _File]:
    package = importlib.resources.files('zaqar_gevent')
    files = dict(_walk(package / 'console' / 'static', ''))
    files[CLIENT] = _read(package / 'client' / 'js' / CLIENT)
    return files


def _walk(folder: Traversable, prefix: str) -> Iterable[tuple[str, _File]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f'{prefix}{entry.name}/')
        else:
            yield prefix + entry.name, _read(entry)


def _read(entry: Traversable) -> _File:
    content = entry.read_bytes()
    content_type = _CONTENT_TYPES[entry.name.rpartition('.')[2]]
    return _File(content, content_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _answer(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    file: _File | None,
    location: str | None = None,
) -> Iterable[bytes]:
    """Answer with `file`, with `location`, which is relative, or with 404."""
    if environ['REQUEST_METHOD'] not in ('GET', 'HEAD'):
        return _say(environ, start_response, HTTPStatus.METHOD_NOT_ALLOWED, ('Allow', 'GET, HEAD'))
    if location is not None:
        moved = HTTPStatus.PERMANENT_REDIRECT
        return _say(environ, start_response, moved, ('Location', location))
    if file is None:
        return _say(environ, start_response, HTTPStatus.NOT_FOUND)
    # Files change with a release: a browser may keep them, and asks each time whether it has.
    caching = [('ETag', file.etag), ('Cache-Control', 'no-cache')]
    if _has(environ, file.etag):
        start_response(_line(HTTPStatus.NOT_MODIFIED), [*caching, *_HEADERS])
        return []
    return _send(environ, start_response, HTTPStatus.OK, file.content, file.content_type, *caching)


def _has(environ: WSGIEnvironment, etag: str) -> bool:
    """Whether the client has the file already, by If-None-Match (RFC 9110, section 13.1.2)."""
    sent: str = environ.get('HTTP_IF_NONE_MATCH', '')
    return any(tag.strip().removeprefix('W/') in ('*', etag) for tag in sent.split(','))


def _say(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    status: HTTPStatus,
    *extra: tuple[str, str],
) -> Iterable[bytes]:
    text = f'{_line(status)}\n'.encode()
    return _send(environ, start_response, status, text, 'text/plain; charset=utf-8', *extra)


def _send(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    status: HTTPStatus,
    content: bytes,
    content_type: str,
    *extra: tuple[str, str],
) -> Iterable[bytes]:
    described = [('Content-Type', content_type), ('Content-Length', str(len(content)))]
    start_response(_line(status), [*described, *extra, *_HEADERS])
    return [] if environ['REQUEST_METHOD'] == 'HEAD' else [content]


def _line(status: HTTPStatus) -> str:
    return f'{status.value} {status.phrase}'
