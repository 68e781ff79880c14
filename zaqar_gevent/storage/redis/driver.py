"""The native drivers for Redis, on upstream's keys and formats."""

from __future__ import annotations

import collections
import functools
import uuid
from collections.abc import Collection
from typing import Any

from oslo_config import cfg
from oslo_log import log
from oslo_utils import timeutils
from zaqar.conf import drivers_management_store_redis as management_options
from zaqar.conf import drivers_message_store_redis as message_options

from zaqar_gevent.message_groups import GroupMode
from zaqar_gevent.retry_delays import RetryDelay
from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.core.handles import Handle
from zaqar_gevent.storage.core.links import PATIENCE_SECONDS
from zaqar_gevent.storage.errors import StoreUnavailable, UndecodableValue
from zaqar_gevent.storage.features import Feature, MarkerKind, StoreFeatures
from zaqar_gevent.storage.interface import StoredMessage
from zaqar_gevent.storage.moves import Arrival, Destination, MarkState, MoveRefused, Origin
from zaqar_gevent.storage.records import QueueRecord
from zaqar_gevent.storage.redis import (
    addresses,
    catalogue,
    claims,
    flavors,
    keys,
    messages,
    moving,
    options,
    pools,
    queues,
    redrives,
    subscriptions,
    usage,
)
from zaqar_gevent.storage.redis.documents import Page, present_fields
from zaqar_gevent.storage.redis.durability import Durability
from zaqar_gevent.storage.redis.news import NewsChannel
from zaqar_gevent.storage.redis.queues import end_groups
from zaqar_gevent.storage.redis.servers import RedisServer, load, open_server

LOG = log.getLogger(__name__)

Lease = tuple[str, int, int]
"""The id of a claim, its TTL and grace in seconds."""

_NEVER = (0, '', '', '')
_OFFERED = frozenset(Feature)

_TAKE = load('take', is_repeatable=False)
_TAKE_GROUPS = load('take_groups', is_repeatable=False)
_DEAD_LETTERS, _OTHER_SCRIPT, _OTHER_MODE = 1, 2, 3
"""The scripts' answer if something else must be done first."""

_MOST_BEHIND = 10_000
"""Steps of giving messages to their groups that one claim takes at most, before it takes those that
it has found."""

_MOST_REMEMBERED = 10_000
"""Queues that are remembered to have groups."""


class DataDriver(own_drivers.DataDriver):
    """Messages, claims and subscriptions on one server.

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
    checks_reads = True
    _DRIVER_OPTIONS = [
        (message_options.GROUP_NAME, [*message_options.ALL_OPTS, *options.MESSAGE_OPTS])
    ]

    def __init__(self, conf: cfg.ConfigOpts, cache: Any, control_driver: Any) -> None:
        super().__init__(conf, cache, control_driver)
        # Read now: the pools of a process share one configuration and override it in turn.
        section = conf[message_options.GROUP_NAME]
        # Of a pool, upstream names the group by the scheme of its URI.
        is_secure_pool = conf.drivers.message_store == 'rediss'
        uri = conf['drivers:message_store:rediss'].uri if is_secure_pool else section.uri
        self._handle = _open(uri, section)
        self.server = self._handle.store
        self.idempotency_seconds: int = section.idempotency_seconds
        self.redrive_controller = redrives.RedriveController(self)
        self.usage_controller = usage.UsageController(self)
        self._is_shared: bool = section.shared_with_upstream
        # The scripts' argument for whether upstream's servers use this Redis as well.
        self.shared = '1' if self._is_shared else ''
        self._grouped: dict[tuple[str | None, str], None] = {}
        # Upstream's servers would put popped messages back without them, for one.

    @property
    def features(self) -> StoreFeatures:
        # Without the names of the queues on the same server, a post cannot be checked at once.
        return _features(self.idempotency_seconds, self.keeps_names, self._is_shared)

    @functools.cached_property
    def keeps_names(self) -> bool:
        """Whether the names of queues are on the same server as their messages."""
        control = getattr(self.control_driver, 'server', None)
        return isinstance(control, RedisServer) and control.address == self.server.address

    def receive(self, queue: QueueRecord) -> Destination:
        if self._is_shared:
            raise MoveRefused(
                "upstream's servers may work on that Redis as well, which know nothing of queues "
                'that move. Set shared_with_upstream = false in [drivers:message_store:redis] if '
                'none does'
            )
        return moving.Destination(self, queue)

    def leave(self, queue: QueueRecord) -> Origin:
        if self._is_shared:
            raise MoveRefused(
                "upstream's servers may work on the Redis that it is in as well, and would go on "
                'there. Set shared_with_upstream = false in [drivers:message_store:redis] if none '
                'does'
            )
        return moving.Origin(self, queue)

    def check_here(self, queue: str, project: str | None) -> None:
        moving.check(self.server, queue, project)

    def forget_mark(self, queue: str, project: str | None) -> None:
        moving.unmark(self.server, queue, project, MarkState.LEFT)

    def find_arrival(self, queue: str, project: str | None) -> Arrival | None:
        return moving.find_arrival(self.server, queue, project)

    def find_carried(self, queue: str, project: str | None, digest: str) -> int | list[str] | None:
        return moving.find_receipt(self.server.ask('HGET', keys.carried(queue, project), digest))

    def open_arrived(self, queue: str, project: str | None, move: str) -> None:
        moving.unmark(self.server, queue, project, MarkState.ARRIVING, move)

    def take(
        self,
        queue: str,
        project: str | None,
        limit: int,
        lease: Lease = ('', 0, 0),
        retry: RetryDelay | None = None,
    ) -> Collection[StoredMessage]:
        """Take the first messages that are free: under a claim, or away without a lease.

        Dead letters are moved instead. retry: how long messages wait when the lease has ended.

        Raises `UndecodableValue`, and takes none, where one of them cannot be read.
        """
        mode = GroupMode.NONE if self._is_shared else self.find_group_mode(queue, project)
        # PERF: a queue is asked first for what it was found to have.
        has_groups = (project, queue) in self._grouped if mode is None else bool(mode)
        steps = _MOST_BEHIND
        now = timeutils.utcnow_ts()
        # PERF: a queue without dead letters is told by the script, and costs no further call.
        dead_letters = (
            ('?', '', '', '') if self.keeps_names else self._get_dead_letters(queue, project)
        )
        after: Any = '-inf'
        while True:
            most, ttl, dead_letter_queue, counter = dead_letters
            found = self.server.run(
                _TAKE_GROUPS if has_groups else _TAKE,
                _places_to_take(queue, project, dead_letter_queue, counter, self.keeps_names),
                now,
                limit,
                ('1' if steps > 0 else '') if has_groups else after,
                *lease,
                most,
                ttl,
                messages.new_ids(dead_letter_queue) if dead_letter_queue else '',
                messages.exact_time(),
                self.shared,
                *(('', '', '') if retry is None else (retry.initial, retry.factor, retry.max)),
                '' if self._is_shared else queue,
                messages.iso_time(now),
                *self._group_arguments(mode, lease[0], has_groups=has_groups),
            )
            if found == _DEAD_LETTERS:
                dead_letters = self._get_dead_letters(queue, project)
            elif found == _OTHER_SCRIPT:
                has_groups = not has_groups
                self._remember_grouped(project, queue, has_groups=has_groups)
                # Metadata with such a name may not have groups.
                mode = mode if has_groups else GroupMode.NONE
            elif found == _OTHER_MODE:
                end_groups(self.server, keys.messages(queue, project))
            elif has_groups and not found[0] and found[2] is not None:
                steps -= 1
                if steps <= -_MOST_BEHIND:
                    return []
            elif found[0] or found[2] is None:
                return self._present_taken(queue, project, found[1], lease[0], now)
            else:
                after = found[2]

    def _present_taken(
        self, queue: str, project: str | None, taken: Any, claim_id: str, now: int
    ) -> Collection[StoredMessage]:
        """The messages that a script has taken; gives all back where one cannot be read."""
        try:
            if claim_id:
                page = Page(taken)
                page.check_spellings()
                return self.present(page)
            popped = present_fields(taken, now)
            if not self.carries_bodies:
                for one in popped:
                    one['body'] = one['body'].value
            return popped
        except UndecodableValue as error:
            if claim_id:
                self.claim_controller.delete(queue, claim_id, project, 0)
            else:
                self.message_controller.put_back(queue, taken, project)
            raise error.in_queue(queue, project) from None

    def names(self, project: str | None) -> tuple[str, str]:
        """The keys of the names of queues and of topics; empty where they are on another server."""
        return _names(project, self.keeps_names)

    def _group_arguments(
        self, mode: GroupMode | None, claim_id: str, *, has_groups: bool
    ) -> tuple[Any, ...]:
        """The scripts' arguments for the groups of a queue, and the token of new ones."""
        if has_groups:
            # PERF: no other claim has the id, and most claims need no token.
            return ('?' if mode is None else int(mode), claim_id or uuid.uuid4().hex)
        return ('' if mode is None else 1,)

    def _remember_grouped(self, project: str | None, queue: str, *, has_groups: bool) -> None:
        if not has_groups:
            self._grouped.pop((project, queue), None)
            return
        if len(self._grouped) >= _MOST_REMEMBERED:
            self._grouped.clear()
        self._grouped[project, queue] = None

    def present(self, page: Page) -> Collection[StoredMessage]:
        """The messages of a script's answer, whose bodies are as the driver gives them."""
        return page if self.carries_bodies else page.with_values()

    def _get_dead_letters(self, queue: str, project: str | None) -> tuple[Any, Any, str, str]:
        """Claims after which messages are dead letters (0: never), the TTL they get, their keys."""
        found = self.find_dead_letters(queue, project)
        if found is None:
            return _NEVER
        counter = keys.rank_counter(found.queue, project)
        return found.max_claims, found.ttl or '', keys.messages(found.queue, project), counter

    def is_alive(self) -> bool:
        return _is_alive(self.server)

    def _count_messages(self) -> dict[str, int]:
        total = collections.Counter(free=0, claimed=0, total=0)
        for key in self.message_controller.find_queues():
            counts = queues.count(self.server, key)
            total.update({kind: counts[kind] for kind in total if kind in counts})
        return dict(total)

    def gc(self) -> None:
        """Take what has expired out of all queues."""
        self.message_controller.gc()

    def close(self) -> None:
        self._handle.close()


class ControlDriver(own_drivers.ControlDriver):
    """Queues, topics, pools, flavors and the catalogue on one server.

    Raises `StoreUnavailable`, `UnsuitableStore`, `zaqar.common.errors.ConfigurationError`.
    """

    controllers = own_drivers.ControlControllers(
        queues.QueueController,
        queues.TopicController,
        pools.PoolsController,
        flavors.FlavorsController,
        catalogue.CatalogueController,
    )
    _DRIVER_OPTIONS = [
        (
            management_options.GROUP_NAME,
            [*management_options.ALL_OPTS, *options.MANAGEMENT_OPTS],
        )
    ]

    def __init__(self, conf: cfg.ConfigOpts, cache: Any) -> None:
        super().__init__(conf, cache)
        section = conf[management_options.GROUP_NAME]
        self._handle = _open(section.uri, section)
        self.server = self._handle.store

    def is_alive(self) -> bool:
        """Whether the server answers."""
        return _is_alive(self.server)

    def close(self) -> None:
        self._handle.close()

    @property
    def news_channel(self) -> NewsChannel:
        """How processes that share the server tell each other of news."""
        return NewsChannel(self.server)


def _names(project: str | None, is_here: bool) -> tuple[str, str]:
    return (keys.queues(project), keys.topics(project)) if is_here else ('', '')


@functools.lru_cache(maxsize=4096)
def _places_to_take(
    queue: str, project: str | None, dead_letter_queue: str, counter: str, keeps_names: bool
) -> tuple[str, ...]:
    """The keys that take.lua is given. PERF: they are the same for all claims of a queue."""
    return (
        keys.messages(queue, project),
        keys.claims(queue, project),
        dead_letter_queue,
        counter,
        keys.queue(queue, project),
        keys.head(queue, project),
        *_names(project, keeps_names),
    )


def _open(uri: str, section: Any) -> Handle[RedisServer]:
    """The use of the server at `uri`, which has answered.

    section: the group of options.

    A call waits as long as upstream's driver would sleep in its attempts, and not longer than
    `PATIENCE_SECONDS`.
    """
    address = addresses.parse(uri)
    for ignored in addresses.find_ignored(uri):
        _warn_once(ignored)
    slept = max(1, section.max_reconnect_attempts) * section.reconnect_sleep
    handle = open_server(address, min(PATIENCE_SECONDS, slept), Durability(section.durability))
    try:
        handle.store.check()
    except BaseException:
        handle.close()
        raise
    return handle


@functools.lru_cache(maxsize=1000)
def _warn_once(text: str) -> None:
    """Log a warning, which the stores of a process may share."""
    LOG.warning('%s', text)


def _is_alive(server: RedisServer) -> bool:
    try:
        return bool(server.ask('PING'))
    except StoreUnavailable:
        return False


_REMEDY = (
    'it can with shared_with_upstream = false in [drivers:message_store:redis], for servers that '
    'share their Redis with no upstream server'
)


@functools.cache
def _features(post_id_seconds: int, keeps_names: bool, is_shared: bool) -> StoreFeatures:
    """PERF: they are asked for with each post of a client and each claim of a consumer."""
    return StoreFeatures(
        markers=MarkerKind.MESSAGE_ID,
        post_id_seconds=post_id_seconds,
        checks_queues=keeps_names,
        carries_bodies=True,
        restores=True,
        keeps_places=True,
        has_exact_stats=not is_shared,
        # What upstream's servers do is not counted.
        counts_usage=not is_shared,
        # Upstream would lose what it does not know.
        offered=frozenset() if is_shared else _OFFERED,
        remedy=_REMEDY if is_shared else '',
    )
