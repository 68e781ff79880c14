"""What the management store keeps of pools, flavors and queues' places: hashes, found by names.

Upstream's drivers for these cannot read what they have written (they look texts up by bytes' keys),
so the keys are theirs, and nobody else's data is in them.
"""

from __future__ import annotations

from typing import Any

from zaqar_gevent.storage.redis.servers import Server, load

_PUT = load('record_put')
_LIST = load('record_list')
_DELETE = load('record_delete')

Fields = dict[str, Any]


class Records:
    """Records of one kind.

    names: the key of the names of all of them. before: what stands before a name in a record's key.
    fields: those that are read; the first is never missing.
    """

    def __init__(self, server: Server, before: str, fields: tuple[str, ...]) -> None:
        self._server = server
        self._before = before
        self._fields = fields

    def get(self, member: str) -> list[Any] | None:
        """The fields of a record, if there is one."""
        found: list[Any] = self._server.ask('HMGET', self._before + member, *self._fields)
        return None if found[0] is None else found

    def put(
        self, member: str, names: tuple[str, ...], fields: Fields, *, must_exist: bool = False
    ) -> bool:
        """Write a record; whether there was one before. `names` are the keys that name it."""
        parts = [part for field in fields.items() for part in field]
        return bool(
            self._server.run(
                _PUT, (self._before + member, *names), member, '1' if must_exist else '', *parts
            )
        )

    def list(self, names: str, after: str | None = None, limit: int = 0) -> list[list[Any]]:
        """The fields of the records that `names` names, by name; all with the limit 0."""
        first = f'({after}' if after else '-'
        found: list[list[Any]] = self._server.run(
            _LIST, (names,), first, limit, self._before, *self._fields
        )
        return found

    def delete(self, member: str, names: tuple[str, ...]) -> None:
        """Delete a record, which may be gone already, and take it out of its names."""
        self._server.run(_DELETE, names, member, self._before)

    def delete_all(self, *names: str) -> None:
        """Delete all records that the first of the names names."""
        self._server.run(_DELETE, names, '*', self._before)
