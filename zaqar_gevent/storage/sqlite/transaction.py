"""Transactions for the writing thread."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple


class DueMessage(NamedTuple):
    """A message for which subscribers were not told of the post, since it was delayed.

    document: the message as in a page. delay: that it was posted with, in seconds. passed: the
        queues that it came through by webhooks.
    """

    document: bytes
    delay: float
    passed: str | None


class DueQueue(NamedTuple):
    """A queue of which delayed messages have become visible.

    deliveries: these messages, where the queue has subscriptions.
    """

    project: str
    queue: str
    deliveries: list[DueMessage]


class Transaction(sqlite3.Cursor):
    """The resources that works use.

    due: what they have made visible, to be told when it is committed. next_due: when the first of
        the messages is due that they have delayed, in seconds since the epoch; None for none.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self.due: list[DueQueue] = []
        self.next_due: float | None = None


def open_transaction(connection: sqlite3.Connection) -> Transaction:
    """A transaction that has not begun.

    A connection keeps a weak reference to each cursor, and drops those of cursors that are gone
    only where it makes one itself.
    """
    return connection.cursor(Transaction)
