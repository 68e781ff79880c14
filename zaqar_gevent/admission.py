"""Options that decide who may use a server: authentication, hosts and origins."""

from __future__ import annotations

from oslo_config import cfg
from oslo_middleware import cors

from zaqar_gevent import options
from zaqar_gevent.conf import ConfigurationError
from zaqar_gevent.hosts import ANY, Hosts
from zaqar_gevent.origins import Origins


def check_strategy(conf: cfg.ConfigOpts) -> None:
    """Raise `ConfigurationError` if `auth_strategy` names an unknown kind of authentication."""
    if conf.auth_strategy not in (None, '', 'keystone'):
        raise ConfigurationError(
            f'[DEFAULT] auth_strategy is {conf.auth_strategy!r}; it must be keystone, or empty for '
            'no authentication.'
        )


def hosts_of(conf: cfg.ConfigOpts) -> Hosts:
    """The hosts that requests may name. With authentication all are allowed: pages of other sites
    have no token.

    Raises `ConfigurationError`.
    """
    try:
        return Hosts([ANY] if conf.auth_strategy else conf[options.GROUP].allowed_hosts)
    except ValueError as error:
        raise ConfigurationError(f'[{options.GROUP}] allowed_hosts: {error}.') from None


def origins_of(conf: cfg.ConfigOpts) -> Origins:
    """The origins that [cors], and the groups of `[cors.NAME]`, allow.

    Raises `ConfigurationError` for an entry that is not an origin.
    """
    try:
        return Origins(cors.CORS(None, conf).allowed_origins)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
