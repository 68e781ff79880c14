"""Keystone on a port of loopback, run by the Python that has it: `serve.py PORT`."""

import socketserver
import sys
import warnings
from wsgiref import simple_server

warnings.simplefilter('ignore')

# Keystone reads the command line too, when it is imported.
port = int(sys.argv.pop())

from keystone.wsgi.api import application  # noqa: E402


class Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True


class Handler(simple_server.WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing."""


server = simple_server.make_server('127.0.0.1', port, application, Server, Handler)
print('ready', flush=True)
server.serve_forever()
