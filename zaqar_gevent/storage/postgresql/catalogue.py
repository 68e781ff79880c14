"""The catalogue: which pool has which queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zaqar.storage import base, errors

from zaqar_gevent.storage.postgresql.tables import Table

if TYPE_CHECKING:
    from zaqar_gevent.storage.postgresql.driver import ControlDriver

_LIST = """SELECT json_build_array(queue, pool) FROM {schema}.catalogue WHERE project = $1
    ORDER BY queue"""
_ONE = 'SELECT to_json(pool) FROM {schema}.catalogue WHERE project = $1 AND queue = $2'
_INSERT = """INSERT INTO {schema}.catalogue (project, queue, pool) VALUES ($1, $2, $3)
    ON CONFLICT (project, queue) DO UPDATE SET pool = excluded.pool"""
_UPDATE = """UPDATE {schema}.catalogue SET pool = $3 WHERE project = $1 AND queue = $2
    RETURNING 'true'::json"""


class CatalogueController(base.CatalogueBase):
    """Pools by project and queue."""

    def __init__(self, driver: ControlDriver) -> None:
        super().__init__(driver)
        self._table = Table(driver.server, 'catalogue')

    def list(self, project: str | None) -> Iterator[dict[str, Any]]:
        for queue, pool in self._table.scan(_LIST, project or ''):
            yield {'queue': queue, 'project': project, 'pool': pool}

    def get(self, project: str | None, queue: str) -> dict[str, Any]:
        """The entry of a queue, or `QueueNotMapped`."""
        found = self._table.read(_ONE, project or '', queue)
        if not found:
            raise errors.QueueNotMapped(queue, project)
        return {'queue': queue, 'project': project, 'pool': found[0]}

    def exists(self, project: str | None, queue: str) -> bool:
        return bool(self._table.read(_ONE, project or '', queue))

    def insert(self, project: str | None, queue: str, pool: str) -> None:
        """Map a queue to a pool, whatever it was mapped to."""
        self._table.write(_INSERT, project or '', queue, pool)

    def delete(self, project: str | None, queue: str) -> None:
        statement = 'DELETE FROM {schema}.catalogue WHERE project = $1 AND queue = $2'
        self._table.write(statement, project or '', queue)

    def update(self, project: str | None, queue: str, pool: str | None = None) -> None:
        """Map a mapped queue to another pool; raises `QueueNotMapped`."""
        if pool is not None and not self._table.write(_UPDATE, project or '', queue, pool):
            raise errors.QueueNotMapped(queue, project)

    def drop_all(self) -> None:
        self._table.write('DELETE FROM {schema}.catalogue')
