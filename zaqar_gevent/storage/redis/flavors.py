"""Flavors: what kinds of pools a queue can ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zaqar.storage import base, errors

from zaqar_gevent.storage.redis import bodies
from zaqar_gevent.storage.redis.records import Records

if TYPE_CHECKING:
    from zaqar_gevent.storage.redis.driver import ControlDriver

Flavor = dict[str, Any]


class FlavorsController(base.FlavorsBase):
    """Flavors by project and name."""

    def __init__(self, driver: ControlDriver) -> None:
        super().__init__(driver)
        self._records = Records(driver.server, 'flavor', ('f', 'c'))

    def list(
        self,
        project: str | None = None,
        marker: str | None = None,
        limit: int = 10,
        detailed: bool = False,
    ) -> Iterator[Any]:
        found = self._records.list(project or '', marker, limit)
        page = [_present(one, detailed) for one in found]
        return iter((iter(page), page[-1]['name'] if page else None))

    def create(self, name: str, project: str | None = None, capabilities: Any = None) -> None:
        """Create a flavor, or replace the one of that name."""
        fields = {'f': name, 'c': bodies.pack(capabilities or {})}
        self._records.put(project or '', name, fields)

    def get(self, name: str, project: str | None = None, detailed: bool = False) -> Flavor:
        """One flavor, or `FlavorDoesNotExist`."""
        found = self._records.get(project or '', name)
        if found is None:
            raise errors.FlavorDoesNotExist(name)
        return _present(found, detailed)

    def exists(self, name: str, project: str | None = None) -> bool:
        return self._records.get(project or '', name) is not None

    def update(self, name: str, project: str | None = None, capabilities: Any = None) -> None:
        """Replace the capabilities; raises `FlavorDoesNotExist`."""
        assert capabilities is not None, '`capabilities` not found in kwargs'
        fields = {'c': bodies.pack(capabilities)}
        if not self._records.put(project or '', name, fields, must_exist=True):
            raise errors.FlavorDoesNotExist(name)

    def delete(self, name: str, project: str | None = None) -> None:
        self._records.delete(project or '', name)

    def drop_all(self) -> None:
        self._records.delete_all()


def _present(record: list[Any], detailed: bool) -> Flavor:
    name, capabilities = record
    if detailed:
        return {'name': name.decode(), 'capabilities': bodies.unpack(capabilities)}
    return {'name': name.decode()}
