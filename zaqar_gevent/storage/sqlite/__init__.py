"""The embedded store: everything Zaqar keeps, in one SQLite file, durable when acknowledged."""

from zaqar_gevent.storage.sqlite.driver import ControlDriver, DataDriver
from zaqar_gevent.storage.sqlite.options import NotConfigured
from zaqar_gevent.storage.sqlite.outage import StoreDamaged, StoreUnavailable

__all__ = ['ControlDriver', 'DataDriver', 'NotConfigured', 'StoreDamaged', 'StoreUnavailable']
