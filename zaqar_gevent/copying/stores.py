"""The stores that can be copied, by the scheme of their URI."""

from __future__ import annotations

import importlib
from types import ModuleType

from zaqar_gevent.storage.records import ReadableStore, WritableStore
from zaqar_gevent.uris import conceal

_MODULES = {
    'sqlite': 'sqlite',
    'redis': 'redis',
    'rediss': 'redis',
    'postgresql': 'postgresql',
    'postgres': 'postgresql',
}


class UnknownStore(ValueError):
    """The URI names no store that can be copied."""


def open_source(uri: str) -> ReadableStore:
    """The store to copy from; raises `UnknownStore` or what the store raises."""
    source: ReadableStore = _find_module(uri).Reader(uri)
    return source


def open_target(uri: str) -> WritableStore:
    """The store to copy to; raises `UnknownStore` or what the store raises."""
    target: WritableStore = _find_module(uri).Writer(uri)
    return target


def _find_module(uri: str) -> ModuleType:
    scheme = uri.partition(':')[0].lower()
    if scheme not in _MODULES:
        known = ', '.join(f'{one}://' for one in _MODULES)
        raise UnknownStore(
            f'{conceal(uri)!r} names no store that can be copied: it must begin with {known}'
        )
    return importlib.import_module(f'zaqar_gevent.storage.{_MODULES[scheme]}.copying')
