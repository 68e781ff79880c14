"""Base classes of this package's drivers, for any kind of store."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from oslo_log import log
from zaqar.common import decorators
from zaqar.storage import base, errors

from zaqar_gevent import dead_letters
from zaqar_gevent.message_groups import GroupMode, mode_of
from zaqar_gevent.settlements import Settle, Settlement
from zaqar_gevent.storage import interface
from zaqar_gevent.storage.features import StoreFeatures
from zaqar_gevent.storage.interface import (
    Document,
    DueListener,
    Metadata,
    StoredMessage,
    read_metadata,
)
from zaqar_gevent.storage.moves import Arrival, Destination, MoveRefused, Origin
from zaqar_gevent.storage.records import QueueRecord

LOG = log.getLogger(__name__)


class DeadLetters(NamedTuple):
    """Where messages go that have been claimed `max_claims` times; `ttl` None keeps theirs.

    is_made_with_first: whether the store has to create the queue with the first dead letter, in one
        transaction, unless there is one.
    """

    queue: str
    max_claims: int
    ttl: int | None
    is_made_with_first: bool


class _MetadataReader:
    """Reads the metadata of queues of a project, and remembers which do not exist."""

    def __init__(self, queues: interface.QueueController, project: str | None) -> None:
        self._queues = queues
        self._project = project
        self.missing: set[str] = set()

    def __call__(self, name: str) -> Metadata:
        try:
            return self._queues.get_metadata(name, project=self._project) or {}
        except errors.DoesNotExist:
            self.missing.add(name)
            return {}


class DataControllers(NamedTuple):
    """Makes the controllers of a data driver, which is the argument.

    queues, topics: given those of the control driver as well.
    """

    queues: Callable[[Any, Any], interface.QueueController]
    topics: Callable[[Any, Any], interface.TopicController]
    messages: Callable[[Any], interface.MessageController]
    claims: Callable[[Any], interface.ClaimController]
    subscriptions: Callable[[Any], interface.SubscriptionController]


class ControlControllers(NamedTuple):
    """Makes the controllers of a control driver, which is the argument."""

    queues: Callable[[Any], interface.QueueController]
    topics: Callable[[Any], interface.TopicController]
    pools: Callable[[Any], interface.PoolsController]
    flavors: Callable[[Any], interface.FlavorsController]
    catalogue: Callable[[Any], interface.CatalogueController]


class DataDriver(base.DataDriverBase):
    """Messages, claims and subscriptions in one place.

    controllers: makes its controllers; so mypy checks that they have the interface.
    carries_bodies: whether the body of a message is taken and given as a `Body`; otherwise it is a
        value, as upstream's servers want it, and `bytes` for an encrypted one.
    features: what it can do beyond upstream's interface.
    redrive_controller: its redrives, if it offers them.
    usage_controller: what counts for projects, if it `counts_usage`.
    """

    controllers: ClassVar[DataControllers]
    redrive_controller: interface.RedriveController | None = None
    usage_controller: interface.UsageController | None = None

    BASE_CAPABILITIES = tuple(base.Capabilities)

    carries_bodies = False

    @property
    def capabilities(self) -> tuple[base.Capabilities, ...]:
        return self.BASE_CAPABILITIES

    @property
    def features(self) -> StoreFeatures:
        """What this store can do."""
        raise NotImplementedError

    def bound_reads(self, seconds: float) -> None:
        """Break off reads that take longer, as far as the store can."""

    checks_reads = False
    """Whether reads raise `moves.QueueMoved` by themselves, in the transaction that reads."""

    def check_here(self, queue: str, project: str | None) -> None:
        """Raise `moves.QueueMoved` if a queue is not used from this store now."""

    def find_arrival(self, queue: str, project: str | None) -> Arrival | None:
        """How what clients know of a queue from another store is known here; None if alike."""
        return None

    def find_carried(self, queue: str, project: str | None, digest: str) -> int | list[str] | None:
        """The messages of a post that was made before its queue came: their ids as clients know
        them, or the number of the first.

        digest: of the post's id, see `moves.digest`.
        """
        return None

    def open_arrived(self, queue: str, project: str | None, move: str) -> None:
        """Let a queue be used from here that has come by a migration, of this id."""

    def forget_mark(self, queue: str, project: str | None) -> None:
        """Let a queue be used from here that left once, and has been made here anew."""

    def leave(self, queue: QueueRecord) -> Origin:
        """A queue that is to be moved out of this pool; raises `moves.MoveRefused`."""
        raise MoveRefused('queues cannot be moved out of a pool of this kind')

    def receive(self, queue: QueueRecord) -> Destination:
        """A queue that is to be moved into this pool; raises `moves.MoveRefused`."""
        raise MoveRefused('queues cannot be moved into a pool of this kind')

    def listen(self, listener: DueListener) -> None:
        """Have `listener` called when delayed messages become visible, if `reports_due`."""
        raise NotImplementedError

    @decorators.lazy_property(write=False)
    def queue_controller(self) -> interface.QueueController:
        return self.controllers.queues(self, self.control_driver.queue_controller)

    @decorators.lazy_property(write=False)
    def topic_controller(self) -> interface.TopicController | None:
        # Upstream's control drivers may have none.
        topics = self.control_driver.topic_controller
        return None if topics is None else self.controllers.topics(self, topics)

    @decorators.lazy_property(write=False)
    def message_controller(self) -> interface.MessageController:
        return self.controllers.messages(self)

    @decorators.lazy_property(write=False)
    def claim_controller(self) -> interface.ClaimController:
        return self.controllers.claims(self)

    @decorators.lazy_property(write=False)
    def subscription_controller(self) -> interface.SubscriptionController:
        return self.controllers.subscriptions(self)

    @property
    def keeps_names(self) -> bool:
        """Whether the names of queues are in the same place as their messages."""
        raise NotImplementedError

    def has_queue(self, name: str, project: str | None) -> bool:
        """Whether the control driver knows a queue or a topic of that name."""
        control = self.control_driver
        if control.queue_controller.exists(name, project=project):
            return True
        # Not every driver has topics.
        topics = control.topic_controller
        return topics is not None and bool(topics.exists(name, project=project))

    def find_group_mode(self, queue: str, project: str | None) -> GroupMode | None:
        """How claims take from the groups of a queue; None where the store itself sees that."""
        if self.keeps_names:
            return None
        return mode_of(read_metadata(self.queue_controller, queue, project))

    def find_dead_letters(self, queue: str, project: str | None) -> DeadLetters | None:
        """Where the dead letters of a queue go; None if it has none, or they would lead back."""
        read = _MetadataReader(self.queue_controller, project)
        settings = read(queue)
        if not dead_letters.can_dead_letter(queue, settings, read):
            return None
        found = self._dead_letters_of(queue, project, settings, read.missing)
        if found is None:
            # Rather delivered once more than put where nobody would ever look.
            LOG.warning('%s', _describe_pools(queue, settings['_dead_letter_queue']))
        return found

    def find_reject_target(self, queue: str, project: str | None) -> DeadLetters:
        """Where rejected messages of a queue go; raises `NoDeadLetterQueue`."""
        read = _MetadataReader(self.queue_controller, project)
        settings = {**read(queue), '_max_claim_count': 1}
        reason = dead_letters.find_obstacle(queue, settings, read)
        if reason is None:
            found = self._dead_letters_of(queue, project, settings, read.missing)
            if found is not None:
                return found
            reason = _describe_pools(queue, settings['_dead_letter_queue'])
        raise dead_letters.NoDeadLetterQueue(queue, project, reason)

    def _dead_letters_of(
        self, queue: str, project: str | None, settings: dict[str, Any], missing: set[str]
    ) -> DeadLetters | None:
        """Where dead letters go; None if that is in another pool.

        missing: queues that do not exist.
        """
        target = settings['_dead_letter_queue']
        if not self.keeps_names:
            pool = self._get_pool(queue, project)
            if target in missing:
                self._create_in(pool, target, project)
            if self._get_pool(target, project) != pool:
                return None
        ttl = settings.get('_dead_letter_queue_messages_ttl') or None
        return DeadLetters(target, settings['_max_claim_count'], ttl, self.keeps_names)

    def _create_in(self, pool: str | None, queue: str, project: str | None) -> None:
        """Create a queue in the pool of another one, unless there is one, or a topic."""
        if self.has_queue(queue, project):
            return
        if pool is not None and self._get_pool(queue, project) is None:
            self.control_driver.catalogue_controller.insert(project, queue, pool)
            # It may have been there before.
            self.forget_mark(queue, project)
        self.control_driver.queue_controller.create(queue, metadata={}, project=project)

    def _get_pool(self, queue: str, project: str | None) -> str | None:
        return pool_of(self.control_driver.catalogue_controller, queue, project)

    def _health(self) -> dict[str, Any]:
        if not self.is_alive():
            volume = {'free': 0, 'claimed': 0, 'total': 0}
            return {
                'storage_reachable': False,
                'operation_status': {},
                'message_volume': volume,
            }
        return {
            'storage_reachable': True,
            'operation_status': self._get_operation_status(),
            'message_volume': self._count_messages(),
        }

    def _count_messages(self) -> dict[str, int]:
        """How many messages there are in all queues: `free`, `claimed` and `total`."""
        raise NotImplementedError


class ControlDriver(base.ControlDriverBase):
    """Queues without their messages, topics, pools, flavors and the catalogue in one place.

    controllers: makes its controllers.
    """

    controllers: ClassVar[ControlControllers]

    @decorators.lazy_property(write=False)
    def queue_controller(self) -> interface.QueueController:
        return self.controllers.queues(self)

    @decorators.lazy_property(write=False)
    def topic_controller(self) -> interface.TopicController:
        return self.controllers.topics(self)

    @decorators.lazy_property(write=False)
    def pools_controller(self) -> interface.PoolsController:
        return self.controllers.pools(self)

    @decorators.lazy_property(write=False)
    def flavors_controller(self) -> interface.FlavorsController:
        return self.controllers.flavors(self)

    @decorators.lazy_property(write=False)
    def catalogue_controller(self) -> interface.CatalogueController:
        return self.controllers.catalogue(self)

    @property
    def news_channel(self) -> interface.NewsChannel | None:
        """How processes that share the store tell each other of news; None if they cannot."""
        return None

    def is_alive(self) -> bool:
        """Whether the store works."""
        raise NotImplementedError

    def bound_reads(self, seconds: float) -> None:
        """Break off reads that take longer, as far as the store can."""


class MessageController(base.Message):
    """Messages of a driver; `bulk_get` gives those that exist."""

    def __init__(self, driver: DataDriver) -> None:
        super().__init__(driver)
        self._checksums = False
        self._look_up_at = 0.0

    def get(self, queue: str, message_id: str, project: str | None = None) -> StoredMessage:
        """One message, or `MessageDoesNotExist`."""
        found: Iterator[StoredMessage] = self.bulk_get(queue, [message_id], project)
        for message in found:
            return message
        raise errors.MessageDoesNotExist(message_id, queue, project)

    def bulk_get(
        self, queue: str, message_ids: Sequence[str], project: str | None = None
    ) -> Iterator[StoredMessage]:
        raise NotImplementedError

    def end(self, queue: str, project: str | None = None) -> str | None:
        """The marker of the last visible message, if the store's markers are positions."""
        raise NotImplementedError

    def find_post(
        self, queue: str, post_id: str, size: int, project: str | None = None
    ) -> Sequence[str] | None:
        """The ids of a post of `size` messages that was made with this id; None for none.

        The driver must remember posts: `idempotency_seconds` is not 0.
        """
        raise NotImplementedError

    def keeps_place(self, queue: str, marker: str | None, project: str | None = None) -> bool:
        """Whether a list goes on after a marker whose message is gone, if it `keeps_places`."""
        raise NotImplementedError

    def _has_checksums(self) -> bool:
        """Whether messages get a checksum. PERF: the option is looked up once a second."""
        now = time.monotonic()
        if now >= self._look_up_at:
            self._checksums = self.driver.conf.enable_checksum
            self._look_up_at = now + 1.0
        return self._checksums


class ClaimController(base.Claim):
    """Claims of a driver."""

    def find_claimable(self, queues: Sequence[tuple[str | None, str]]) -> list[int]:
        """Which of some queues may have a message to claim, if the store `finds_claimable`."""
        raise NotImplementedError

    def settle(
        self, queue: str, settlements: Sequence[Settlement], project: str | None = None
    ) -> list[Exception | None]:
        """Settle single messages of claims, if the store offers `Feature.SETTLEMENTS`."""
        raise NotImplementedError

    def find_reject_target(
        self, queue: str, settlements: Sequence[Settlement], project: str | None
    ) -> DeadLetters | None:
        """Where rejected messages go; None where none is rejected.

        Raises `NoDeadLetterQueue` where there is nowhere to put them.
        """
        if all(one.kind is not Settle.REJECT for one in settlements):
            return None
        found: DeadLetters = self.driver.find_reject_target(queue, project)
        return found


class SubscriptionController(base.Subscription):
    """Subscriptions, unique by project, queue and subscriber; an expired one is none."""

    def get(self, queue: str, subscription_id: str, project: str | None = None) -> Document:
        """One subscription, or `SubscriptionDoesNotExist`."""
        raise NotImplementedError

    def count(self, queue: str, project: str | None = None) -> int:
        """How many subscriptions a queue has, if the store `counts_subscriptions`."""
        raise NotImplementedError

    def exists(self, queue: str, subscription_id: str, project: str | None = None) -> bool:
        """Whether there is such a subscription."""
        try:
            self.get(queue, subscription_id, project)
        except errors.SubscriptionDoesNotExist:
            return False
        return True


class QueueNames:
    """Names of queues or topics, as a control driver keeps them."""

    def _get(self, name: str, project: str | None = None) -> Any:
        return read_metadata(self, name, project)  # type: ignore[arg-type]

    def get_metadata(self, name: str, project: str | None = None) -> Any:
        raise NotImplementedError

    def _stats(self, name: str, project: str | None = None) -> None:
        """Nothing: the messages are the data driver's."""


class SpooledNames:
    """Queues or topics with their messages: names that the control driver keeps, and messages that
    the data driver keeps.
    """

    _missing: type[errors.DoesNotExist]

    def __init__(self, driver: DataDriver, names: Any) -> None:
        super().__init__(driver)  # type: ignore[call-arg]
        self._names = names

    def _check_counted(self, name: str, project: str | None, total: int) -> None:
        """Raise the error of a name that does not exist, unless messages of it were counted.

        Upstream's servers put dead letters into queues that were never created.
        """
        is_there = total > 0 and self._missing is errors.QueueDoesNotExist
        if not is_there and not self._names.exists(name, project=project):
            raise self._missing(name, project)

    def _list(self, *args: Any, **kwargs: Any) -> Any:
        return self._names._list(*args, **kwargs)

    def _get(self, name: str, project: str | None = None) -> Any:
        return self._names.get(name, project=project)

    def get_metadata(self, name: str, project: str | None = None) -> Any:
        return self._names.get_metadata(name, project=project)

    def set_metadata(self, name: str, metadata: Any, project: str | None = None) -> Any:
        return self._names.set_metadata(name, metadata=metadata, project=project)

    def _create(self, name: str, metadata: Any = None, project: str | None = None) -> Any:
        return self._names.create(name, metadata=metadata, project=project)

    def _exists(self, name: str, project: str | None = None) -> Any:
        return self._names.exists(name, project=project)

    def _calculate_resource_count(self, project: str | None = None) -> Any:
        return self._names.calculate_resource_count(project=project)


def pool_of(catalogue: Any, queue: str, project: str | None) -> str | None:
    """The pool that a catalogue has for a queue; None for one that is in no pool."""
    try:
        return str(catalogue.get(project, queue)['pool'])
    except errors.QueueNotMapped:
        return None


def _describe_pools(queue: str, dead_letter_queue: str) -> str:
    return (
        f'the dead letter queue {dead_letter_queue} of {queue} is in another pool, and messages '
        'can be moved within a pool only'
    )


def describe_edge(message_id: str, created: float, now: float) -> dict[str, Any]:
    """What `stats` tells of the oldest or newest message; times in seconds since the epoch."""
    moment = datetime.datetime.fromtimestamp(created, datetime.UTC)
    return {
        'id': message_id,
        'age': max(0, int(now - created)),
        'created': moment.strftime('%Y-%m-%dT%H:%M:%SZ'),
    }
