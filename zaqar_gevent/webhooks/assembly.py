"""Builds the deliveries of webhooks as the configuration says."""

from __future__ import annotations

from oslo_config import cfg

from zaqar_gevent import options
from zaqar_gevent.api.networks import Networks
from zaqar_gevent.conf import ConfigurationError
from zaqar_gevent.webhooks import trusts
from zaqar_gevent.webhooks.connections import ConnectionPool
from zaqar_gevent.webhooks.deliveries import Channel, Deliveries
from zaqar_gevent.webhooks.resolver import Resolver
from zaqar_gevent.webhooks.scheduler import Limits
from zaqar_gevent.webhooks.sender import Sender, Settings
from zaqar_gevent.webhooks.tasks import Tasks


def networks(conf: cfg.ConfigOpts) -> Networks:
    """The networks that webhooks may go to; raises `ConfigurationError` for invalid ones."""
    section = conf[options.GROUP]
    try:
        return Networks(
            section.webhook_allowed_networks,
            section.webhook_denied_networks,
            loopback=not conf.auth_strategy,
        )
    except ValueError as error:
        raise ConfigurationError(
            f'[{options.GROUP}] webhook_allowed_networks, webhook_denied_networks: {error}'
        ) from None


def deliveries(conf: cfg.ConfigOpts, where: Networks, server_name: str) -> Deliveries:
    """The deliveries for subscribers that are not connected.

    where: the networks that webhooks may go to. server_name: as which the server presents itself.
    """
    section = conf[options.GROUP]
    connections = ConnectionPool(section.webhook_connect_timeout, section.webhook_ca_file)
    settings = Settings(section.webhook_timeout, section.webhook_redirects, server_name)
    sender = Sender(settings, where, Resolver(), connections, trusts.token)
    tasks = Tasks(conf, section.mail_timeout)
    return Deliveries(
        Channel('webhook', _webhook_limits(conf), sender.send),
        Channel('task', _task_limits(conf), tasks.send),
        connections,
    )


def _webhook_limits(conf: cfg.ConfigOpts) -> Limits:
    section = conf[options.GROUP]
    return Limits(
        section.webhook_concurrency,
        section.webhook_project_concurrency,
        section.webhook_backlog,
        section.webhook_backlog_bytes,
    )


def _task_limits(conf: cfg.ConfigOpts) -> Limits:
    """Mail: as many at a time as configured, half of them of one project."""
    section = conf[options.GROUP]
    workers = max(2, conf.notification.max_notifier_workers)
    return Limits(workers, workers, section.webhook_backlog, section.webhook_backlog_bytes)
