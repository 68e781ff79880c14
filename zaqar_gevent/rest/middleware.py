"""WSGI middleware around the REST application: request ids and CORS."""

from __future__ import annotations

import itertools
import os
import random
import re
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import webob  # type: ignore[import-untyped]
from oslo_config import cfg
from oslo_context.context import RequestContext
from oslo_middleware import cors

from zaqar_gevent.api import documents, errors
from zaqar_gevent.origins import Origins
from zaqar_gevent.proxies import PREFIX

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

_REQUEST_ID = re.compile(r'req-[a-f0-9]{8}(-[a-f0-9]{4}){3}-[a-f0-9]{12}')

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


def identify_request(environ: Environ) -> str:
    """Give a request an id, which is found in the log as well.

    A valid one that comes with the request is kept as the global request id beside it.

    PERF: oslo.middleware does the same by webob at 22 us a request, and makes locations absolute.
    """
    request_id = next(_request_ids)
    sent = environ.get('HTTP_X_OPENSTACK_REQUEST_ID')
    global_id = sent if sent and _REQUEST_ID.fullmatch(sent) else None
    _Context(request_id, global_id)
    return request_id


class _RequestIds:
    """Ids that look as oslo.context makes them: a UUID that counts, from a random one.

    PERF: a random one for each takes ten times as long. They need not be hard to guess.
    """

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def __next__(self) -> str:
        return f'{self._prefix}{next(self._numbers):012x}'

    def _renew(self) -> None:
        self._prefix = f'req-{str(uuid.uuid4())[:24]}'
        self._numbers = itertools.count(random.getrandbits(40))


_request_ids = _RequestIds()


class _Context(RequestContext):
    """The context of a request in the log: its ids.

    PERF: all else is the class's. oslo.context sets thirty attributes for each.
    """

    def __init__(self, request_id: str, global_id: str | None) -> None:
        self.request_id = request_id
        self.global_request_id = global_id
        self.update_store()


for _name, _value in vars(RequestContext(overwrite=False)).items():
    setattr(_Context, _name, _value)


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
                error = errors.NotFound(f'The API is below {prefix}/ (SCRIPT_NAME).')
                return refuse(start_response, error)
            environ['PATH_INFO'] = path[len(prefix) :] or '/'
        environ[PREFIX] = environ.get(PREFIX, '') + prefix
        return app(environ, start_response)

    return mounted


def refuse(
    start_response: StartResponse, error: errors.APIError, *extra: tuple[str, str]
) -> Iterable[bytes]:
    """Answer with an error, and `extra` headers."""
    body = documents.encode_json(error.to_document())
    headers = [('Content-Type', 'application/json'), ('Content-Length', str(len(body))), *extra]
    start_response(f'{error.status} {error.title}', headers)
    return [body]


def allow_origins(app: Application, conf: cfg.ConfigOpts, origins: Origins) -> Application:
    """`app` for browsers, which let pages read an answer only if its headers allow their origin.

    origins: those that [cors] allows; a page of another origin gets no such headers.
    """
    cors.set_defaults(
        allow_headers=_ALLOWED_HEADERS,
        expose_headers=_EXPOSED_HEADERS,
        allow_methods=_ALLOWED_METHODS,
    )
    rules = cors.CORS(None, conf)

    def allowing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if 'HTTP_ORIGIN' not in environ:
            return app(environ, start_response)
        # It logs a refusal; the browser is what keeps the answer from the page.
        origins.allow(environ)
        if not rules.allowed_origins:
            return app(environ, start_response)
        request = webob.Request(environ)
        if request.method == 'OPTIONS' and 'HTTP_ACCESS_CONTROL_REQUEST_METHOD' in environ:
            # A preflight has no token, so it must not come as far as authentication.
            preflight = rules.process_response(webob.Response(content_type=None), request)
            body: Iterable[bytes] = preflight(environ, start_response)
            return body

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            # With a body of its own, as by default, it would have the length of that.
            response = webob.Response(status=status, headerlist=list(headers), app_iter=())
            rules.process_response(response, request)
            return start_response(status, response.headerlist, *exc_info)

        return app(environ, start)

    return allowing
