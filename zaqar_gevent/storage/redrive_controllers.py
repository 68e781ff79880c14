"""The redrives of the stores behind upstream's pipelines and pools."""

from __future__ import annotations

from typing import Any

from oslo_log import log
from zaqar.storage import pipeline, pooling

from zaqar_gevent.storage import drivers, own_drivers
from zaqar_gevent.storage.features import Feature
from zaqar_gevent.storage.interface import RedriveController

LOG = log.getLogger(__name__)


def find(storage: Any, queue: str, project: str | None) -> RedriveController | None:
    """The redrives of the store that keeps a queue's messages; None where it has none."""
    while isinstance(storage, pipeline.DataDriver):
        storage = storage._storage
    if isinstance(storage, pooling.DataDriver):
        found: RedriveController | None = storage._pool_catalog.get_redrive_controller(
            queue, project
        )
        return found
    return _of(drivers.find(storage, queue, project))


def find_all(storage: Any) -> list[RedriveController]:
    """The redrives of all stores that have any."""
    while isinstance(storage, pipeline.DataDriver):
        storage = storage._storage
    if not isinstance(storage, pooling.DataDriver):
        return [found for found in [_of(storage)] if found is not None]
    catalog = storage._pool_catalog
    every: list[RedriveController] = []
    for pool in list(next(catalog._pools_ctrl.list(limit=0))):
        try:
            found = _of(catalog.get_driver(pool['name']))
        except Exception as error:
            # The redrives of the other pools go on; users of this pool get the error.
            LOG.debug('The redrives of the pool %s have to wait: %s', pool['name'], error)
            continue
        if found is not None:
            every.append(found)
    return every


def _of(driver: Any) -> RedriveController | None:
    while isinstance(driver, pipeline.DataDriver):
        driver = driver._storage
    if isinstance(driver, own_drivers.DataDriver) and Feature.REDRIVES in driver.features.offered:
        return driver.redrive_controller
    return None
