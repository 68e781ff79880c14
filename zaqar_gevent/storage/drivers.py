"""The data drivers behind upstream's pipelines and pools, and what protects upstream's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from oslo_config import cfg
from zaqar.storage import base, pipeline, pooling
from zaqar.storage import utils as upstream_utils

from zaqar_gevent import dead_letters
from zaqar_gevent.storage import (
    own_drivers,
    pooled_queues,
    pooled_subscriptions,
    text_bodies,
    value_bodies,
)
from zaqar_gevent.storage.interface import NewsChannel, read_metadata
from zaqar_gevent.storage.redis import options as redis_options

_REDIS = 'zaqar.storage.redis'
_SWIFT = 'zaqar.storage.swift'
_MONGODB = 'zaqar.storage.mongodb'
_UPSTREAM = 'zaqar.storage.'


def find(storage: Any, queue: str, project: str | None) -> Any:
    """The driver of the store that keeps a queue's messages; None if the queue is in no pool."""
    while True:
        if isinstance(storage, pipeline.DataDriver):
            storage = storage._storage
        elif isinstance(storage, pooling.DataDriver):
            storage = storage._pool_catalog.lookup(queue, project)
        else:
            return storage


def find_pool(storage: Any, queue: str, project: str | None) -> str | None:
    """The pool that keeps a queue's messages; None if it is in no pool."""
    storage = _behind_pipelines(storage)
    if not isinstance(storage, pooling.DataDriver):
        return None
    return own_drivers.pool_of(storage._pool_catalog._catalogue_ctrl, queue, project)


def find_messages(storage: Any, queue: str, project: str | None) -> Any:
    """The message controller of a queue, wherever it moves; None if the queue is in no pool."""
    storage = _behind_pipelines(storage)
    if isinstance(storage, pooling.DataDriver):
        return storage._pool_catalog.get_message_controller(queue, project)
    return storage.message_controller


def _behind_pipelines(storage: Any) -> Any:
    """The driver that pipelines lead to."""
    while isinstance(storage, pipeline.DataDriver):
        storage = storage._storage
    return storage


def protect(storage: base.DataDriverBase) -> None:
    """Have drivers carry bodies, and correct upstream's.

    Ids count only within their queue and project, claims leave dead letters alone that they would
    lose, no message is due too early, and Swift's keep encrypted bodies apart from texts. Drivers
    of pools are protected when they are made.
    """
    if isinstance(storage, pipeline.DataDriver):
        protect(storage._storage)
        for controller in ('_lazy_message_controller', '_lazy_claim_controller'):
            # It may have been made of the driver's as they were before.
            vars(storage).pop(controller, None)
    elif isinstance(storage, pooling.DataDriver):
        bound_clients()
        pooled_queues.follow(storage)
        pooled_subscriptions.answer_without_pool(storage)
        catalog = storage._pool_catalog
        catalog._init_driver = _protecting(catalog._init_driver)
        storage.message_controller.keeps_place = functools.partial(_keeps_place, storage)
    else:
        if type(storage).__module__.startswith(_UPSTREAM):
            _correct(storage)
        value_bodies.carry_bodies(storage)


def _correct(storage: base.DataDriverBase) -> None:
    """Correct one of upstream's drivers."""
    claims = storage.claim_controller
    claims.driver = _ClaimDriver(claims.driver)
    if type(storage).__module__.startswith(_SWIFT):
        text_bodies.keep_apart(storage)
    if is_redis(storage):
        # Its library is only there if it is used.
        from zaqar_gevent.storage import redis_scope

        redis_scope.confine(storage)
        _pass_over_expired(storage.subscription_controller)
    else:
        _round_delays_up(storage.message_controller)
    if _is_mongodb(storage):
        from zaqar_gevent.storage import mongodb_scope

        mongodb_scope.confine(storage)


def bound_scans(
    storage: base.DataDriverBase, control: base.ControlDriverBase, seconds: float
) -> None:
    """Let the stores that can break off reads do so after so many seconds."""
    while isinstance(storage, pipeline.DataDriver):
        storage = storage._storage
    for driver in (storage, control):
        if isinstance(driver, own_drivers.DataDriver | own_drivers.ControlDriver):
            driver.bound_reads(seconds)


def listen(storage: base.DataDriverBase, listener: Callable[..., None]) -> None:
    """Have `listener` told of delayed messages that become visible, by the stores that can tell.

    It is called with the project, the queue and messages as `Delays.became_due` of the API wants.
    """
    if isinstance(storage, pipeline.DataDriver):
        listen(storage._storage, listener)
    elif isinstance(storage, pooling.DataDriver):
        catalog = storage._pool_catalog
        make = catalog._init_driver

        def make_heard(*args: Any, **kwargs: Any) -> base.DataDriverBase:
            driver: base.DataDriverBase = make(*args, **kwargs)
            listen(driver, pooled_queues.heard(driver, listener))
            return driver

        catalog._init_driver = make_heard
    elif isinstance(storage, own_drivers.DataDriver) and storage.features.reports_due:
        storage.listen(listener)


def news_channel(control: base.ControlDriverBase) -> NewsChannel | None:
    """How processes that share a control store tell each other of news; None if it cannot."""
    return control.news_channel if isinstance(control, own_drivers.ControlDriver) else None


def _keeps_place(
    storage: base.DataDriverBase, queue: str, marker: str | None, project: str | None = None
) -> bool:
    """Whether the pool of a queue knows the place of a marker even if its message is gone."""
    driver = find(storage, queue, project)
    if not isinstance(driver, own_drivers.DataDriver) or not driver.features.keeps_places:
        return False
    arrival = driver.find_arrival(queue, project)
    own_marker = marker if arrival is None else arrival.marker_in(marker)
    return bool(driver.message_controller.keeps_place(queue, own_marker, project))


def bound_clients() -> None:
    """Let the clients for Redis that drivers make from now on give up within a few seconds."""
    try:
        from zaqar_gevent.storage import redis_clients
    except ImportError:
        # Its library is not installed, so that it is not used.
        return
    redis_clients.bound()


def native_redis(conf: cfg.ConfigOpts) -> Any:
    """The module of the native drivers for Redis; None where upstream's are chosen.

    Raises `ImportError` where its library is not installed.
    """
    if conf.drivers.redis_driver != redis_options.NATIVE:
        return None
    from zaqar_gevent.storage.redis import driver

    return driver


def load_redis_by_choice() -> None:
    """Let upstream's pools load the driver for Redis that is chosen, also for `rediss://`."""
    if not isinstance(upstream_utils.load_storage_driver, _Loader):
        upstream_utils.load_storage_driver = _Loader(upstream_utils.load_storage_driver)


class _Loader:
    """Loads drivers, as upstream's function of its name."""

    def __init__(self, load: Callable[..., Any]) -> None:
        self._load = load

    def __call__(
        self,
        conf: Any,
        cache: Any,
        storage_type: str | None = None,
        control_mode: bool = False,
        control_driver: Any = None,
    ) -> Any:
        conf.register_opts(redis_options.DRIVERS_OPTS, group=redis_options.DRIVERS_GROUP)
        chosen = conf.drivers.management_store if control_mode else conf.drivers.message_store
        native = native_redis(conf) if (storage_type or chosen) in ('redis', 'rediss') else None
        if (storage_type or chosen) in ('postgresql', 'postgres'):
            from zaqar_gevent.storage.postgresql import driver as native
        if native is None:
            return self._load(conf, cache, storage_type, control_mode, control_driver)
        if control_mode:
            return native.ControlDriver(conf, cache)
        return native.DataDriver(conf, cache, control_driver)


def has_topics(storage: base.DataDriverBase, control: base.ControlDriverBase) -> bool:
    """Whether topics can be kept; where there are pools, `control` keeps them."""
    while isinstance(storage, pipeline.DataDriver):
        storage = storage._storage
    keeper = control if isinstance(storage, pooling.DataDriver) else storage
    return keeper.topic_controller is not None


def protect_control(control: base.ControlDriverBase) -> None:
    """The same for the queues of upstream's drivers."""
    if is_redis(control):
        from zaqar_gevent.storage import redis_scope

        redis_scope.confine_queues(control)
    elif _is_mongodb(control):
        from zaqar_gevent.storage import mongodb_scope

        mongodb_scope.confine_queues()


def is_redis(driver: object) -> bool:
    """Whether `driver` is upstream's for Redis."""
    return type(driver).__module__.startswith(_REDIS)


def _is_mongodb(driver: object) -> bool:
    return type(driver).__module__.startswith(_MONGODB)


def _round_delays_up(messages: Any) -> None:
    """Let no message be due before its time in stores that count whole seconds."""
    post = messages.post

    def post_later(queue: str, messages: Any, *args: Any, **kwargs: Any) -> Any:
        later = [
            {**one, 'delay': one['delay'] + 1} if one.get('delay') else one for one in messages
        ]
        return post(queue, later, *args, **kwargs)

    messages.post = post_later


def _pass_over_expired(subscriptions: Any) -> None:
    """Let subscriptions be made beside one that has expired.

    Upstream's look for the same subscriber fails at each that has expired, and removes it.
    """
    is_duplicate = subscriptions._is_duplicated_subscriber

    def looked_up(subscriber: str, queue: str, project: str | None) -> bool:
        while True:
            try:
                return bool(is_duplicate(subscriber, queue, project))
            except TypeError:
                continue

    subscriptions._is_duplicated_subscriber = looked_up


def _protecting(make: Callable[..., base.DataDriverBase]) -> Callable[..., base.DataDriverBase]:
    def make_protected(*args: Any, **kwargs: Any) -> base.DataDriverBase:
        driver = make(*args, **kwargs)
        protect(driver)
        return driver

    return make_protected


class _ClaimDriver:
    """One of upstream's drivers as its claim controller sees it."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    @property
    def queue_controller(self) -> _QueuesToClaimFrom:
        return _QueuesToClaimFrom(self._driver)


class _QueuesToClaimFrom:
    """The queue controller, whose metadata name a dead letter queue only if it can be used.

    All queues seem to have a default delay: without one, upstream's drivers claim delayed messages.
    """

    def __init__(self, driver: Any) -> None:
        self._queues = driver.queue_controller
        self._is_redis = is_redis(driver)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queues, name)

    def get(self, name: str, project: str | None = None) -> dict[str, Any]:
        return self._without_lost(name, project, self._queues.get(name, project=project))

    def get_metadata(self, name: str, project: str | None = None) -> dict[str, Any]:
        return self._without_lost(name, project, self._queues.get_metadata(name, project=project))

    def _without_lost(
        self, name: str, project: str | None, metadata: dict[str, Any]
    ) -> dict[str, Any]:
        delay = metadata.get('_default_message_delay') or 1
        metadata = {**metadata, '_default_message_delay': delay}
        if '_dead_letter_queue' not in metadata or self._is_of_use(name, project, metadata):
            return metadata
        return {key: value for key, value in metadata.items() if key != '_dead_letter_queue'}

    def _is_of_use(self, name: str, project: str | None, metadata: dict[str, Any]) -> bool:
        target = metadata['_dead_letter_queue']
        if self._is_redis and '.' in f'{project or ""}{target}':
            # Upstream splits the key at dots: the message would go to another queue or project.
            return False
        return dead_letters.can_dead_letter(
            name, metadata, lambda other: read_metadata(self._queues, other, project)
        )
