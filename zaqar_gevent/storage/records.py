"""Records: the contents of a store in the form in which they are copied to another.

Times are seconds since the epoch. A project of None is the empty text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from zaqar_gevent.bodies import Body

Options = dict[str, Any]


class QueueRecord(NamedTuple):
    """A queue or a topic. kind: `queue` or `topic`."""

    kind: str
    project: str
    name: str
    metadata: Options


class ClaimRecord(NamedTuple):
    """A claim that has not expired. ttl: in seconds."""

    id: str
    ttl: int
    expires: float


NO_EXTRAS: Mapping[str, Any] = MappingProxyType({})


class MessageRecord(NamedTuple):
    """A message that has not expired.

    ttl: in seconds. due: when a delayed message becomes visible; 0 for a visible one. client: the
    UUID of the client that posted it, if it is known. claim: the claim that holds the message.
    retry_at: when a message can be claimed again that waits for its retry, in its place; 0 for any
        other.
    extras: what upstream's messages do not have: `attributes` and `dead_letter`, which are objects,
        and `group`, a text.
    """

    id: str
    body: Body
    ttl: int
    created: float
    expires: float
    due: float = 0.0
    client: str | None = None
    checksum: str | None = None
    claim_count: int = 0
    claim: ClaimRecord | None = None
    extras: Mapping[str, Any] = NO_EXTRAS
    retry_at: float = 0.0


class SubscriptionRecord(NamedTuple):
    """A subscription to the queue or topic `source`. ttl: in seconds."""

    id: str
    project: str
    source: str
    subscriber: str
    ttl: int
    expires: float
    is_confirmed: bool
    options: Options


class PoolRecord(NamedTuple):
    """A pool. weight: its share of new queues. flavor: the name of its flavor."""

    name: str
    uri: str
    weight: int
    flavor: str | None
    options: Options


class FlavorRecord(NamedTuple):
    """A flavor."""

    project: str
    name: str
    capabilities: Any


class PlaceRecord(NamedTuple):
    """An entry of the catalogue: the pool that keeps a queue."""

    project: str
    queue: str
    pool: str


Record = QueueRecord | SubscriptionRecord | PoolRecord | FlavorRecord | PlaceRecord


class ReadableStore(Protocol):
    """A store that can be read whole.

    kind: `sqlite`, `redis` or `postgresql`. identity: equal for two ways to the same store only.
    """

    kind: str

    @property
    def identity(self) -> object: ...

    def read_queues(self) -> Iterator[QueueRecord]: ...

    def count_messages(self, queue: QueueRecord) -> int:
        """How many messages a queue has, about."""
        ...

    def read_messages(self, queue: QueueRecord) -> Iterator[MessageRecord]:
        """The messages of a queue: the visible ones in order, then those that are delayed, by when
        they are due.
        """
        ...

    def read_subscriptions(self, queue: QueueRecord) -> Iterator[SubscriptionRecord]: ...

    def read_pools(self) -> Iterator[PoolRecord]: ...

    def read_flavors(self) -> Iterator[FlavorRecord]: ...

    def read_places(self) -> Iterator[PlaceRecord]: ...

    def close(self) -> None: ...


class WritableStore(Protocol):
    """A store that records can be copied to. A record that is written twice is there once.

    can_keep_ids: whether messages and subscriptions of a store of the same kind keep their ids.
    """

    kind: str
    can_keep_ids: bool

    @property
    def identity(self) -> object: ...

    def refuses(self, queue: QueueRecord) -> str | None:
        """Why a queue of this name cannot be kept there; None if it can."""
        ...

    def write_queue(self, queue: QueueRecord) -> None: ...

    def write_messages(
        self, queue: QueueRecord, messages: Sequence[MessageRecord], *, keep_ids: bool
    ) -> int:
        """Add messages behind those that the queue has, in one transaction.

        Those that have been written before are left out; how many were new. With `keep_ids` they
        have the same ids as before, and new ones otherwise.
        """
        ...

    def write_subscription(self, subscription: SubscriptionRecord, *, keep_ids: bool) -> None: ...

    def write_pool(self, pool: PoolRecord) -> None: ...

    def write_flavor(self, flavor: FlavorRecord) -> None: ...

    def write_place(self, place: PlaceRecord) -> None: ...

    def close(self) -> None: ...


REMEMBER_SECONDS = 7 * 24 * 60 * 60
"""How long a store knows which messages were written to it, so that a copy can be continued."""
