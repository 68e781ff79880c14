"""The Falcon application, built by looping over the operations."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import falcon
from falcon.routing import CompiledRouter
from oslo_log import log

from zaqar_gevent.api import documents, errors
from zaqar_gevent.api.dispatcher import Dispatcher
from zaqar_gevent.api.operation import Operation
from zaqar_gevent.rest.arguments import BodyLimits
from zaqar_gevent.rest.middleware import StartResponse
from zaqar_gevent.rest.request import Request
from zaqar_gevent.rest.resource import Resource, Responder
from zaqar_gevent.rest.response import Response

LOG = log.getLogger(__name__)

# Of the paths that are remembered with their routes, which clients choose.
_MAX_PATHS = 1024
_SHORT_PATH = 256


class App(falcon.App[Request, falcon.Response]):
    """Falcon's application, with a short way for the requests that operations answer.

    PERF: Falcon asks each request for what is not used here: middleware, hooks, streams, media.
    """

    def __init__(self) -> None:
        self._routes = CompiledRouter()
        super().__init__(router=self._routes, request_type=Request)
        self.req_options.auto_parse_qs_csv = True
        self.req_options.keep_blank_qs_values = False
        self.add_error_handler(Exception, _handle)
        self.add_error_handler(falcon.HTTPError, _handle)
        self._find_short = functools.lru_cache(maxsize=_MAX_PATHS)(self._find)

    def __call__(self, env: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        req = Request(env, self.req_options)
        path, method = req.path, req.method
        # PERF: the same paths are asked for again and again.
        find = self._find_short if len(path) <= _SHORT_PATH else self._find
        found = find(path, method)
        if found is None:
            return super().__call__(env, start_response)
        responder, variables = found
        resp = Response()
        try:
            responder.respond(req, resp, variables)
        except Exception as error:
            _handle(req, resp, error, variables)
        body, status, headers = resp.data, resp.status, resp.headers
        # The identity of a request is in headers that caches do not know.
        headers.setdefault('cache-control', 'no-store')
        if status == 204:
            body = b''
        else:
            headers['content-length'] = str(len(body))
            headers.setdefault('content-type', falcon.MEDIA_JSON)
        start_response(falcon.code_to_http_status(status), list(headers.items()))
        return [body] if body and method != 'HEAD' else []

    def _find(self, path: str, method: str) -> tuple[Responder, dict[str, Any]] | None:
        """What answers a request, with the variables in its path.

        None where Falcon does it: no such path, a method that it has not, OPTIONS.
        """
        route = self._routes.find(path)
        responder: Any = route and route[1].get(method)
        return (responder, route[2]) if route and isinstance(responder, Responder) else None


def build_app(dispatcher: Dispatcher) -> App:
    """The REST API of what `dispatcher` offers, a WSGI application."""
    app = App()
    limit = dispatcher.broker.limit
    max_bytes = max(limit('max_messages_post_size'), limit('max_queue_metadata'))
    limits = BodyLimits(max_bytes, dispatcher.broker.max_depth)
    for path, operations in _by_path(dispatcher).items():
        app.add_route(path, Resource(dispatcher, operations, limits))
    return app


def _by_path(dispatcher: Dispatcher) -> dict[str, list[Operation]]:
    paths: dict[str, list[Operation]] = {}
    for operation in dispatcher.operations.values():
        paths.setdefault(operation.route.path, []).append(operation)
    return paths


def _handle(req: Request, resp: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
    """Answer with an error; what is not one of the API's or of Falcon's is a fault of ours."""
    resp.set_header('Cache-Control', 'no-store')
    match error:
        case errors.APIError():
            _refuse(resp, error)
        case falcon.HTTPError():
            _refuse_as_falcon(resp, error)
        case _:
            LOG.exception('%s %s failed', req.method, req.path)
            _refuse(resp, errors.ServiceUnavailable.during(f'{req.method} {req.path}'))


def _refuse(resp: falcon.Response, error: errors.APIError) -> None:
    resp.status = error.status
    if isinstance(error, errors.QuotaExceeded):
        resp.set_header('Retry-After', str(error.retry_after))
    resp.data = documents.encode_json(error.to_document())
    if isinstance(error, errors.ServiceUnavailable):
        resp.set_header('Retry-After', str(errors.RETRY_AFTER_SECONDS))


def _refuse_as_falcon(resp: falcon.Response, error: falcon.HTTPError) -> None:
    """Falcon's own refusals (no such path, method not allowed, bad parameter) in our form."""
    resp.status = error.status
    resp.set_headers(error.headers or {})
    title = error.title or ''
    document = {
        'code': title.lower().removeprefix('404 ').replace(' ', '_'),
        'title': title,
        'description': error.description or title,
    }
    resp.data = documents.encode_json(document)
