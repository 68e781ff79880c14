"""The catalogue: which pool has which queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zaqar.storage import base, errors

if TYPE_CHECKING:
    from zaqar_gevent.storage.sqlite.driver import ControlDriver

_UPSERT = """INSERT INTO catalogue (project, queue, pool) VALUES (?, ?, ?)
    ON CONFLICT (project, queue) DO UPDATE SET pool = excluded.pool"""


class CatalogueController(base.CatalogueBase):
    """Pools by project and queue."""

    def __init__(self, driver: ControlDriver) -> None:
        super().__init__(driver)
        self._database = driver.database

    def list(self, project: str | None) -> Iterator[dict[str, Any]]:
        for queue, pool in self._database.read(_list, project or ''):
            yield {'queue': queue, 'project': project, 'pool': pool}

    def get(self, project: str | None, queue: str) -> dict[str, Any]:
        """The entry of a queue, or `QueueNotMapped`."""
        statement = 'SELECT pool FROM catalogue WHERE project = ? AND queue = ?'
        row = self._database.get_row(statement, (project or '', queue))
        if row is None:
            raise errors.QueueNotMapped(queue, project)
        return {'queue': queue, 'project': project, 'pool': row[0]}

    def exists(self, project: str | None, queue: str) -> bool:
        statement = 'SELECT 1 FROM catalogue WHERE project = ? AND queue = ?'
        return self._database.get_row(statement, (project or '', queue)) is not None

    def insert(self, project: str | None, queue: str, pool: str) -> None:
        """Map a queue to a pool, whatever it was mapped to."""
        self._database.write(_upsert, project or '', queue, pool)

    def delete(self, project: str | None, queue: str) -> None:
        self._database.write(_delete, project or '', queue)

    def update(self, project: str | None, queue: str, pool: str | None = None) -> None:
        """Map a mapped queue to another pool; raises `QueueNotMapped`."""
        if pool is not None and not self._database.write(_replace, project or '', queue, pool):
            raise errors.QueueNotMapped(queue, project)

    def drop_all(self) -> None:
        self._database.write(_drop_all)


def _list(connection: sqlite3.Connection, project: str) -> list[tuple[str, str]]:
    return connection.execute(
        'SELECT queue, pool FROM catalogue WHERE project = ? ORDER BY queue', (project,)
    ).fetchall()


def _upsert(cursor: sqlite3.Cursor, project: str, queue: str, pool: str) -> None:
    cursor.execute(_UPSERT, (project, queue, pool))


def _replace(cursor: sqlite3.Cursor, project: str, queue: str, pool: str) -> bool:
    cursor.execute(
        'UPDATE catalogue SET pool = ? WHERE project = ? AND queue = ?', (pool, project, queue)
    )
    return cursor.rowcount > 0


def _delete(cursor: sqlite3.Cursor, project: str, queue: str) -> None:
    cursor.execute('DELETE FROM catalogue WHERE project = ? AND queue = ?', (project, queue))


def _drop_all(cursor: sqlite3.Cursor) -> None:
    cursor.execute('DELETE FROM catalogue')
