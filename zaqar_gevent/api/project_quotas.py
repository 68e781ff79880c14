"""The quotas of projects, by the options `[quota]`; see `zaqar_gevent.quota_options`.

Queues, messages, bytes and subscriptions are counted by the store, for all processes that share it.
What this process is about to add counts as well, so that requests at the same moment do not pass a
limit together; those to other processes may. Requests are counted by each process for itself.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypedDict

from zaqar.storage import errors as storage_errors

from zaqar_gevent.api import errors
from zaqar_gevent.quota_options import Limits, ProjectLimits
from zaqar_gevent.storage.interface import QueueController, Usage, UsageController

RETRY_SECONDS = 5
"""After which a client may ask again for what only others can make room for."""

_MOST_BUCKETS = 10_000


class QuotaUsage(TypedDict):
    """How many a project has, and how many it may have; null for what is not counted for the
    project, or not limited.
    """

    used: int | None
    allowed: int | None


class ProjectQuotas:
    """Refuses what would exceed the limits of a project.

    queues: the controller that counts them. usage: what counts bytes and subscriptions, where the
        store can. clock: in seconds.
    """

    def __init__(
        self,
        limits: Limits,
        queues: Callable[[], QueueController],
        usage: UsageController | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._queues = queues
        self._usage = usage
        self._clock = clock
        self._new_queues: Counter[str | None] = Counter()
        self._new_messages: Counter[tuple[str | None, str]] = Counter()
        self._new_bytes: Counter[str | None] = Counter()
        self._new_subscriptions: Counter[str | None] = Counter()
        self._buckets: dict[str | None, tuple[float, float]] = {}
        self._connections: dict[object, str | None] = {}
        self._connected: Counter[str | None] = Counter()
        # PERF: what is not limited for anybody costs no more than a look at these.
        self.limit_queues = limits.limit_any('zaqar_queues')
        self.limit_bytes = limits.limit_any('zaqar_bytes')
        self.limit_posts = self.limit_bytes or limits.limit_any('zaqar_messages_per_queue')
        self.limit_subscriptions = limits.limit_any('zaqar_subscriptions')
        self.limit_requests = limits.limit_any('zaqar_requests_per_second')
        self.limit_connections = limits.limit_any('zaqar_connections')

    def limits_of(self, project: str | None) -> ProjectLimits:
        """The limits of a project."""
        return self._limits.of(project)

    def usage_of(self, project: str | None) -> dict[str, QuotaUsage]:
        """What a project uses and may use, by the names of the options."""
        limits = self._limits.of(project)
        used = {'zaqar_queues': self._queues().calculate_resource_count(project=project)}
        # What is not limited need not be counted.
        if limits.zaqar_bytes is not None:
            used['zaqar_bytes'] = self._usage_of(project).bytes
        if limits.zaqar_subscriptions is not None:
            used['zaqar_subscriptions'] = self._usage_of(project).subscriptions
        if self.limit_connections:
            used['zaqar_connections'] = self._connected[project]
        return {
            name: {'used': used.get(name), 'allowed': allowed}
            for name, allowed in limits._asdict().items()
        }

    def count_request(self, project: str | None) -> None:
        """Count a request; raises `errors.QuotaExceeded` for one too many in a second."""
        most = self._limits.of(project).zaqar_requests_per_second
        if most is None:
            return
        now = self._clock()
        left, counted_at = self._buckets.get(project, (float(most), now))
        left = min(float(most), left + (now - counted_at) * most)
        if left < 1:
            raise errors.QuotaExceeded(
                f'This project may make at most {most} requests a second '
                '([quota] zaqar_requests_per_second).',
                retry_after=math.ceil((1 - left) / most) if most else RETRY_SECONDS,
            )
        if project not in self._buckets and len(self._buckets) >= _MOST_BUCKETS:
            self._forget_idle(now)
        self._buckets[project] = left - 1, now

    def _forget_idle(self, now: float) -> None:
        """Forget who has made no request for a second, which is as good as never."""
        self._buckets = {
            project: (left, at) for project, (left, at) in self._buckets.items() if now - at < 1
        }

    def connected(self, connection: object, project: str | None) -> None:
        """A connection makes requests for a project, and for no other any more.

        Raises `errors.QuotaExceeded` for one connection too many.
        """
        if connection in self._connections and self._connections[connection] == project:
            return
        most = self._limits.of(project).zaqar_connections
        if most is not None and self._connected[project] >= most:
            raise errors.QuotaExceeded(
                f'This project may have at most {most} WebSocket connections to a process '
                '([quota] zaqar_connections).',
                retry_after=RETRY_SECONDS,
            )
        self.disconnected(connection)
        self._connections[connection] = project
        self._connected[project] += 1

    def disconnected(self, connection: object) -> None:
        """A connection has ended, if it was counted."""
        if connection in self._connections:
            _give_back(self._connected, self._connections.pop(connection), 1)

    @contextmanager
    def new_queue(self, name: str, project: str | None) -> Iterator[None]:
        """Create a queue meanwhile; raises `errors.QuotaExceeded` where a new one is too many."""
        most = self._limits.of(project).zaqar_queues
        if most is None:
            yield
            return
        self._new_queues[project] += 1
        try:
            queues = self._queues()
            count = queues.calculate_resource_count(project=project)
            if count + self._new_queues[project] > most and not queues.exists(name, project):
                raise errors.QuotaExceeded(
                    f'This project may have at most {most} queues and has {count} '
                    '([quota] zaqar_queues).',
                    retry_after=RETRY_SECONDS,
                )
            yield
        finally:
            _give_back(self._new_queues, project, 1)

    @contextmanager
    def new_post(self, number: int, size: int, queue: str, project: str | None) -> Iterator[None]:
        """Post so many messages, of so many bytes together, meanwhile.

        Raises `errors.QuotaExceeded`, and `errors.BodyTooLarge` for more messages than any queue
        may have, and more bytes than the project.
        """
        limits = self._limits.of(project)
        with ExitStack() as stack:
            if limits.zaqar_messages_per_queue is not None:
                most = limits.zaqar_messages_per_queue
                stack.enter_context(self._new_messages_of(number, most, queue, project))
            if limits.zaqar_bytes is not None:
                stack.enter_context(self._new_bytes_of(size, limits.zaqar_bytes, project))
            yield

    @contextmanager
    def _new_bytes_of(self, size: int, most: int, project: str | None) -> Iterator[None]:
        if size > most:
            raise errors.BodyTooLarge(
                f'The messages of this project may have at most {most} bytes together '
                f'([quota] zaqar_bytes), and those of the post have {size}.'
            )
        self._new_bytes[project] += size
        try:
            used = self._usage_of(project).bytes
            if used + self._new_bytes[project] > most:
                raise errors.QuotaExceeded(
                    f'The messages of this project may have at most {most} bytes together and '
                    f'have {used} ([quota] zaqar_bytes).',
                    retry_after=RETRY_SECONDS,
                )
            yield
        finally:
            _give_back(self._new_bytes, project, size)

    @contextmanager
    def new_subscription(self, project: str | None, exists: Callable[[], bool]) -> Iterator[None]:
        """Subscribe meanwhile; raises `errors.QuotaExceeded` where a new one is too many.

        exists: whether there is the same subscription already.
        """
        most = self._limits.of(project).zaqar_subscriptions
        if most is None:
            yield
            return
        self._new_subscriptions[project] += 1
        try:
            count = self._usage_of(project).subscriptions
            if count + self._new_subscriptions[project] > most and not exists():
                raise errors.QuotaExceeded(
                    f'This project may have at most {most} subscriptions and has {count} '
                    '([quota] zaqar_subscriptions).',
                    retry_after=RETRY_SECONDS,
                )
            yield
        finally:
            _give_back(self._new_subscriptions, project, 1)

    def _usage_of(self, project: str | None) -> Usage:
        if self._usage is None:
            raise TypeError('limits of bytes and subscriptions need a store that counts them')
        return self._usage.get(project)

    @contextmanager
    def _new_messages_of(
        self, number: int, most: int, queue: str, project: str | None
    ) -> Iterator[None]:
        if number > most:
            raise errors.BodyTooLarge(
                f'A queue of this project may have at most {most} messages '
                f'([quota] zaqar_messages_per_queue), and the post has {number}.'
            )
        place = project, queue
        self._new_messages[place] += number
        try:
            count = self._count_messages(queue, project)
            if count + self._new_messages[place] > most:
                raise errors.QuotaExceeded(
                    f'A queue of this project may have at most {most} messages and this one has '
                    f'{count} ([quota] zaqar_messages_per_queue).',
                    retry_after=RETRY_SECONDS,
                )
            yield
        finally:
            _give_back(self._new_messages, place, number)

    def _count_messages(self, queue: str, project: str | None) -> int:
        try:
            total: int = self._queues().stats(queue, project=project)['messages']['total']
        except (storage_errors.DoesNotExist, storage_errors.QueueIsEmpty):
            return 0
        return total


def _give_back(counter: Counter[Any], key: Any, number: int) -> None:
    counter[key] -= number
    if counter[key] <= 0:
        del counter[key]
