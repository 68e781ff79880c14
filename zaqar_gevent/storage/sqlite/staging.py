"""Staging: long bodies are written before their messages, a piece in each transaction.

Nobody waits for a whole body then. A piece is committed without a sync, and synced after that while
others commit. The commit of the post comes last: it syncs whatever is not on the disk yet.

The pieces of a body that never gets a message, because its post was refused or its process ended,
are removed after `KEEP_SECONDS`, as those of deleted messages are at once: some at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from oslo_utils import timeutils
from zaqar.storage import errors

from zaqar_gevent.bodies import Data
from zaqar_gevent.storage.core.group_commit import apart
from zaqar_gevent.storage.errors import StoreUnavailable
from zaqar_gevent.storage.sqlite import steps
from zaqar_gevent.storage.sqlite.long_bodies import LEAST_BYTES, StagedBody
from zaqar_gevent.storage.sqlite.schema import FIRST_PIECE, PIECE_NUMBERS, PIECES

if TYPE_CHECKING:
    from zaqar_gevent.storage.sqlite.database import Database

STAGED_BYTES = 256 * 1024
"""Bodies of one post are staged where they have more bytes together."""

PIECE_BYTES = 128 * 1024
"""Bytes of bodies that a transaction writes at most, where they are staged."""

KEEP_SECONDS = 120.0
"""How long a body is kept without a message, since its last piece: longer than a piece waits."""

_BEGIN = 'INSERT INTO bodies_in_pieces (pieces, bytes, keep_until) VALUES (1, ?, ?)'
_GO_ON = """UPDATE bodies_in_pieces SET pieces = pieces + 1, bytes = bytes + ?, keep_until = ?
    WHERE id = ? AND keep_until > 0 AND pieces = ?"""
_ADD = f'INSERT INTO body_pieces (id, body) VALUES ({FIRST_PIECE.format(body="?")} + ?, ?)'

_ARE_KEPT = 'id IN (SELECT value FROM json_each(?)) AND keep_until > 0'
_COUNT = f'SELECT count(*) FROM bodies_in_pieces WHERE {_ARE_KEPT}'
_TAKE = f'UPDATE bodies_in_pieces SET keep_until = NULL WHERE {_ARE_KEPT}'
_DISCARD = f'UPDATE bodies_in_pieces SET keep_until = 0 WHERE {_ARE_KEPT}'

IS_DUE = """EXISTS (SELECT 1 FROM bodies_in_pieces INDEXED BY bodies_without_message
    WHERE keep_until IS NOT NULL AND keep_until <= {now})"""
"""SQL for whether there are bodies to remove; to be formatted with SQL for the time."""

# Nobody may go on with what is being removed.
_GIVE_UP = """UPDATE bodies_in_pieces INDEXED BY bodies_without_message SET keep_until = 0
    WHERE keep_until > 0 AND keep_until <= ?"""
_GIVEN_UP = """SELECT id FROM bodies_in_pieces INDEXED BY bodies_without_message
    WHERE keep_until = 0 LIMIT :limit"""
_THEIR_PIECES = f"""SELECT p.id AS id, length(p.body) AS size FROM ({_GIVEN_UP}) b
    CROSS JOIN body_pieces p
    ON p.id {PIECE_NUMBERS.format(body='b.id')} LIMIT :limit"""
_REMOVE_PIECES = f'DELETE FROM body_pieces WHERE id IN ({steps.first(_THEIR_PIECES)})'
_REMOVE = f"""DELETE FROM bodies_in_pieces WHERE id IN ({_GIVEN_UP})
    AND NOT EXISTS (SELECT 1 {PIECES.format(body='bodies_in_pieces.id')})"""


AnyBody = Data | StagedBody


class Piece(NamedTuple):
    """A part of a body.

    body: the number of the body; None for its first piece. place: how many pieces come before.
    """

    body: int | None
    place: int
    data: Data


@contextmanager
def staged(database: Database, project: str, bodies: Sequence[AnyBody]) -> Iterator[list[AnyBody]]:
    """The same bodies, the long ones staged, to be given to messages within the context."""
    done: list[AnyBody] = []
    try:
        for some in _part([one for one in bodies if not isinstance(one, StagedBody)]):
            _stage(database, project, some, done)
        yield done
    except Exception:
        # Where that is not possible, they are removed later.
        with suppress(errors.ExceptionBase):
            database.write(discard, numbers(done))
        raise


def numbers(bodies: Iterable[AnyBody]) -> list[int]:
    """The numbers of those that are staged."""
    return [one.number for one in bodies if isinstance(one, StagedBody)]


def _part(bodies: Sequence[Data]) -> Iterator[list[Data]]:
    """The bodies in their order: as many together as a step writes, or one that is longer."""
    step: list[Data] = []
    size = 0
    for body in bodies:
        if step and size + len(body) > PIECE_BYTES:
            yield step
            step, size = [], 0
        step.append(body)
        size += len(body)
    yield step


def _stage(database: Database, project: str, bodies: list[Data], done: list[AnyBody]) -> None:
    """Stage the long ones of `bodies` and add all of them to `done`, as soon as they are there."""
    firsts = [
        Piece(None, 0, memoryview(body)[:PIECE_BYTES])
        for body in bodies
        if len(body) >= LEAST_BYTES
    ]
    made = iter(_write(database, project, firsts) if firsts else ())
    done.extend(
        StagedBody(next(made), len(body)) if len(body) >= LEAST_BYTES else body for body in bodies
    )
    # Only one that is alone has more pieces.
    last = done[-1]
    if isinstance(last, StagedBody):
        view = memoryview(bodies[-1])
        for place, start in enumerate(range(PIECE_BYTES, len(view), PIECE_BYTES), 1):
            piece = Piece(last.number, place, view[start : start + PIECE_BYTES])
            _write(database, project, [piece])


def _write(database: Database, project: str, pieces: Sequence[Piece]) -> list[int]:
    """Have pieces written, and synced; the numbers of their bodies."""
    made: list[int] = database.write(add, project, pieces)
    database.sync_log()
    return made


@apart
def add(cursor: sqlite3.Cursor, project: str, pieces: Sequence[Piece]) -> list[int]:
    """Write pieces; the numbers of their bodies. Raises `StoreUnavailable` if one was given up."""
    until = timeutils.utcnow_ts(microsecond=True) + KEEP_SECONDS
    made = []
    for body, place, data in pieces:
        if body is None:
            cursor.execute(_BEGIN, (len(data), until))
            number = cursor.lastrowid or 0
        else:
            number = body
            cursor.execute(_GO_ON, (len(data), until, number, place))
            if not cursor.rowcount:
                raise given_up()
        cursor.execute(_ADD, (number, place, data))
        made.append(number)
    return made


def are_there(cursor: sqlite3.Cursor, numbers: Sequence[int]) -> bool:
    """Whether staged bodies are all there still, and messages can have them."""
    [found] = cursor.execute(_COUNT, (msgspec.json.encode(numbers).decode(),)).fetchone()
    return bool(found == len(numbers))


def take(cursor: sqlite3.Cursor, numbers: Sequence[int]) -> None:
    """Have messages of this transaction have staged bodies, which are there."""
    cursor.execute(_TAKE, (msgspec.json.encode(numbers).decode(),))


def discard(cursor: sqlite3.Cursor, numbers: Sequence[int]) -> None:
    """Have bodies removed that no message is to have.

    Those that a message has all the same, since its post was performed after it had been given up,
    are left to it.
    """
    cursor.execute(_DISCARD, (msgspec.json.encode(numbers).decode(),))


def given_up() -> StoreUnavailable:
    """The error of who comes too late."""
    return StoreUnavailable(
        'The embedded store', f'a long body was not written within {KEEP_SECONDS:g} s of its start'
    )


def collect(cursor: sqlite3.Cursor, now: float, limit: int) -> None:
    """Remove a step of what no message has."""
    cursor.execute(_GIVE_UP, (now,))
    cursor.execute(_REMOVE_PIECES, {'limit': limit})
    cursor.execute(_REMOVE, {'limit': limit})
