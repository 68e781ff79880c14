"""The composition root: stores, API, transports put together, and the server that runs them."""

from __future__ import annotations

import functools
import gc
import socket
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

import gevent
from gevent import monkey
from oslo_config import cfg
from oslo_log import log
from oslo_reports import guru_meditation_report
from oslo_reports import opts as report_options
from zaqar import version as zaqar_version
from zaqar.common import cache as zaqar_cache
from zaqar.conf import drivers_transport_websocket
from zaqar.storage import base, pipeline, pooling
from zaqar.storage import errors as storage_errors
from zaqar.transport.base import ResourceDefaults

from zaqar_gevent import admission, http, metrics, options, quota_options
from zaqar_gevent import conf as configuration
from zaqar_gevent.access_log import AccessLog
from zaqar_gevent.api import (
    REGISTRY,  # noqa: F401  (importing the API fills the registry)
    errors,
    waiting,
)
from zaqar_gevent.api.attributes import AttributeLimits
from zaqar_gevent.api.broker import Broker, Capabilities
from zaqar_gevent.api.dispatcher import Dispatcher
from zaqar_gevent.api.policy import Policy
from zaqar_gevent.api.project_quotas import ProjectQuotas
from zaqar_gevent.api.quotas import Quotas, quotas
from zaqar_gevent.authentication import KeystoneAuth
from zaqar_gevent.browser_client import serve_client
from zaqar_gevent.conf import ConfigurationError, describe_error
from zaqar_gevent.console import serve_console
from zaqar_gevent.hosts import check_hosts
from zaqar_gevent.proxies import trust_proxies
from zaqar_gevent.push.delays import Delays
from zaqar_gevent.push.listener import Listener
from zaqar_gevent.push.push_hub import PushHub
from zaqar_gevent.push.redriver import Redriver
from zaqar_gevent.push.workers import PUSH_PATH
from zaqar_gevent.rest import build_app
from zaqar_gevent.rest.middleware import allow_origins, choose_by_path, mount
from zaqar_gevent.rest.observation import metrics_app, observe, serve_paths
from zaqar_gevent.rest.openapi import build_openapi
from zaqar_gevent.sockets.received import Received
from zaqar_gevent.sockets.unsent import Unsent
from zaqar_gevent.storage import drivers
from zaqar_gevent.storage.errors import explain_scan
from zaqar_gevent.storage.features import StoreFeatures
from zaqar_gevent.storage.interface import UsageController
from zaqar_gevent.storage.names import names_for
from zaqar_gevent.storage.stores import stores_of
from zaqar_gevent.stores import load_driver, opening
from zaqar_gevent.unknown_options import find_unknown_options
from zaqar_gevent.webhooks import assembly
from zaqar_gevent.webhooks.deliveries import Deliveries
from zaqar_gevent.websocket import engines
from zaqar_gevent.websocket.asyncapi import build_asyncapi
from zaqar_gevent.websocket.compact import SUBPROTOCOL
from zaqar_gevent.websocket.connections import OpenConnections
from zaqar_gevent.websocket.session_factory import SessionFactory
from zaqar_gevent.websocket.upgrade import Framing, Upgrade

LOG = log.getLogger(__name__)

SUBPROTOCOLS = (SUBPROTOCOL,)

LOOPBACK = '127.0.0.1'
EVERYWHERE = ('0.0.0.0', '::')

BACKLOG = 2048
"""Connections that may wait to be accepted, where the kernel allows as many: after a restart all
clients come back at once, and whoever finds no place tries again a second later."""


_MEASURE_SECONDS = 0.5
_HEAD_LIMITS = http.Limits()
_FINISH_SECONDS = 5.0
_DELIVERY_SECONDS = 3.0


class Application:
    """REST and WebSocket as one WSGI application.

    app: what stands outermost; `upgrade` is in it.
    connections: the open WebSockets. timeouts: how long clients may take.
    limits: of the heads of requests. unsent: what waits to be written to clients. received: what
        they have sent that is not handled yet.
    hub: what is pushed. deliveries: what is sent to subscribers that are not connected.
    max_websockets: says how many of a server's connections may be WebSockets.
    prefix: the path below which everything is served.
    """

    def __init__(
        self,
        app: Any,
        upgrade: Upgrade,
        timeouts: http.Timeouts,
        max_websockets: Callable[[int], int],
        unsent: Unsent,
        limits: http.Limits = _HEAD_LIMITS,
        push_hub: PushHub | None = None,
        deliveries: Deliveries | None = None,
        prefix: str = '',
        received: Received | None = None,
    ) -> None:
        self.received = received or Received(options.RECEIVED_BYTES)
        self._push_hub = push_hub
        self._deliveries = deliveries
        self._app = app
        self._max_websockets = max_websockets
        self.connections = upgrade.connections
        self.timeouts = timeouts
        self.limits = limits
        self.unsent = unsent
        self._prefix = prefix
        self._upgrade = upgrade

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        answer: Iterable[bytes] = self._app(environ, start_response)
        return answer

    def app_protocol(self, path: str) -> str | None:
        """The subprotocol that gevent-websocket's handler may agree to."""
        return self._upgrade.app_protocol(path.removeprefix(self._prefix) or '/')

    def drain(self) -> None:
        """Let the clients go: nobody waits any more, and WebSockets are closed."""
        if self._push_hub is not None:
            self._push_hub.drain()
        self.connections.drain()

    def end_connections(self) -> None:
        """End the WebSockets that have not been closed in time."""
        for connection in self.connections:
            connection.outbox.cut()

    def finish(self) -> None:
        """Wait for what is left to do for clients that are gone, and for notifications."""
        if self._push_hub is not None:
            self._push_hub.finish(_FINISH_SECONDS)
        if self._deliveries is not None:
            self._deliveries.finish(_DELIVERY_SECONDS)

    def leave_room(self, connections: int) -> None:
        """Of `connections` that a server takes in all, leave some to REST."""
        self.connections.capacity = self._max_websockets(connections)


class _Reading:
    """Held while something is read from a store, for at most so many seconds.

    Raises `errors.ServiceUnavailable` when it takes longer.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = gevent.Timeout(seconds)

    def __enter__(self) -> None:
        self._timeout.start()

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self._timeout.close()
        if error is self._timeout:
            raise errors.ServiceUnavailable(explain_scan(self._seconds)) from None


class TransportDriver:
    """REST and WebSocket over one set of stores.

    app: the WSGI application.
    session_factory: makes the sessions of WebSocket clients.
    notifies: whether subscribers are told here of what is posted, after it has been stored;
        otherwise it is up to the storage pipeline.
    prefix: the path below which everything is served.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        storage: base.DataDriverBase,
        cache: Any,
        control: base.ControlDriverBase,
        *,
        notifies: bool = False,
        prefix: str = '',
    ) -> None:
        configuration.register(conf)
        prefix = prefix.rstrip('/')
        if prefix.startswith('//'):
            raise ConfigurationError(
                f'SCRIPT_NAME: {prefix!r} begins with two slashes, so that links would name '
                'another host. Write it as in /messaging.'
            )
        self._conf = conf
        self._defaults = ResourceDefaults(conf)
        section = conf[options.GROUP]
        drivers.protect(storage)
        drivers.protect_control(control)
        drivers.bound_scans(storage, control, section.scan_timeout)
        stores = stores_of(storage, control)
        broker = Broker(
            conf,
            stores,
            capabilities(conf, stores.features),
            options.metadata_seconds(conf, stores.features),
            section.subscription_cache_seconds,
            section.max_depth,
            names_for(conf, control),
            _quotas(conf),
        )
        broker.project_quotas = _project_quotas(conf, broker, stores.usage)
        dispatcher = Dispatcher(broker, Policy(conf))
        if not stores.features.bounds_reads and monkey.is_module_patched('socket'):
            broker.reading = functools.partial(_Reading, section.scan_timeout)
        broker.descriptions = _descriptions(dispatcher)
        broker.notifier.tells_others = notifies
        broker.attributes = AttributeLimits(section.max_attributes, section.max_attributes_size)
        broker.max_schedule_ahead = section.max_schedule_ahead
        broker.networks = assembly.networks(conf)
        deliveries = assembly.deliveries(conf, broker.networks, _server_name())
        deliveries.find_by(broker.notifier.find)
        delays = Delays(broker)
        drivers.listen(storage, delays.became_due)
        broker.notifier.deliverer = deliveries
        broker.redrives.of_queue = section.max_redrives_per_queue
        broker.redrives.of_project = section.max_redrives_per_project
        self.redriver = Redriver(broker, delays, section.redrive_retention)
        push_hub = PushHub(
            broker, functools.partial(_listen_for_news, conf), section.subscription_cache_seconds
        )
        push_hub.tell_by(drivers.news_channel(control))
        if monkey.is_module_patched('socket'):
            # Elsewhere nobody can be connected, and nobody should wait.
            broker.notifier.push_hub = push_hub
            broker.delays = delays
        access_log = AccessLog(section.access_log)
        unsent = Unsent(section.max_unsent_bytes, section.write_timeout)
        unsent.answer_limiter.refusal = _too_many_unread
        broker.answer_limiter = unsent.answer_limiter
        received = Received(section.max_received_bytes)
        received.no_room = _too_many_coming
        received.too_slow = _too_slow
        hosts = admission.hosts_of(conf)
        origins = admission.origins_of(conf)
        # What a request to REST passes on its way to an operation, the last first.
        app = build_app(dispatcher)
        auth_app = _authentication(app, conf)
        with_origins = functools.partial(allow_origins, conf=conf, origins=origins)
        rest = with_origins(auth_app or app)
        rest = observe(rest, access_log)
        beside = serve_paths(rest, conf, broker.health.is_well)
        beside = serve_client(beside, with_origins)
        if section.console:
            beside = serve_console(beside)
        rest = check_hosts(choose_by_path(rest, beside), hosts)
        identify = auth_app and auth_app.identify
        self.session_factory = SessionFactory(dispatcher, identify, access_log, push_hub)
        upgrade = Upgrade(
            rest,
            self.session_factory,
            _connections(conf, unsent, received),
            Framing(
                engines.load(section.websocket_engine),
                options.frame_limits(conf),
                options.compression(conf),
            ),
            options.connection_limits(conf),
            hosts,
            origins,
            SUBPROTOCOLS,
            auth_app,
        )
        self.app = Application(
            trust_proxies(mount(upgrade, prefix), conf, section.proxy_headers),
            upgrade,
            _timeouts(conf),
            functools.partial(options.max_websockets, conf),
            unsent,
            _head_limits(conf),
            push_hub,
            deliveries,
            prefix,
            received,
        )


def new_server(address: tuple[str, int], app: Application, conf: cfg.ConfigOpts) -> http.Server:
    """A server for `app`, with as many connections as the configuration allows."""
    most = conf[options.GROUP].max_connections
    app.leave_room(most)
    return http.Server(address, app, spawn=most, backlog=BACKLOG)


def _connections(conf: cfg.ConfigOpts, unsent: Unsent, received: Received) -> OpenConnections:
    section = conf[options.GROUP]
    capacity = options.max_websockets(conf, section.max_connections)
    return OpenConnections(
        capacity,
        section.max_websockets_per_address,
        section.max_unauthenticated_websockets,
        unsent,
        received,
    )


def _quotas(conf: cfg.ConfigOpts) -> Quotas:
    """How much projects, connections and queues may have at a time."""
    section = conf[options.GROUP]
    return quotas(
        consumers_per_connection=section.max_consumers_per_connection,
        consumers_per_project=section.max_consumers_per_project,
        subscriptions_per_connection=section.max_subscriptions_per_connection,
        subscriptions_per_project=section.max_subscriptions_per_project,
        subscriptions_per_queue=section.max_subscriptions_per_queue,
        subscription_options_bytes=section.max_subscription_options_size,
        waits_per_project=section.max_waits_per_project,
    )


def _project_quotas(
    conf: cfg.ConfigOpts, broker: Broker, usage: UsageController | None
) -> ProjectQuotas:
    """The limits of `[quota]`; raises `ConfigurationError` for one that the store cannot count."""
    limits = quota_options.read(conf)
    refusals = []
    if limits.limit_any('zaqar_messages_per_queue') and not broker.features.counts_messages:
        refusals.append(
            '[quota] zaqar_messages_per_queue: this store does not count the messages of a queue; '
            'only sqlite and postgresql do, without pooling. Leave the limit out.'
        )
    counted = [one for one in ('zaqar_bytes', 'zaqar_subscriptions') if limits.limit_any(one)]
    if counted and usage is None:
        refusals.append(
            f'[quota] {", ".join(counted)}: this store does not count them; only sqlite, '
            'postgresql and the native driver of redis with shared_with_upstream = false do, '
            'without pooling. Leave the limits out.'
        )
    if refusals:
        raise configuration.ConfigurationError(' '.join(refusals))
    if counted and usage is not None:
        usage.begin(_has_bytes(limits) if limits.limit_any('zaqar_bytes') else None)
    return ProjectQuotas(limits, lambda: broker.queues, usage)


def _has_bytes(limits: quota_options.Limits) -> Callable[[str | None], bool]:
    return lambda project: limits.of(project).zaqar_bytes is not None


def _warn_of_unknown_options(conf: cfg.ConfigOpts) -> None:
    for unknown in find_unknown_options(conf):
        if not unknown.may_be_foreign:
            LOG.warning('%s', unknown.describe())


def _too_many_unread() -> errors.ServiceUnavailable:
    return errors.ServiceUnavailable(
        'Too many answers wait for clients to read them. Please try again in a few seconds.'
    )


def _too_many_coming() -> errors.ServiceUnavailable:
    return errors.ServiceUnavailable(
        'Too many long requests are being received. Please try again in a few seconds.'
    )


def _too_slow() -> errors.RequestTimeout:
    return errors.RequestTimeout(
        'The body of the request comes too slowly, and others wait for the room that it takes.'
    )


def _server_name() -> str:
    return f'zaqar_gevent/{version("zaqar_gevent")}'


def _measure_always(connections: OpenConnections) -> None:
    """Bring the metrics up to date twice a second: of several processes, any may be asked."""
    while True:
        boxes = [connection.outbox for connection in connections]
        metrics.set_outbox_depth(sum(box.size for box in boxes), sum(len(box) for box in boxes))
        metrics.flush()
        gevent.sleep(_MEASURE_SECONDS)


def _check_tokens_always(connections: OpenConnections, interval: float) -> None:
    """Ask again about the tokens of open connections, one after the other."""
    while True:
        gevent.sleep(interval)
        for connection in connections:
            try:
                connection.check_token()
            except Exception as error:
                LOG.error('The token of a connection cannot be checked: %s', error)


def capabilities(conf: cfg.ConfigOpts, features: StoreFeatures) -> Capabilities:
    """The capabilities of a server with this configuration and these store features."""
    section = conf[options.GROUP]
    return {
        'server': _server_name(),
        'protocols': list(SUBPROTOCOLS),
        'max_in_flight': section.max_in_flight,
        'max_message_size': options.max_message_bytes(conf),
        'ping_interval': section.ping_interval,
        'idle_timeout': section.idle_timeout,
        'max_wait': waiting.MAX_SECONDS,
        'idempotency_seconds': features.post_id_seconds,
    }


def _authentication(app: Any, conf: cfg.ConfigOpts) -> KeystoneAuth | None:
    """`app` behind the middleware that the configuration asks for."""
    if not conf.auth_strategy:
        return None
    admission.check_strategy(conf)
    return KeystoneAuth(app, conf)


def _descriptions(dispatcher: Dispatcher) -> dict[str, Callable[[], dict[str, Any]]]:
    """The documents that describe what `dispatcher` offers, built when they are first wanted."""
    offered = tuple(dispatcher.operations.values())
    bound = tuple(dispatcher.connection_operations.values())
    return {
        'openapi': functools.cache(lambda: build_openapi(offered)),
        'asyncapi': functools.cache(lambda: build_asyncapi(offered, bound)),
    }


class Service:
    """A transport with the stores it works on.

    app: the WSGI application, below the path `prefix`.
    """

    def __init__(self, conf: cfg.ConfigOpts, prefix: str = '') -> None:
        """Load the drivers; raises `ConfigurationError` for a store that cannot be opened."""
        _warn_of_unknown_options(conf)
        region = zaqar_cache.get_cache(conf)
        notifies = configuration.take_over_notifier(conf)
        try:
            self._open_stores(conf, region)
            transport = TransportDriver(
                conf, self._storage, region, self._control, notifies=notifies, prefix=prefix
            )
        except (storage_errors.ExceptionBase, cfg.Error) as error:
            raise ConfigurationError(
                f'The store cannot be used: {describe_error(error)}'
            ) from error
        self.app = transport.app
        self._redriver = gevent.spawn(transport.redriver.run)
        self._metrics = listen_for_metrics(conf)
        gevent.spawn(_measure_always, self.app.connections)
        interval = conf[options.GROUP].token_check_interval
        if conf.auth_strategy and interval:
            gevent.spawn(_check_tokens_always, self.app.connections, interval)

    def _open_stores(self, conf: cfg.ConfigOpts, region: Any) -> None:
        """Open both stores; raises `ConfigurationError`, whatever a driver raises."""
        # The message store first: it is the one that is nearly always named.
        load_messages = None if conf.pooling else load_driver('message_store', conf)
        load_names = load_driver('management_store', conf)
        with opening('management_store', conf):
            self._control = load_names(conf, region)
            # Upstream's for MongoDB connects when these are made.
            _ = self._control.queue_controller, self._control.topic_controller
        with opening('message_store', conf):
            driver: base.DataDriverBase
            if load_messages is None:
                drivers.load_redis_by_choice()
                driver = pooling.DataDriver(conf, region, self._control)
            else:
                driver = load_messages(conf, region, self._control)
            self._storage = pipeline.DataDriver(conf, driver, self._control)
            _ = self._storage.message_controller, self._storage.subscription_controller

    def close(self) -> None:
        """Release the stores, when what is left to do is done."""
        self.app.finish()
        self._redriver.kill()
        if self._metrics is not None:
            self._metrics.stop(timeout=0)
        self._storage.close()
        self._control.close()


class _WithoutWebSockets:
    """A WSGI application for a listener that has no clients."""

    def __init__(self, app: Any, conf: cfg.ConfigOpts) -> None:
        section = conf[options.GROUP]
        self._app = app
        self.timeouts = _timeouts(conf)
        self.limits = _head_limits(conf)
        self.unsent = Unsent(section.max_unsent_bytes, section.write_timeout)
        self.received = Received(section.max_received_bytes)

    def drain(self) -> None:
        """There is nobody to let go."""

    def end_connections(self) -> None:
        """There are none."""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        answer: Iterable[bytes] = self._app(environ, start_response)
        return answer


def listen_for_metrics(conf: cfg.ConfigOpts) -> http.Server | None:
    """Serve the metrics on a port of their own, where one is configured.

    Several processes may share it, each of which then has to know the numbers of all.

    Raises `ConfigurationError` for an address that cannot be listened on.
    """
    section = conf[options.GROUP]
    if not section.metrics or not section.metrics_port or not monkey.is_module_patched('socket'):
        return None
    try:
        listener = _listen(section.metrics_bind, section.metrics_port, shared=True)
    except OSError as error:
        raise ConfigurationError(
            f'[{options.GROUP}] metrics_bind, metrics_port: cannot listen on '
            f'{section.metrics_bind}:{section.metrics_port}: {error.strerror}'
        ) from None
    server = http.Server(listener, _WithoutWebSockets(metrics_app, conf), spawn=100)
    server.start()
    return server


def _listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """Listen; a port that is `shared` may be listened on by several processes."""
    listener = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    try:
        option = socket.SO_REUSEPORT if shared else socket.SO_REUSEADDR
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _listen_for_news(conf: cfg.ConfigOpts, push_hub: PushHub) -> str:
    """Let other servers of the fleet tell `push_hub` of what they post; the URL to reach it.

    Of several processes on one host, one can have a fixed port; the others take any.
    """
    section = conf[drivers_transport_websocket.GROUP_NAME]
    host = section.notification_bind or LOOPBACK
    try:
        listener = _listen(host, section.notification_port, shared=False)
    except OSError as error:
        if not section.notification_port:
            raise
        LOG.info('Port %d is taken (%s); any other will do', section.notification_port, error)
        listener = _listen(host, 0, shared=False)
    most = max(options.max_message_bytes(conf), conf.transport.max_messages_post_size)
    app = _WithoutWebSockets(Listener(push_hub, 2 * most), conf)
    http.Server(listener, app, spawn=1000).start()
    name = socket.gethostname() if host in EVERYWHERE else host
    port = listener.getsockname()[1]
    return f'http://{f"[{name}]" if ":" in name else name}:{port}{PUSH_PATH}'


def _timeouts(conf: cfg.ConfigOpts) -> http.Timeouts:
    section = conf[options.GROUP]
    return http.Timeouts(section.header_timeout, section.body_timeout, section.keepalive_timeout)


def _head_limits(conf: cfg.ConfigOpts) -> http.Limits:
    section = conf[options.GROUP]
    return http.Limits(section.max_head_bytes, section.max_head_fields)


def settle() -> None:
    """Spare the garbage collector what has been loaded; once, when the process is about to serve.

    PERF: of what it loads, a server keeps everything. With many requests in flight, full
    collections of all that were a tenth of its work, and stopped it for 50 ms each time.
    """
    gc.collect()
    gc.freeze()


def enable_reports(conf: cfg.ConfigOpts) -> None:
    """Write a Guru Meditation Report on SIGUSR2, as [oslo_reports] says; to standard error."""
    report_options.set_defaults(conf)
    guru_meditation_report.TextGuruMeditation.setup_autorun(zaqar_version, conf=conf)
