"""Answers to posts with an id, kept for a while: a repeated post is answered alike."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec
from oslo_utils import timeutils

from zaqar_gevent.storage.sqlite.documents import SPOOL

Key = tuple[int | None, int | str]
"""The spool that was posted to, and the id that the client gave its post, if that is a text."""

Span = tuple[int, int]
"""The first and the last id of the messages posted."""

_FIND = """SELECT r.spool, r.post_id, r.first, r.last
    FROM json_each(?) j
    JOIN receipts r ON r.spool = json_extract(j.value, '$[0]')
        AND r.post_id = json_extract(j.value, '$[1]')
    WHERE r.expires > ?"""

_FIND_ONE = f"""SELECT first, last FROM receipts
    WHERE spool = {SPOOL} AND post_id = :post_id AND expires > :now"""

_KEEP = """INSERT OR REPLACE INTO receipts (spool, post_id, first, last, expires)
    VALUES (?, ?, ?, ?, ?)"""


def find(cursor: sqlite3.Cursor, keys: Iterable[Key]) -> dict[Key, Span]:
    """The answers to those of the posts that have been made before."""
    named = [key for key in keys if isinstance(key[1], str)]
    if not named:
        return {}
    document = msgspec.json.encode(named).decode()
    now = timeutils.utcnow_ts(microsecond=True)
    return {(row[0], row[1]): (row[2], row[3]) for row in cursor.execute(_FIND, (document, now))}


def find_one(connection: sqlite3.Connection, project: str, queue: str, post_id: str) -> Span | None:
    """The answer to a post with this id, if it has been made before."""
    now = timeutils.utcnow_ts(microsecond=True)
    parameters = {'project': project, 'queue': queue, 'post_id': post_id, 'now': now}
    found: Span | None = connection.execute(_FIND_ONE, parameters).fetchone()
    return found


def keep(cursor: sqlite3.Cursor, answers: Iterable[tuple[Key, Span, float]]) -> None:
    """Remember the answers to posts with an id, each until its time."""
    rows = [(*key, *span, expires) for key, span, expires in answers]
    if rows:
        cursor.executemany(_KEEP, rows)
