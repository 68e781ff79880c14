"""The drivers that `zaqar.data.storage` and `zaqar.control.storage` name."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import msgspec
from oslo_config import cfg
from oslo_utils import timeutils

from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.core.handles import Handle
from zaqar_gevent.storage.core.pages import (
    EMPTY_PAGE,
)
from zaqar_gevent.storage.errors import StoreUnavailable
from zaqar_gevent.storage.features import Feature, MarkerKind, StoreFeatures
from zaqar_gevent.storage.moves import Arrival, Destination, MarkState, Origin
from zaqar_gevent.storage.postgresql import (
    addresses,
    catalogue,
    claims,
    flavors,
    kinds,
    messages,
    moving,
    numbers,
    options,
    pools,
    queues,
    subscriptions,
)
from zaqar_gevent.storage.postgresql.heads import Heads
from zaqar_gevent.storage.postgresql.servers import PostgresServer, open_server
from zaqar_gevent.storage.records import QueueRecord

Lease = tuple[str, int, int, str | None]
"""The id of a claim, its TTL and grace in seconds, and its delay of retries, if it has one."""

ROUNDS = 50
"""How many times as many dead letters one claim moves away at most as it may have messages."""

_NOT_KNOWN = -1
_OFFERED = frozenset({Feature.ATTRIBUTES, Feature.RETRIES, Feature.SETTLEMENTS, Feature.SCHEDULES})
_AGAIN = 9


class DataDriver(own_drivers.DataDriver):
    """Messages, claims and subscriptions in one database.

    idempotency_seconds: for how long the id of a post is remembered.

    Raises `StoreUnavailable`, `UnsuitableStore`, `zaqar.common.errors.ConfigurationError`.
    """

    controllers = own_drivers.DataControllers(
        queues.SpooledQueues,
        queues.SpooledTopics,
        messages.MessageController,
        claims.ClaimController,
        subscriptions.SubscriptionController,
    )
    _DRIVER_OPTIONS = [(options.MESSAGE_GROUP, options.MESSAGE_OPTS)]

    def __init__(self, conf: cfg.ConfigOpts, cache: Any, control_driver: Any) -> None:
        super().__init__(conf, cache, control_driver)
        # Read now: the pools of a process share one configuration and override it in turn.
        section = conf[options.MESSAGE_GROUP]
        self._handle = _open(section)
        self.server = self._handle.store
        self.idempotency_seconds: int = section.idempotency_seconds
        self._heads = Heads()
        self._listener: Any = None

    @property
    def features(self) -> StoreFeatures:
        return _features(self.idempotency_seconds)

    @property
    def keeps_names(self) -> bool:
        """Whether the names of queues are in the same database as their messages."""
        return getattr(self.control_driver, 'server', None) is self.server

    def take(
        self, queue: str, project: str | None, limit: int, lease: Lease | None = None
    ) -> bytes:
        """Take the first messages that are free: under a claim, or away without; their page.

        Dead letters are moved to their queue instead.
        """
        server, name = self.server, (project or '', queue)
        # PERF: a queue without dead letters is told by the function, and costs no further call.
        dead = None
        most = 0
        if lease is not None:
            most = _NOT_KNOWN
            if not self.keeps_names:
                dead = self.find_dead_letters(queue, project)
                most = 0 if dead is None else numbers.clamp(dead.max_claims)
        token, ttl, grace, retry = lease or (None, 0, 0, None)
        left = ROUNDS * limit
        while True:
            after, began = self._heads.get(name), time.monotonic()
            now = timeutils.utcnow_ts(microsecond=True)
            (state, last), page = server.call(
                kinds.WRITES,
                'take',
                *(*name, now, limit, after, most, token, ttl, grace, False, retry),
                is_repeatable=lease is not None,
                again=_AGAIN if lease is not None else None,
            )
            if state == 'done':
                self._heads.taken(name, after, last, time.monotonic() - began)
                found: bytes = page
                if lease is None and found != EMPTY_PAGE:
                    server.upkeep.removed(*name, limit)
                return found
            if state == 'due':
                server.upkeep.place(server, *name)
            elif state == 'ask':
                dead = self.find_dead_letters(queue, project)
                most = 0 if dead is None else numbers.clamp(dead.max_claims)
            elif state == 'worn' and dead is not None:
                if left <= 0:
                    return EMPTY_PAGE
                ttl_of_dead = None if dead.ttl is None else numbers.clamp(dead.ttl)
                moved, _ = server.call(
                    kinds.STEPS,
                    'bury',
                    *(*name, now, most, dead.queue, ttl_of_dead, limit),
                )
                left -= max(1, moved)
                server.upkeep.removed(*name, moved)

    def leave(self, queue: QueueRecord) -> Origin:
        return moving.Origin(self.server.address, queue)

    def receive(self, queue: QueueRecord) -> Destination:
        return moving.Destination(self.server.address, queue)

    def check_here(self, queue: str, project: str | None) -> None:
        self.server.call(kinds.READS, 'check_here', project or '', queue)

    def find_arrival(self, queue: str, project: str | None) -> Arrival | None:
        facts, _ = self.server.call(kinds.READS, 'arrival', project or '', queue)
        return None if facts is None else msgspec.convert(facts, Arrival)

    def open_arrived(self, queue: str, project: str | None, move: str) -> None:
        self.server.call(
            kinds.STEPS, 'unmark', project or '', queue, MarkState.ARRIVING.value, move
        )

    def forget_mark(self, queue: str, project: str | None) -> None:
        self.server.call(kinds.STEPS, 'unmark', project or '', queue, MarkState.LEFT.value, None)

    def bound_reads(self, seconds: float) -> None:
        self.server.scan_seconds = seconds

    def is_alive(self) -> bool:
        return _is_alive(self.server)

    def _count_messages(self) -> dict[str, int]:
        now = timeutils.utcnow_ts(microsecond=True)
        (total, claimed), _ = self.server.call(kinds.SCANS, 'volume', now)
        return {'free': total - claimed, 'claimed': claimed, 'total': total}

    def listen(self, listener: Callable[[str | None, str, list[dict[str, Any]]], None]) -> None:
        """Have `listener` told of delayed messages that become visible; see `Upkeep.listen`."""

        def told(project: str | None, queue: str, found: list[dict[str, Any]]) -> None:
            # Others are told of the same messages.
            told_of = [dict(one) for one in found]
            if not self.carries_bodies:
                for one in told_of:
                    one['body'] = one['body'].value
            listener(project, queue, told_of)

        self._listener = told
        self.server.upkeep.listen(told)

    def gc(self) -> None:
        """Remove what has expired or been left behind by now; returns when it is gone."""
        messages.collect(self)

    def close(self) -> None:
        if self._listener is not None:
            self.server.upkeep.forget(self._listener)
        self._handle.close()


class ControlDriver(own_drivers.ControlDriver):
    """Queues, topics, pools, flavors and the catalogue in one database.

    Raises `StoreUnavailable`, `UnsuitableStore`, `zaqar.common.errors.ConfigurationError`.
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
        self._handle = _open(conf[options.MANAGEMENT_GROUP])
        self.server = self._handle.store

    def bound_reads(self, seconds: float) -> None:
        self.server.scan_seconds = seconds

    def is_alive(self) -> bool:
        """Whether the server answers, and can be written."""
        return _is_alive(self.server)

    def close(self) -> None:
        self._handle.close()


def _open(section: Any) -> Handle[PostgresServer]:
    """The use of the database that a group of options names, whose tables are up to date."""
    address = addresses.parse(section.uri, section.schema)
    handle = open_server(address, section.timeout, is_preparing=section.prepared_statements)
    try:
        handle.store.check(may_migrate=section.migrate_at_start)
    except BaseException:
        handle.close()
        raise
    return handle


def _is_alive(server: PostgresServer) -> bool:
    try:
        server.call(kinds.WRITES, 'touch')
    except StoreUnavailable:
        return False
    return True


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
        has_exact_stats=True,
        counts_messages=True,
        offered=_OFFERED,
    )
