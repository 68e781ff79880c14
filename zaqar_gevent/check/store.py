"""Damage in the file of the embedded store: by table, and by queue where it can be told."""

from __future__ import annotations

import os
import pathlib
import re
import sqlite3
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import closing

import msgspec
from oslo_config import cfg

from zaqar_gevent.check import journal
from zaqar_gevent.check.finding import Finding, Verdict
from zaqar_gevent.storage.sqlite import long_bodies, options, schema
from zaqar_gevent.storage.sqlite.outage import is_damage

MAX_PROBLEMS = 100
"""Lines of SQLite's own check that are told."""

_GROUPS = {
    options.MESSAGE_GROUP: 'message_store',
    options.MANAGEMENT_GROUP: 'management_store',
}
_TREE = re.compile(r'^Tree (\d+)(?= )')
_CONDITION = re.compile(r'\bWHERE\b.*', re.DOTALL)

_SPOOLS = 'SELECT id, project, name FROM spools'
_READ = """SELECT count(*), ifnull(sum(is_sound({body})), 0), sum(length(checksum))
    FROM messages m INDEXED BY {index} WHERE spool = ? AND {condition}"""
_LIST = 'SELECT id FROM messages INDEXED BY {index} WHERE spool = ? AND {condition}'
_READ_ONE = 'SELECT is_sound({body}), checksum FROM messages m WHERE id = ?'
_PARTS = (
    {'index': 'messages_free', 'condition': 'claim IS NULL AND delayed_until = 0'},
    {'index': 'messages_delayed', 'condition': 'delayed_until > 0'},
    {'index': 'messages_held_in_order', 'condition': 'claim IS NOT NULL'},
)
# Up to format version 4.
_OLD_PARTS = (
    {'index': 'messages_free', 'condition': 'claim IS NULL'},
    {'index': 'messages_held_in_order', 'condition': 'claim IS NOT NULL'},
)
_LAST_OLD = 4
# Since then, long bodies have rows of their own, and may be in pieces.
_LONG_BODIES = 8
_BODIES_IN_PIECES = 11


def check(conf: cfg.ConfigOpts) -> Iterator[Finding]:
    """Look for damage in each file that the configuration names as an embedded store."""
    try:
        paths = {
            options.get_path(conf[group].uri, group)
            for group, option in _GROUPS.items()
            if conf.drivers[option] == 'sqlite'
        }
    except options.NotConfigured as error:
        yield Finding(Verdict.UNCHECKED, 'configuration', str(error))
        return
    for path in sorted(paths):
        yield from check_file(os.path.abspath(path))


def check_file(path: str) -> Iterator[Finding]:
    """Look for damage in one file."""
    subject = f'store {path}'
    if not os.path.exists(path):
        text = 'the file does not exist; a server creates it when it starts'
        yield Finding(Verdict.UNCHECKED, subject, text)
        return
    try:
        uri = f'file:{urllib.parse.quote(path)}?mode=ro'
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            version = schema.check_version(connection)
            body = _body(version)
            parts = [
                {**part, 'body': body} for part in (_OLD_PARTS if version <= _LAST_OLD else _PARTS)
            ]
            connection.create_function('is_sound', 1, _is_sound)
            yield from _check_content(connection, path, subject, parts)
    except schema.UnknownFormat as error:
        yield Finding(Verdict.UNCHECKED, subject, str(error))
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and not is_damage(error):
            yield Finding(Verdict.UNCHECKED, subject, f'it cannot be read: {error}')
        else:
            yield Finding(Verdict.DAMAGED, subject, f'as a whole: {error}')


def _body(version: int) -> str:
    """SQL for the body of a message in this format."""
    if version >= _BODIES_IN_PIECES:
        return long_bodies.BODY
    return long_bodies.BODY_APART if version >= _LONG_BODIES else 'm.body'


def _is_sound(body: str | bytes | None) -> bool:
    """Whether the body of a message is there and can be read, in whichever encoding it is."""
    if body is None:
        return False
    data = body.encode() if isinstance(body, str) else body
    for decode in (msgspec.json.decode, msgspec.msgpack.decode):
        try:
            decode(data)
        except (ValueError, RecursionError, msgspec.MsgspecError):
            continue
        return True
    return False


def _check_content(
    connection: sqlite3.Connection, path: str, subject: str, parts: Iterable[dict[str, str]]
) -> Iterator[Finding]:
    is_sound = True
    problems = (*_read_journal(path), *_read_trees(connection), *_check_integrity(connection))
    for text in problems:
        is_sound = False
        yield Finding(Verdict.DAMAGED, subject, text)
    queues = messages = 0
    for spool, project, name in _get_spools(connection):
        total, unreadable = _count(connection, spool, parts)
        queues += 1
        messages += total
        if unreadable:
            is_sound = False
            yield Finding(
                Verdict.DAMAGED,
                subject,
                f'queue {name!r} of project {project!r}: {unreadable} of {total} messages cannot '
                'be read',
            )
    if is_sound:
        yield Finding(Verdict.SOUND, subject, f'{messages} messages in {queues} queues')


def _read_journal(path: str) -> Iterator[str]:
    """Transactions that are in the journal, but behind a place where it was changed.

    One that is not whole is no damage: it was being written when the power was cut.
    """
    try:
        content = pathlib.Path(f'{path}-wal').read_bytes()
    except OSError:
        return
    found = journal.find_break(content)
    if found is not None and found.transactions > 1:
        yield (
            f'the journal {path}-wal was changed in its frame {found.frame}: {found.transactions} '
            'transactions from there on are lost if the server is killed. Stop it in order to '
            'keep them'
        )


def _read_trees(connection: sqlite3.Connection) -> Iterator[str]:
    """The tables and indices that cannot be read."""
    rows = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type IN ('table', 'index')"
    ).fetchall()
    for kind, name, table, sql in rows:
        if kind == 'table':
            columns = connection.execute(f'PRAGMA table_info("{name}")').fetchall()
            lengths = ', '.join(f'max(length("{column[1]}"))' for column in columns)
            query = f'SELECT {lengths} FROM "{name}" NOT INDEXED'
        else:
            # A partial index serves its own condition only.
            condition = _CONDITION.search(sql or '')
            query = f'SELECT count(*) FROM "{table}" INDEXED BY "{name}" '
            query += condition[0] if condition else ''
        try:
            connection.execute(query).fetchall()
        except sqlite3.DatabaseError as error:
            yield f'{kind} {name}: {error}'


def _check_integrity(connection: sqlite3.Connection) -> Iterator[str]:
    """SQLite's own findings, with names of tables and indices instead of numbers."""
    names = {
        root: f'{kind} {name}'
        for kind, name, root in connection.execute('SELECT type, name, rootpage FROM sqlite_master')
    }
    try:
        for (lines,) in connection.execute(f'PRAGMA integrity_check({MAX_PROBLEMS})'):
            for line in lines.splitlines():
                if line != 'ok' and not line.startswith('*** in database'):
                    yield _TREE.sub(lambda found: names.get(int(found[1]), found[0]) + ',', line)
    except sqlite3.DatabaseError as error:
        # Some versions end at the first damage.
        yield f'SQLite ends its integrity check: {error}'


def _get_spools(connection: sqlite3.Connection) -> list[tuple[int, str, str]]:
    return connection.execute(f'{_SPOOLS} ORDER BY project, name').fetchall()


def _count(
    connection: sqlite3.Connection, spool: int, parts: Iterable[dict[str, str]]
) -> tuple[int, int]:
    """How many messages a queue has, as far as is known, and how many of them are damaged."""
    total = unreadable = 0
    for part in parts:
        try:
            found, valid, _ = connection.execute(_READ.format(**part), (spool,)).fetchone()
        except sqlite3.DatabaseError:
            found, valid = _count_one_by_one(connection, spool, part)
        total += found
        unreadable += found - valid
    return total, unreadable


def _count_one_by_one(
    connection: sqlite3.Connection, spool: int, part: dict[str, str]
) -> tuple[int, int]:
    """How many messages an index has, and how many of them can be read."""
    ids = []
    try:
        for row in connection.execute(_LIST.format(**part), (spool,)):
            ids.append(row[0])  # noqa: PERF401  (what came before an error counts)
    except sqlite3.DatabaseError:
        # There is one at least that cannot be read.
        ids.append(-1)
    return len(ids), sum(_is_readable(connection, number, part) for number in ids)


def _is_readable(connection: sqlite3.Connection, number: int, part: dict[str, str]) -> bool:
    try:
        row = connection.execute(_READ_ONE.format(**part), (number,)).fetchone()
    except sqlite3.DatabaseError:
        return False
    return row is not None and bool(row[0])
