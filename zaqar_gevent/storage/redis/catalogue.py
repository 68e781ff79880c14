"""The catalogue: which pool has which queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zaqar.storage import base, errors

from zaqar_gevent.storage.redis.records import Records

if TYPE_CHECKING:
    from zaqar_gevent.storage.redis.driver import ControlDriver


class CatalogueController(base.CatalogueBase):
    """Pools by project and queue."""

    def __init__(self, driver: ControlDriver) -> None:
        super().__init__(driver)
        self._records = Records(driver.server, 'place', ('p_q', 'p_p'))

    def list(self, project: str | None) -> Iterator[dict[str, Any]]:
        for record in self._records.list(project or ''):
            yield _present(record, project)

    def get(self, project: str | None, queue: str) -> dict[str, Any]:
        """The entry of a queue, or `QueueNotMapped`."""
        found = self._records.get(project or '', queue)
        if found is None:
            raise errors.QueueNotMapped(queue, project)
        return _present(found, project)

    def exists(self, project: str | None, queue: str) -> bool:
        return self._records.get(project or '', queue) is not None

    def insert(self, project: str | None, queue: str, pool: str) -> None:
        """Map a queue to a pool, whatever it was mapped to."""
        self._records.put(project or '', queue, {'p_q': queue, 'p_p': pool})

    def delete(self, project: str | None, queue: str) -> None:
        self._records.delete(project or '', queue)

    def update(self, project: str | None, queue: str, pool: str | None = None) -> None:
        """Map a mapped queue to another pool; raises `QueueNotMapped`."""
        if pool is not None and not self._records.put(
            project or '', queue, {'p_p': pool}, must_exist=True
        ):
            raise errors.QueueNotMapped(queue, project)

    def drop_all(self) -> None:
        self._records.delete_all()


def _present(record: list[Any], project: str | None) -> dict[str, Any]:
    return {'queue': record[0].decode(), 'project': project, 'pool': record[1].decode()}
