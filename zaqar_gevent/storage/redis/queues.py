"""Queues and topics: their names and metadata, and what the data driver adds to them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from oslo_utils import timeutils
from zaqar.storage import base, errors

from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.own_drivers import describe_edge
from zaqar_gevent.storage.redis import bodies, keys
from zaqar_gevent.storage.redis.messages import STEP, exact_time
from zaqar_gevent.storage.redis.servers import RedisServer, load

if TYPE_CHECKING:
    from zaqar_gevent.storage.redis.driver import ControlDriver, DataDriver

_CREATE = load('queue_create')
_LIST = load('queue_list', is_write=False)
_UPDATE = load('queue_update')
_DELETE = load('queue_delete')
_END_GROUPS = load('end_groups')
_WIPE = load('wipe')
_STATS = load('stats', is_write=False)

_PAGE = 100
STEP_BYTES = 256 * 1024
"""Metadata that one call reads, about; Redis and the hub serve others after each."""

_KEPT_SECONDS = 24 * 60 * 60
"""How long what is left of a queue stays if the server ends while it is being deleted."""

_ABSENT = object()


class _QueueNames(own_drivers.QueueNames):
    """Queues or topics: the two differ in their keys and in the error for a missing one."""

    _missing: type[errors.DoesNotExist]

    def __init__(self, driver: ControlDriver) -> None:
        super().__init__(driver)  # type: ignore[call-arg]
        self.server = driver.server

    def key(self, name: str, project: str | None) -> str:
        """The key of one of them."""
        raise NotImplementedError

    def names(self, project: str | None) -> str:
        """The key of the names of all of them."""
        raise NotImplementedError

    def other_names(self, project: str | None) -> str:
        """The key of the names of the other kind."""
        raise NotImplementedError

    def _list(
        self,
        project: str | None = None,
        kfilter: dict[str, Any] | None = None,
        marker: str | None = None,
        limit: int = base.DEFAULT_QUEUES_PER_PAGE,
        detailed: bool = False,
        name: str | None = None,
    ) -> Iterator[Any]:
        """A page by name, and the marker of the next.

        kfilter: metadata that they have. name: a part of their names. limit: 0 for all.
        """
        page: list[dict[str, Any]] = []
        after = marker or ''
        while True:
            wanted = _PAGE if kfilter or name or not limit else limit
            found, is_end = self._read(project, after, wanted)
            for after, metadata in found:
                if _matches(after, metadata, name, kfilter or {}):
                    entry: dict[str, Any] = {'name': after}
                    page.append({**entry, 'metadata': metadata} if detailed else entry)
                if len(page) == limit:
                    break
            if is_end or (limit and len(page) == limit):
                break
        yield iter(page)
        yield page[-1]['name'] if page else None

    def _read(
        self, project: str | None, after: str, limit: int
    ) -> tuple[list[tuple[str, Any]], bool]:
        """Names and metadata after a name, and whether they are the last ones."""
        scope = keys.queue('', project)
        suffix = self.key('', project).removeprefix(scope)
        first = f'({scope}{after}' if after else '-'
        found, is_end = self.server.run(
            _LIST, (self.names(project),), first, limit, suffix, STEP_BYTES
        )
        page = [
            (
                member.decode().removeprefix(scope),
                _ABSENT if packed is None else bodies.unpack(packed),
            )
            for member, packed in found
        ]
        return page, bool(is_end)

    def get_metadata(self, name: str, project: str | None = None) -> Any:
        packed = self.server.ask('HGET', self.key(name, project), 'm')
        if packed is None:
            raise self._missing(name, project)
        return bodies.unpack(packed)

    def set_metadata(self, name: str, metadata: dict[str, Any], project: str | None = None) -> None:
        key = self.key(name, project)
        if not self.server.run(_UPDATE, (key,), bodies.pack(metadata)):
            raise self._missing(name, project)

    def _create(
        self, name: str, metadata: dict[str, Any] | None = None, project: str | None = None
    ) -> bool:
        """Create one; False where there is one, which is left as it is."""
        return bool(
            self.server.run(
                _CREATE,
                (self.names(project), self.key(name, project), keys.INDEX),
                keys.queue(name, project),
                bodies.pack(metadata or {}),
                timeutils.utcnow_ts(),
                keys.messages(name, project),
            )
        )

    def _exists(self, name: str, project: str | None = None) -> bool:
        member = keys.queue(name, project)
        return self.server.ask('ZSCORE', self.names(project), member) is not None

    def _delete(self, name: str, project: str | None = None) -> None:
        detach(self, name, project)

    def _calculate_resource_count(self, project: str | None = None) -> int:
        count: int = self.server.ask('ZCARD', self.names(project))
        return count


class QueueController(_QueueNames, base.Queue):
    """Queues and their metadata."""

    _missing = errors.QueueDoesNotExist

    def key(self, name: str, project: str | None) -> str:
        return keys.queue(name, project)

    def names(self, project: str | None) -> str:
        return keys.queues(project)

    def other_names(self, project: str | None) -> str:
        return keys.topics(project)


class TopicController(_QueueNames, base.Topic):
    """Topics and their metadata. Upstream has none on Redis."""

    _missing = errors.TopicDoesNotExist

    def key(self, name: str, project: str | None) -> str:
        return keys.queue(name, project) + keys.TOPIC

    def names(self, project: str | None) -> str:
        return keys.topics(project)

    def other_names(self, project: str | None) -> str:
        return keys.queues(project)


class _Spooled(own_drivers.SpooledNames):
    def __init__(self, driver: DataDriver, names: Any) -> None:
        super().__init__(driver, names)
        self._server = driver.server

    def _delete(self, name: str, project: str | None = None) -> None:
        if not self.driver.keeps_names:  # type: ignore[attr-defined]
            # In this order: a post that comes in between sees that the queue is gone.
            self._names.delete(name, project=project)
            detach(QueueController(self.driver), name, project)  # type: ignore[attr-defined]
        else:
            detach(self._names, name, project)

    def _stats(self, name: str, project: str | None = None) -> dict[str, Any]:
        found = count(self._server, keys.messages(name, project))
        self._check_counted(name, project, found['total'])
        return {'messages': found}


class SpooledQueues(_Spooled, base.Queue):
    """Queues with their messages: `delete` and `stats` are complete."""

    _missing = errors.QueueDoesNotExist


class SpooledTopics(_Spooled, base.Topic):
    """Topics, like queues."""

    _missing = errors.TopicDoesNotExist


def count(server: RedisServer, messages: str) -> dict[str, Any]:
    """The `stats` of the messages that are under a key."""
    now = timeutils.utcnow_ts()
    stats: dict[str, Any] = {'claimed': 0, 'free': 0, 'total': 0}
    after: Any = b'-inf'
    while after is not None:
        total, claimed, oldest, newest, after = server.run(
            _STATS, (messages,), now, after, STEP, exact_time()
        )
        stats['total'] += total
        stats['claimed'] += claimed
        for edge, record in (('oldest', oldest), ('newest', newest)):
            if record is not None:
                stats.setdefault(edge, describe_edge(record[0].decode(), int(record[1]), now))
    stats['free'] = stats['total'] - stats['claimed']
    return stats


def detach(names: _QueueNames, name: str, project: str | None, *, is_leaving: bool = False) -> None:
    """Delete a queue or topic at once, then its messages and claims, some in each call.

    is_leaving: it is not used from here; its mark stays. Otherwise raises `QueueMoved`.
    """
    token = uuid.uuid4().hex
    doomed = keys.doomed(name, project, 'messages', token)
    doomed_claims = keys.doomed(name, project, 'claims', token)
    groups = names.server.run(
        _DELETE,
        (
            names.names(project),
            names.key(name, project),
            names.other_names(project),
            keys.INDEX,
            keys.messages(name, project),
            keys.claims(name, project),
            doomed,
            doomed_claims,
            keys.head(name, project),
            keys.posts(name, project),
            keys.arrival(name, project),
            keys.carried(name, project),
            keys.subscriptions(name, project) if is_leaving else '',
        ),
        keys.queue(name, project),
        _KEPT_SECONDS,
        '1' if is_leaving else '',
    )
    for key in (doomed, doomed + keys.DELAYED):
        while names.server.run(_WIPE, (key,), STEP):
            pass
    while names.server.run(_WIPE, (doomed_claims,), STEP, keys.CLAIMED):
        pass
    if groups is not None:
        end_groups(names.server, keys.messages(name, project), groups)


def end_groups(server: RedisServer, messages: str, prefix: bytes = b'') -> None:
    """Remove the groups of a queue, some in each call.

    messages: the key of its messages. prefix: what the keys of the groups begin with, if they are
        those of a queue that is gone.
    """
    while server.run(_END_GROUPS, (messages,), prefix, STEP):
        pass


def _matches(found: str, metadata: Any, name: str | None, kfilter: dict[str, Any]) -> bool:
    if metadata is _ABSENT or (name and name not in found):
        return False
    return all(key in metadata and metadata[key] == value for key, value in kfilter.items())
