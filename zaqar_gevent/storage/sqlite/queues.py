"""Names of queues and topics with their metadata: the control driver's controllers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from zaqar.storage import base, errors

if TYPE_CHECKING:
    from zaqar_gevent.storage.sqlite.driver import ControlDriver

_GET = 'SELECT metadata FROM queues WHERE project = ? AND kind = ? AND name = ?'
_EXISTS = 'SELECT 1 FROM queues WHERE project = ? AND kind = ? AND name = ?'


class _Names:
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
        rows = self._database.scan(
            _list, project or '', self.kind, marker or '', limit, detailed, name, kfilter or {}
        )
        yield iter([_present(row, detailed) for row in rows])
        yield rows[-1][0] if rows else None

    def _get(self, name: str, project: str | None = None) -> Any:
        try:
            return self.get_metadata(name, project)
        except errors.DoesNotExist:
            return {}

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

    def _stats(self, name: str, project: str | None = None) -> None:
        """Nothing: the messages are the data driver's."""

    def _calculate_resource_count(self, project: str | None = None) -> int:
        total: int = self._database.scan(_count, project or '', self.kind)
        return total


class QueueController(_Names, base.Queue):
    """Queues and their metadata, without their messages."""

    kind = 'queue'
    _missing = errors.QueueDoesNotExist


class TopicController(_Names, base.Topic):
    """Topics and their metadata, without their messages."""

    kind = 'topic'
    _missing = errors.TopicDoesNotExist


def _present(row: tuple[str, str], detailed: bool) -> dict[str, Any]:
    if detailed:
        return {'name': row[0], 'metadata': msgspec.json.decode(row[1])}
    return {'name': row[0]}


def _list(
    connection: sqlite3.Connection,
    project: str,
    kind: str,
    marker: str,
    limit: int,
    detailed: bool,
    name: str | None,
    kfilter: dict[str, Any],
) -> list[tuple[str, str]]:
    conditions = ['project = ? AND kind = ? AND name > ?']
    parameters: list[Any] = [project, kind, marker]
    if name:
        conditions.append('instr(name, ?)')
        parameters.append(name)
    for key, value in kfilter.items():
        condition, wanted = _match(value)
        conditions.append(
            f'EXISTS (SELECT 1 FROM json_each(queues.metadata) WHERE key = ? AND {condition})'
        )
        parameters += [key, *wanted]
    metadata = 'metadata' if detailed else 'NULL'
    return connection.execute(
        f'SELECT name, {metadata} FROM queues WHERE {" AND ".join(conditions)} '
        'ORDER BY name LIMIT ?',
        (*parameters, limit or -1),
    ).fetchall()


def _match(value: Any) -> tuple[str, tuple[Any, ...]]:
    """The condition that a metadata value equals `value`, and its parameters."""
    if value is None or isinstance(value, bool):
        return 'type = ?', (msgspec.json.encode(value).decode(),)
    if isinstance(value, str):
        return "type = 'text' AND value = ?", (value,)
    if isinstance(value, int | float):
        return "type IN ('integer', 'real') AND value = ?", (value,)
    return "type IN ('object', 'array') AND value = ?", (msgspec.json.encode(value).decode(),)


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


def _count(connection: sqlite3.Connection, project: str, kind: str) -> int:
    row = connection.execute(
        'SELECT count(*) FROM queues WHERE project = ? AND kind = ?', (project, kind)
    ).fetchone()
    return int(row[0])
