"""Inserting rows, several in a statement."""

from __future__ import annotations

import functools
import itertools
import sqlite3
from collections.abc import Sequence
from typing import Any

# Rows a statement: powers of two, so that a handful of prepared statements serves any number.
_SIZES = (64, 32, 16, 8, 4, 2, 1)


@functools.cache
def _statements(table: str, columns: str) -> dict[int, str]:
    """The statements that insert rows of these columns, by the number of rows."""
    row = f'({", ".join("?" for _ in columns.split(","))})'
    return {
        size: f'INSERT INTO {table} ({columns}) VALUES {", ".join([row] * size)}' for size in _SIZES
    }


def insert(cursor: sqlite3.Cursor, table: str, columns: str, rows: Sequence[Sequence[Any]]) -> int:
    """Insert rows; the number of the last one: where numbers are given, they follow one another."""
    statements = _statements(table, columns)
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            parameters = itertools.chain.from_iterable(rows[start : start + size])
            cursor.execute(statements[size], tuple(parameters))
            start += size
    return cursor.lastrowid or 0
