"""WSGI middleware around the REST application: paths and CORS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import webob  # type: ignore[import-untyped]
from oslo_config import cfg
from oslo_middleware import cors

from zaqar_gevent.api import errors
from zaqar_gevent.origins import Origins
from zaqar_gevent.proxies import PREFIX
from zaqar_gevent.refusals import refuse_early
from zaqar_gevent.request_ids import identify_request

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

# How the paths of the API begin, but for that of the list of versions.
_API = '/v2/'

# The headers that a browser may send to and read from another origin, as upstream allows it.
_ALLOWED_HEADERS = [
    *('X-Auth-Token', 'X-Identity-Status', 'X-Roles', 'X-Service-Catalog', 'X-User-Id'),
    *('X-Tenant-Id', 'X-OpenStack-Request-ID', 'X-Trace-Info', 'X-Trace-HMAC', 'Client-id'),
    *('X-Project-ID', 'OpenStack-API-Version', 'traceparent', 'tracestate'),
]
_EXPOSED_HEADERS = [
    *('X-Auth-Token', 'X-Subject-Token', 'X-Service-Token', 'X-OpenStack-Request-ID'),
    'OpenStack-API-Version',
]
_ALLOWED_METHODS = ['GET', 'PUT', 'POST', 'DELETE', 'PATCH', 'HEAD']


def choose_by_path(api: Application, beside: Application) -> Application:
    """`api` for its paths, and `beside` for all others, which may leave some to `api`.

    PERF: requests to the API do not pass what has paths of its own.
    """

    def choose(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        app = api if environ.get('PATH_INFO', '').startswith(_API) else beside
        return app(environ, start_response)

    return choose


def mount(app: Application, prefix: str) -> Application:
    """`app` below the path `prefix`, which has no slash at its end; `app` itself where it is empty.

    A server that takes the prefix away by itself, and says so in SCRIPT_NAME, is left alone.
    """
    if not prefix:
        return app

    def mounted(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ['PATH_INFO']
        if environ.get('SCRIPT_NAME') != prefix:
            if path != prefix and not path.startswith(f'{prefix}/'):
                identify_request(environ)
                error = errors.NotFound(f'The API is below {prefix}/ (SCRIPT_NAME).')
                return refuse_early(start_response, error)
            environ['PATH_INFO'] = path[len(prefix) :] or '/'
        environ[PREFIX] = environ.get(PREFIX, '') + prefix
        return app(environ, start_response)

    return mounted


def _depend_on_origin(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers of an answer, with one `Vary` that has each name once, Origin among them."""
    said = [value for name, value in headers if name.lower() == 'vary']
    names = dict.fromkeys([name.strip() for value in said for name in value.split(',')])
    others = [(name, value) for name, value in headers if name.lower() != 'vary']
    return [*others, ('Vary', ','.join({**names, 'Origin': None}))]


def allow_origins(app: Application, conf: cfg.ConfigOpts, origins: Origins) -> Application:
    """`app` for browsers, which let pages read an answer only if its headers allow their origin.

    origins: those that [cors] allows; a page of another origin gets no such headers. Where there
        are any, every answer says that it depends on the origin, for the sake of caches.
    """
    cors.set_defaults(
        allow_headers=_ALLOWED_HEADERS,
        expose_headers=_EXPOSED_HEADERS,
        allow_methods=_ALLOWED_METHODS,
    )
    rules = cors.CORS(None, conf)

    def allowing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if 'HTTP_ORIGIN' in environ:
            # It logs a refusal; the browser is what keeps the answer from the page.
            origins.allow(environ)
        if not rules.allowed_origins:
            return app(environ, start_response)
        if 'HTTP_ORIGIN' not in environ:
            # PERF: few of the requests come from pages.
            return app(
                environ,
                lambda status, headers, *more: start_response(
                    status, _depend_on_origin(headers), *more
                ),
            )
        request = webob.Request(environ)
        if request.method == 'OPTIONS' and 'HTTP_ACCESS_CONTROL_REQUEST_METHOD' in environ:
            # A preflight has no token, so it must not come as far as authentication.
            preflight = rules.process_response(webob.Response(content_type=None), request)
            body: Iterable[bytes] = preflight(environ, start_response)
            return body

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            # With a body of its own, as by default, it would have the length of that.
            response = webob.Response(
                status=status, headerlist=_depend_on_origin(headers), app_iter=()
            )
            rules.process_response(response, request)
            return start_response(status, _depend_on_origin(response.headerlist), *exc_info)

        return app(environ, start)

    return allowing
