"""The Falcon application, built by looping over the operations."""

from __future__ import annotations

from typing import Any

import falcon
from oslo_log import log

from zaqar_gevent.api import documents, errors
from zaqar_gevent.api.dispatcher import Dispatcher
from zaqar_gevent.api.operation import Operation
from zaqar_gevent.rest.arguments import BodyLimits
from zaqar_gevent.rest.resource import Resource

LOG = log.getLogger(__name__)


def build_app(dispatcher: Dispatcher) -> falcon.App[falcon.Request, falcon.Response]:
    """The REST API of what `dispatcher` offers, a WSGI application."""
    app = falcon.App()
    app.req_options.auto_parse_qs_csv = True
    app.req_options.keep_blank_qs_values = False
    app.add_error_handler(Exception, _handle_unexpected)
    app.add_error_handler(falcon.HTTPError, _handle_http_error)
    app.add_error_handler(errors.APIError, _handle_api_error)
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


def _handle_api_error(
    req: falcon.Request, resp: falcon.Response, error: errors.APIError, params: dict[str, Any]
) -> None:
    resp.status = error.status
    if isinstance(error, errors.QuotaExceeded):
        resp.set_header('Retry-After', str(error.retry_after))
    resp.data = documents.encode_json(error.to_document())
    if isinstance(error, errors.ServiceUnavailable):
        resp.set_header('Retry-After', str(errors.RETRY_AFTER_SECONDS))


def _handle_http_error(
    req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: dict[str, Any]
) -> None:
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


def _handle_unexpected(
    req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]
) -> None:
    LOG.exception('%s %s failed', req.method, req.path)
    unavailable = errors.ServiceUnavailable.during(f'{req.method} {req.path}')
    _handle_api_error(req, resp, unavailable, params)
