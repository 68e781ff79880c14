"""Flavors: what kinds of pools a queue can ask for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from zaqar.storage import base, errors

if TYPE_CHECKING:
    from zaqar_gevent.storage.sqlite.driver import ControlDriver

Flavor = dict[str, Any]

_UPSERT = """INSERT INTO flavors (project, name, capabilities) VALUES (?, ?, ?)
    ON CONFLICT (project, name) DO UPDATE SET capabilities = excluded.capabilities"""


class FlavorsController(base.FlavorsBase):
    """Flavors by project and name."""

    def __init__(self, driver: ControlDriver) -> None:
        super().__init__(driver)
        self._database = driver.database

    def list(
        self,
        project: str | None = None,
        marker: str | None = None,
        limit: int = 10,
        detailed: bool = False,
    ) -> Iterator[Any]:
        rows = self._database.read(_list, project or '', marker or '', limit or -1)
        yield iter([_present(row, detailed) for row in rows])
        yield rows[-1][0] if rows else None

    def create(self, name: str, project: str | None = None, capabilities: Any = None) -> None:
        """Create a flavor, or replace the one of that name."""
        document = msgspec.json.encode(capabilities or {}).decode()
        self._database.write(_upsert, project or '', name, document)

    def get(self, name: str, project: str | None = None, detailed: bool = False) -> Flavor:
        """One flavor, or `FlavorDoesNotExist`."""
        row = self._database.get_row(
            'SELECT name, capabilities FROM flavors WHERE project = ? AND name = ?',
            (project or '', name),
        )
        if row is None:
            raise errors.FlavorDoesNotExist(name)
        return _present(row, detailed)

    def exists(self, name: str, project: str | None = None) -> bool:
        statement = 'SELECT 1 FROM flavors WHERE project = ? AND name = ?'
        return self._database.get_row(statement, (project or '', name)) is not None

    def update(self, name: str, project: str | None = None, capabilities: Any = None) -> None:
        """Replace the capabilities; raises `FlavorDoesNotExist`."""
        assert capabilities is not None, '`capabilities` not found in kwargs'
        document = msgspec.json.encode(capabilities).decode()
        if not self._database.write(_replace, project or '', name, document):
            raise errors.FlavorDoesNotExist(name)

    def delete(self, name: str, project: str | None = None) -> None:
        self._database.write(_delete, project or '', name)

    def drop_all(self) -> None:
        self._database.write(_drop_all)


def _present(row: tuple[str, str], detailed: bool) -> Flavor:
    if detailed:
        return {'name': row[0], 'capabilities': msgspec.json.decode(row[1])}
    return {'name': row[0]}


def _list(
    connection: sqlite3.Connection, project: str, marker: str, limit: int
) -> list[tuple[str, str]]:
    return connection.execute(
        'SELECT name, capabilities FROM flavors WHERE project = ? AND name > ? '
        'ORDER BY name LIMIT ?',
        (project, marker, limit),
    ).fetchall()


def _upsert(cursor: sqlite3.Cursor, project: str, name: str, capabilities: str) -> None:
    cursor.execute(_UPSERT, (project, name, capabilities))


def _replace(cursor: sqlite3.Cursor, project: str, name: str, capabilities: str) -> bool:
    cursor.execute(
        'UPDATE flavors SET capabilities = ? WHERE project = ? AND name = ?',
        (capabilities, project, name),
    )
    return cursor.rowcount > 0


def _delete(cursor: sqlite3.Cursor, project: str, name: str) -> None:
    cursor.execute('DELETE FROM flavors WHERE project = ? AND name = ?', (project, name))


def _drop_all(cursor: sqlite3.Cursor) -> None:
    cursor.execute('DELETE FROM flavors')
