"""Inserting messages: all the posts of a transaction in a few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from zaqar.storage import errors

from zaqar_gevent.storage.sqlite import spools
from zaqar_gevent.storage.sqlite.work import Outcome, coalesced

Row = tuple[int, float, float, float, bytes | None, str | None, str]
"""ttl, created, expires, delayed_until, client, checksum, body."""

_COLUMNS = '(spool, ttl, created, expires, delayed_until, client, checksum, body)'
_PLACEHOLDERS = '(?, ?, ?, ?, ?, ?, ?, ?)'

# Rows a statement: powers of two, so that a handful of prepared statements serves any number.
_SIZES = (64, 32, 16, 8, 4, 2, 1)
_INSERTS = {
    size: f'INSERT INTO messages {_COLUMNS} VALUES {", ".join([_PLACEHOLDERS] * size)}'
    for size in _SIZES
}


@coalesced
def post(cursor: sqlite3.Cursor, posts: Sequence[tuple[Any, ...]]) -> list[Outcome]:
    """For posts of (project, queue, rows, check): the first and the last id, or an error.

    check: whether the queue must exist in this file.
    """
    accepted = _accept(cursor, posts)
    rows = [
        (spool, *row)
        for spool, (_, _, rows, _) in zip(accepted, posts, strict=True)
        if spool is not None
        for row in rows
    ]
    following = _insert(cursor, rows) - len(rows) + 1
    outcomes: list[Outcome] = []
    for spool, (project, queue, posted, _) in zip(accepted, posts, strict=True):
        if spool is None:
            outcomes.append(errors.QueueDoesNotExist(queue, project or None))
        else:
            outcomes.append((following, following + len(posted) - 1))
            following += len(posted)
    return outcomes


def _accept(cursor: sqlite3.Cursor, posts: Sequence[tuple[Any, ...]]) -> list[int | None]:
    """The spool of each post, or None when its queue does not exist."""
    names = list(dict.fromkeys((project, queue) for project, queue, _, _ in posts))
    found = dict(zip(names, spools.resolve(cursor, names), strict=True))
    accepted: list[int | None] = []
    for project, queue, _, check in posts:
        spool, exists = found[project, queue]
        if check and not exists:
            accepted.append(None)
            continue
        if spool is None:
            spool = spools.make(cursor, project, queue)
            found[project, queue] = spool, exists
        accepted.append(spool)
    return accepted


def _insert(cursor: sqlite3.Cursor, rows: list[tuple[Any, ...]]) -> int:
    """Insert `rows`; the id of the last of them, whose ids follow one another."""
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            parameters = [value for row in rows[start : start + size] for value in row]
            cursor.execute(_INSERTS[size], parameters)
            start += size
    return cursor.lastrowid or 0
