"""Long bodies of messages, which have rows of their own.

SQLite writes a whole row again when any of its values changes, and a message's row changes whenever
it is claimed, freed or made visible.

A body may be in pieces, which are written and removed by several transactions; see `staging`.
"""

from __future__ import annotations

import mmap
import sqlite3

from zaqar_gevent.bodies import Data
from zaqar_gevent.storage.core.pages import APART_BYTES
from zaqar_gevent.storage.errors import UndecodableValue
from zaqar_gevent.storage.sqlite.schema import FIRST_PIECE, PIECES

LEAST_BYTES = 8 * 1024
"""Bytes of a body that gets a row of its own.

PERF: shorter ones are posted, read and deleted faster in the rows of their messages.
"""

_APART = '(SELECT {value} FROM long_bodies b WHERE b.id = {message}long_body)'
_IN_PIECES = '(SELECT {value} FROM bodies_in_pieces b WHERE b.id = -{message}long_body)'

# Without one of its pieces it is none: to be noticed.
_JOINED = f"""(SELECT CASE WHEN count(*) = {_IN_PIECES.format(value='b.pieces', message='m.')}
    THEN CAST(group_concat(body, '') AS BLOB) END
    FROM (SELECT body {PIECES.format(body='-m.long_body')} ORDER BY id))"""

BODY_APART = f"""CASE WHEN m.long_body IS NULL THEN m.body
    ELSE {_APART.format(value='b.body', message='m.')} END"""
"""SQL for the body of the message `m` in formats without bodies in pieces."""

BODY = f"""CASE WHEN m.long_body IS NULL THEN m.body
    WHEN m.long_body > 0 THEN {_APART.format(value='b.body', message='m.')}
    ELSE {_JOINED} END"""
"""SQL for the body of the message `m`."""

LENGTH = f"""CASE WHEN m.long_body IS NULL THEN length(CAST(m.body AS BLOB))
    WHEN m.long_body > 0 THEN {_APART.format(value='length(b.body)', message='m.')}
    ELSE {_IN_PIECES.format(value='b.bytes', message='m.')} END"""
"""SQL for the bytes of the body of the message `m`.

PERF: the length of a BLOB is in its row's header; the body is not read.
"""

BODY_IN_PAGE = f'CASE WHEN {LENGTH} < {APART_BYTES} THEN {BODY} END'
"""SQL for the body of the message `m`; null for one that is read apart."""

STORED_LENGTH = f"""CASE WHEN long_body IS NULL THEN length(body)
    WHEN long_body > 0 THEN {_APART.format(value='length(b.body)', message='')}
    ELSE {_IN_PIECES.format(value='b.bytes', message='')} END"""
"""The same for a query of `messages` alone; of texts, which older versions stored, characters."""

_ADD = 'INSERT INTO long_bodies (body) VALUES (?)'

_FORGET = """UPDATE messages SET long_body = NULL
    WHERE id IN (SELECT value FROM json_each(?)) AND long_body IS NOT NULL"""

_GET_PIECES = f"""SELECT bytes, pieces, {FIRST_PIECE.format(body='id')},
    (SELECT count(*) {PIECES.format(body='bodies_in_pieces.id')})
    FROM bodies_in_pieces WHERE id = ?"""


class StagedBody:
    """A body that has been written in pieces, for a message that is still to be made.

    number: in `bodies_in_pieces`. Its length is that of the body, in bytes.
    """

    __slots__ = ('_size', 'number')

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self._size = size

    def __len__(self) -> int:
        return self._size


def split(cursor: sqlite3.Cursor, body: Data | StagedBody) -> tuple[Data, int | None]:
    """The values of `body` and `long_body` in the row of a message."""
    if isinstance(body, StagedBody):
        return b'', -body.number
    if len(body) < LEAST_BYTES:
        return body, None
    cursor.execute(_ADD, (body,))
    return b'', cursor.lastrowid


def read(connection: sqlite3.Connection, number: int) -> memoryview:
    """A long body by its `long_body`. PERF: others run while it is copied.

    Raises `UndecodableValue` if a piece is missing.
    """
    if number > 0:
        with connection.blobopen('long_bodies', 'body', number, readonly=True) as blob:
            return memoryview(blob.read())
    size, count, first, found = connection.execute(_GET_PIECES, (-number,)).fetchone()
    if count != found:
        raise UndecodableValue(f'{count - found} pieces of a body are missing')
    # PERF: memory that the system provides as it is written to, rather than cleared at once.
    body = memoryview(mmap.mmap(-1, size))
    end = 0
    for piece in range(first, first + count):
        with connection.blobopen('body_pieces', 'body', piece, readonly=True) as blob:
            data = blob.read()
        start, end = end, end + len(data)
        body[start:end] = data
    return body


def remove(cursor: sqlite3.Cursor, number: int) -> None:
    """Remove the long body that no message got."""
    cursor.execute('DELETE FROM long_bodies WHERE id = ?', (number,))


def leave_to_others(cursor: sqlite3.Cursor, ids: str) -> None:
    """Let messages, whose numbers are in the JSON array `ids`, be deleted without their bodies.

    Their copies have them.
    """
    cursor.execute(_FORGET, (ids,))
