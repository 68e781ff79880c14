"""Our HTTP server as gunicorn makes it; to be imported in a worker that has been patched."""

from __future__ import annotations

from gunicorn.workers.ggevent import PyWSGIHandler

from zaqar_gevent import http


class Handler(http.Handler, PyWSGIHandler):
    """Our handler, with gunicorn's access log."""


class Server(http.Server):
    """Our server; what is wrong with a request is logged where gunicorn's errors are."""

    handler_class = Handler
