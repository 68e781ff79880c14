"""Checks that the server's stores and Keystone can be reached."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from keystoneauth1 import exceptions as keystone_errors
from keystoneauth1 import loading
from keystoneauth1 import session as keystone_session
from keystonemiddleware import auth_token  # type: ignore[import-untyped]
from oslo_config import cfg
from zaqar.common import cache as zaqar_cache

from zaqar_gevent import uris
from zaqar_gevent.check.finding import Finding, Verdict
from zaqar_gevent.conf import ConfigurationError, describe_error
from zaqar_gevent.stores import load_driver, opening

# How long Keystone may take to answer.
_SECONDS = 10
_KEYSTONE_GROUP = 'keystone_authtoken'
_OPTIONS = ('message_store', 'management_store')


def check_stores(conf: cfg.ConfigOpts) -> Iterator[Finding]:
    """One finding for each store that is not a file of this machine."""
    for option in _OPTIONS:
        name: str = conf.drivers[option]
        if name == 'sqlite' or (option == 'message_store' and conf.pooling):
            continue
        yield _check_store(conf, option, name)


def _check_store(conf: cfg.ConfigOpts, option: str, name: str) -> Finding:
    subject = f'{option} {name}'
    try:
        if name == 'postgresql':
            place = _look_at_postgresql(conf, option)
        else:
            place = _ask(conf, option, name)
    except ConfigurationError as error:
        return Finding(Verdict.UNCHECKED, subject, str(error))
    return Finding(Verdict.SOUND, subject, place)


def _ask(conf: cfg.ConfigOpts, option: str, name: str) -> str:
    """Ask a store whether it is there; raises `ConfigurationError` if it is not."""
    load = load_driver(option, conf)
    cache = zaqar_cache.get_cache(conf)
    with opening(option, conf):
        driver: Any = load(conf, cache, *([None] if option == 'message_store' else []))
        try:
            is_alive = driver.is_alive() if hasattr(driver, 'is_alive') else True
        finally:
            driver.close()
    uri = uris.conceal(str(getattr(conf[f'drivers:{option}:{name}'], 'uri', '') or ''))
    if not is_alive:
        raise ConfigurationError(f'{uri} does not answer')
    return f'{uri} answers'


def _look_at_postgresql(conf: cfg.ConfigOpts, option: str) -> str:
    """Look at the tables, and create none; raises `ConfigurationError` where that cannot be."""
    with opening(option, conf):
        from zaqar_gevent.storage.postgresql import addresses, schema
        from zaqar_gevent.storage.postgresql.wire import wait_in_thread

        group = conf[f'drivers:{option}:postgresql']
        address = addresses.parse(group.uri, group.schema)
        checker = schema.Checker(address, wait_in_thread, socket.getaddrinfo)
        try:
            return f'{address} answers; schema {address.schema} {schema.describe(checker.look())}'
        finally:
            checker.close()


def check_keystone(conf: cfg.ConfigOpts) -> Iterator[Finding]:
    """Whether Keystone gives the server a token, if authentication is on."""
    if conf.auth_strategy != 'keystone':
        return
    try:
        # It registers the options of its group.
        auth_token.AuthProtocol(None, {'oslo_config_config': conf})
        plugin = loading.load_auth_from_conf_options(conf, _KEYSTONE_GROUP)
        section = conf[_KEYSTONE_GROUP]
        trust: bool | str = not section.insecure and (section.cafile or True)
        asking = keystone_session.Session(auth=plugin, verify=trust, timeout=_SECONDS)
        asking.get_token()
    except (keystone_errors.ClientException, cfg.Error) as error:
        text = f'no token from Keystone by [{_KEYSTONE_GROUP}]: {describe_error(error)}'
        yield Finding(Verdict.UNCHECKED, 'keystone', text)
        return
    url = getattr(plugin, 'auth_url', '')
    yield Finding(Verdict.SOUND, 'keystone', f'{url} gives the server a token')
