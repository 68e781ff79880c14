"""The interface of all drivers: the calls that the API and the push hub may make.

The signatures are those of `zaqar.storage.base`, so that upstream's drivers have them, too. A
method that not every driver has names the feature (`zaqar_gevent.storage.features`) with which it
may be called; the interface declares it for all, so that calls are typed.

project: None is a project of its own. An error that a method does not name may be any of
`zaqar.storage.errors`, and those of `zaqar_gevent.storage.errors`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from zaqar.storage import errors

from zaqar_gevent.bodies import Encoding
from zaqar_gevent.redrives import (
    DueRedrives,
    NewRedrive,
    RunningRedrive,
    State,
    Step,
    StoredRedrive,
)
from zaqar_gevent.settlements import Settlement
from zaqar_gevent.storage.features import StoreFeatures

Metadata = dict[str, Any]
StoredMessage = dict[str, Any]
"""A message: `id`, `ttl` and `age` in seconds, `body` (a `Body`), `claim_id`, `claim_count`."""


class AnsweredMessage(msgspec.Struct):
    """A message of a page as it is in an answer.

    claim_count: how often it had been claimed before, where that is shown.

    PERF: an encoder writes it in half of the time that a dictionary takes.
    """

    id: str
    claim_id: str | None
    ttl: Any
    age: Any
    body: Any
    claim_count: int | msgspec.UnsetType = msgspec.UNSET


class StoredPage:
    """A page as this project's stores give it: a collection of messages.

    PERF: most pages only become an answer, as a whole. The messages, and a `Body` for each, are
    made anew whenever somebody looks at them.
    """

    __slots__ = ()

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[StoredMessage]:
        raise NotImplementedError

    def __contains__(self, message: object) -> bool:
        return any(message == one for one in self)

    def in_answer(
        self, encoding: Encoding, *, counted: bool = False
    ) -> list[AnsweredMessage] | None:
        """The messages as they are in an answer in `encoding`, whose encoder writes the bodies.

        counted: with a `claim_count`, of claims before this one.

        None where a message has more than upstream's messages always have, or a body has to be
        decrypted or converted first.
        """
        raise NotImplementedError


Document = dict[str, Any]
Pages = Iterator[Any]
"""An iterator over two things: an iterable of what was found, and the marker of the next page."""

DueListener = Callable[[str | None, str, list[StoredMessage]], None]
"""Called with a project, a queue and its delayed messages that have become visible."""


class QueueController(Protocol):
    """Queues, or topics."""

    def list(
        self,
        project: str | None = None,
        kfilter: Mapping[str, Any] | None = None,
        marker: str | None = None,
        limit: int = 10,
        detailed: bool = False,
        name: str | None = None,
    ) -> Pages:
        """A page of queues by name, those whose metadata have the members of `kfilter`."""
        ...

    def get_metadata(self, name: str, project: str | None = None) -> Metadata:
        """The metadata of a queue; raises `QueueDoesNotExist` or `TopicDoesNotExist`."""
        ...

    def set_metadata(self, name: str, metadata: Metadata, project: str | None = None) -> None:
        """Replace the metadata; raises `QueueDoesNotExist` or `TopicDoesNotExist`."""
        ...

    def create(
        self, name: str, metadata: Metadata | None = None, project: str | None = None
    ) -> bool:
        """Create a queue, unless there is one; whether it has been created."""
        ...

    def exists(self, name: str, project: str | None = None) -> bool: ...

    def delete(self, name: str, project: str | None = None) -> None:
        """Delete a queue with its messages, if there is one."""
        ...

    def stats(self, name: str, project: str | None = None) -> Any:
        """The counts of a queue: `messages` with `free`, `claimed`, `total`, `oldest`, `newest`."""
        ...

    def calculate_resource_count(self, project: str | None = None) -> int:
        """How many queues a project has."""
        ...


TopicController = QueueController


class MessageController(Protocol):
    """The messages of queues."""

    def post(
        self,
        queue: str,
        messages: Iterable[Document],
        client_uuid: uuid.UUID | str | None,
        project: str | None = None,
    ) -> Iterable[str]:
        """Store messages, in order; their ids."""
        ...

    def list(
        self,
        queue: str,
        project: str | None = None,
        marker: str | None = None,
        limit: int = 10,
        echo: bool = False,
        client_uuid: uuid.UUID | str | None = None,
        include_claimed: bool = False,
        include_delayed: bool = False,
    ) -> Pages:
        """A page of the messages that follow `marker`; see `StoreFeatures.markers`."""
        ...

    def first(self, queue: str, project: str | None = None, sort: int = 1) -> StoredMessage:
        """The oldest message, or with `sort=-1` the newest; raises `QueueIsEmpty`."""
        ...

    def get(self, queue: str, message_id: str, project: str | None = None) -> StoredMessage:
        """One message, or `MessageDoesNotExist`."""
        ...

    def bulk_get(
        self, queue: str, message_ids: Sequence[str], project: str | None = None
    ) -> Iterable[StoredMessage]:
        """Those of the messages that exist."""
        ...

    def delete(
        self, queue: str, message_id: str, project: str | None = None, claim: str | None = None
    ) -> None:
        """Delete a message; a claimed one only with its claim."""
        ...

    def bulk_delete(
        self,
        queue: str,
        message_ids: Sequence[str],
        project: str | None = None,
        claim_ids: Sequence[str] | None = None,
    ) -> None:
        """Delete messages that are not claimed, or whose claims are given."""
        ...

    def pop(
        self, queue: str, limit: int, project: str | None = None
    ) -> Iterable[StoredMessage] | None:
        """Take free messages out of the queue, oldest first; some drivers give None for none."""
        ...

    def restore(
        self, queue: str, popped: Sequence[StoredMessage], project: str | None = None
    ) -> None:
        """Put popped messages back in their places. Feature: `restores`."""
        ...

    def end(self, queue: str, project: str | None = None) -> str | None:
        """The marker of the last visible message. Feature: `MarkerKind.POSITION`."""
        ...

    def find_post(
        self, queue: str, post_id: str, size: int, project: str | None = None
    ) -> Sequence[str] | None:
        """The ids of a post of `size` messages that was made with this id; None for none.

        Feature: `post_id_seconds`. One that is not remembered any more is none.
        """
        ...

    def keeps_place(self, queue: str, marker: str | None, project: str | None = None) -> bool:
        """Whether what follows `marker` is found even if its message is gone.

        Feature: `keeps_places`. It may depend on the message.
        """
        ...


class ClaimController(Protocol):
    """Claims: leases on messages; `ttl` and `grace` in seconds."""

    def create(
        self,
        queue: str,
        metadata: Mapping[str, Any],
        project: str | None = None,
        limit: int = 10,
    ) -> tuple[str | None, Iterable[StoredMessage]]:
        """Claim free messages, oldest first; the claim's id and them, or None and none.

        `retry` in `metadata`: the `RetryDelay` of the messages. Feature: `Feature.RETRIES`.
        """
        ...

    def get(
        self, queue: str, claim_id: str, project: str | None = None
    ) -> tuple[Document, Iterable[StoredMessage]]:
        """A claim's `ttl` and `age`, and its messages; raises `ClaimDoesNotExist`."""
        ...

    def update(
        self, queue: str, claim_id: str, metadata: Mapping[str, Any], project: str | None = None
    ) -> None:
        """Renew a claim; raises `ClaimDoesNotExist`."""
        ...

    def delete(
        self,
        queue: str,
        claim_id: str,
        project: str | None = None,
        delay: float | None = None,
    ) -> None:
        """Release the messages of a claim, if there is one.

        delay: before they can be claimed again, in seconds. Feature: `Feature.RETRIES`.
        """
        ...

    def settle(
        self, queue: str, settlements: Sequence[Settlement], project: str | None = None
    ) -> list[Exception | None]:
        """Settle single messages of claims; why each was not, or None.

        Feature: `Feature.SETTLEMENTS`. Raises `NoDeadLetterQueue`.
        """
        ...

    def find_claimable(self, queues: Sequence[tuple[str | None, str]]) -> list[int]:
        """Which of some queues, each (project, name), may have a message to claim; their numbers.

        Feature: `finds_claimable`.
        """
        ...


class SubscriptionController(Protocol):
    """Subscriptions of queues; `ttl` in seconds."""

    def list(
        self,
        queue: str,
        project: str | None = None,
        marker: str | None = None,
        limit: int = 10,
    ) -> Pages:
        """A page of a queue's subscriptions, oldest first."""
        ...

    def get(self, queue: str, subscription_id: str, project: str | None = None) -> Document:
        """One subscription, or `SubscriptionDoesNotExist`."""
        ...

    def get_with_subscriber(
        self, queue: str, subscriber: str, project: str | None = None
    ) -> Document:
        """The subscription of a subscriber, or `SubscriptionDoesNotExist`."""
        ...

    def create(
        self,
        queue: str,
        subscriber: str,
        ttl: int,
        options: Document,
        project: str | None = None,
    ) -> str | None:
        """Subscribe; the new id, or None if the subscriber has a subscription already."""
        ...

    def update(
        self, queue: str, subscription_id: str, project: str | None = None, **kwargs: Any
    ) -> None:
        """Change `subscriber`, `ttl` or `options`.

        Raises `SubscriptionDoesNotExist` or `SubscriptionAlreadyExists`.
        """
        ...

    def exists(self, queue: str, subscription_id: str, project: str | None = None) -> bool: ...

    def delete(self, queue: str, subscription_id: str, project: str | None = None) -> None:
        """End a subscription, if there is one."""
        ...

    def confirm(
        self,
        queue: str,
        subscription_id: str,
        project: str | None = None,
        confirmed: bool = True,
    ) -> None:
        """Confirm a subscription, or take that back; raises `SubscriptionDoesNotExist`."""
        ...

    def count(self, queue: str, project: str | None = None) -> int:
        """How many subscriptions a queue has. Feature: `counts_subscriptions`."""
        ...


class RedriveController(Protocol):
    """Redrives of the queues of one store. Feature: `Feature.REDRIVES`."""

    def create(self, queue: str, new: NewRedrive, project: str | None = None) -> StoredRedrive:
        """Begin a redrive; raises `TooManyRedrives`."""
        ...

    def get(self, queue: str, redrive_id: str, project: str | None = None) -> StoredRedrive:
        """One redrive; raises `RedriveDoesNotExist`."""
        ...

    def list(
        self, queue: str, project: str | None = None, marker: str | None = None, limit: int = 10
    ) -> list[StoredRedrive]:
        """A page of redrives after the one with the id `marker`, oldest first."""
        ...

    def end(
        self,
        queue: str,
        redrive_id: str,
        project: str | None,
        state: State,
        reason: str | None = None,
    ) -> None:
        """End a redrive that runs; raises `RedriveDoesNotExist`."""
        ...

    def find_due(self, limit: int) -> DueRedrives:
        """Redrives whose next step is due: at most `limit` of them."""
        ...

    def step(self, redrive: RunningRedrive, targets: Collection[str]) -> Step:
        """Move some messages of a redrive in one transaction, if it is time.

        Several processes may ask: it is time for one of them.

        targets: the queues that may be used. The step ends before the first message that is for
            another one.
        """
        ...

    def forget(self, seconds: float) -> None:
        """Forget redrives that have been over for so long."""
        ...


class Usage(NamedTuple):
    """What a project has in one store.

    subscriptions: of all its queues. bytes: of the bodies and attributes of its messages, as they
        are stored. What has expired counts until it is removed.
    """

    subscriptions: int
    bytes: int


class UsageController(Protocol):
    """What projects have in one store, from counters. Feature: `counts_usage`."""

    def begin(self, has_bytes: Callable[[str | None], bool] | None) -> None:
        """Count from now on, together with all that is there. To begin again does no harm.

        has_bytes: whether the bytes of a project have to be counted; None where those of none have.
        """
        ...

    def get(self, project: str | None = None) -> Usage:
        """What a project has, after `begin`."""
        ...


class PoolsController(Protocol):
    """Pools: stores that queues are spread over."""

    def list(self, marker: str | None = None, limit: int = 10, detailed: bool = False) -> Pages: ...

    def create(
        self,
        name: str,
        weight: int,
        uri: str,
        flavor: str | None = None,
        options: Document | None = None,
    ) -> None:
        """Register a pool, or replace the one of that name."""
        ...

    def get_pools_by_flavor(
        self, flavor: Document | None = None, detailed: bool = False
    ) -> Iterable[Document]:
        """The pools of a flavor; those without one for None."""
        ...

    def get(self, name: str, detailed: bool = False) -> Document:
        """One pool, or `PoolDoesNotExist`."""
        ...

    def exists(self, name: str) -> bool: ...

    def delete(self, name: str) -> None:
        """Remove a pool; raises `PoolInUseByFlavor`."""
        ...

    def update(self, name: str, **kwargs: Any) -> None:
        """Change `weight`, `uri`, `flavor` or `options`; raises `PoolDoesNotExist`."""
        ...

    def drop_all(self) -> None: ...

    def capabilities(
        self, flavor: Document | None = None, name: str | None = None
    ) -> Iterable[Any]:
        """The capabilities of upstream's interface that the pools of a flavor have, or one pool."""
        ...


class FlavorsController(Protocol):
    """Flavors: names of groups of pools."""

    def list(
        self, project: str | None = None, marker: str | None = None, limit: int = 10
    ) -> Pages: ...

    def create(self, name: str, project: str | None = None, capabilities: Any = None) -> None:
        """Create a flavor, or replace the one of that name."""
        ...

    def get(self, name: str, project: str | None = None) -> Document:
        """One flavor, or `FlavorDoesNotExist`."""
        ...

    def exists(self, name: str, project: str | None = None) -> bool: ...

    def delete(self, name: str, project: str | None = None) -> None: ...

    def update(self, name: str, project: str | None = None, *, capabilities: Any = None) -> None:
        """Replace the capabilities; raises `FlavorDoesNotExist`."""
        ...

    def drop_all(self) -> None: ...


class CatalogueController(Protocol):
    """The catalogue: which pool has which queue."""

    def list(self, project: str | None) -> Iterable[Document]: ...

    def get(self, project: str | None, queue: str) -> Document:
        """The entry of a queue, or `QueueNotMapped`."""
        ...

    def exists(self, project: str | None, queue: str) -> bool: ...

    def insert(self, project: str | None, queue: str, pool: str) -> None:
        """Map a queue to a pool, whatever it was mapped to."""
        ...

    def delete(self, project: str | None, queue: str) -> None: ...

    def update(self, project: str | None, queue: str, pool: str | None = None) -> None:
        """Map a mapped queue to another pool; raises `QueueNotMapped`."""
        ...

    def drop_all(self) -> None: ...


class DataDriver(Protocol):
    """A driver of messages, claims and subscriptions, and of queues with their messages."""

    @property
    def queue_controller(self) -> QueueController: ...

    @property
    def topic_controller(self) -> TopicController | None: ...

    @property
    def message_controller(self) -> MessageController: ...

    @property
    def claim_controller(self) -> ClaimController: ...

    @property
    def subscription_controller(self) -> SubscriptionController: ...

    def is_alive(self) -> bool: ...

    def health(self) -> Document: ...

    def close(self) -> None: ...


class ControlDriver(Protocol):
    """A driver of queues (without their messages), pools, flavors and the catalogue."""

    @property
    def queue_controller(self) -> QueueController: ...

    @property
    def topic_controller(self) -> TopicController | None: ...

    @property
    def pools_controller(self) -> PoolsController: ...

    @property
    def flavors_controller(self) -> FlavorsController: ...

    @property
    def catalogue_controller(self) -> CatalogueController: ...

    def close(self) -> None: ...


class NewsChannel(Protocol):
    """A way to tell processes that share a store of news; see `storage.redis.news`."""

    def tell(self, process: str, news: bytes) -> bool: ...

    def listen(
        self, process: str, hear: Callable[[bytes], None], missed: Callable[[], None]
    ) -> None: ...


class Stores(NamedTuple):
    """The stores of a server.

    data, control: the drivers. features: what `data` can do. features_for: what the store of a
    queue (name, project) can do, which is one of several if there are pools. has_topics: whether
    topics can be kept. is_alive: whether both stores work, as far as they can say. purge: removes
    the messages that a queue (name, project) holds now and that are not claimed. redrives_for: the
    redrives of the store of a queue (name, project); None where it has none. all_redrives: those of
    all stores that have redrives. find_pool: the pool of a queue (name, project); None for one that
    is in none. usage: what counts the bytes and subscriptions of projects; None
    where the store does not count them.
    """

    data: DataDriver
    control: ControlDriver
    features: StoreFeatures
    features_for: Callable[[str, str | None], StoreFeatures]
    has_topics: bool
    is_alive: Callable[[], bool]
    purge: Callable[[str, str | None], None]
    redrives_for: Callable[[str, str | None], RedriveController | None]
    all_redrives: Callable[[], list[RedriveController]]
    find_pool: Callable[[str, str | None], str | None]
    usage: UsageController | None


def read_metadata(queues: QueueController, name: str, project: str | None) -> Metadata:
    """The metadata of a queue as they are now; empty if there is no such queue.

    Upstream makes queues when they are first used, so one that is missing is like an empty one.
    """
    try:
        return queues.get_metadata(name, project=project) or {}
    except errors.DoesNotExist:
        return {}
