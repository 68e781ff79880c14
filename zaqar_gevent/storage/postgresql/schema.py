"""The tables and functions in PostgreSQL, and how those of older versions become those of this one.

Functions have a digest of their text in their names. So servers of different versions, as while a
fleet is upgraded, each call their own. Each says from time to time that it uses them; those that no
server has used for `UNUSED_SECONDS` are dropped.
"""

from __future__ import annotations

import functools
import hashlib
import pathlib
import re
import zlib
from typing import Any, NamedTuple

from oslo_log import log
from psycopg import pq, sql

from zaqar_gevent.storage.errors import StoreUnavailable, UnsuitableStore
from zaqar_gevent.storage.postgresql.addresses import Address
from zaqar_gevent.storage.postgresql.outage import read_state
from zaqar_gevent.storage.postgresql.wire import (
    LASTS,
    Lost,
    Merge,
    Statement,
    Wait,
    connect,
    finish,
    lasts,
    read_failure,
)

LOG = log.getLogger(__name__)

_SQL = pathlib.Path(__file__).parent / 'sql'

# Sequential scans would be chosen while a table is small, and be kept when it is not.
_SETTINGS = (
    'SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan'
)

# Functions such as to_regclass would not see what others have just made.
_SCHEMA = 'SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname = $1'
_TABLE = """SELECT c.relname FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2"""

UNUSED_SECONDS = 7 * 24 * 3600.0
"""How long functions are kept that no server uses."""

BATCH = 65536
"""Positions of a batch."""

_WAIT_SECONDS = 60.0
_STATEMENT_SECONDS = 3600.0

# Names, rights and features that are missing: classes of SQLSTATE.
_LASTING = ('0A', '22', '28', '3D', '3F', '42')


class Migration(NamedTuple):
    """A migration of the tables from one version to the next.

    file: its statements. rewritten: tables that are rewritten, so that nobody can use them
        meanwhile.
    """

    file: str
    rewritten: tuple[str, ...] = ()


MIGRATIONS = (
    Migration('tables_1.sql'),
    Migration('tables_2.sql'),
    Migration('tables_3.sql'),
    Migration('tables_4.sql'),
    Migration('tables_5.sql'),
)


class TablesTooNew(UnsuitableStore):
    """The tables are those of a later version of this program."""


class State(NamedTuple):
    """The state of a database: the version of its tables, 0 without any, and whether it has the
    functions of this version.
    """

    version: int
    has_functions: bool

    @property
    def is_current(self) -> bool:
        return self.version == len(MIGRATIONS) and self.has_functions

    @property
    def missing(self) -> tuple[Migration, ...]:
        """The migrations that are to be made."""
        return MIGRATIONS[self.version :]


@functools.cache
def _read(name: str) -> str:
    return (_SQL / name).read_text(encoding='utf-8')


@functools.cache
def digest() -> str:
    """The suffix of the functions' names."""
    text = _read('functions.sql') + _SETTINGS
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def quote(schema: str) -> str:
    """The name of a schema as it stands in SQL."""
    return '"' + schema.replace('"', '""') + '"'


def compose(text: str, schema: str) -> sql.Composed:
    """A statement for psycopg, with the schema in its places `{schema}`."""
    # Parameters are looked for in names, too.
    return sql.SQL(text).format(schema=sql.Identifier(schema.replace('%', '%%')))


def quote_text(text: str) -> str:
    """A text as it stands in SQL."""
    return "'" + text.replace("'", "''") + "'"


def _migration_lock(schema: str) -> int:
    return zlib.crc32(f'zaqar_gevent migration {schema}'.encode())


_PLACE = re.compile(r'\{(\w+)\}')


@functools.cache
def _format(name: str, schema: str) -> str:
    # The body of a function must not end within the name.
    tag = 'body'
    while f'${tag}$' in schema:
        tag += '_'
    values = {
        'schema': quote(schema),
        'v': digest(),
        # The names of other locks of the database are as good as never this one.
        'lock': str(zlib.crc32(f'zaqar_gevent {schema}'.encode()) - (1 << 31)),
        'groups_lock': str(zlib.crc32(f'zaqar_gevent groups {schema}'.encode()) - (1 << 31)),
        'migration_lock': str(_migration_lock(schema)),
        'schema_name': quote_text(schema),
        'batches': quote_text(f'{quote(schema)}.batches'),
        'messages': quote_text(f'{quote(schema)}.messages'),
        'settings': _SETTINGS,
    }
    return _PLACE.sub(lambda match: values[match[1]], _read(name).replace('$$', f'${tag}$'))


@functools.cache
def function(
    schema: str,
    name: str,
    count: int,
    *,
    is_repeatable: bool = True,
    again: int | None = None,
    merge: Merge | None = None,
) -> Statement:
    """The statement that calls a function of `functions.sql` with so many arguments."""
    arguments = ', '.join(f'${number + 1}' for number in range(count))
    name = f'{name}_{digest()}'
    text = f'SELECT facts, document FROM {quote(schema)}.{name}({arguments})'
    # PostgreSQL cuts names at 63 bytes, and a schema's name alone may have as many.
    unique = f'{name}_{zlib.crc32(schema.encode()):08x}'
    return Statement(unique, text, is_repeatable, again, merge)


def look(schema: str) -> str:
    """The statement that asks for the time and the number of the last batch of positions.

    Its answer is a JSON array.
    """
    return (
        'SELECT json_build_array(extract(epoch FROM clock_timestamp())::float8, '
        f'(SELECT last_value FROM {quote(schema)}.batches))'
    )


def begin_epoch(schema: str) -> str:
    """The statement that begins an epoch."""
    return f'SELECT * FROM {quote(schema)}.begin_epoch_{digest()}()'


class Checker:
    """A connection by which the state of a database is seen and changed.

    wait: waits for a socket. resolve: `getaddrinfo`. Raises `StoreUnavailable`, or
    `UnsuitableStore` where trying it again does not help.
    """

    def __init__(self, address: Address, wait: Wait, resolve: Any) -> None:
        self._address = address
        self._wait = wait
        try:
            self._connection = connect(address, wait, resolve)
        except StoreUnavailable as error:
            if not lasts(error.reason):
                raise
            raise UnsuitableStore(
                address.store, f'cannot be used: {error.reason}. {LASTS}'
            ) from None

    def close(self) -> None:
        self._connection.finish()

    def look(self) -> State:
        """The state of the database; raises `UnsuitableStore`."""
        schema = self._address.schema
        if not self._has_table('schema_version'):
            if self._has_table('messages'):
                raise UnsuitableStore(
                    self._address.store,
                    f'has a schema {schema!r} of another application. Name another one by the '
                    'option schema.',
                )
            return State(0, False)
        found = self._ask(f'SELECT version::text FROM {quote(schema)}.schema_version')
        version = int(found or 0)
        if version > len(MIGRATIONS):
            raise TablesTooNew(
                self._address.store,
                f'has tables of version {version}; this program knows up to {len(MIGRATIONS)}.',
            )
        has_functions = self._ask(
            f'SELECT digest FROM {quote(schema)}.functions WHERE digest = $1', digest()
        )
        return State(version, has_functions is not None)

    def migrate(self) -> State:
        """Make the database that of this version, in one transaction; what it was before.

        Raises `UnsuitableStore`, `StoreUnavailable`.
        """
        schema = self._address.schema
        self._run('BEGIN')
        self._run(f"SET LOCAL lock_timeout = '{_WAIT_SECONDS:g}s'")
        self._run(f'SELECT pg_advisory_xact_lock({_migration_lock(schema)})')
        state = self.look()
        if not state.is_current:
            if not state.version:
                self._create()
            for migration in state.missing:
                if migration.rewritten:
                    LOG.warning(
                        'Tables of PostgreSQL are rewritten: %s. This takes a while.',
                        ', '.join(migration.rewritten),
                    )
                self._run(_format(migration.file, schema))
            self._run(f'UPDATE {quote(schema)}.schema_version SET version = {len(MIGRATIONS)}')
            if not state.has_functions:
                self._run(_format('functions.sql', schema))
                self._run(
                    f'INSERT INTO {quote(schema)}.functions (digest, created, used) '
                    f"VALUES ('{digest()}', now(), now())"
                )
            self._run(f'SELECT * FROM {quote(schema)}.use_functions_{digest()}({UNUSED_SECONDS:g})')
        self._run('COMMIT')
        return state

    def _has_table(self, name: str) -> bool:
        return self._ask(_TABLE, self._address.schema, name) is not None

    def _create(self) -> None:
        name = quote(self._address.schema)
        if self._ask(_SCHEMA, self._address.schema) is None:
            self._run(f'CREATE SCHEMA {name}')
        self._run(
            f'CREATE TABLE {name}.schema_version (version int NOT NULL);'
            f'INSERT INTO {name}.schema_version VALUES (0);'
            f'CREATE TABLE {name}.functions'
            ' (digest text PRIMARY KEY, created timestamptz NOT NULL)'
        )

    def _run(self, statements: str) -> None:
        self._connection.send_query(statements.encode())
        self._finish()

    def _ask(self, statement: str, *parameters: str) -> str | None:
        """The one value of a statement; None for none."""
        self._connection.send_query_params(statement.encode(), [one.encode() for one in parameters])
        result = self._finish()
        if not result.ntuples:
            return None
        value = result.get_value(0, 0)
        return None if value is None else value.decode()

    def _finish(self) -> Any:
        store = self._address.store
        try:
            result = finish(self._connection, self._wait, _STATEMENT_SECONDS)
        except Lost as lost:
            raise StoreUnavailable(store, str(lost)) from None
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            state, text = read_failure(result)
            reason = read_state(state, text)[1]
            if state.startswith(_LASTING):
                raise UnsuitableStore(store, f'cannot be used: {reason}. {LASTS}')
            raise StoreUnavailable(store, reason)
        return result


def ensure(address: Address, wait: Wait, resolve: Any, *, may_migrate: bool) -> None:
    """Let the database be that of this version.

    may_migrate: whether it is changed. Raises `UnsuitableStore`, `StoreUnavailable`.
    """
    checker = Checker(address, wait, resolve)
    try:
        state = checker.look()
        if state.is_current:
            return
        if not may_migrate:
            raise UnsuitableStore(address.store, f'{describe(state)}. Run: zaqar-gevent db migrate')
        LOG.info('PostgreSQL at %s %s. It is brought up to date.', address, describe(state))
        checker.migrate()
    finally:
        checker.close()


def describe(state: State) -> str:
    """The state of a database in a few words."""
    if state.is_current:
        return f'has the tables of version {state.version}, which are up to date'
    if not state.version:
        return 'has no tables of this program'
    if state.missing:
        return f'has the tables of version {state.version}; this program needs {len(MIGRATIONS)}'
    return f'has the tables of version {state.version}, but not the functions of this program'
