"""The broker: the stores, limits, defaults and cipher that operations use."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypedDict, TypeVar, cast

from oslo_config import cfg
from zaqar.storage import errors as storage_errors
from zaqar.transport import validation
from zaqar.transport.base import ResourceDefaults

from zaqar_gevent import markers, retry_delays
from zaqar_gevent.api import documents, errors, scheduling
from zaqar_gevent.api.attributes import AttributeLimits
from zaqar_gevent.api.delivery import DelayedDelivery
from zaqar_gevent.api.documents import MAX_DEPTH
from zaqar_gevent.api.health import Health
from zaqar_gevent.api.loops import Loops
from zaqar_gevent.api.networks import Networks
from zaqar_gevent.api.notifier import Notifier
from zaqar_gevent.api.operation import Kind
from zaqar_gevent.api.project_quotas import ProjectQuotas
from zaqar_gevent.api.push import Source
from zaqar_gevent.api.quotas import Quotas
from zaqar_gevent.api.quotas import quotas as make_quotas
from zaqar_gevent.api.ttl_cache import TTLCache
from zaqar_gevent.encryption.options import build_cipher
from zaqar_gevent.message_groups import are_ordered
from zaqar_gevent.quota_options import Limits as QuotaLimits
from zaqar_gevent.storage.features import Feature
from zaqar_gevent.storage.interface import (
    ClaimController,
    MessageController,
    QueueController,
    Stores,
    SubscriptionController,
    TopicController,
)

Controller = TypeVar('Controller')

_MOST_METADATA_BYTES = 16 * 1024 * 1024
"""Of metadata that are remembered, as JSON."""

_CONTROL = re.compile(r'[\x00-\x1f\x7f]')


class Capabilities(TypedDict):
    """The protocols and limits of a server, for clients that adapt to them.

    `protocols`: the WebSocket subprotocols beside the default envelope. `max_message_size` in
    bytes. `ping_interval`, `idle_timeout` and `max_wait` (of long polling) in seconds.
    `idempotency_seconds`: for how long a `post_id` is remembered; 0 where it cannot be given, or
    where that depends on the pool of a queue.
    """

    server: str
    protocols: list[str]
    max_in_flight: int
    max_message_size: int
    ping_interval: float
    idle_timeout: float
    max_wait: int
    idempotency_seconds: int


class _Snapshot:
    """The values of a group of options as they were at start, but for those that may be changed
    while the server runs.

    PERF: oslo.config looks a value up anew each time, through three of its classes; a post asks
    for eight values.
    """

    def __init__(self, group: Any) -> None:
        self._group = group
        vars(self).update({name: group[name] for name in group if not hasattr(_Snapshot, name)})

    client_id_uuid_safe = property(operator.attrgetter('_group.client_id_uuid_safe'))
    message_delete_with_claim_id = property(
        operator.attrgetter('_group.message_delete_with_claim_id')
    )

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


class AnswerLimiter(Protocol):
    """Limits the operations with long answers that are performed at once."""

    def place(self, project: str | None) -> AbstractContextManager[bool]:
        """Hold a place for an operation of `project`; yields whether it had to wait for one."""
        ...

    def report(self, project: str | None, size: int) -> None:
        """An answer to `project` has `size` bytes."""
        ...


class _Unlimited:
    """Room for everything."""

    def place(self, project: str | None) -> AbstractContextManager[bool]:
        return nullcontext(False)

    def report(self, project: str | None, size: int) -> None:
        pass


class NameChecker(Protocol):
    """Refuses names that the store cannot tell apart; raises `ValidationFailed`."""

    def check_project(self, project: str) -> None: ...

    def check_queue(self, queue: str, project: str | None) -> None: ...


class Limits(validation.Validator):
    """Upstream's validator on the limits as they were at start, and for the names of the store.

    max_post_bytes: `[transport] max_messages_post_size`.
    """

    def __init__(self, conf: cfg.ConfigOpts, names: NameChecker | None = None) -> None:
        super().__init__(conf)
        self._limits_conf: Any = _Snapshot(conf.transport)
        self.max_post_bytes: int = conf.transport.max_messages_post_size
        self._names = names

    def queue_identification(self, queue: str, project: str | None) -> None:
        super().queue_identification(queue, project)
        if self._names is not None:
            self._names.check_queue(queue, project)

    def topic_identification(self, topic: str, project: str | None) -> None:
        super().topic_identification(topic, project)
        if self._names is not None:
            self._names.check_queue(topic, project)

    def project_identification(self, project: str) -> None:
        """Raise `ValidationFailed` for what cannot be the id of a project."""
        if project != project.strip():
            raise validation.ValidationFailed(
                'The header X-Project-ID must not begin or end with white space.'
            )
        if _CONTROL.search(project):
            raise validation.ValidationFailed(
                'The header X-Project-ID must not hold control characters.'
            )
        if self._names is not None:
            self._names.check_project(project)

    def claim_updating(self, metadata: dict[str, Any]) -> None:
        """Upstream's check, and one of the grace, which upstream checks at creation only."""
        super().claim_updating(metadata)
        most = self._limits_conf.max_claim_grace
        if not 0 <= metadata['grace'] <= most:
            raise validation.ValidationFailed(
                f'The grace of a claim may be 0 to {most} seconds - at `$.grace`'
            )

    def queue_metadata_putting(self, queue_metadata: dict[str, Any] | None) -> None:
        super().queue_metadata_putting(queue_metadata)
        count = (queue_metadata or {}).get('_max_claim_count')
        if count is not None and count < 0:
            raise validation.ValidationFailed(
                '_max_claim_count must be 1 or more, or 0 for no limit - at `$._max_claim_count`'
            )

    def _validate_retry_policy(self, metadata: dict[str, Any] | None) -> None:
        """A member that is null is one that is not given; upstream compares it with numbers."""
        policy = (metadata or {}).get('_retry_policy') or {}
        given = {name: value for name, value in policy.items() if value is not None}
        super()._validate_retry_policy({'_retry_policy': given})


class Defaults(ResourceDefaults):
    """Upstream's defaults of times to live as they were at start."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf)
        self._defaults: Any = _Snapshot(conf.transport)


class Broker:
    """One set of stores and the rules that hold for what is kept in them.

    queues, topics, messages, claims, subscriptions: the store's controllers.
    storage, control: its drivers. features: what it can do.
    features_for: what the store of a queue (name, project) can do, which may be one of several.
    health: whether the store works.
    limits: upstream's validator, which knows the operator's `[transport]` options.
    defaults: what `[transport]` says of times to live.
    metadata: the metadata of queues, remembered for `metadata_seconds`.
    max_depth: the most levels that a document may be nested in.
    cipher: encrypts and decrypts the bodies of messages.
    has_topics: whether the store has topics; upstream's for Redis has none.
    notifier: what tells subscribers; remembers the subscriptions of a queue for
        `subscription_seconds`.
    delays: tells of delayed messages when they are due, where clients can be connected.
    attributes: how many attributes a message may have, and how long.
    max_schedule_ahead: how far ahead a message may be scheduled, in seconds.
    networks: where webhooks may go. loops: recognises messages that webhooks bring back.
    quotas: how much projects, connections and queues may have at a time.
    project_quotas: how many queues, messages and requests projects may have.
    capabilities: what clients are told about the server.
    purge: removes the messages that a queue (name, project) holds now and that are not claimed.
    redrives_for: the redrives of the store of a queue (name, project); None where it has none.
    all_redrives: those of all stores that have redrives.
    find_pool: the pool of a queue (name, project); None for one that is in none.
    redrives: how many may run; told when one begins.
    reading: made and held while something is read from stores that do not bound it by themselves,
        None for those that do; raises `errors.ServiceUnavailable` when it takes too long.
    room: limits the operations with long answers that are performed at once.
    descriptions: what builds the documents that describe each transport, by the document's name.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        stores: Stores,
        capabilities: Capabilities,
        metadata_seconds: float,
        subscription_seconds: float = 1.0,
        max_depth: int = MAX_DEPTH,
        names: NameChecker | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        self.conf = conf
        self.quotas = quotas or make_quotas()
        self.project_quotas = ProjectQuotas(QuotaLimits(), lambda: self.queues)
        self.storage = storage = stores.data
        self.control = stores.control
        self.features = stores.features
        self.has_topics = stores.has_topics
        self.health = Health(stores.is_alive)
        self.limits = Limits(conf, names)
        self.defaults = Defaults(conf)
        self.max_depth = max_depth
        self.cipher = build_cipher(conf)
        self.metadata: TTLCache[dict[str, Any]] = TTLCache(
            metadata_seconds,
            most=_MOST_METADATA_BYTES,
            weigh=lambda found: len(documents.encode_json(found)),
        )
        self.attributes = AttributeLimits()
        self.max_schedule_ahead: float = scheduling.MAX_SECONDS
        self.networks = Networks()
        self.loops = Loops(conf, is_local=stores.features.is_local)
        self.notifier = Notifier(
            conf, storage.subscription_controller, subscription_seconds, self.loops
        )
        self.delays: DelayedDelivery | None = None
        self.purge = stores.purge
        self.capabilities = capabilities
        self.features_for = stores.features_for
        self.redrives_for = stores.redrives_for
        self.all_redrives = stores.all_redrives
        self.find_pool = stores.find_pool
        self.redrives = RedriveLimits()
        self.answer_limiter: AnswerLimiter = _Unlimited()
        self.reading: Callable[[], AbstractContextManager[Any]] | None = None
        self.descriptions: dict[str, Callable[[], dict[str, Any]]] = {}

    @functools.cached_property
    def queues(self) -> QueueController:
        return self.storage.queue_controller

    @functools.cached_property
    def topics(self) -> TopicController:
        """Only where `has_topics`."""
        return cast(TopicController, self.storage.topic_controller)

    @functools.cached_property
    def messages(self) -> MessageController:
        return _without_stages(self.storage.message_controller)

    @functools.cached_property
    def claims(self) -> ClaimController:
        return _without_stages(self.storage.claim_controller)

    @functools.cached_property
    def subscriptions(self) -> SubscriptionController:
        return self.storage.subscription_controller

    def count_subscriptions(self, queue_name: str, project: str | None) -> int:
        """How many subscriptions a queue has, as far as messages are sent to them."""
        if self.features.counts_subscriptions:
            return self.subscriptions.count(queue_name, project=project)
        return len(self.notifier.subscriptions_of(queue_name, project))

    def require(self, feature: Feature, queue_name: str, project: str | None, place: str) -> None:
        """Raise `errors.BadRequest` where the store of a queue lacks a feature.

        place: what asks for it in the request.
        """
        if feature not in self.features_for(queue_name, project).offered:
            lack = self.lack_of(feature, queue_name, project)
            raise errors.BadRequest(f'{lack}; leave it out - at `{place}`')

    def lack_of(self, feature: Feature, queue_name: str, project: str | None) -> str:
        """What to tell of a feature that the store of a queue does not have."""
        remedy = self.features_for(queue_name, project).remedy
        lack = f'The store of this queue cannot {feature.value}'
        return f'{lack} ({remedy})' if remedy else lack

    def released(
        self, queue_name: str, project_id: str | None, delays: Collection[float] = ()
    ) -> None:
        """Tell those who wait that messages were released, now and when the `delays` are over.

        delays: those that were asked for, in seconds.
        """
        self.notifier.freed(queue_name, project_id)
        if delays and self.delays is not None:
            self.delays.remember_retries(Source(project_id, queue_name), delays)

    def deleted(self, queue_name: str, project: str | None) -> None:
        """Tell those who wait that messages were deleted, which may have held up their groups."""
        if are_ordered(self._known_metadata_of(queue_name, project)):
            self.notifier.freed(queue_name, project)

    def has_ordered_groups(self, queue_name: str, project: str | None) -> bool:
        """Whether one worker at a time has messages of a group."""
        return are_ordered(self._known_metadata_of(queue_name, project))

    def with_retry_delay(
        self, lease: Mapping[str, Any], queue_name: str, project: str | None
    ) -> Mapping[str, Any]:
        """A lease with the retry delay of the queue, if it has one."""
        metadata = self._known_metadata_of(queue_name, project)
        if '_retry_delay' not in metadata:
            return lease
        retry = retry_delays.of(metadata)
        return lease if retry is None else {**lease, 'retry': retry}

    def _known_metadata_of(self, queue_name: str, project: str | None) -> dict[str, Any]:
        """The metadata of a queue as they were a moment ago; empty if there is no such queue."""
        try:
            return self.metadata.get(
                (Kind.QUEUE, project, queue_name),
                lambda: self.queues.get_metadata(queue_name, project) or {},
            )
        except storage_errors.DoesNotExist:
            return {}

    def check_marker(self, marker: str) -> None:
        """Raise `MarkerNotGiven` for a text that has not the form of this store's markers."""
        markers.check_form(marker, self.features.markers)

    def limit(self, name: str) -> Any:
        """The value of the `[transport]` option `name`."""
        return self.limits.get_limit_conf_value(name)


class RedriveLimits:
    """How many redrives may run at a time.

    began: called when a redrive has begun; set by the task that runs redrives.
    """

    def __init__(self, of_queue: int = 10, of_project: int = 100) -> None:
        self.of_queue, self.of_project = of_queue, of_project
        self.began: Callable[[], None] = lambda: None


def _without_stages(controller: Controller) -> Controller:
    """The controller itself, where it is the only stage of upstream's pipeline.

    PERF: the pipeline looks for the method in each stage on every call.
    """
    match vars(controller):
        case {'_pipeline': [only]}:
            return cast(Controller, only)
    return controller
