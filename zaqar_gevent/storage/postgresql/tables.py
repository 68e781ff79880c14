"""Single statements on one table."""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any

from zaqar_gevent.storage.postgresql import kinds, schema
from zaqar_gevent.storage.postgresql.wire import Statement

if TYPE_CHECKING:
    from zaqar_gevent.storage.postgresql.servers import PostgresServer


class Table:
    """A table of a database. `{schema}` in statements is its schema.

    All of them return JSON in one column: the values of the rows.
    """

    def __init__(self, server: PostgresServer, name: str) -> None:
        self._server = server
        self._name = name

    def read(self, statement: str, *parameters: Any) -> list[Any]:
        """The result of a short read."""
        return self._server.query(kinds.READS, self._prepare(statement), *parameters)

    def scan(self, statement: str, *parameters: Any) -> list[Any]:
        """The result of a read that may be long."""
        return self._server.query(kinds.SCANS, self._prepare(statement), *parameters)

    def write(self, statement: str, *parameters: Any) -> list[Any]:
        """The result of a statement that writes and that may run twice without harm."""
        return self._server.query(kinds.WRITES, self._prepare(statement), *parameters)

    def _prepare(self, statement: str) -> Statement:
        return _prepare(self._server.address.schema, self._name, statement)


@functools.cache
def _prepare(name: str, table: str, statement: str) -> Statement:
    text = statement.replace('{schema}', schema.quote(name))
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Statement(f'{table}_{digest}', text)
