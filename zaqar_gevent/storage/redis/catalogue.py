"""The catalogue: which pool has which queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zaqar.storage import base, errors

from zaqar_gevent.storage.redis import keys
from zaqar_gevent.storage.redis.records import Records

if TYPE_CHECKING:
    from zaqar_gevent.storage.redis.driver import ControlDriver

_BEFORE = 'catalogue.'
_PROJECTS = 'catalogue.:projects'
"""The projects that have entries. Our own: no project has a colon behind its first dot."""


class CatalogueController(base.CatalogueBase):
    """Pools by project and queue."""

    def __init__(self, driver: ControlDriver) -> None:
        super().__init__(driver)
        self._server = driver.server
        self._records = Records(driver.server, _BEFORE, ('p_q', 'p', 'p_p'))

    def list(self, project: str | None) -> Iterator[dict[str, Any]]:
        for record in self._records.list(_names(project)):
            yield _present(record, project)

    def get(self, project: str | None, queue: str) -> dict[str, Any]:
        """The entry of a queue, or `QueueNotMapped`."""
        found = self._records.get(keys.queue(queue, project))
        if found is None:
            raise errors.QueueNotMapped(queue, project)
        return _present(found, project)

    def exists(self, project: str | None, queue: str) -> bool:
        return self._records.get(keys.queue(queue, project)) is not None

    def insert(self, project: str | None, queue: str, pool: str) -> None:
        """Map a queue to a pool, whatever it was mapped to."""
        fields = {'p': project or '', 'p_q': queue, 'p_p': pool}
        self._server.ask('SADD', _PROJECTS, project or '')
        self._records.put(keys.queue(queue, project), (_names(project),), fields)

    def delete(self, project: str | None, queue: str) -> None:
        self._records.delete(keys.queue(queue, project), (_names(project),))

    def update(self, project: str | None, queue: str, pool: str | None = None) -> None:
        """Map a mapped queue to another pool; raises `QueueNotMapped`."""
        if pool is not None and not self._records.put(
            keys.queue(queue, project), (_names(project),), {'p_p': pool}, must_exist=True
        ):
            raise errors.QueueNotMapped(queue, project)

    def drop_all(self) -> None:
        for project in self._server.ask('SMEMBERS', _PROJECTS):
            self._records.delete_all(_names(project.decode()))
        self._server.ask('DEL', _PROJECTS)


def _names(project: str | None) -> str:
    return f'{_BEFORE}{project or ""}'


def _present(record: list[Any], project: str | None) -> dict[str, Any]:
    return {'queue': record[0].decode(), 'project': project, 'pool': record[2].decode()}
