"""The WSGI application for other servers, in place of `zaqar.transport.wsgi.app`.

::

    gunicorn -k geventwebsocket.gunicorn.workers.GeventWebSocketWorker zaqar_gevent.wsgi:app

The configuration is read from the standard places of `zaqar.conf`; where there is none, the
embedded store is used. Everything is served below the path in the environment's SCRIPT_NAME.
"""

from __future__ import annotations

import atexit
import os

from oslo_config import cfg

from zaqar_gevent import conf as configuration
from zaqar_gevent import logs
from zaqar_gevent.server import Service, enable_reports, settle


def load_app() -> Service:
    """Configure and open the stores as upstream's application does."""
    conf = configuration.load(cfg.CONF)
    configuration.use_embedded_store(conf, configuration.default_state_path())
    logs.set_up(conf)
    enable_reports(conf)
    service = Service(conf, os.environ.get('SCRIPT_NAME', ''))
    # Whatever server it is: a worker that stops leaves everything in the store's file.
    atexit.register(service.close)
    settle()
    return service


app = application = load_app().app
