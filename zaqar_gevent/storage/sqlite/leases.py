"""Rows of `claims`. Each is a lease; those of one claim have its token."""

from __future__ import annotations

import os
import sqlite3
import time

COLUMNS = 'spool, token, ttl, expires, retry'
"""What a lease is added with."""

HOLDS_NOTHING = """NOT EXISTS (
    SELECT 1 FROM messages INDEXED BY messages_held WHERE claim = claims.id)"""
"""SQL for whether a row of `claims` has no messages."""

_ADD = f'INSERT INTO claims ({COLUMNS}) VALUES (?, ?, ?, ?, ?)'
# PERF: without statistics SQLite prefers the index of the queue, and walks through all its claims.
_FIND = """SELECT id FROM claims INDEXED BY claims_of_token
    WHERE token = ? AND spool = ? AND expires = ?"""


def new_token() -> str:
    """A token that nobody can guess: 32 hexadecimal digits.

    PERF: it begins with the time, so that the tokens of claims that are made together are together
    in their index, rather than each in a page of its own.
    """
    return f'{time.time_ns() >> 20:012x}{os.urandom(10).hex()}'


def add(
    cursor: sqlite3.Cursor, spool: int, token: str, ttl: int, expires: float, retry: str | None
) -> int:
    """Add a lease; its number.

    retry: the delay before its messages are claimed again, as it is stored; None for none.
    """
    cursor.execute(_ADD, (spool, token, ttl, expires, retry))
    return cursor.lastrowid or 0


def find_or_add(
    cursor: sqlite3.Cursor, spool: int, token: str, ttl: int, expires: float, retry: str | None
) -> int:
    """The number of the lease of a claim that ends at a time, which is added if there is none."""
    row = cursor.execute(_FIND, (token, spool, expires)).fetchone()
    return int(row[0]) if row is not None else add(cursor, spool, token, ttl, expires, retry)
