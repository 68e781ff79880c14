"""Queues behind upstream's pools, which may move from one pool to another; see `storage.moves`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gevent
from gevent.lock import BoundedSemaphore
from zaqar.storage import base, errors, pipeline, pooling

from zaqar_gevent.settlements import Settlement
from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.core.pages import encode_id
from zaqar_gevent.storage.errors import StoreUnavailable
from zaqar_gevent.storage.features import Feature
from zaqar_gevent.storage.interface import DueListener, RedriveController, StoredMessage
from zaqar_gevent.storage.moves import Arrival, MarkState, QueueMoved, digest

PLACE_SECONDS = 10.0
"""How long a server remembers in which pool a queue is."""

WAIT_SECONDS = 5.0
"""How long a request waits while the last messages of its queue are moved."""

_PAUSE_SECONDS = 0.02
_MAX_PLACES = 10_000

# Whether a queue is here is part of the transaction of every write of messages and claims. For the
# rest it is asked behind: what is read from a place that the queue left later was right.
_ASKED_BEHIND = frozenset(
    {
        ('message_controller', 'list'),
        ('message_controller', 'first'),
        ('message_controller', 'get'),
        ('message_controller', 'bulk_get'),
        ('message_controller', 'end'),
        ('message_controller', 'keeps_place'),
        ('claim_controller', 'get'),
        ('claim_controller', 'find_claimable'),
        ('queue_controller', 'stats'),
        ('topic_controller', 'stats'),
    }
)


class Place(NamedTuple):
    """Where a queue is: a pool, its driver, and how the ids that came with the queue are known."""

    pool: str | None
    driver: base.DataDriverBase
    arrival: Arrival | None


def follow(storage: pooling.DataDriver) -> None:
    """Let callers follow queues that move to another pool."""
    catalogue = storage._pool_catalog
    catalogue.__class__ = Catalogue
    catalogue.places = {}
    catalogue.opening = BoundedSemaphore()
    storage.claim_controller.__class__ = ClaimController
    # They may have been made with upstream's.
    storage.queue_controller._get_controller = catalogue.get_queue_controller
    storage.topic_controller._get_controller = catalogue.get_topic_controller
    storage.message_controller._get_controller = catalogue.get_message_controller
    storage.claim_controller._get_controller = catalogue.get_claim_controller
    storage.subscription_controller._get_controller = catalogue.get_subscription_controller


class ClaimController(pooling.ClaimController):
    """Upstream's, with what only some pools can do."""

    def delete(
        self, queue: str, claim_id: str, project: str | None = None, delay: float | None = None
    ) -> None:
        control = self._get_controller(queue, project)
        if control:
            more = {} if delay is None else {'delay': delay}
            control.delete(queue, claim_id=claim_id, project=project, **more)

    def settle(
        self, queue: str, settlements: Sequence[Settlement], project: str | None = None
    ) -> list[Exception | None]:
        control = self._get_controller(queue, project)
        if not control:
            raise errors.QueueDoesNotExist(queue, project)
        settled: list[Exception | None] = control.settle(
            queue, settlements=settlements, project=project
        )
        return settled


class Catalogue(pooling.Catalog):
    """Upstream's catalogue of queues and their pools, which looks again where a queue has left."""

    places: dict[tuple[str | None, str], tuple[float, Place]]
    opening: BoundedSemaphore

    def get_driver(
        self, pool_id: str | None, pool_conf: dict[str, Any] | None = None
    ) -> base.DataDriverBase:
        if pool_id not in self._drivers:
            # One of several drivers of a pool would be closed while it is used.
            with self.opening:
                return super().get_driver(pool_id, pool_conf)  # type: ignore[no-any-return]
        return super().get_driver(pool_id, pool_conf)  # type: ignore[no-any-return]

    def find_place(self, queue: str, project: str | None) -> Place | None:
        """Where a queue is, as far as it is known; None for one that is in no pool."""
        key = (project, queue)
        known = self.places.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        # Before the catalogue is read: it must not count as newer than it is.
        until = time.monotonic() + PLACE_SECONDS
        try:
            pool = self._catalogue_ctrl.get(project, queue)['pool']
        except errors.QueueNotMapped:
            driver = self.get_default_pool(use_listing=False)
            return None if driver is None else Place(None, driver, None)
        driver = self.get_driver(pool)
        own = own_driver(driver)
        arrival = None if own is None else own.find_arrival(queue, project)
        place = Place(pool, driver, arrival)
        if len(self.places) >= _MAX_PLACES:
            self.places.clear()
        self.places[key] = until, place
        return place

    def forget(self, queue: str, project: str | None) -> None:
        """Look the queue up when it is used next."""
        self.places.pop((project, queue), None)

    def lookup(self, queue: str, project: str | None = None) -> base.DataDriverBase | None:
        place = self.find_place(queue, project)
        return None if place is None else place.driver

    def register(self, queue: str, project: str | None = None, flavor: str | None = None) -> None:
        super().register(queue, project=project, flavor=flavor)
        self.forget(queue, project)

    def deregister(self, queue: str, project: str | None = None) -> None:
        place = self.find_place(queue, project)
        if place is not None:
            # A queue that is being moved is deleted after the move.
            self.call(place, queue, project, functools.partial(_check, queue, project))
        super().deregister(queue, project)
        self.forget(queue, project)

    def get_message_controller(self, queue: str, project: str | None = None) -> Any:
        return self._follow(_Messages, 'message_controller', queue, project)

    def get_claim_controller(self, queue: str, project: str | None = None) -> Any:
        return self._follow(_Claims, 'claim_controller', queue, project)

    def get_subscription_controller(self, queue: str, project: str | None = None) -> Any:
        return self._follow(_Subscriptions, 'subscription_controller', queue, project)

    def get_queue_controller(self, queue: str, project: str | None = None) -> Any:
        return self._follow(_Controller, 'queue_controller', queue, project)

    def get_topic_controller(self, topic: str, project: str | None = None) -> Any:
        place = self.find_place(topic, project)
        if place is not None and place.driver.topic_controller is None:
            return None
        return self._follow(_Controller, 'topic_controller', topic, project)

    def get_redrive_controller(self, queue: str, project: str | None = None) -> Any:
        """The redrives of the pool of a queue; None where they are not offered."""
        place = self.find_place(queue, project)
        if place is None or _redrives_of(place) is None:
            return None
        return _Redrives(self, place, 'redrive_controller', queue, project)

    def call(
        self,
        place: Place,
        queue: str,
        project: str | None,
        work: Callable[[Place], Any],
    ) -> Any:
        """`work(place)`, and with another place if the queue is not in that one any more.

        Waits for a queue that is being moved. Raises `StoreUnavailable` if that takes too long.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return work(place)
            except QueueMoved as moved:
                self.forget(queue, project)
                found = self.find_place(queue, project)
                is_same = found is None or found.pool == place.pool
                if (moved.project, moved.queue) != (project or '', queue):
                    # Its dead letter queue is being moved.
                    is_same = True
                elif is_same and found is not None:
                    self._help(found, moved, queue, project)
                if is_same:
                    if time.monotonic() >= deadline:
                        raise StoreUnavailable(
                            f'The queue {moved.queue}', 'it is being moved to another pool'
                        ) from None
                    gevent.sleep(_PAUSE_SECONDS)
                place = found or place

    def _help(self, place: Place, moved: QueueMoved, queue: str, project: str | None) -> None:
        """Do what is left of a move that was interrupted."""
        mark = moved.mark
        if mark.state is MarkState.MOVED and mark.pool is not None:
            target = own_driver(self.get_driver(mark.pool))
            if target is not None:
                target.open_arrived(queue, project, mark.move)
                self._catalogue_ctrl.update(project, queue, mark.pool)
        elif mark.state is MarkState.LEFT:
            # It left, was deleted, and has been made here anew.
            own = own_driver(place.driver)
            if own is not None:
                own.forget_mark(queue, project)
        self.forget(queue, project)

    def _follow(self, kind: Any, name: str, queue: str, project: str | None) -> Any:
        place = self.find_place(queue, project)
        return None if place is None else kind(self, place, name, queue, project)


def own_driver(driver: Any) -> own_drivers.DataDriver | None:
    """This project's driver behind upstream's pipeline; None for another."""
    while isinstance(driver, pipeline.DataDriver):
        driver = driver._storage
    return driver if isinstance(driver, own_drivers.DataDriver) else None


class _Controller:
    """One of the controllers of the pool of a queue."""

    def __init__(
        self, catalogue: Catalogue, place: Place, name: str, queue: str, project: str | None
    ) -> None:
        self._catalogue = catalogue
        self._place = place
        self._name = name
        self._queue = queue
        self._project = project

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            return self._call(method, arguments, named)

        return call

    def _call(self, method: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        def work(place: Place) -> Any:
            controller = getattr(place.driver, self._name)
            try:
                if place.arrival is None:
                    return getattr(controller, method)(*arguments, **named)
                return self._translate(place, controller, method, arguments, dict(named))
            finally:
                # Also what is not found may have left.
                if self._is_asked_behind(method) and not _checks_reads(place):
                    _check(self._queue, self._project, place)

        return self._catalogue.call(self._place, self._queue, self._project, work)

    def _is_asked_behind(self, method: str) -> bool:
        return (self._name, method) in _ASKED_BEHIND

    def _translate(
        self,
        place: Place,
        controller: Any,
        method: str,
        arguments: Sequence[Any],
        named: dict[str, Any],
    ) -> Any:
        """The call with ids as the store of the pool has them, and its result as clients do."""
        return getattr(controller, method)(*arguments, **named)


class _Messages(_Controller):
    def _call(self, method: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        if 'messages' in named:
            # They may have to be given twice.
            named = {**named, 'messages': list(named['messages'])}
        return super()._call(method, arguments, named)

    def _translate(
        self,
        place: Place,
        controller: Any,
        method: str,
        arguments: Sequence[Any],
        named: dict[str, Any],
    ) -> Any:
        arrival = place.arrival
        assert arrival is not None
        if method == 'post':
            made = self._find_made(place, named['messages'])
            if made is not None:
                return made
        if 'message_id' in named:
            named['message_id'] = arrival.message_in(named['message_id'])
        if 'message_ids' in named:
            named['message_ids'] = [arrival.message_in(one) for one in named['message_ids']]
        if 'marker' in named:
            named['marker'] = arrival.marker_in(named['marker'])
        found = getattr(controller, method)(*arguments, **named)
        if method == 'post':
            return self._publish(arrival, controller, found)
        return self._translate_back(arrival, method, found)

    def _translate_back(self, arrival: Arrival, method: str, found: Any) -> Any:
        if method == 'list':
            page, *markers = found
            return iter((translate(arrival, page), *map(arrival.marker_out, markers)))
        if method in ('get', 'first'):
            return next(translate(arrival, [found]))
        if method in ('bulk_get', 'pop'):
            return list(translate(arrival, found or ()))
        return found

    def _find_made(self, place: Place, messages: Sequence[Mapping[str, Any]]) -> list[str] | None:
        """The ids of a post that was made before the queue came here."""
        post_id = messages[0].get('post_id') if messages else None
        own = own_driver(place.driver)
        if post_id is None or own is None:
            return None
        made = own.find_carried(self._queue, self._project, digest(str(post_id)))
        if not isinstance(made, int):
            return made
        arrival, ids = place.arrival, [encode_id(made + one) for one in range(len(messages))]
        if arrival is None or arrival.ranked is None:
            return ids
        return self._publish(
            arrival, place.driver.message_controller, [arrival.message_in(one) for one in ids]
        )

    def _publish(self, arrival: Arrival, controller: Any, own_ids: Sequence[str]) -> list[str]:
        """The ids that clients know of some messages.

        Of those that were posted to a Redis, only the messages themselves tell them; where they are
        gone, their numbers stand for them.
        """
        ids = [arrival.message_out(one) for one in own_ids]
        if arrival.ranked is None or not any(map(arrival.has_message, own_ids)):
            return ids
        found = controller.bulk_get(self._queue, message_ids=list(own_ids), project=self._project)
        known = {one['id']: one.get('known_as') for one in found}
        return [known.get(own) or public for own, public in zip(own_ids, ids, strict=True)]


class _Claims(_Controller):
    def _translate(
        self,
        place: Place,
        controller: Any,
        method: str,
        arguments: Sequence[Any],
        named: dict[str, Any],
    ) -> Any:
        arrival = place.arrival
        assert arrival is not None
        if 'settlements' in named:
            named['settlements'] = [
                one._replace(message_id=arrival.message_in(one.message_id))
                for one in named['settlements']
            ]
        found = getattr(controller, method)(*arguments, **named)
        if method in ('create', 'get'):
            claim, messages = found
            return claim, translate(arrival, messages)
        return found


class _Subscriptions(_Controller):
    def _call(self, method: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        if method != 'create':
            return super()._call(method, arguments, named)
        made: list[Any] = []

        def work(place: Place) -> Any:
            controller = getattr(place.driver, self._name)
            arrival = place.arrival
            created = controller.create(*arguments, **named)
            if created is None and made:
                # It was made before, and has come here with its queue.
                queue, subscriber, *_ = arguments
                created = controller.get_with_subscriber(queue, subscriber, project=self._project)[
                    'id'
                ]
            made.append(created)
            _check(self._queue, self._project, place)
            return (
                created
                if arrival is None or created is None
                else (arrival.subscription_out(created))
            )

        return self._catalogue.call(self._place, self._queue, self._project, work)

    def _is_asked_behind(self, method: str) -> bool:
        # Where they are, nothing else asks. To change one twice does no harm.
        return True

    def _translate(
        self,
        place: Place,
        controller: Any,
        method: str,
        arguments: Sequence[Any],
        named: dict[str, Any],
    ) -> Any:
        arrival = place.arrival
        assert arrival is not None
        if method in ('get', 'update', 'delete', 'exists', 'confirm'):
            queue, subscription_id, *rest = arguments
            arguments = (queue, arrival.subscription_in(str(subscription_id)), *rest)
        if named.get('marker'):
            named['marker'] = arrival.subscription_in(named['marker'])
        found = getattr(controller, method)(*arguments, **named)
        if method == 'list':
            page, marker = found
            return iter(
                (
                    iter([{**one, 'id': arrival.subscription_out(one['id'])} for one in page]),
                    marker and arrival.subscription_out(marker),
                )
            )
        if method in ('get', 'get_with_subscriber'):
            return {**found, 'id': arrival.subscription_out(found['id'])}
        return found


class _Redrives(_Controller):
    """The redrives of a queue. They stay in the pool that it leaves, where none of them runs.

    Equal to those of other queues of the same pool.
    """

    def __eq__(self, other: object) -> bool:
        own = _redrives_of(self._place)
        return own is (_redrives_of(other._place) if isinstance(other, _Redrives) else other)

    __hash__ = None  # type: ignore[assignment]

    def _call(self, method: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        def work(place: Place) -> Any:
            controller = _redrives_of(place)
            if controller is None:
                raise StoreUnavailable(
                    f'The queue {self._queue}', 'its new pool does not offer redrives'
                )
            try:
                return getattr(controller, method)(*arguments, **named)
            finally:
                _check(self._queue, self._project, place)

        return self._catalogue.call(self._place, self._queue, self._project, work)


def translate(arrival: Arrival, messages: Iterable[StoredMessage]) -> Iterator[StoredMessage]:
    """Messages with the ids that clients know."""
    found = []
    for one in messages:
        known = {**one, 'id': arrival.message_out(one['id'], one.get('known_as'))}
        known.pop('known_as', None)
        if 'position' in one:
            known['position'] = arrival.message_out(one['position'])
        found.append(known)
    return iter(found)


def heard(driver: base.DataDriverBase, listener: DueListener) -> DueListener:
    """The listener of a pool, which is told ids as clients know them."""

    def listen(project: str | None, queue: str, messages: list[StoredMessage]) -> None:
        own = own_driver(driver)
        arrival = None if own is None else own.find_arrival(queue, project)
        if arrival is not None:
            messages = list(translate(arrival, messages))
        listener(project, queue, messages)

    return listen


def _redrives_of(place: Place) -> RedriveController | None:
    own = own_driver(place.driver)
    if own is None or Feature.REDRIVES not in own.features.offered:
        return None
    return own.redrive_controller


def _checks_reads(place: Place) -> bool:
    own = own_driver(place.driver)
    return own is not None and own.checks_reads


def _check(queue: str, project: str | None, place: Place) -> None:
    own = own_driver(place.driver)
    if own is not None:
        own.check_here(queue, project)
