"""The JavaScript client over HTTP, for web pages that import it from the server.

A page of another origin may import a module only if the answer allows that (CORS), so the file is
served by the same rules as the API.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from zaqar_gevent import static_files

PATH = '/client/zaqar.js'

_HEADERS = [('X-Content-Type-Options', 'nosniff'), ('Vary', 'Origin')]


def read_client() -> static_files.StaticFile:
    """The client's one file."""
    return static_files.read_file(
        importlib.resources.files('zaqar_gevent') / 'client' / 'js' / 'zaqar.js'
    )


def serve_client(
    app: WSGIApplication, allow_origins: Callable[[WSGIApplication], WSGIApplication]
) -> WSGIApplication:
    """`app` with the client beside it, which needs no token.

    allow_origins: adds to answers what lets pages of other origins read them.
    """
    file = read_client()

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return static_files.answer(environ, start_response, file, _HEADERS)

    allowing = allow_origins(answer)

    def serving(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get('PATH_INFO') == PATH:
            return allowing(environ, start_response)
        return app(environ, start_response)

    return serving
