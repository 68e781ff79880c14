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
    names = list(dict.fromkeys((project, queue) for project, queue, _, _ in posts))
    found = dict(zip(names, spools.resolve(cursor, names)))
    accepted = []
    for project, queue, _, check in posts:
        spool, exists = found[project, queue]
        if check and not exists:
            accepted.append(None)
            continue
        if spool is None:
            spool = spools.make(cursor, project, queue)
            found[project, queue] = spool, exists
        accepted.append(spool)
    last = _insert(
        cursor,
        [(spool, *row) for spool, post in zip(accepted, posts) if spool is not None
         for row in post[2]],
    )
    return _number(posts, accepted, last)


def _insert(cursor: sqlite3.Cursor, rows: list[tuple[Any, ...]]) -> int:
    """Insert `rows`; the id of the last of them, whose ids follow one another."""
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            parameters = [value for row in rows[start:start + size] for value in row]
            cursor.execute(_INSERTS[size], parameters)
            start += size
    return cursor.lastrowid or 0


def _number(posts: Sequence[tuple[Any, ...]], accepted: list[int | None], last: int) -> list[Outcome]:
    total = sum(len(post[2]) for post, spool in zip(posts, accepted) if spool is not None)
    following = last - total + 1
    outcomes: list[Outcome] = []
    for (project, queue, rows, _), spool in zip(posts, accepted):
        if spool is None:
            outcomes.append(errors.QueueDoesNotExist(queue, project or None))
            continue
        outcomes.append((following, following + len(rows) - 1))
        following += len(rows)
    return outcomes
