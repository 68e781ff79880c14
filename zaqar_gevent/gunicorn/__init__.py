"""A gunicorn worker::

    gunicorn -k zaqar_gevent.gunicorn.Worker zaqar_gevent.wsgi:app

Unlike gevent-websocket's, from which it derives, it leaves the handshake to the application, limits
slow clients, keeps room for REST, and lets WebSocket clients go when it is told to stop.
"""

from __future__ import annotations

from typing import Any

import gevent
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker


class Worker(GeventWebSocketWorker):
    """Serves an application of `zaqar_gevent.wsgi`."""

    def patch(self) -> None:
        """Patch the standard library, and only then import what uses it.

        PERF: where a greenlet was spawned is of interest to nobody, and costs each 1.5 KB.
        """
        gevent.config.track_greenlet_tree = False
        super().patch()
        from zaqar_gevent.gunicorn import server

        self.server_class = server.Server

    def run(self) -> None:
        """Serve, and then do what is left to do for clients that are gone."""
        super().run()
        self.wsgi.finish()

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
