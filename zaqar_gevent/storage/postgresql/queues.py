"""Names of queues and topics with their metadata, and the queue controllers of the data driver.

The rows that say which queues exist may be in another store: with pools they always are. When they
are in the same database, a queue and its messages go in one transaction.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gevent
import msgspec
from oslo_utils import timeutils
from zaqar.storage import base, errors

from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.core.pages import (
    encode_id,
)
from zaqar_gevent.storage.errors import ScanTooLong
from zaqar_gevent.storage.postgresql import documents, kinds
from zaqar_gevent.storage.postgresql.tables import Table

if TYPE_CHECKING:
    from zaqar_gevent.storage.postgresql.driver import ControlDriver, DataDriver

STEP = 1000
"""Queues whose names and metadata are looked at by one read."""

_GET = 'SELECT metadata::json FROM {schema}.queues WHERE project = $1 AND kind = $2 AND name = $3'
_EXISTS = "SELECT 'true'::json FROM {schema}.queues WHERE project = $1 AND kind = $2 AND name = $3"
_CREATE = """INSERT INTO {schema}.queues (project, kind, name, metadata) VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING RETURNING 'true'::json"""
_UPDATE = """UPDATE {schema}.queues SET metadata = $4
    WHERE project = $1 AND kind = $2 AND name = $3 RETURNING 'true'::json"""
_DELETE = 'DELETE FROM {schema}.queues WHERE project = $1 AND kind = $2 AND name = $3'
_COUNT_TOPICS = """SELECT to_json(count(*)) FROM {schema}.queues
    WHERE project = $1 AND kind = 'topic'"""
_PAGE = """SELECT json_build_array(name, CASE WHEN $5::bool THEN metadata::json END)
    FROM {schema}.queues WHERE project = $1 AND kind = $2 AND name > $3
        AND strpos(name, $4) > 0
    ORDER BY name LIMIT $6::int"""

Found = tuple[str, dict[str, Any]]
"""The name of a queue, and its `metadata` where that is asked for."""


class _QueueNames(own_drivers.QueueNames):
    """Queues or topics: the two differ in `kind` and in the error for a missing one."""

    kind: str
    _missing: type[errors.DoesNotExist]

    def __init__(self, driver: ControlDriver) -> None:
        super().__init__(driver)  # type: ignore[call-arg]
        self._server = driver.server
        self._table = Table(driver.server, 'queues')

    def _list(
        self,
        project: str | None = None,
        kfilter: dict[str, Any] | None = None,
        marker: str | None = None,
        limit: int = base.DEFAULT_QUEUES_PER_PAGE,
        detailed: bool = False,
        name: str | None = None,
    ) -> Iterator[Any]:
        found = self._find(
            *(project or '', documents.encode_name_marker(marker), name or ''),
            *(kfilter or {}, detailed, limit),
        )
        yield iter([{'name': one, **more} for one, more in found])
        yield found[-1][0] if found else None

    def _find(
        self,
        project: str,
        after: str,
        part: str,
        metadata: dict[str, Any],
        detailed: bool,
        limit: int,
    ) -> list[Found]:
        """The first queues after a name with `part` in their names, and with all of `metadata`.

        Many are looked at in steps, between which others are served.
        """
        if '\0' in part:
            # No name has it, and PostgreSQL cannot be asked for it.
            return []
        ends_at = time.monotonic() + self._server.scan_seconds
        wanted = {key: _comparable(value) for key, value in metadata.items()}
        found: list[Found] = []
        while True:
            step = min(STEP, limit - len(found)) if limit and not wanted else STEP
            rows = self._table.scan(
                _PAGE, project, self.kind, after, part, detailed or bool(wanted), step
            )
            for one, document in rows:
                if all(_has(document, key, value) for key, value in wanted.items()):
                    found.append((one, {'metadata': document} if detailed else {}))
                    if len(found) == limit:
                        return found
            if len(rows) < step:
                return found
            after = rows[-1][0]
            if time.monotonic() > ends_at:
                raise ScanTooLong(self._server.scan_seconds)
            gevent.sleep(0)

    def get_metadata(self, name: str, project: str | None = None) -> Any:
        found = self._table.read(_GET, project or '', self.kind, name)
        if not found:
            raise self._missing(name, project)
        return found[0]

    def set_metadata(self, name: str, metadata: dict[str, Any], project: str | None = None) -> None:
        document = msgspec.json.encode(metadata)
        if not self._table.write(_UPDATE, project or '', self.kind, name, document):
            raise self._missing(name, project)

    def _create(
        self, name: str, metadata: dict[str, Any] | None = None, project: str | None = None
    ) -> bool:
        if self._exists(name, project):
            return False
        document = msgspec.json.encode(metadata or {})
        return bool(self._table.write(_CREATE, project or '', self.kind, name, document))

    def _exists(self, name: str, project: str | None = None) -> bool:
        return bool(self._table.read(_EXISTS, project or '', self.kind, name))

    def _delete(self, name: str, project: str | None = None) -> None:
        self._table.write(_DELETE, project or '', self.kind, name)

    def _calculate_resource_count(self, project: str | None = None) -> int:
        raise NotImplementedError


class QueueController(_QueueNames, base.Queue):
    """Queues and their metadata, without their messages."""

    kind = 'queue'
    _missing = errors.QueueDoesNotExist

    def _calculate_resource_count(self, project: str | None = None) -> int:
        [count, *_], _ = self._server.call(kinds.READS, 'usage', project or '')
        return int(count)


class TopicController(_QueueNames, base.Topic):
    """Topics and their metadata, without their messages."""

    kind = 'topic'
    _missing = errors.TopicDoesNotExist

    def _calculate_resource_count(self, project: str | None = None) -> int:
        [total] = self._table.scan(_COUNT_TOPICS, project or '')
        return int(total)


class _Spooled(own_drivers.SpooledNames):
    def __init__(self, driver: DataDriver, names: Any) -> None:
        super().__init__(driver, names)
        self._server = driver.server

    def _delete(self, name: str, project: str | None = None) -> None:
        kind = self._names.kind if self.driver.keeps_names else None  # type: ignore[attr-defined]
        if kind is None:
            # In this order: a post that comes in between sees that the queue is gone.
            self._names.delete(name, project=project)
        self._server.call(kinds.STEPS, 'delete_queue', project or '', kind, name)

    def _stats(self, name: str, project: str | None = None) -> dict[str, Any]:
        now = timeutils.utcnow_ts(microsecond=True)
        facts, _ = self._server.call(kinds.READS, 'stats', project or '', name, now, True)
        edges, total, claimed = facts
        self._check_counted(name, project, total)
        stats: dict[str, Any] = {'claimed': claimed, 'free': total - claimed, 'total': total}
        if edges:
            for edge, (number, created) in (('oldest', edges[0]), ('newest', edges[-1])):
                stats[edge] = own_drivers.describe_edge(encode_id(number), created, now)
        return {'messages': stats}


class SpooledQueues(_Spooled, base.Queue):
    """Queues with their messages: `delete` and `stats` are complete."""

    _missing = errors.QueueDoesNotExist


class SpooledTopics(_Spooled, base.Topic):
    """Topics, like queues."""

    _missing = errors.TopicDoesNotExist


def _has(document: dict[str, Any], key: str, value: Any) -> bool:
    return key in document and _comparable(document[key]) == value


def _comparable(value: Any) -> tuple[bool, Any]:
    """A key that equal metadata values share: 1 equals 1.0, but not true."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number, value if is_number else msgspec.json.encode(value)
