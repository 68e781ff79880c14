"""Loads the drivers of the stores that the configuration names, and says what is wrong."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any

import gevent
import stevedore
from oslo_config import cfg
from oslo_log import log

from zaqar_gevent import conf as configuration
from zaqar_gevent import uris
from zaqar_gevent.conf import ConfigurationError, describe_error
from zaqar_gevent.storage import drivers

LOG = log.getLogger(__name__)

# The extras that bring the modules that upstream's drivers need.
_EXTRAS = {
    'redis': 'redis',
    'hiredis': 'redis',
    'psycopg': 'postgresql',
    'pymongo': 'mongodb',
    'bson': 'mongodb',
}

# After so long, the log says which store is waited for at start.
_PATIENCE_SECONDS = 2.0

_NAMESPACES = {'message_store': 'zaqar.data.storage', 'management_store': 'zaqar.control.storage'}


@contextlib.contextmanager
def opening(option: str, conf: cfg.ConfigOpts) -> Iterator[None]:
    """While the store that `[drivers] option` names is opened.

    If that takes long, the log says what is waited for. Raises `ConfigurationError`, which names
    the option, for whatever the driver raises.
    """
    named = describe_choice(option, conf)
    section = conf[f'drivers:{option}:{conf.drivers[option]}']
    fault = uris.find_fault(str(getattr(section, 'uri', '') or ''))
    if fault is not None:
        raise ConfigurationError(f'The store cannot be opened: {named}: the URI is wrong: {fault}.')
    waiting = gevent.spawn_later(
        _PATIENCE_SECONDS, LOG.warning, 'The store is still being opened: %s', named
    )
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        LOG.debug('The store cannot be opened', exc_info=True)
        reason = describe_error(error) or type(error).__name__
        raise ConfigurationError(
            f'The store cannot be opened: {named}: {reason}{_hint(error)}'
        ) from error
    finally:
        waiting.kill(block=False)


def describe_choice(option: str, conf: cfg.ConfigOpts) -> str:
    """The store that `[drivers] option` names, and where it is configured; without credentials."""
    name = conf.drivers[option]
    where = f'[drivers:{option}:{name}]'
    if configuration.is_set(conf, option, 'drivers'):
        return f'[drivers] {option} = {name}, configured in {where}'
    return (
        f'[drivers] {option} is not set, which means {name}, configured in {where}. '
        f'To use another store, set [drivers] {option} to one of {_list_installed(option)}'
    )


def load_driver(option: str, conf: cfg.ConfigOpts) -> Callable[..., Any]:
    """The driver that `[drivers] option` names; raises `ConfigurationError`."""
    namespace, name = _NAMESPACES[option], conf.drivers[option]
    if name == 'redis':
        native = _native_redis(option, conf)
        if native is not None:
            return native
    if not entry_points(group=namespace, name=name):
        raise ConfigurationError(
            f'[drivers] {option}: there is no driver {name!r}; installed are '
            f'{_list_installed(option)}.'
        )
    factory: Callable[..., Any] = stevedore.DriverManager(
        namespace,
        name,
        on_load_failure_callback=functools.partial(_report_load_failure, option, conf),
    ).driver
    if name == 'redis':
        drivers.bound_clients()
    return factory


def _native_redis(option: str, conf: cfg.ConfigOpts) -> Callable[..., Any] | None:
    """The native driver for Redis, where it is chosen; raises `ConfigurationError`."""
    try:
        native = drivers.native_redis(conf)
    except ImportError as error:
        raise ConfigurationError(
            f'[drivers] {option} is redis and redis_driver is native, which cannot be loaded: '
            f'{error}. Install it: pip install "zaqar_gevent[redis]"'
        ) from None
    if native is None:
        return None
    factory: Callable[..., Any] = (
        native.ControlDriver if option == 'management_store' else native.DataDriver
    )
    return factory


def _list_installed(option: str) -> str:
    """The names of the drivers that `[drivers] option` may name."""
    found = entry_points(group=_NAMESPACES[option])
    # Upstream's own tests have one that always fails.
    return ', '.join(sorted({each.name for each in found if '.tests.' not in each.value}))


def _report_load_failure(
    option: str, conf: cfg.ConfigOpts, manager: Any, entry_point: Any, error: Exception
) -> None:
    raise ConfigurationError(
        f'{describe_choice(option, conf)}: the driver cannot be loaded: {error}{_hint(error)}'
    )


def _hint(error: Exception) -> str:
    """How to install the module that is missing, if that is what an error is about."""
    extra = _EXTRAS.get(getattr(error, 'name', None) or '')
    return f'. Install it: pip install "zaqar_gevent[{extra}]"' if extra else ''
