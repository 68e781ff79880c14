"""Inserting messages: all the posts of a transaction in a few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec
from zaqar.storage import errors

from zaqar_gevent.bodies import Data
from zaqar_gevent.storage.core.group_commit import Outcome, coalesced
from zaqar_gevent.storage.errors import StoreUnavailable
from zaqar_gevent.storage.sqlite import (
    delays,
    inserting,
    long_bodies,
    receipts,
    spools,
    staging,
    tallies,
)
from zaqar_gevent.storage.sqlite.transaction import Transaction

Row = tuple[int, float, float, float, bytes | None, str | None, Data | long_bodies.StagedBody, int]
"""ttl, created, expires, delayed_until, client, checksum, body, encoding."""

Extras = tuple[str | None, str | None]
"""attributes, group; most messages have neither."""

_COLUMNS = 'spool, ttl, created, expires, delayed_until, client, checksum, body, encrypted'
_EXTRA_COLUMNS = 'attributes, message_group'
_NO_EXTRAS: Extras = (None, None)
_BODY = _COLUMNS.split(', ').index('body')

_WITH_EXTRAS = f'{_COLUMNS}, {_EXTRA_COLUMNS}'


def bodies_of(rows: Sequence[Row]) -> list[staging.AnyBody]:
    """The bodies of rows."""
    return [row[6] for row in rows]


def with_bodies(rows: Sequence[Row], bodies: Sequence[staging.AnyBody]) -> list[Row]:
    """The same rows with other bodies."""
    return [(*row[:6], body, row[7]) for row, body in zip(rows, bodies, strict=True)]


class Post(msgspec.Struct):
    """Messages for one queue.

    check: whether the queue must exist in this file. post_id: what tells this post from others, to
        be remembered until `forget_at`; None where nothing does. due: when the first of its
        delayed messages is due; None where none is delayed. passed: the queues that the messages
        came through by webhooks, which is remembered for delayed ones. extras: of each of `rows`;
        None where no message has any. staged: the numbers of its staged bodies.
    """

    project: str
    queue: str
    rows: list[Row]
    check: bool
    post_id: str | None = None
    forget_at: float = 0.0
    due: float | None = None
    passed: str | None = None
    extras: list[Extras] | None = None
    staged: Sequence[int] = ()


_PASSED = 'UPDATE messages SET passed = ? WHERE id BETWEEN ? AND ? AND delayed_until > 0'


@coalesced()
def post(cursor: Transaction, posts: Sequence[tuple[Post]]) -> list[Outcome]:
    """For each post: the first and the last id of its messages, or an error.

    One that has been made before is not made again; its outcome is what it was.
    """
    asked = [one for (one,) in posts]
    # A post without an id is known by its place.
    keys = [
        (spool, place if one.post_id is None else one.post_id)
        for place, (spool, one) in enumerate(zip(_accept(cursor, asked), asked, strict=True))
    ]
    spans = receipts.find(cursor, keys)
    made: dict[receipts.Key, Post] = {}
    for key, one in zip(keys, asked, strict=True):
        if key[0] is not None and key not in spans:
            made.setdefault(key, one)
    failed = (
        _take_staged(cursor, keys, asked, made) if [None for one in asked if one.staged] else {}
    )
    rows: list[tuple[Any, ...]] = [
        (spool, *row) for (spool, _), one in made.items() for row in one.rows
    ]
    # PERF: the columns that most messages do not need would cost each of them.
    if [None for one in made.values() if one.extras]:
        extras = [own for one in made.values() for own in _extras_of(one)]
        rows = [(*row, *own) for row, own in zip(rows, extras, strict=True)]
        last = insert(cursor, rows, _WITH_EXTRAS)
    else:
        last = insert(cursor, rows)
    following = last - len(rows) + 1
    for key, one in made.items():
        spans[key] = following, following + len(one.rows) - 1
        following += len(one.rows)
        if one.passed is not None and one.due is not None:
            cursor.execute(_PASSED, (one.passed, *spans[key]))
        if one.due is not None and key[0] is not None:
            delays.note(cursor, key[0], one.due)
    tallies.update(cursor, last, len(rows))
    receipts.keep(
        cursor,
        [(key, spans[key], one.forget_at) for key, one in made.items() if one.post_id is not None],
    )
    return [
        spans.get(key)
        or failed.get(key)
        or errors.QueueDoesNotExist(one.queue, one.project or None)
        for key, one in zip(keys, asked, strict=True)
    ]


def _take_staged(
    cursor: sqlite3.Cursor,
    keys: Sequence[receipts.Key],
    asked: Sequence[Post],
    made: dict[receipts.Key, Post],
) -> dict[receipts.Key, StoreUnavailable]:
    """Give the posts that are made their staged bodies, and remove the others from `made`."""
    failed: dict[receipts.Key, StoreUnavailable] = {}
    for key, one in zip(keys, asked, strict=True):
        if not one.staged:
            continue
        if made.get(key) is not one:
            staging.discard(cursor, one.staged)
        elif staging.are_there(cursor, one.staged):
            staging.take(cursor, one.staged)
        else:
            staging.discard(cursor, one.staged)
            failed[key] = staging.given_up()
            del made[key]
    return failed


def _accept(cursor: sqlite3.Cursor, posts: Sequence[Post]) -> list[int | None]:
    """The spool of each post, or None when its queue does not exist."""
    asked = [(one.project, one.queue) for one in posts]
    names = list(dict.fromkeys(asked))
    found = dict(zip(names, spools.resolve(cursor, names), strict=True))
    accepted: list[int | None] = []
    for one, name in zip(posts, asked, strict=True):
        spool, exists = found[name]
        if one.check and not exists:
            accepted.append(None)
            continue
        if spool is None:
            spool = spools.make(cursor, *name)
            found[name] = spool, exists
        accepted.append(spool)
    return accepted


def _extras_of(post: Post) -> list[Extras]:
    return post.extras or [_NO_EXTRAS] * len(post.rows)


def _split(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The columns of a message with a long body."""
    body, number = long_bodies.split(cursor, row[_BODY])
    return *row[:_BODY], body, *row[_BODY + 1 :], number


def insert(
    cursor: sqlite3.Cursor, messages: Sequence[tuple[Any, ...]], columns: str = _COLUMNS
) -> int:
    """Insert messages, each a spool and a `Row`; the id of the last: they follow one another."""
    rows = messages
    # PERF: a column that few messages need would cost each of them.
    if [None for row in rows if len(row[_BODY]) >= long_bodies.LEAST_BYTES]:
        rows = [_split(cursor, row) for row in rows]
        columns += ', long_body'
    return inserting.insert(cursor, 'messages', columns, rows)
