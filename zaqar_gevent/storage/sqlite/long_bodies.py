"""Long bodies of messages, which have rows of their own.

SQLite writes a whole row again when any of its values changes, and a message's row changes whenever
it is claimed, freed or made visible.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from zaqar_gevent.bodies import Data

LEAST_BYTES = 8 * 1024
"""Bytes of a body that gets a row of its own.

PERF: shorter ones are posted, read and deleted faster in the rows of their messages.
"""

_APART = '(SELECT {value} FROM long_bodies b WHERE b.id = {message}long_body)'

BODY = f"""CASE WHEN m.long_body IS NULL THEN m.body
    ELSE {_APART.format(value='b.body', message='m.')} END"""
"""SQL for the body of the message `m`."""

LENGTH = f"""CASE WHEN m.long_body IS NULL THEN length(CAST(m.body AS BLOB))
    ELSE {_APART.format(value='length(b.body)', message='m.')} END"""
"""SQL for the bytes of the body of the message `m`.

PERF: the length of a BLOB is in its row's header; the body is not read.
"""

STORED_LENGTH = f"""CASE WHEN long_body IS NULL THEN length(body)
    ELSE {_APART.format(value='length(b.body)', message='')} END"""
"""The same for a query of `messages` alone; of texts, which older versions stored, characters."""

_ADD = 'INSERT INTO long_bodies (body) VALUES (?)'

_FORGET = """UPDATE messages SET long_body = NULL
    WHERE id IN (SELECT value FROM json_each(?)) AND long_body IS NOT NULL"""


def split(cursor: sqlite3.Cursor, body: Data) -> tuple[Data, int | None]:
    """The values of `body` and `long_body` in the row of a message."""
    if len(body) < LEAST_BYTES:
        return body, None
    cursor.execute(_ADD, (body,))
    return b'', cursor.lastrowid


def read(connection: sqlite3.Connection, number: int) -> bytes:
    """A long body by its number. PERF: others run while it is copied."""
    with connection.blobopen('long_bodies', 'body', number, readonly=True) as blob:
        return blob.read()


def remove(cursor: sqlite3.Cursor, number: Any) -> None:
    """Remove the long body that no message got, if it is one."""
    cursor.execute('DELETE FROM long_bodies WHERE id = ?', (number,))


def leave_to_others(cursor: sqlite3.Cursor, ids: str) -> None:
    """Let messages, whose numbers are in the JSON array `ids`, be deleted without their bodies.

    Their copies have them.
    """
    cursor.execute(_FORGET, (ids,))
