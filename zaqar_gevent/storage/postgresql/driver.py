"""The drivers that `zaqar.data.storage` and `zaqar.control.storage` name."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import gevent
import msgspec
from oslo_config import cfg
from oslo_utils import timeutils

from zaqar_gevent.message_groups import GroupMode
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
    documents,
    flavors,
    groups,
    kinds,
    messages,
    moving,
    numbers,
    options,
    pools,
    queues,
    redrives,
    subscriptions,
    usage,
)
from zaqar_gevent.storage.postgresql.heads import Heads
from zaqar_gevent.storage.postgresql.servers import PostgresServer, open_server
from zaqar_gevent.storage.postgresql.wire import Merge
from zaqar_gevent.storage.records import QueueRecord

Name = tuple[str, str]
"""A project and a queue."""

Lease = tuple[str, int, int, str | None]
"""The id of a claim, its TTL and grace in seconds, and its delay of retries, if it has one."""

ROUNDS = 50
"""How many times as many dead letters one claim moves away at most as it may have messages."""

_NOT_KNOWN = -1
_OFFERED = frozenset(Feature)
_AGAIN = 9
_MERGE = Merge(joined=(6,), latest=2, least=4)
_AGAIN_OF_GROUPS = 8
_MERGE_OF_GROUPS = Merge(joined=(5,), latest=2)
_HAS_GROUPS = {'groups': True, 'plain': False}


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
        self.redrive_controller = redrives.RedriveController(self)
        self._grouped: dict[tuple[str, str], None] = {}
        self._listener: Any = None
        self.usage_controller = usage.UsageController(self)

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
        name = (project or '', queue)
        mode = self.find_group_mode(queue, project)
        # PERF: a queue is asked first for what it was found to have.
        has_groups = name in self._grouped if mode is None else bool(mode)
        dead = None
        # PERF: a queue without dead letters is told by the function, and costs no further call.
        most = _NOT_KNOWN
        if not self.keeps_names:
            dead = self.find_dead_letters(queue, project)
            most = _most_claims(dead)
        left, patience = ROUNDS * limit, Patience()
        while True:
            if has_groups:
                state, told, page = self._take_from_groups(
                    name, limit, most, lease, mode, patience.is_left
                )
            else:
                state, told, page = self._take_in_order(name, limit, most, lease, mode)
            if state == 'done':
                found: bytes = page
                if lease is None and found != EMPTY_PAGE:
                    self.server.upkeep.removed(*name, limit)
                return found
            if state == 'ask':
                dead = self.find_dead_letters(queue, project)
                most = _most_claims(dead)
            elif state == 'worn' and dead is not None:
                if left <= 0:
                    return EMPTY_PAGE
                left -= self._bury(name, dead, limit, told if has_groups else None)
            elif state in _HAS_GROUPS:
                has_groups = self._remember_groups(name, has_groups=_HAS_GROUPS[state])
            else:
                self._clear_way(name, state, patience)

    def _clear_way(self, name: Name, state: str, patience: Patience) -> None:
        """Do what a claim waits for, before it is tried again."""
        if state == 'due':
            self.server.upkeep.place(self.server, *name)
        else:
            patience.lose(state)

    def _bury(
        self, name: Name, dead: own_drivers.DeadLetters, limit: int, positions: list[int] | None
    ) -> int:
        """Move dead letters, only those at some positions if they are given; how many."""
        moved: int = self.server.call(
            kinds.STEPS,
            'bury',
            *(*name, now(), _most_claims(dead), dead.queue),
            *(None if dead.ttl is None else numbers.clamp(dead.ttl), dead.is_made_with_first),
            limit,
            None if positions is None else documents.encode_array(positions),
        )[0]
        self.server.upkeep.removed(*name, moved)
        return max(1, moved)

    def _take_in_order(
        self, name: Name, limit: int, most: int, lease: Lease | None, mode: GroupMode | None
    ) -> tuple[str, Any, Any]:
        token, ttl, grace, retry = lease or (None, 0, 0, None)
        tokens = None if token is None else documents.encode_array((token,))
        after, began = self._heads.get(name), time.monotonic()
        (state, last), page = self.server.call(
            kinds.WRITES,
            'take',
            *(*name, now(), limit, after, most, tokens, ttl, grace, False, retry),
            _NOT_KNOWN if mode is None else int(mode),
            is_repeatable=lease is not None,
            again=_AGAIN if lease is not None else None,
            merge=_MERGE if lease is not None else None,
        )
        if state == 'done':
            self._heads.taken(name, after, last, time.monotonic() - began)
        elif not after:
            self._heads.not_looked(name)
        return state, last, page

    def _take_from_groups(
        self,
        name: Name,
        limit: int,
        most: int,
        lease: Lease | None,
        mode: GroupMode | None,
        is_patient: bool,
    ) -> tuple[str, Any, Any]:
        token, ttl, grace, retry = lease or (None, 0, 0, None)
        tokens = None if token is None else documents.encode_array((token,))
        (state, *told), page = self.server.call(
            kinds.GROUPS,
            'take_groups',
            *(*name, now(), limit, most, tokens, ttl, grace, False, retry),
            *(_NOT_KNOWN if mode is None else int(mode), is_patient),
            is_repeatable=lease is not None,
            again=_AGAIN_OF_GROUPS if lease is not None else None,
            merge=_MERGE_OF_GROUPS if lease is not None else None,
        )
        return state, told[0] if told else None, page

    def _remember_groups(self, name: Name, *, has_groups: bool) -> bool:
        self._grouped.pop(name, None)
        if has_groups:
            self._grouped[name] = None
            if len(self._grouped) > groups.MOST_REMEMBERED:
                del self._grouped[next(iter(self._grouped))]
        return has_groups

    def leave(self, queue: QueueRecord) -> Origin:
        return moving.Origin(self.server.address, queue)

    def receive(self, queue: QueueRecord) -> Destination:
        return moving.Destination(self.server.address, queue)

    def check_here(self, queue: str, project: str | None) -> None:
        self.server.call(kinds.READS, 'check_here', project or '', queue)

    def find_arrival(self, queue: str, project: str | None) -> Arrival | None:
        facts, _ = self.server.call(kinds.READS, 'arrival', project or '', queue)
        return None if facts is None else msgspec.convert(facts, Arrival, str_keys=True)

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
        (total, claimed), _ = self.server.call(kinds.SCANS, 'volume', now())
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


def _most_claims(dead: own_drivers.DeadLetters | None) -> int:
    return 0 if dead is None else numbers.clamp(dead.max_claims)


class Patience:
    """How long a claim goes on before it takes what it has found."""

    def __init__(self) -> None:
        self._steps = groups.MOST_BEHIND
        self._waits = groups.MOST_WAITS

    @property
    def is_left(self) -> bool:
        return self._steps > 0 and self._waits > 0

    def lose(self, state: str) -> None:
        """A call came to a state in which it has to be made again."""
        self._steps -= 1
        if state == 'wait':
            self._waits -= 1
            gevent.sleep(groups.WAIT_SECONDS)


def now() -> float:
    """The time, in seconds since the epoch."""
    time_now: float = timeutils.utcnow_ts(microsecond=True)
    return time_now


def _open(section: Any) -> Handle[PostgresServer]:
    """The use of the database that a group of options names, whose tables are up to date."""
    address = addresses.parse(section.uri, section.schema)
    handle = open_server(
        address,
        section.timeout,
        may_prepare=section.prepared_statements,
        most_ahead=section.max_clock_difference,
    )
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
    return not server.is_off


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
        counts_usage=True,
        offered=_OFFERED,
    )
