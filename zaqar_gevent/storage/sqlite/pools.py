"""Pools: the stores that messages are spread over."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from zaqar.storage import base, errors

if TYPE_CHECKING:
    from zaqar_gevent.storage.sqlite.driver import ControlDriver

Pool = dict[str, Any]

_SELECT = 'SELECT name, uri, weight, flavor, options FROM pools'

_UPSERT = """INSERT INTO pools (name, uri, weight, flavor, options) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET uri = excluded.uri, weight = excluded.weight,
        flavor = excluded.flavor, options = excluded.options"""


class PoolsController(base.PoolsBase):
    """Pools by name; no two have the same URI."""

    def __init__(self, driver: ControlDriver) -> None:
        super().__init__(driver)
        self._database = driver.database

    def _list(
        self, marker: str | None = None, limit: int = 10, detailed: bool = False
    ) -> Iterator[Any]:
        rows = self._database.read(
            _fetch_all,
            f'{_SELECT} WHERE name > ? ORDER BY name LIMIT ?',
            (marker or '', limit or -1),
        )
        yield iter([_present(row, detailed) for row in rows])
        yield rows[-1][0] if rows else None

    def _get(self, name: str, detailed: bool = False) -> Pool:
        row = self._database.get_row(f'{_SELECT} WHERE name = ?', (name,))
        if row is None:
            raise errors.PoolDoesNotExist(name)
        return _present(row, detailed)

    def _get_pools_by_flavor(
        self, flavor: dict[str, Any] | None = None, detailed: bool = False
    ) -> list[Pool]:
        # As the mongodb driver: None means pools without a flavor, a flavor without a name all.
        where, parameters = '', tuple[Any, ...]()
        if flavor is None:
            where = ' WHERE flavor IS NULL'
        elif flavor.get('name') is not None:
            where, parameters = ' WHERE flavor = ?', (flavor['name'],)
        rows = self._database.read(_fetch_all, f'{_SELECT}{where} ORDER BY name', parameters)
        return [_present(row, detailed) for row in rows]

    def _create(
        self,
        name: str,
        weight: int,
        uri: str,
        flavor: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        document = msgspec.json.encode(options or {}).decode()
        self._database.write(_upsert, name, uri, weight, flavor or None, document)

    def _exists(self, name: str) -> bool:
        return self._database.get_row('SELECT 1 FROM pools WHERE name = ?', (name,)) is not None

    def _update(self, name: str, **kwargs: Any) -> None:
        changes = {
            key: kwargs[key]
            for key in ('uri', 'weight', 'flavor', 'options')
            if kwargs.get(key) is not None
        }
        assert changes, '`weight`, `uri`, `flavor` or `options` not found in kwargs'
        if 'options' in changes:
            changes['options'] = msgspec.json.encode(changes['options']).decode()
        if changes.get('flavor') == '':
            changes['flavor'] = None
        self._database.write(_change, name, changes)

    def _delete(self, name: str) -> None:
        self._database.write(_delete, name)

    def _drop_all(self) -> None:
        self._database.write(_drop_all)


def _present(row: tuple[Any, ...], detailed: bool) -> Pool:
    name, uri, weight, flavor, options = row
    pool = {'name': name, 'uri': uri, 'weight': weight, 'flavor': flavor}
    if detailed:
        pool['options'] = msgspec.json.decode(options)
    return pool


def _fetch_all(
    connection: sqlite3.Connection, statement: str, parameters: tuple[Any, ...]
) -> list[tuple[Any, ...]]:
    return connection.execute(statement, parameters).fetchall()


def _check_uri(cursor: sqlite3.Cursor, name: str, uri: str) -> None:
    statement = 'SELECT 1 FROM pools WHERE uri = ? AND name != ?'
    if cursor.execute(statement, (uri, name)).fetchone() is not None:
        raise errors.PoolAlreadyExists()


def _upsert(
    cursor: sqlite3.Cursor, name: str, uri: str, weight: int, flavor: str | None, options: str
) -> None:
    _check_uri(cursor, name, uri)
    cursor.execute(_UPSERT, (name, uri, weight, flavor, options))


def _change(cursor: sqlite3.Cursor, name: str, changes: dict[str, Any]) -> None:
    if cursor.execute('SELECT 1 FROM pools WHERE name = ?', (name,)).fetchone() is None:
        raise errors.PoolDoesNotExist(name)
    if 'uri' in changes:
        _check_uri(cursor, name, changes['uri'])
    assignments = ', '.join(f'{column} = :{column}' for column in changes)
    cursor.execute(f'UPDATE pools SET {assignments} WHERE name = :name', {**changes, 'name': name})


def _delete(cursor: sqlite3.Cursor, name: str) -> None:
    """Delete a pool, unless it is the last one of its flavor."""
    row = cursor.execute(
        'SELECT flavor, (SELECT count(*) FROM pools o WHERE o.flavor = p.flavor) '
        'FROM pools p WHERE name = ?',
        (name,),
    ).fetchone()
    if row is not None and row[0] is not None and row[1] == 1:
        raise errors.PoolInUseByFlavor(name, row[0])
    cursor.execute('DELETE FROM pools WHERE name = ?', (name,))


def _drop_all(cursor: sqlite3.Cursor) -> None:
    cursor.execute('DELETE FROM pools')
