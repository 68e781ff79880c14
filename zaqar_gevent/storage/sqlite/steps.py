"""Steps: how much one transaction moves, rewrites or removes, since all others wait for it.

A step has a largest number of messages, and of bytes of their bodies.
"""

from __future__ import annotations

from zaqar_gevent.storage.sqlite import long_bodies

BYTES = 1024 * 1024
"""Bytes of bodies after which a step ends. It has one message at least, however long."""


def first(rows: str, order: str = '', most: str = f'{BYTES}', columns: str = 'id') -> str:
    """SQL for as many of `rows` as a step may have.

    rows: a query for `id` and `size`, with a limit; see `SIZE`. order: SQL for the order in which
        they are taken; any without. most: SQL for the bytes of a step. columns: those selected.
    """
    ordered = f'ORDER BY {order} ' if order else ''
    return f"""SELECT {columns} FROM (
        SELECT *, sum(size) OVER ({ordered}ROWS UNBOUNDED PRECEDING) - size AS before
        FROM ({rows})) WHERE before < {most}"""


SIZE = f'{long_bodies.STORED_LENGTH} AS size'
"""SQL for the bytes of the body of a message."""
