"""The console's files over WSGI."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Iterable
from importlib.resources.abc import Traversable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from zaqar_gevent.browser_client import read_client
from zaqar_gevent.static_files import StaticFile, answer, read_file

PATH = '/console'
INDEX = 'index.html'
CLIENT = 'zaqar.js'

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
            return answer(environ, start_response, None, _HEADERS, 'console/')
        if path[len(PATH)] != '/':
            return app(environ, start_response)
        file = files.get(path[len(PATH) + 1 :] or INDEX)
        return answer(environ, start_response, file, _HEADERS)

    return serving


@functools.cache
def _read_files() -> dict[str, StaticFile]:
    package = importlib.resources.files('zaqar_gevent')
    files = dict(_walk(package / 'console' / 'static', ''))
    files[CLIENT] = read_client()
    return files


def _walk(folder: Traversable, prefix: str) -> Iterable[tuple[str, StaticFile]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f'{prefix}{entry.name}/')
        else:
            yield prefix + entry.name, read_file(entry)
