"""One path of the REST API: which operation a request on it means, and how it is answered."""

from __future__ import annotations

import functools
from typing import Any

import falcon

from zaqar_gevent.api import documents, errors, microversions
from zaqar_gevent.api.context import Caller, Context
from zaqar_gevent.api.dispatcher import Dispatcher
from zaqar_gevent.api.operation import Operation
from zaqar_gevent.api.signed_urls import SignedRequest
from zaqar_gevent.api.tracing import TraceContext
from zaqar_gevent.rest import shapes
from zaqar_gevent.rest.arguments import ArgumentReader, BodyLimits
from zaqar_gevent.rest.request import Request

# The usual values of Accept that allow JSON.
_ACCEPTING = frozenset((None, '*/*', 'application/json'))

# Where a request says which version of the API it wants.
VERSION_HEADER = 'HTTP_OPENSTACK_API_VERSION'

# Where the environment of a request says which operation it means.
OPERATION = 'zaqar_gevent.operation'

# Where a server of ours says in it which connection the request came over.
CLIENT = 'zaqar_gevent.client'


class Resource:
    """The operations that share a path, as Falcon wants them: `on_get`, `on_post`..."""

    def __init__(
        self, dispatcher: Dispatcher, operations: list[Operation], limits: BodyLimits
    ) -> None:
        methods = {method for operation in operations for method in operation.route.methods}
        for method in methods:
            choices = [
                _Choice(dispatcher, operation, limits)
                for operation in operations
                if method in operation.route.methods
            ]
            choices.sort(key=lambda choice: not choice.required)
            setattr(self, f'on_{method.lower()}', Responder(choices))


class Responder:
    """Answers one method of a path by the first operation whose parameters are there."""

    def __init__(self, choices: list[_Choice]) -> None:
        self._choices = choices
        # PERF: most often there is no choice.
        self._only = choices[0] if len(choices) == 1 and not choices[0].required else None

    def __call__(self, req: Request, resp: falcon.Response, **path: str) -> None:
        self.respond(req, resp, path)

    def respond(self, req: Request, resp: falcon.Response, path: dict[str, Any]) -> None:
        """Answer a request; `path` has the variables in its path."""
        # PERF: Falcon parses the header each time.
        if req.env.get('HTTP_ACCEPT') not in _ACCEPTING and not req.client_accepts_json:
            raise errors.NotAcceptable('This endpoint only serves `application/json`.')
        choice = self._only or self._choose(req)
        if choice is not None:
            choice.answer(req, resp, path)

    def _choose(self, req: Request) -> _Choice | None:
        for choice in self._choices:
            if all(name in req.params for name in choice.required):
                return choice
        return None


class _Choice:
    """An operation that a request may mean."""

    def __init__(self, dispatcher: Dispatcher, operation: Operation, limits: BodyLimits) -> None:
        self._dispatcher = dispatcher
        self._operation = operation
        self._reader = ArgumentReader(operation, limits)
        self._shape = shapes.SHAPES.get(operation.function, shapes.as_is)
        self.required = self._reader.required

    def answer(self, req: Request, resp: falcon.Response, path: dict[str, Any]) -> None:
        environ, dispatcher, operation = req.env, self._dispatcher, self._operation
        environ[OPERATION] = operation.name
        shows_extensions = VERSION_HEADER in environ and _answer_version(
            req, resp, any_version=operation.any_version
        )
        context = _context(dispatcher, environ, shows_extensions=shows_extensions)
        dispatcher.authorize(operation, context, path)
        arguments, context.sent_bytes = self._reader.read(req, path, context.project_id)
        reply = dispatcher.perform(operation, context, arguments)
        if context.undo is not None and CLIENT in environ:
            environ[CLIENT].unless_answered(context.take_back)
        resp.status = reply.status
        body = self._shape(req, resp, reply)
        if body is not None:
            data = resp.data = documents.encode_json(body)
            context.report_size(len(data))


# PERF: a client sends the same headers with each request. Their lengths are bounded.
_caller_of = functools.lru_cache(maxsize=1024)(Caller.of)


def _answer_version(req: Request, resp: falcon.Response, *, any_version: bool) -> bool:
    """Say which version is served, where the client asks for one; whether it has extensions.

    any_version: whether to answer in the latest version to what cannot be served or understood.

    Raises `errors.NotAcceptable`, `errors.BadRequest`.
    """
    resp.append_header('Vary', microversions.HEADER)
    read = microversions.asked_for_or_latest if any_version else microversions.asked_for
    version = read(req.env[VERSION_HEADER])
    if version is None:
        return False
    resp.set_header(microversions.HEADER, version.header)
    return version.shows_extensions


def _trace_of(environ: dict[str, Any]) -> TraceContext | None:
    return TraceContext.of(environ['HTTP_TRACEPARENT'], environ.get('HTTP_TRACESTATE'))


def _context(dispatcher: Dispatcher, environ: dict[str, Any], *, shows_extensions: bool) -> Context:
    find = environ.get
    project_id = find('HTTP_X_PROJECT_ID')
    caller = _caller_of(
        find('HTTP_X_TENANT_ID') if project_id is None else project_id,
        find('HTTP_CLIENT_ID'),
        find('HTTP_X_USER_ID'),
        find('HTTP_X_ROLES'),
    )
    context = Context(dispatcher.broker, caller, environ, find(CLIENT))
    context.shows_extensions = shows_extensions
    context.passed = find('HTTP_ZAQAR_WEBHOOK_PATH')
    if 'HTTP_TRACEPARENT' in environ:
        context.trace = _trace_of(environ)
    if 'HTTP_URL_SIGNATURE' in environ:
        signed_request = context.signed_request = SignedRequest.of(
            environ['HTTP_URL_SIGNATURE'],
            find('HTTP_URL_EXPIRES'),
            find('HTTP_URL_METHODS'),
            find('HTTP_URL_PATHS'),
        )
        if signed_request is not None:
            context.grant = signed_request.grant
    return context
