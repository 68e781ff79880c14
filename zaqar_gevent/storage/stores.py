"""The stores of a server as the API works with them: what upstream's drivers, and pools, can do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gevent
from zaqar.storage import base, pipeline, pooling

from zaqar_gevent.storage import drivers, own_drivers, purging, redrive_controllers
from zaqar_gevent.storage.features import MarkerKind, StoreFeatures
from zaqar_gevent.storage.interface import Stores, UsageController

ALIVE_SECONDS = 2.0
"""How long stores are waited for that are asked whether they work."""

# By the package of upstream's driver. A driver that is in none is somebody else's.
_UPSTREAM = {
    'zaqar.storage.redis': StoreFeatures(MarkerKind.MESSAGE_ID),
    'zaqar.storage.mongodb': StoreFeatures(MarkerKind.NUMBER),
}
_UNKNOWN = StoreFeatures(MarkerKind.OPAQUE)

# Each pool is asked if it keeps places; see `drivers.protect`.
_POOLS = StoreFeatures(MarkerKind.MIXED, keeps_places=True)


def stores_of(data: base.DataDriverBase, control: base.ControlDriverBase) -> Stores:
    """The stores with these drivers, which `drivers.protect` has seen."""
    return Stores(
        data,
        control,
        features_of(data),
        _finder(data),
        drivers.has_topics(data, control),
        functools.partial(_are_alive, data, control),
        functools.partial(purging.purge, data),
        functools.partial(redrive_controllers.find, data),
        functools.partial(redrive_controllers.find_all, data),
        functools.partial(drivers.find_pool, data),
        _usage_of(data),
    )


def features_of(data: base.DataDriverBase) -> StoreFeatures:
    """The features of a store; for pools, those that all of them have."""
    while isinstance(data, pipeline.DataDriver):
        data = data._storage
    if isinstance(data, pooling.DataDriver):
        return _POOLS
    if isinstance(data, own_drivers.DataDriver):
        return data.features
    module = type(data).__module__
    return next(
        (found for package, found in _UPSTREAM.items() if module.startswith(f'{package}.')),
        _UNKNOWN,
    )


def features_for(data: base.DataDriverBase, queue: str, project: str | None) -> StoreFeatures:
    """The features of the store of a queue; those of every store if the queue is in no pool."""
    driver = drivers.find(data, queue, project)
    return _UNKNOWN if driver is None else features_of(driver)


def _usage_of(data: base.DataDriverBase) -> UsageController | None:
    while isinstance(data, pipeline.DataDriver):
        data = data._storage
    if isinstance(data, own_drivers.DataDriver) and data.features.counts_usage:
        return data.usage_controller
    return None


def _finder(data: base.DataDriverBase) -> Callable[[str, str | None], StoreFeatures]:
    """What tells the features of a queue's store. PERF: without pools it is always the same one."""
    driver: Any = data
    while isinstance(driver, pipeline.DataDriver):
        driver = driver._storage
    if isinstance(driver, own_drivers.DataDriver):
        return lambda _queue, _project: driver.features
    return functools.partial(features_for, data)


def _are_alive(data: base.DataDriverBase, control: base.ControlDriverBase) -> bool:
    """Whether both answer in time that they work."""
    try:
        with gevent.Timeout(ALIVE_SECONDS) as timeout:
            # Upstream's for management cannot say.
            return bool(data.is_alive()) and (
                not isinstance(control, own_drivers.ControlDriver) or control.is_alive()
            )
    except gevent.Timeout as error:
        if error is not timeout:
            raise
        return False
