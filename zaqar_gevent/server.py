"""The composition root: stores, API, transports put together, and the server that runs them."""

from __future__ import annotations

import functools
import logging
import socket
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import stevedore
from gevent import pywsgi
from oslo_config import cfg
from oslo_log import log
from oslo_reports import guru_meditation_report
from oslo_reports import opts as report_options
from zaqar import version as zaqar_version
from zaqar.common import cache as zaqar_cache
from zaqar.conf import drivers_transport_wsgi
from zaqar.storage import base, pipeline, pooling
from zaqar.storage import errors as storage_errors
from zaqar.transport.base import ResourceDefaults

from zaqar_gevent import conf as configuration
from zaqar_gevent.api import REGISTRY  # noqa: F401  (importing the API fills the registry)
from zaqar_gevent.api.broker import Broker
from zaqar_gevent.api.dispatcher import Dispatcher
from zaqar_gevent.api.notifier import Notifier
from zaqar_gevent.api.policy import Policy
from zaqar_gevent.authentication import KeystoneAuth
from zaqar_gevent.conf import ConfigurationError
from zaqar_gevent.rest import build_app
from zaqar_gevent.rest.middleware import allow_origins, identify_requests
from zaqar_gevent.rest.openapi import build_openapi
from zaqar_gevent.websocket.asyncapi import build_asyncapi
from zaqar_gevent.websocket.session import Session
from zaqar_gevent.websocket.upgrade import TAKEOVER, Upgrade

LOG = log.getLogger(__name__)

STOP_TIMEOUT_SECONDS = 10.0


class TransportDriver:
    """REST and WebSocket over one set of stores: upstream's interface of a transport.

    app: the WSGI application.
    notifies: whether subscribers are told here of what is posted, after it has been stored;
        otherwise it is up to the storage pipeline.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        storage: base.DataDriverBase,
        cache: Any,  # noqa: ARG002  (part of the interface)
        control: base.ControlDriverBase,
        *,
        notifies: bool = False,
    ) -> None:
        configuration.register(conf)
        self._conf = conf
        self._defaults = ResourceDefaults(conf)
        broker = Broker(conf, storage, control, configuration.metadata_seconds(conf))
        dispatcher = Dispatcher(broker, Policy(conf))
        broker.descriptions = _descriptions(dispatcher)
        if notifies:
            seconds = conf[configuration.GROUP].subscription_cache_seconds
            broker.notifier = Notifier(conf, broker.subscriptions, seconds)
        app = build_app(dispatcher)
        auth_app = _authentication(app, conf)
        self.app = Upgrade(
            identify_requests(allow_origins(auth_app or app, conf)),
            functools.partial(Session, dispatcher, auth_app and auth_app.identify),
            configuration.max_message_bytes(conf),
            auth_app,
        )

    def listen(self) -> None:
        """Serve on the address that the configuration gives, until the process is stopped."""
        section = self._conf[drivers_transport_wsgi.GROUP_NAME]
        Server((section.bind, section.port), self.app).serve_forever()


def _authentication(app: Any, conf: cfg.ConfigOpts) -> KeystoneAuth | None:
    """What stands before `app`, if the configuration wants anything to."""
    if not conf.auth_strategy:
        return None
    if conf.auth_strategy != 'keystone':
        raise ConfigurationError(
            f'[DEFAULT] auth_strategy is {conf.auth_strategy!r}; it must be keystone, or empty for '
            'no authentication.'
        )
    return KeystoneAuth(app, conf)


def _descriptions(dispatcher: Dispatcher) -> dict[str, Callable[[], dict[str, Any]]]:
    """The documents that describe what `dispatcher` offers, built when they are first wanted."""
    offered = tuple(dispatcher.operations.values())
    return {
        'openapi': functools.cache(lambda: build_openapi(offered)),
        'asyncapi': functools.cache(lambda: build_asyncapi(offered)),
    }


class Service:
    """A transport with the stores it works on.

    app: the WSGI application.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Load the drivers; raises `ConfigurationError` for a store that cannot be opened."""
        region = zaqar_cache.get_cache(conf)
        notifies = configuration.take_over_notifier(conf)
        try:
            self._control = _load_driver('zaqar.control.storage', conf.drivers.management_store)(
                conf, region
            )
            self._storage = pipeline.DataDriver(
                conf, self._data_driver(conf, region), self._control
            )
            self.app = TransportDriver(
                conf, self._storage, region, self._control, notifies=notifies
            ).app
        except (storage_errors.ExceptionBase, cfg.Error) as error:
            raise ConfigurationError(f'The store cannot be opened: {error}') from error

    def _data_driver(self, conf: cfg.ConfigOpts, region: Any) -> base.DataDriverBase:
        if conf.pooling:
            return pooling.DataDriver(conf, region, self._control)
        factory = _load_driver('zaqar.data.storage', conf.drivers.message_store)
        driver: base.DataDriverBase = factory(conf, region, self._control)
        return driver

    def close(self) -> None:
        """Release the stores."""
        self._storage.close()
        self._control.close()


def enable_reports(conf: cfg.ConfigOpts) -> None:
    """Write a Guru Meditation Report on SIGUSR2, as [oslo_reports] says; to standard error."""
    report_options.set_defaults(conf)
    guru_meditation_report.TextGuruMeditation.setup_autorun(zaqar_version, conf=conf)


def _load_driver(namespace: str, name: str) -> Callable[..., Any]:
    try:
        factory: Callable[..., Any] = stevedore.DriverManager(
            namespace,
            name,
            on_load_failure_callback=_report_load_failure,
            warn_on_missing_entrypoint=False,
        ).driver
    except stevedore.exception.NoMatches:
        installed = ', '.join(sorted(_installed(namespace)))
        raise ConfigurationError(
            f'There is no {namespace} driver {name!r}; installed are {installed}.'
        ) from None
    return factory


def _installed(namespace: str) -> set[str]:
    return {entry_point.name for entry_point in entry_points(group=namespace)}


def _report_load_failure(manager: Any, entry_point: Any, error: Exception) -> None:
    raise ConfigurationError(f'The driver {entry_point.name!r} cannot be loaded: {error}')


class Handler(pywsgi.WSGIHandler):
    """Lets the application take over the socket of a request that it upgrades."""

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        environ[TAKEOVER] = self._take_over
        return environ

    def _take_over(self) -> Handler:
        """From here on the socket and what was read ahead are the caller's."""
        self.close_connection = True
        return self


class Server(pywsgi.WSGIServer):
    """gevent's HTTP server with upgrades and without Nagle's delay."""

    handler_class = Handler

    def __init__(self, address: tuple[str, int], app: Any) -> None:
        super().__init__(address, app, log=None, error_log=logging.getLogger(__name__))

    def handle(self, sock: socket.socket, address: Any) -> None:
        """Serve one connection.

        PERF: head and body of an answer are written apart; without TCP_NODELAY the body waits
        40 ms for the client's delayed acknowledgement.
        """
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle(sock, address)
