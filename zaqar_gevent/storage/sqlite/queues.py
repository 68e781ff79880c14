"""Names of queues and topics with their metadata: the control driver's controllers."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from zaqar.storage import base, errors

from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.errors import ScanTooLong

if TYPE_CHECKING:
    from zaqar_gevent.storage.sqlite.driver import ControlDriver

STEP_SECONDS = 0.01
"""Seconds of processor time after which looking at metadata lets others be served."""

Found = tuple[str, dict[str, Any]]
"""The name of a queue, and its `metadata` where that is asked for."""

_GET = 'SELECT metadata FROM queues WHERE project = ? AND kind = ? AND name = ?'
_EXISTS = 'SELECT 1 FROM queues WHERE project = ? AND kind = ? AND name = ?'
_COUNT_QUEUES = 'SELECT queues FROM usage WHERE project = ?'
_COUNT_TOPICS = "SELECT count(*) FROM queues WHERE project = ? AND kind = 'topic'"


class _QueueNames(own_drivers.QueueNames):
    """Queues or topics: the two differ in `kind` and in the error for a missing one."""

    kind: str
    _missing: type[errors.DoesNotExist]

    def __init__(self, driver: ControlDriver) -> None:
        super().__init__(driver)  # type: ignore[call-arg]
        self._database = driver.database

    def _list(
        self,
        project: str | None = None,
        kfilter: dict[str, Any] | None = None,
        marker: str | None = None,
        limit: int = base.DEFAULT_QUEUES_PER_PAGE,
        detailed: bool = False,
        name: str | None = None,
    ) -> Iterator[Any]:
        wanted = _Wanted(name, kfilter or {}, detailed)
        rows, last = self._find(project or '', marker or '', wanted, limit)
        yield iter([{'name': found, **more} for found, more in rows])
        yield last

    def _find(
        self, project: str, after: str, wanted: _Wanted, limit: int
    ) -> tuple[list[Found], str | None]:
        """The first queues after a name that are wanted, and the name of the last one.

        Many are looked at in steps, between which others are served.
        """
        ends_at = time.monotonic() + self._database.scan_seconds
        found: list[Found] = []
        while True:
            left = limit - len(found) if limit else -1
            some, looked_at = self._database.scan(_find, project, self.kind, after, wanted, left)
            found += some
            if looked_at is None:
                return found, found[-1][0] if found else None
            after = looked_at
            if time.monotonic() > ends_at:
                raise ScanTooLong(self._database.scan_seconds)

    def get_metadata(self, name: str, project: str | None = None) -> Any:
        row = self._database.get_row(_GET, (project or '', self.kind, name))
        if row is None:
            raise self._missing(name, project)
        return msgspec.json.decode(row[0])

    def set_metadata(self, name: str, metadata: dict[str, Any], project: str | None = None) -> None:
        document = msgspec.json.encode(metadata).decode()
        if not self._database.write(_replace, project or '', self.kind, name, document):
            raise self._missing(name, project)

    def _create(
        self, name: str, metadata: dict[str, Any] | None = None, project: str | None = None
    ) -> bool:
        if self._exists(name, project):
            return False
        document = msgspec.json.encode(metadata or {}).decode()
        created: bool = self._database.write(_create, project or '', self.kind, name, document)
        return created

    def _exists(self, name: str, project: str | None = None) -> bool:
        return self._database.get_row(_EXISTS, (project or '', self.kind, name)) is not None

    def _delete(self, name: str, project: str | None = None) -> None:
        self._database.write(_delete, project or '', self.kind, name)

    def _calculate_resource_count(self, project: str | None = None) -> int:
        raise NotImplementedError


class QueueController(_QueueNames, base.Queue):
    """Queues and their metadata, without their messages."""

    kind = 'queue'
    _missing = errors.QueueDoesNotExist

    def _calculate_resource_count(self, project: str | None = None) -> int:
        row = self._database.get_row(_COUNT_QUEUES, (project or '',))
        return 0 if row is None else int(row[0])


class TopicController(_QueueNames, base.Topic):
    """Topics and their metadata, without their messages."""

    kind = 'topic'
    _missing = errors.TopicDoesNotExist

    def _calculate_resource_count(self, project: str | None = None) -> int:
        return int(self._database.scan(_count_topics, project or ''))


class _Wanted(NamedTuple):
    """The queues to list: those with `part` in their name, and with all of `metadata`.

    detailed: whether with their metadata.
    """

    part: str | None
    metadata: dict[str, Any]
    detailed: bool

    @property
    def needs_metadata(self) -> bool:
        return self.detailed or bool(self.metadata)


def _find(
    connection: sqlite3.Connection,
    project: str,
    kind: str,
    after: str,
    wanted: _Wanted,
    limit: int,
) -> tuple[list[Found], str | None]:
    """Up to `limit` wanted queues after a name; and the last name looked at, if there may be more.

    It ends after STEP_SECONDS, however many have been found. With a `limit` of -1 it has none.
    """
    ends_at = time.thread_time() + STEP_SECONDS
    filters = {key: _comparable(value) for key, value in wanted.metadata.items()}
    metadata = 'metadata' if wanted.needs_metadata else 'NULL'
    condition = 'AND instr(name, :part)' if wanted.part else ''
    rows = connection.execute(
        f'SELECT name, {metadata} FROM queues WHERE project = :project AND kind = :kind '
        f'AND name > :after {condition} ORDER BY name LIMIT :limit',
        {
            'project': project,
            'kind': kind,
            'after': after,
            'part': wanted.part,
            'limit': -1 if filters else limit,
        },
    )
    found: list[Found] = []
    for name, text in rows:
        document = msgspec.json.decode(text) if wanted.needs_metadata else {}
        if all(_has(document, key, value) for key, value in filters.items()):
            found.append((name, {'metadata': document} if wanted.detailed else {}))
            if len(found) == limit:
                return found, None
        if wanted.needs_metadata and time.thread_time() > ends_at:
            return found, name
    return found, None


def _has(document: dict[str, Any], key: str, value: Any) -> bool:
    return key in document and _comparable(document[key]) == value


def _comparable(value: Any) -> tuple[bool, Any]:
    """A key that equal metadata values share: 1 equals 1.0, but not true."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number, value if is_number else msgspec.json.encode(value)


def _create(cursor: sqlite3.Cursor, project: str, kind: str, name: str, metadata: str) -> bool:
    cursor.execute(
        'INSERT OR IGNORE INTO queues (project, kind, name, metadata) VALUES (?, ?, ?, ?)',
        (project, kind, name, metadata),
    )
    return cursor.rowcount > 0


def _replace(cursor: sqlite3.Cursor, project: str, kind: str, name: str, metadata: str) -> bool:
    cursor.execute(
        'UPDATE queues SET metadata = ? WHERE project = ? AND kind = ? AND name = ?',
        (metadata, project, kind, name),
    )
    return cursor.rowcount > 0


def _delete(cursor: sqlite3.Cursor, project: str, kind: str, name: str) -> None:
    cursor.execute(
        'DELETE FROM queues WHERE project = ? AND kind = ? AND name = ?', (project, kind, name)
    )


def _count_topics(connection: sqlite3.Connection, project: str) -> int:
    return int(connection.execute(_COUNT_TOPICS, (project,)).fetchone()[0])
