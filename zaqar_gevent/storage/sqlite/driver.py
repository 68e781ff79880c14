"""The drivers that `zaqar.data.storage` and `zaqar.control.storage` name."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from typing import Any

from oslo_config import cfg
from oslo_utils import timeutils

from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.features import Feature, MarkerKind, StoreFeatures
from zaqar_gevent.storage.moves import Arrival, Destination, Origin
from zaqar_gevent.storage.records import QueueRecord
from zaqar_gevent.storage.sqlite import (
    catalogue,
    claiming,
    claims,
    collector,
    flavors,
    messages,
    moving,
    options,
    pools,
    queues,
    redrives,
    spools,
    subscriptions,
    usage,
)
from zaqar_gevent.storage.sqlite.database import DatabaseHandle, open_database

_VOLUME = """SELECT
    (SELECT count(*) FROM claims c JOIN messages m INDEXED BY messages_held ON m.claim = c.id
        WHERE c.expires > :now),
    (SELECT count(*) FROM messages)
    - (SELECT count(*) FROM messages INDEXED BY messages_expiry WHERE expires <= :now)"""


class DataDriver(own_drivers.DataDriver):
    """Messages, claims and subscriptions in one SQLite file.

    idempotency_seconds: for how long the id of a post is remembered.

    Raises `StoreUnavailable` when the file cannot be opened, `NotConfigured` without a `uri`.
    """

    controllers = own_drivers.DataControllers(
        spools.QueueController,
        spools.TopicController,
        messages.MessageController,
        claims.ClaimController,
        subscriptions.SubscriptionController,
    )
    _DRIVER_OPTIONS = [(options.MESSAGE_GROUP, options.MESSAGE_OPTS)]

    def __init__(self, conf: cfg.ConfigOpts, cache: Any, control_driver: Any) -> None:
        super().__init__(conf, cache, control_driver)
        # Read now: the pools of a process share one configuration and override it in turn.
        self._handle = _open(conf, options.MESSAGE_GROUP)
        self.database = self._handle.store
        self.idempotency_seconds: int = conf[options.MESSAGE_GROUP].idempotency_seconds
        if not self.keeps_names:
            # Only what is a pool can have queues that move.
            self.database.part_calls = moving.part
        self.redrive_controller = redrives.RedriveController(self)
        self.usage_controller = usage.UsageController(self)

    @property
    def features(self) -> StoreFeatures:
        return _features(self.idempotency_seconds)

    @property
    def keeps_names(self) -> bool:
        """Whether the names of queues are in the same file as their messages."""
        return getattr(self.control_driver, 'database', None) is self.database

    def take(
        self,
        queue: str,
        project: str | None,
        limit: int,
        work: Callable[..., claiming.Attempt],
    ) -> claiming.Attempt:
        """The last attempt of `work` to take the first messages that are free.

        work: called with a `claiming.Manner` and, once that is needed, where dead letters go; until
            it is over.
        """
        left = claiming.ROUNDS * limit
        behind = claiming.MOST_BEHIND
        mode = self.find_group_mode(queue, project)
        attempt = claiming.Attempt(None)
        has_to_ask = False
        while left > 0:
            # Asked for each time, since others may change the queues meanwhile. PERF: and not
            # before a message is met that has been claimed before.
            dead_letters = (self.find_dead_letters(queue, project),) if has_to_ask else ()
            attempt = work(claiming.Manner(mode, behind > 0), *dead_letters)
            if attempt.is_over:
                break
            if attempt.may_have_dead_letters:
                has_to_ask = True
            elif attempt.is_behind and behind > 0:
                behind -= 1
            else:
                left -= max(1, attempt.dead_lettered)
        return attempt

    def leave(self, queue: QueueRecord) -> Origin:
        return moving.Origin(self.database.path, queue)

    def receive(self, queue: QueueRecord) -> Destination:
        return moving.Destination(self.database.path, queue)

    def check_here(self, queue: str, project: str | None) -> None:
        self.database.read(spools.check, project or '', queue)

    def find_arrival(self, queue: str, project: str | None) -> Arrival | None:
        arrival: Arrival | None = self.database.read(moving.find_arrival, project or '', queue)
        return arrival

    def find_carried(self, queue: str, project: str | None, digest: str) -> int | None:
        first: int | None = self.database.read(moving.find_receipt, project or '', queue, digest)
        return first

    def open_arrived(self, queue: str, project: str | None, move: str) -> None:
        self.database.write(moving.open_arrived, project or '', queue, move)

    def forget_mark(self, queue: str, project: str | None) -> None:
        self.database.write(moving.forget, project or '', queue)

    def bound_reads(self, seconds: float) -> None:
        self.database.scan_seconds = seconds

    def is_alive(self) -> bool:
        return self.database.is_working()

    def _count_messages(self) -> dict[str, int]:
        now = timeutils.utcnow_ts(microsecond=True)
        counts: dict[str, int] = self.database.scan(_get_volume, now)
        return counts

    def listen(self, listener: Callable[[str | None, str, list[dict[str, Any]]], None]) -> None:
        """Report delayed messages that become visible; see `DatabaseHandle.listen`."""

        def notify(project: str | None, queue: str, messages: list[dict[str, Any]]) -> None:
            if not self.carries_bodies:
                for one in messages:
                    one['body'] = one['body'].value
            listener(project, queue, messages)

        self._handle.listen(notify)

    def gc(self) -> None:
        """Remove what has expired or been left behind by now; returns when it is gone."""
        now = timeutils.utcnow_ts(microsecond=True)
        while self.database.write(collector.collect, now):
            pass

    def close(self) -> None:
        self._handle.close()


class ControlDriver(own_drivers.ControlDriver):
    """Queues, topics, pools, flavors and the catalogue in one SQLite file.

    Raises `StoreUnavailable` when the file cannot be opened, `NotConfigured` without a `uri`.
    """

    controllers = own_drivers.ControlControllers(
        queues.QueueController,
        queues.TopicController,
        pools.PoolsController,
        flavors.FlavorsController,
        catalogue.CatalogueController,
    )
    _DRIVER_OPTIONS = [(options.MANAGEMENT_GROUP, options.MANAGEMENT_OPTS)]

    def __init__(self, conf: cfg.ConfigOpts, cache: Any) -> None:
        super().__init__(conf, cache)
        self._handle = _open(conf, options.MANAGEMENT_GROUP)
        self.database = self._handle.store

    def bound_reads(self, seconds: float) -> None:
        self.database.scan_seconds = seconds

    def is_alive(self) -> bool:
        """Whether the file can be read and written now."""
        return self.database.is_working()

    def close(self) -> None:
        self._handle.close()


@functools.cache
def _features(post_id_seconds: int) -> StoreFeatures:
    """PERF: they are asked for with each post of a client and each claim of a consumer."""
    return StoreFeatures(
        markers=MarkerKind.POSITION,
        post_id_seconds=post_id_seconds,
        checks_queues=True,
        carries_bodies=True,
        restores=True,
        finds_claimable=True,
        counts_subscriptions=True,
        reports_due=True,
        is_local=True,
        bounds_reads=True,
        has_exact_stats=True,
        counts_messages=True,
        counts_usage=True,
        offered=frozenset(Feature),
    )


def _open(conf: cfg.ConfigOpts, group: str) -> DatabaseHandle:
    path = options.get_path(conf[group].uri, group)
    return open_database(path, conf[group].synchronous)


def _get_volume(connection: sqlite3.Connection, now: float) -> dict[str, int]:
    claimed, total = connection.execute(_VOLUME, {'now': now}).fetchone()
    return {'free': total - claimed, 'claimed': claimed, 'total': total}
