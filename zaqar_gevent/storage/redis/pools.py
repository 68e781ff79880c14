"""Pools: the stores that messages are spread over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zaqar.storage import base, errors

from zaqar_gevent.storage.redis import bodies
from zaqar_gevent.storage.redis.records import Records

if TYPE_CHECKING:
    from zaqar_gevent.storage.redis.driver import ControlDriver

Pool = dict[str, Any]

# Pools are of no project.
_SCOPE = ''


class PoolsController(base.PoolsBase):
    """Pools by name; no two have the same URI."""

    def __init__(self, driver: ControlDriver) -> None:
        super().__init__(driver)
        self._records = Records(driver.server, 'pool', ('pl', 'u', 'w', 'f', 'o'))

    def _list(
        self, marker: str | None = None, limit: int = 10, detailed: bool = False
    ) -> Iterator[Any]:
        found = self._records.list(_SCOPE, marker, limit)
        page = [_present(one, detailed) for one in found]
        yield iter(page)
        yield page[-1]['name'] if page else None

    def _get(self, name: str, detailed: bool = False) -> Pool:
        found = self._records.get(_SCOPE, name)
        if found is None:
            raise errors.PoolDoesNotExist(name)
        return _present(found, detailed)

    def _get_pools_by_flavor(
        self, flavor: dict[str, Any] | None = None, detailed: bool = False
    ) -> list[Pool]:
        # As the mongodb driver: None means pools without a flavor, a flavor without a name all.
        pools = self._all(detailed)
        if flavor is None:
            return [one for one in pools if one['flavor'] is None]
        if flavor.get('name') is None:
            return pools
        return [one for one in pools if one['flavor'] == flavor['name']]

    def _create(
        self,
        name: str,
        weight: int,
        uri: str,
        flavor: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._check_uri(name, uri)
        fields = {'pl': name, 'u': uri, 'w': weight, 'f': flavor or ''}
        self._records.put(_SCOPE, name, {**fields, 'o': bodies.pack(options or {})})

    def _exists(self, name: str) -> bool:
        return self._records.get(_SCOPE, name) is not None

    def _update(self, name: str, **kwargs: Any) -> None:
        fields: dict[str, Any] = {
            key[0]: kwargs[key]
            for key in ('uri', 'weight', 'flavor', 'options')
            if kwargs.get(key) is not None
        }
        assert fields, '`weight`, `uri`, `flavor` or `options` not found in kwargs'
        if 'o' in fields:
            fields['o'] = bodies.pack(fields['o'])
        if 'u' in fields:
            self._check_uri(name, fields['u'])
        if not self._records.put(_SCOPE, name, fields, must_exist=True):
            raise errors.PoolDoesNotExist(name)

    def _delete(self, name: str) -> None:
        """Delete a pool, unless it is the last one of its flavor."""
        pools = {one['name']: one['flavor'] for one in self._all()}
        flavor = pools.get(name)
        if flavor is not None and list(pools.values()).count(flavor) == 1:
            raise errors.PoolInUseByFlavor(name, flavor)
        self._records.delete(_SCOPE, name)

    def _drop_all(self) -> None:
        self._records.delete_all()

    def _all(self, detailed: bool = False) -> list[Pool]:
        return [_present(one, detailed) for one in self._records.list(_SCOPE)]

    def _check_uri(self, name: str, uri: str) -> None:
        if any(one['uri'] == uri and one['name'] != name for one in self._all()):
            raise errors.PoolAlreadyExists()


def _present(record: list[Any], detailed: bool) -> Pool:
    name, uri, weight, flavor, options = record
    pool = {
        'name': name.decode(),
        'uri': uri.decode(),
        'weight': int(weight),
        'flavor': flavor.decode() if flavor else None,
    }
    if detailed:
        pool['options'] = bodies.unpack(options)
    return pool
