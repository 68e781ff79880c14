"""Our HTTP server as gunicorn makes it; to be imported in a worker that has been patched."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from typing import Any

from gunicorn.workers.ggevent import GeventResponse

from zaqar_gevent import http
from zaqar_gevent.http.answer import Answer


class Server(http.Server):
    """Our server, with gunicorn's access log.

    log: gunicorn's. handler_class: of other servers, and not needed here.
    """

    def __init__(
        self,
        listener: Any,
        application: http.Application,
        environ: dict[str, Any] | None = None,
        *,
        log: Any,
        handler_class: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(listener, application, environ, **options)
        self._log = log
        # Loggers of others need not say so.
        self._has_access_log = getattr(log, 'access_log_enabled', True)

    def note(self, environ: dict[str, Any], answer: Answer, began: float) -> None:
        """Write a line of the access log, where there is one."""
        if not self._has_access_log:
            return
        taken = datetime.timedelta(seconds=time.time() - began)
        response = GeventResponse(answer.status, answer.headers, answer.size)
        self._log.access(response, _headers_of(environ), environ, taken)


def _headers_of(environ: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The headers of a request, of which gunicorn looks for those in its log's format."""
    return (
        (name.removeprefix('HTTP_').replace('_', '-'), value)
        for name, value in environ.items()
        if name.startswith('HTTP_')
    )
