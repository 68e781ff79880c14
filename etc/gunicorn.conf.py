"""gunicorn for Zaqar over REST and WebSocket::

gunicorn -c etc/gunicorn.conf.py
"""

import os

wsgi_app = 'zaqar_gevent.wsgi:app'
bind = '127.0.0.1:8888'

# The worker that can hand a connection over to a WebSocket.
worker_class = 'zaqar_gevent.gunicorn.Worker'

# Workers share the store; one is enough unless a processor is the limit.
workers = 1

# Connections that one worker serves at a time; a WebSocket is one for as long as it is open.
worker_connections = 10_000

# Seconds that requests have to finish in when a worker is to stop; WebSockets are closed then.
graceful_timeout = 10

# Nothing but the address above is listened on. Versions without such a socket ignore this.
control_socket_disable = True


def child_exit(server, worker):
    """With metrics of several workers, forget the connections of one that has ended."""
    if os.environ.get('PROMETHEUS_MULTIPROC_DIR'):
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)
