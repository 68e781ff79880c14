"""Pools: the stores that messages are spread over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from zaqar.storage import base, errors

from zaqar_gevent.storage.postgresql import documents
from zaqar_gevent.storage.postgresql.tables import Table

if TYPE_CHECKING:
    from zaqar_gevent.storage.postgresql.driver import ControlDriver

Pool = dict[str, Any]

_SELECT = """SELECT json_build_array(name, uri, weight, flavor, options::json)
    FROM {schema}.pools """
_PAGE = _SELECT + 'WHERE name > $1 ORDER BY name LIMIT $2::int'
_ONE = _SELECT + 'WHERE name = $1'
_ALL = _SELECT + 'ORDER BY name'
_TWIN = "SELECT 'true'::json FROM {schema}.pools WHERE uri = $1 AND name <> $2"
_CREATE = """INSERT INTO {schema}.pools (name, uri, weight, flavor, options)
    VALUES ($1, $2, $3::bigint, $4, $5)
    ON CONFLICT (name) DO UPDATE SET uri = excluded.uri, weight = excluded.weight,
        flavor = excluded.flavor, options = excluded.options"""
_UPDATE = """UPDATE {schema}.pools SET uri = coalesce($2, uri),
        weight = coalesce($3::bigint, weight), flavor = nullif(coalesce($4::text, flavor), ''),
        options = coalesce($5, options)
    WHERE name = $1 RETURNING 'true'::json"""
# A pool, unless it is the last one of its flavor.
_DELETE = """DELETE FROM {schema}.pools p WHERE p.name = $1 AND (p.flavor IS NULL
    OR (SELECT count(*) FROM {schema}.pools o WHERE o.flavor = p.flavor) > 1)"""


class PoolsController(base.PoolsBase):
    """Pools by name; no two have the same URI."""

    def __init__(self, driver: ControlDriver) -> None:
        super().__init__(driver)
        self._table = Table(driver.server, 'pools')

    def _list(
        self, marker: str | None = None, limit: int = 10, detailed: bool = False
    ) -> Iterator[Any]:
        rows = self._table.read(_PAGE, documents.encode_name_marker(marker), limit or None)
        yield iter([_present(row, detailed) for row in rows])
        yield rows[-1][0] if rows else None

    def _get(self, name: str, detailed: bool = False) -> Pool:
        rows = self._table.read(_ONE, name)
        if not rows:
            raise errors.PoolDoesNotExist(name)
        return _present(rows[0], detailed)

    def _get_pools_by_flavor(
        self, flavor: dict[str, Any] | None = None, detailed: bool = False
    ) -> list[Pool]:
        # As the mongodb driver: None means pools without a flavor, a flavor without a name all.
        pools = [_present(row, detailed) for row in self._table.read(_ALL)]
        if flavor is not None and flavor.get('name') is None:
            return pools
        wanted = None if flavor is None else flavor['name']
        return [one for one in pools if one['flavor'] == wanted]

    def _create(
        self,
        name: str,
        weight: int,
        uri: str,
        flavor: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._check_uri(name, uri)
        document = msgspec.json.encode(options or {})
        self._table.write(_CREATE, name, uri, weight, flavor or None, document)

    def _exists(self, name: str) -> bool:
        return bool(self._table.read(_ONE, name))

    def _update(self, name: str, **kwargs: Any) -> None:
        uri, weight, flavor, options = map(kwargs.get, ('uri', 'weight', 'flavor', 'options'))
        assert not uri is weight is flavor is options is None, (
            '`weight`, `uri`, `flavor` or `options` not found in kwargs'
        )
        if uri is not None:
            self._check_uri(name, uri)
        document = None if options is None else msgspec.json.encode(options)
        if not self._table.write(_UPDATE, name, uri, weight, flavor, document):
            raise errors.PoolDoesNotExist(name)

    def _delete(self, name: str) -> None:
        """Delete a pool, unless it is the last one of its flavor."""
        self._table.write(_DELETE, name)
        for row in self._table.read(_ONE, name):
            raise errors.PoolInUseByFlavor(name, _present(row, False)['flavor'])

    def _drop_all(self) -> None:
        self._table.write('DELETE FROM {schema}.pools')

    def _check_uri(self, name: str, uri: str) -> None:
        if self._table.read(_TWIN, uri, name):
            raise errors.PoolAlreadyExists()


def _present(row: list[Any], detailed: bool) -> Pool:
    name, uri, weight, flavor, options = row
    pool = {'name': name, 'uri': uri, 'weight': weight, 'flavor': flavor}
    return {**pool, 'options': options} if detailed else pool
