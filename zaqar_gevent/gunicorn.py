"""A gunicorn worker::

    gunicorn -k zaqar_gevent.gunicorn.Worker zaqar_gevent.wsgi:app

Unlike gevent-websocket's, from which it derives, it leaves the handshake to the application, limits
slow clients, keeps room for REST, and lets WebSocket clients go when it is told to stop.
"""

from __future__ import annotations

from typing import Any

import gevent
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker
from gunicorn.workers.ggevent import PyWSGIHandler

from zaqar_gevent import http


class Handler(http.Handler, PyWSGIHandler):
    """Our handler, with gunicorn's access log."""


class Server(http.Server):
    """Our server, as gunicorn makes it."""

    handler_class = Handler


class Worker(GeventWebSocketWorker):
    """Serves an application of `zaqar_gevent.wsgi`."""

    server_class = Server
    wsgi_handler = Handler

    def load_wsgi(self) -> None:
        """Load the application, and leave a part of `worker_connections` to REST."""
        super().load_wsgi()
        application: Any = self.wsgi
        if not hasattr(application, 'leave_room'):
            raise RuntimeError(
                f'{self.cfg.wsgi_app or self.app} is no application of zaqar_gevent; this worker '
                'serves zaqar_gevent.wsgi:app.'
            )
        application.leave_room(self.cfg.worker_connections)

    def patch(self) -> None:
        """Patch the standard library, as gunicorn's worker does.

        PERF: where a greenlet was spawned is of interest to nobody, and costs each 1.5 KB.
        """
        gevent.config.track_greenlet_tree = False
        super().patch()
