"""Observation of the server: measured requests, metrics and the health check."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from oslo_config import cfg
from oslo_middleware import exceptions, healthcheck
from oslo_middleware.healthcheck import pluginbase

from zaqar_gevent import metrics, options
from zaqar_gevent.access_log import AccessLog
from zaqar_gevent.api import errors
from zaqar_gevent.api.tracing import TraceContext
from zaqar_gevent.conf import ConfigurationError
from zaqar_gevent.refusals import refuse
from zaqar_gevent.request_ids import HEADER as REQUEST_ID
from zaqar_gevent.request_ids import identify_request
from zaqar_gevent.rest.middleware import Application, Environ, StartResponse
from zaqar_gevent.rest.resource import OPERATION

METRICS_PATH = '/metrics'
HEALTH_PATH = '/healthcheck'


class _MethodNotAllowed(errors.APIError):
    status = 405
    code = 'method_not_allowed'
    title = 'Method Not Allowed'


def observe(app: Application, access_log: AccessLog) -> Application:
    """`app`, whose requests get ids, and are counted, timed and written down.

    It stands around everything that answers REST. Each answer carries its X-OpenStack-Request-ID.
    A request is over when `app` has returned.
    """

    def observed(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        began = time.perf_counter()
        request_id = identify_request(environ)
        # Until the application says otherwise: what it raises, a server answers so.
        status = 500
        headers: list[tuple[str, str]] = []
        body: Iterable[bytes] = ()

        def start(line: str, given: list[tuple[str, str]], *exc_info: Any) -> Any:
            nonlocal status, headers
            status = int(line[:3])
            headers = given
            # The list is the server's to change (PEP 3333).
            given.append((REQUEST_ID, request_id))
            return start_response(line, given, *exc_info)

        try:
            body = app(environ, start)
        finally:
            seconds = time.perf_counter() - began
            operation = environ.get(OPERATION, 'none')
            metrics.observe_request(operation, 'rest', status, seconds)
            if access_log.enabled:
                answer = _Answer(request_id, status, headers, body)
                _write(access_log, environ, answer, seconds)
        return body

    return observed


class _Answer(NamedTuple):
    """The answer to a request, for the access log."""

    request_id: str
    status: int
    headers: list[tuple[str, str]]
    body: Iterable[bytes]

    @property
    def size(self) -> int | None:
        """Of the body, in bytes; None where it is not known."""
        if isinstance(self.body, (list, tuple)):
            return sum(map(len, self.body))
        lengths = (value for name, value in self.headers if name.lower() == 'content-length')
        return _length(next(lengths, ''))


def _write(access_log: AccessLog, environ: Environ, answer: _Answer, seconds: float) -> None:
    access_log.write(
        request_id=answer.request_id,
        transport='rest',
        operation=environ.get(OPERATION, 'none'),
        status=answer.status,
        seconds=seconds,
        project_id=environ.get('HTTP_X_PROJECT_ID', environ.get('HTTP_X_TENANT_ID')),
        user_id=environ.get('HTTP_X_USER_ID'),
        client_id=environ.get('HTTP_CLIENT_ID'),
        remote=environ.get('REMOTE_ADDR'),
        trace_id=_trace_id(environ),
        bytes_in=_bytes_in(environ),
        bytes_out=0 if environ['REQUEST_METHOD'] == 'HEAD' else answer.size,
        method=environ['REQUEST_METHOD'],
        path=_path(environ),
    )


def _trace_id(environ: Environ) -> str | None:
    trace = TraceContext.of(environ.get('HTTP_TRACEPARENT'), None)
    return None if trace is None else trace.trace_id


def _bytes_in(environ: Environ) -> int | None:
    """The announced length of the body; None for one that comes in chunks."""
    if 'HTTP_TRANSFER_ENCODING' in environ:
        return None
    return _length(environ.get('CONTENT_LENGTH') or '0')


def _length(text: str) -> int | None:
    """A Content-Length; None if the text is not a number."""
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _path(environ: Environ) -> str:
    """The path as text: WSGI gives its bytes as if they were Latin-1."""
    path = environ.get('SCRIPT_NAME', '') + environ.get('PATH_INFO', '')
    return str(path.encode('latin-1', 'replace').decode(errors='replace'))


def serve_paths(app: Application, conf: cfg.ConfigOpts, is_well: Callable[[], bool]) -> Application:
    """`app` with the health check and, unless they are elsewhere or off, the metrics beside it.

    It stands before authentication: neither needs a token. PERF: all else costs one look-up.

    is_well: whether the store works.

    Raises `ConfigurationError` where [healthcheck] cannot work.
    """
    section = conf[options.GROUP]
    answers: dict[str | None, Application] = {HEALTH_PATH: _health_check(app, conf, is_well)}
    if section.metrics and not section.metrics_port:
        answers[METRICS_PATH] = _serve_metrics

    def serving(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return answers.get(environ.get('PATH_INFO'), app)(environ, start_response)

    return serving


def metrics_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The WSGI application of a listener that has nothing but the metrics."""
    if environ.get('PATH_INFO') == METRICS_PATH:
        return _serve_metrics(environ, start_response)
    return refuse(start_response, errors.NotFound(f'There is nothing but {METRICS_PATH} here.'))


class _HealthCheck(healthcheck.Healthcheck):
    """oslo.middleware's, with the store beside the backends that are configured."""

    def __init__(self, app: Application, conf: cfg.ConfigOpts, is_well: Callable[[], bool]) -> None:
        super().__init__(app, conf)
        self._backends: Any = (*self._backends, _StoreBackend(is_well))


class _StoreBackend:
    """A backend as the health check has them; there is one only while the store is not well."""

    def __init__(self, is_well: Callable[[], bool]) -> None:
        self._is_well = is_well

    @property
    def obj(self) -> _StoreBackend | None:
        return None if self._is_well() else self

    def healthcheck(self, server_port: int) -> pluginbase.HealthcheckResult:
        return pluginbase.HealthcheckResult(available=False, reason='The store cannot be used')


def _health_check(
    app: Application, conf: cfg.ConfigOpts, is_well: Callable[[], bool]
) -> Application:
    """The health check; requests that its section does not cover go on to `app`."""
    try:
        check: Callable[..., Any] = _HealthCheck(app, conf, is_well)
    except (exceptions.ConfigInvalid, cfg.Error, ValueError) as error:
        raise ConfigurationError(f'[healthcheck] cannot work: {error}') from None
    return check


def _serve_metrics(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    method = environ['REQUEST_METHOD']
    if method not in ('GET', 'HEAD'):
        error = _MethodNotAllowed(f'{METRICS_PATH} can only be read.')
        return refuse(start_response, error, ('Allow', 'GET, HEAD'))
    content_type, text = metrics.expose(environ.get('HTTP_ACCEPT', ''))
    start_response('200 OK', [('Content-Type', content_type), ('Content-Length', str(len(text)))])
    return [text] if method == 'GET' else []
