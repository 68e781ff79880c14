"""Pools, flavors and the places of queues: hashes, found by names.

The keys are our own. Upstream's driver cannot read what it has written of these (it looks for texts
among bytes), so there is nothing of it to be kept; and its keys can be those of a tenant's queues.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zaqar_gevent.storage.redis.servers import RedisServer, load

_PUT = load('record_put')
_LIST = load('record_list', is_write=False)
_DELETE = load('record_delete')

# No queue has such a key: its name would have a colon.
_PREFIX = '.:'


class Records:
    """Records of one kind, each of a scope.

    kind: what stands in the keys. fields: those that are read; the first is never missing.
    """

    def __init__(self, server: RedisServer, kind: str, fields: tuple[str, ...]) -> None:
        self._server = server
        self._record = f'{_PREFIX}{kind}:'
        self._all = f'{_PREFIX}{kind}s'
        self._fields = fields

    def get(self, scope: str, name: str) -> list[Any] | None:
        """The fields of a record, if there is one."""
        key = self._record + _member(scope, name)
        found: list[Any] = self._server.ask('HMGET', key, *self._fields)
        return None if found[0] is None else found

    def put(
        self, scope: str, name: str, fields: dict[str, Any], *, must_exist: bool = False
    ) -> bool:
        """Write fields of a record; whether there was one before."""
        member = _member(scope, name)
        keys = self._record + member, self._all, self._names(scope)
        parts = [part for field in fields.items() for part in field]
        return bool(self._server.run(_PUT, keys, member, '1' if must_exist else '', *parts))

    def list(self, scope: str, after: str | None = None, limit: int = 0) -> list[list[Any]]:
        """The fields of the records of a scope, by name; all with the limit 0."""
        first = f'({_member(scope, after)}' if after else '-'
        found: list[list[Any]] = self._server.run(
            _LIST, (self._names(scope),), first, limit, self._record, *self._fields
        )
        return found

    def scopes(self) -> Sequence[str]:
        """The scopes that have records."""
        members = self._server.ask('ZRANGE', self._all, 0, -1)
        return sorted({member.decode().partition('.')[0] for member in members})

    def delete(self, scope: str, name: str) -> None:
        """Delete a record, which may be gone already."""
        member = _member(scope, name)
        self._server.run(_DELETE, (self._record + member, self._all, self._names(scope)), member)

    def delete_all(self) -> None:
        """Delete the records of all scopes."""
        for member in self._server.ask('ZRANGE', self._all, 0, -1):
            scope, _, name = member.decode().partition('.')
            self.delete(scope, name)

    def _names(self, scope: str) -> str:
        return f'{self._all}:{scope}'


def _member(scope: str, name: str) -> str:
    """No scope has a dot: it is a project, or empty."""
    return f'{scope}.{name}'
