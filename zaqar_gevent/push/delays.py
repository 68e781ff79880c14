"""Notifies subscribers and waiting clients of delayed messages when they are due.

The embedded store says when that is. For other stores it is remembered here, by the process that
took the post, and forgotten with it: then lists and claims find the messages all the same.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Collection, Mapping, Sequence
from logging import WARNING
from typing import Any, NamedTuple

import gevent
from gevent.event import Event
from oslo_log import log
from zaqar.storage import errors as storage_errors

from zaqar_gevent.api.broker import Broker
from zaqar_gevent.api.push import Source
from zaqar_gevent.bodies import Encoding
from zaqar_gevent.logs import level_of
from zaqar_gevent.storage.interface import read_metadata

LOG = log.getLogger(__name__)

MAX_REMEMBERED = 100_000
"""Messages that are remembered here; for more, nobody is told when they are due."""

# Messages are read so long before they are due that nobody can have taken them yet.
_READ_SECONDS = 0.05
_AT_ONCE = 100
_WHOLE_SECOND = 1.05


class _Delayed(NamedTuple):
    """A message that was delayed; `due` is in seconds of `time.time`, as the stores' times are.

    message_id: None for retries, of which webhooks are not told.
    """

    due: float
    number: int
    source: Source
    message_id: str | None
    delay: float
    passed: str | None


class Delays:
    """Tells of delayed messages; see `zaqar_gevent.api.delivery.DelayedDelivery`.

    Stores that report due messages call `became_due` themselves.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waiting: list[_Delayed] = []
        self._numbers = itertools.count()
        self._added = Event()
        self._is_running = False

    def became_due(
        self, project_id: str | None, queue_name: str, messages: Sequence[dict[str, Any]]
    ) -> None:
        """Messages of a queue are visible now; those of `messages` are sent to webhooks.

        They are as the store has them, each with its `delay` in seconds and what it has `passed`.
        """
        broker = self._broker
        source = Source(project_id, queue_name)
        try:
            policy = self._get_retry_policy(source) if messages else {}
            for message in messages:
                if message['body'].encoding is Encoding.ENCRYPTED:
                    message['body'] = broker.cipher.decrypt(message['body'], project_id)
            broker.notifier.became_due(source, messages, policy)
        except Exception as error:
            LOG.log(
                level_of(error, WARNING),
                'Subscribers of %s are not told of delayed messages: %s',
                queue_name,
                error,
            )

    def remember(
        self,
        source: Source,
        messages: Sequence[Mapping[str, Any]],
        ids: Sequence[str],
        passed: str | None,
    ) -> None:
        if self._broker.features_for(source.name, source.project_id).reports_due:
            return
        now = time.time()
        for message, message_id in zip(messages, ids, strict=False):
            delay = message.get('delay')
            if delay and not self._add(now, source, message_id, delay, passed):
                return
        self._start()

    def remember_retries(self, source: Source, delays: Collection[float]) -> None:
        if self._broker.features_for(source.name, source.project_id).reports_due:
            return
        now = time.time()
        for delay in set(delays):
            if delay > 0 and not self._add(now, source, None, delay, None):
                return
        self._start()

    def _add(
        self, now: float, source: Source, message_id: str | None, delay: float, passed: str | None
    ) -> bool:
        """Remember a message; False if there are too many."""
        if len(self._waiting) >= MAX_REMEMBERED:
            LOG.warning('Too many messages are delayed: nobody is told when some are due')
            return False
        delayed = _Delayed(now + delay, next(self._numbers), source, message_id, delay, passed)
        heapq.heappush(self._waiting, delayed)
        return True

    def _start(self) -> None:
        self._added.set()
        if self._waiting and not self._is_running:
            self._is_running = True
            gevent.spawn(self._run)

    def _get_retry_policy(self, source: Source) -> dict[str, Any]:
        broker = self._broker
        try:
            metadata = broker.queues.get_metadata(source.name, project=source.project_id)
        except storage_errors.DoesNotExist:
            if not broker.has_topics:
                return {}
            metadata = read_metadata(broker.topics, source.name, source.project_id)
        return (metadata or {}).get('_retry_policy') or {}

    def _run(self) -> None:
        while self._waiting:
            self._added.clear()
            left = self._waiting[0].due - time.time()
            if left > _READ_SECONDS:
                self._added.wait(left - _READ_SECONDS)
                continue
            batch = self._take()
            found = self._read(batch)
            gevent.sleep(max(0.0, batch[-1].due - time.time()))
            self._tell(batch, found)
        self._is_running = False

    def _take(self) -> list[_Delayed]:
        """Messages that are due within a moment."""
        until = time.time() + _READ_SECONDS
        batch = [heapq.heappop(self._waiting)]
        while len(batch) < _AT_ONCE and self._waiting and self._waiting[0].due <= until:
            batch.append(heapq.heappop(self._waiting))
        return batch

    def _read(self, batch: list[_Delayed]) -> dict[str, dict[str, Any]]:
        """The messages that are still there, by id."""
        found: dict[str, dict[str, Any]] = {}
        for source in dict.fromkeys(one.source for one in batch):
            ids = [one.message_id for one in batch if one.source == source and one.message_id]
            if not ids:
                continue
            try:
                messages = self._broker.messages.bulk_get(
                    source.name, message_ids=ids, project=source.project_id
                )
                found.update({str(message['id']): dict(message) for message in messages})
            except Exception as error:
                LOG.log(
                    level_of(error, WARNING),
                    'Delayed messages of %s cannot be read: %s',
                    source.name,
                    error,
                )
        return found

    def _tell(self, batch: list[_Delayed], found: dict[str, dict[str, Any]]) -> None:
        for source in dict.fromkeys(one.source for one in batch):
            messages = [
                found[one.message_id] | {'delay': one.delay, 'passed': one.passed}
                for one in batch
                if one.source == source and one.message_id in found
            ]
            self.became_due(*source, messages)
            # In stores that count whole seconds, the messages are visible only now.
            gevent.spawn_later(_WHOLE_SECOND, self._tell_again, source)

    def _tell_again(self, source: Source) -> None:
        try:
            self._broker.notifier.freed(source.name, source.project_id)
        except Exception as error:
            LOG.log(
                level_of(error, WARNING),
                'Nobody is told of delayed messages of %s: %s',
                source.name,
                error,
            )
