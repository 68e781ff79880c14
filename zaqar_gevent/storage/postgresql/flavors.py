"""Flavors: what kinds of pools a queue can ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from zaqar.storage import base, errors

from zaqar_gevent.storage.postgresql import documents
from zaqar_gevent.storage.postgresql.tables import Table

if TYPE_CHECKING:
    from zaqar_gevent.storage.postgresql.driver import ControlDriver

Flavor = dict[str, Any]

_SELECT = 'SELECT json_build_array(name, capabilities::json) FROM {schema}.flavors '
_PAGE = _SELECT + 'WHERE project = $1 AND name > $2 ORDER BY name LIMIT $3::int'
_ONE = _SELECT + 'WHERE project = $1 AND name = $2'
_CREATE = """INSERT INTO {schema}.flavors (project, name, capabilities) VALUES ($1, $2, $3)
    ON CONFLICT (project, name) DO UPDATE SET capabilities = excluded.capabilities"""
_UPDATE = """UPDATE {schema}.flavors SET capabilities = $3 WHERE project = $1 AND name = $2
    RETURNING 'true'::json"""


class FlavorsController(base.FlavorsBase):
    """Flavors by project and name."""

    def __init__(self, driver: ControlDriver) -> None:
        super().__init__(driver)
        self._table = Table(driver.server, 'flavors')

    def list(
        self,
        project: str | None = None,
        marker: str | None = None,
        limit: int = 10,
        detailed: bool = False,
    ) -> Iterator[Any]:
        after = documents.encode_name_marker(marker)
        rows = self._table.read(_PAGE, project or '', after, limit or None)
        yield iter([_present(row, detailed) for row in rows])
        yield rows[-1][0] if rows else None

    def create(self, name: str, project: str | None = None, capabilities: Any = None) -> None:
        """Create a flavor, or replace the one of that name."""
        document = msgspec.json.encode(capabilities or {})
        self._table.write(_CREATE, project or '', name, document)

    def get(self, name: str, project: str | None = None, detailed: bool = False) -> Flavor:
        """One flavor, or `FlavorDoesNotExist`."""
        rows = self._table.read(_ONE, project or '', name)
        if not rows:
            raise errors.FlavorDoesNotExist(name)
        return _present(rows[0], detailed)

    def exists(self, name: str, project: str | None = None) -> bool:
        return bool(self._table.read(_ONE, project or '', name))

    def update(self, name: str, project: str | None = None, capabilities: Any = None) -> None:
        """Replace the capabilities; raises `FlavorDoesNotExist`."""
        assert capabilities is not None, '`capabilities` not found in kwargs'
        document = msgspec.json.encode(capabilities)
        if not self._table.write(_UPDATE, project or '', name, document):
            raise errors.FlavorDoesNotExist(name)

    def delete(self, name: str, project: str | None = None) -> None:
        statement = 'DELETE FROM {schema}.flavors WHERE project = $1 AND name = $2'
        self._table.write(statement, project or '', name)

    def drop_all(self) -> None:
        self._table.write('DELETE FROM {schema}.flavors')


def _present(row: list[Any], detailed: bool) -> Flavor:
    return {'name': row[0], 'capabilities': row[1]} if detailed else {'name': row[0]}
