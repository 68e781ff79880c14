"""Where the messages of queues lie, and the queue controllers of the data driver.

The rows that say which queues exist may be in another store: with pools they always are. When they
are in the same file, a queue and its messages go in one transaction.
"""

from __future__ import annotations

import datetime
import sqlite3
from typing import TYPE_CHECKING, Any

import msgspec
from oslo_utils import timeutils
from zaqar.storage import base, errors

from zaqar_gevent.storage.sqlite import documents
from zaqar_gevent.storage.sqlite.documents import SPOOL

if TYPE_CHECKING:
    from zaqar_gevent.storage.sqlite.driver import DataDriver

_RESOLVE = """SELECT json_group_array(json_array(s.id, EXISTS (
        SELECT 1 FROM queues q WHERE q.project = j.project
        AND q.kind IN ('queue', 'topic') AND q.name = j.name)))
    FROM (SELECT key, json_extract(value, '$[0]') AS project, json_extract(value, '$[1]') AS name
          FROM json_each(?) ORDER BY key) j
    LEFT JOIN spools s ON s.project = j.project AND s.name = j.name"""

_CLAIMS = 'FROM claims c JOIN messages m INDEXED BY messages_held ON m.claim = c.id'

# A claimed message lives at least as long as its claim: the expired ones are not among them.
_COUNTS = f"""SELECT
    (SELECT count(*) {_CLAIMS} WHERE c.spool = {SPOOL} AND c.expires > :now),
    (SELECT count(*) FROM messages INDEXED BY messages_free
        WHERE spool = {SPOOL} AND claim IS NULL)
    + (SELECT count(*) {_CLAIMS} WHERE c.spool = {SPOOL} AND c.expires <= :now)
    - (SELECT count(*) FROM messages INDEXED BY messages_expiry
        WHERE expires <= :now AND spool = {SPOOL})"""

_EDGE = """SELECT id, created FROM (
    SELECT id, created FROM messages INDEXED BY messages_free
    WHERE spool = {spool} AND claim IS NULL AND expires > :now
    UNION ALL
    SELECT id, created FROM messages INDEXED BY messages_held_in_order
    WHERE spool = {spool} AND claim IS NOT NULL AND expires > :now
    ORDER BY id {order} LIMIT 1)"""
_OLDEST = _EDGE.format(spool=SPOOL, order='ASC')
_NEWEST = _EDGE.format(spool=SPOOL, order='DESC')


def resolve(cursor: sqlite3.Cursor, names: list[tuple[str, str]]) -> list[tuple[int | None, bool]]:
    """The spool of each (project, queue), if there is one, and whether this file has the queue."""
    document = msgspec.json.encode(names).decode()
    row = cursor.execute(_RESOLVE, (document,)).fetchone()
    return [(spool, bool(exists)) for spool, exists in msgspec.json.decode(row[0])]


def get(cursor: sqlite3.Cursor, project: str, queue: str) -> int | None:
    """The spool of a queue, if it has one."""
    row = cursor.execute(
        'SELECT id FROM spools WHERE project = ? AND name = ?', (project, queue)
    ).fetchone()
    return None if row is None else int(row[0])


def make(cursor: sqlite3.Cursor, project: str, queue: str) -> int:
    """A new spool for a queue that has none."""
    cursor.execute('INSERT INTO spools (project, name) VALUES (?, ?)', (project, queue))
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def unmap(cursor: sqlite3.Cursor, project: str, queue: str) -> None:
    """Part a queue from its messages, at once; the collector removes them little by little."""
    spool = get(cursor, project, queue)
    if spool is not None:
        cursor.execute('DELETE FROM spools WHERE id = ?', (spool,))
        cursor.execute('INSERT INTO doomed_spools (id) VALUES (?)', (spool,))


def count(connection: sqlite3.Connection, project: str, queue: str, now: float) -> dict[str, Any]:
    """What `stats` says of the messages of a queue."""
    parameters = {'project': project, 'queue': queue, 'now': now}
    claimed, free = connection.execute(_COUNTS, parameters).fetchone()
    stats: dict[str, Any] = {'claimed': claimed, 'free': free, 'total': claimed + free}
    for name, statement in (('oldest', _OLDEST), ('newest', _NEWEST)):
        row = connection.execute(statement, parameters).fetchone()
        if row is not None:
            stats[name] = _describe(row[0], row[1], now)
    return stats


def get_edge(
    connection: sqlite3.Connection, project: str, queue: str, now: float, sort: int
) -> int | None:
    """The id of the oldest message of a queue, or with `sort=-1` of the newest, if any."""
    parameters = {'project': project, 'queue': queue, 'now': now}
    row = connection.execute(_OLDEST if sort == 1 else _NEWEST, parameters).fetchone()
    return None if row is None else int(row[0])


def _describe(number: int, created: float, now: float) -> dict[str, Any]:
    moment = datetime.datetime.fromtimestamp(created, datetime.UTC)
    return {
        'id': documents.encode_id(number),
        'age': max(0, int(now - created)),
        'created': moment.strftime('%Y-%m-%dT%H:%M:%SZ'),
    }


class _Spooled:
    """Names that the control driver keeps, with messages that this data driver keeps."""

    def __init__(self, driver: DataDriver, names: Any) -> None:
        super().__init__(driver)  # type: ignore[call-arg]
        self._names = names
        self._database = driver.database

    def _list(self, *args: Any, **kwargs: Any) -> Any:
        return self._names._list(*args, **kwargs)

    def _get(self, name: str, project: str | None = None) -> Any:
        return self._names.get(name, project=project)

    def get_metadata(self, name: str, project: str | None = None) -> Any:
        return self._names.get_metadata(name, project=project)

    def set_metadata(self, name: str, metadata: Any, project: str | None = None) -> Any:
        return self._names.set_metadata(name, metadata=metadata, project=project)

    def _create(self, name: str, metadata: Any = None, project: str | None = None) -> Any:
        return self._names.create(name, metadata=metadata, project=project)

    def _exists(self, name: str, project: str | None = None) -> Any:
        return self._names.exists(name, project=project)

    def _delete(self, name: str, project: str | None = None) -> None:
        if self.driver.keeps_names:  # type: ignore[attr-defined]
            self._database.write(_delete, project or '', self._names.kind, name)
        else:
            # In this order: a post that comes in between sees that the queue is gone.
            self._names.delete(name, project=project)
            self._database.write(unmap, project or '', name)

    def _stats(self, name: str, project: str | None = None) -> dict[str, Any]:
        if not self._names.exists(name, project=project):
            raise self._missing(name, project)
        now = timeutils.utcnow_ts(microsecond=True)
        return {'messages': self._database.read(count, project or '', name, now)}

    _missing: type[errors.DoesNotExist]


def _delete(cursor: sqlite3.Cursor, project: str, kind: str, name: str) -> None:
    cursor.execute(
        'DELETE FROM queues WHERE project = ? AND kind = ? AND name = ?', (project, kind, name)
    )
    other = cursor.execute(
        'SELECT 1 FROM queues WHERE project = ? AND name = ? AND kind != ?', (project, name, kind)
    ).fetchone()
    # A queue and a topic of one name share their messages.
    if other is None:
        unmap(cursor, project, name)


class QueueController(_Spooled, base.Queue):
    """Queues with their messages: `delete` and `stats` are complete."""

    _missing = errors.QueueDoesNotExist

    def _calculate_resource_count(self, project: str | None = None) -> Any:
        return self._names.calculate_resource_count(project=project)


class TopicController(_Spooled, base.Topic):
    """Topics, like queues."""

    _missing = errors.TopicDoesNotExist
