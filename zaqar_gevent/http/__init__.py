"""The HTTP server: strict heads, time limits for slow clients, upgrades, and a graceful end."""

from zaqar_gevent.http.head import Limits
from zaqar_gevent.http.server import Application, Server, Timeouts

__all__ = ['Application', 'Limits', 'Server', 'Timeouts']
