"""The embedded store: everything Zaqar keeps, in one SQLite file, durable when acknowledged."""

from zaqar_gevent.storage.errors import StoreDamaged, StoreUnavailable
from zaqar_gevent.storage.sqlite.driver import ControlDriver, DataDriver
from zaqar_gevent.storage.sqlite.options import NotConfigured

__all__ = ['ControlDriver', 'DataDriver', 'NotConfigured', 'StoreDamaged', 'StoreUnavailable']
