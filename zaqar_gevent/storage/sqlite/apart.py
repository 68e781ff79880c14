"""Long bodies of messages that a transaction has taken: read after it, so that no writer waits.

Each step is a read by itself: others have their turn between two of them. A message that has been
deleted or has expired meanwhile is left out.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from oslo_utils import timeutils
from zaqar.storage import errors

from zaqar_gevent.storage.core.pages import ReadApart, decode_id, encode_id, read_page
from zaqar_gevent.storage.errors import UndecodableValue
from zaqar_gevent.storage.interface import StoredMessage
from zaqar_gevent.storage.sqlite import claiming, long_bodies, steps

if TYPE_CHECKING:
    from zaqar_gevent.storage.sqlite.database import Database

_FIND = """SELECT long_body, CASE WHEN long_body IS NULL THEN CAST(body AS BLOB) END
    FROM messages WHERE id = ?"""

Found = Collection[StoredMessage] | bytes
"""Messages, or their page, which has long bodies that are still to be read."""


class _BodiesApart(Exception):
    """Bodies are to be read in another way."""


def reading(database: Database, project: str | None, queue: str) -> ReadApart:
    """Reads the bodies of messages of a queue; raises like `Database.scan`."""

    def read_apart(wanted: Mapping[str, int]) -> dict[str, memoryview]:
        found: dict[str, memoryview] = {}
        for step in _part(wanted):
            found |= database.scan(_read, project or '', queue, step)
        return found

    return read_apart


def find(document: bytes, *, as_bodies: bool) -> Found:
    """The messages of a page, unless long bodies are to be read first; for `complete`."""
    try:
        return read_page(document, as_bodies=as_bodies, read_apart=_decline)
    except _BodiesApart:
        return document


def complete(
    found: Found, database: Database, project: str | None, queue: str, *, as_bodies: bool
) -> Collection[StoredMessage]:
    """The messages of which some bodies may still have to be read; raises like `Database.scan`."""
    if not isinstance(found, bytes):
        return found
    read_apart = reading(database, project, queue)
    return read_page(found, as_bodies=as_bodies, read_apart=read_apart)


@contextlib.contextmanager
def giving_back(database: Database, project: str | None, queue: str, token: str) -> Iterator[None]:
    """Release what a lease holds if its bodies cannot be read; at the latest it ends by itself.

    The queue is told in `UndecodableValue`.
    """
    try:
        yield
    except BaseException as error:
        now = timeutils.utcnow_ts(microsecond=True)
        with contextlib.suppress(errors.ExceptionBase):
            database.write(claiming.release, project, queue, token, now, 0)
        if isinstance(error, UndecodableValue):
            raise error.in_queue(queue, project) from None
        raise


def _decline(_: Mapping[str, int]) -> NoReturn:
    raise _BodiesApart


def _part(wanted: Mapping[str, int]) -> Iterator[list[int]]:
    """The numbers of messages, as many together as a step reads."""
    step: list[int] = []
    size = 0
    for message_id, length in wanted.items():
        if step and size + length > steps.BYTES:
            yield step
            step, size = [], 0
        step.append(decode_id(message_id) or 0)
        size += length
    if step:
        yield step


def _read(
    connection: sqlite3.Connection, project: str, queue: str, numbers: Sequence[int]
) -> dict[str, memoryview]:
    """The bodies of those of the messages that exist. The arguments say whose turn it is."""
    found: dict[str, memoryview] = {}
    connection.execute('BEGIN')
    try:
        for number in numbers:
            row: tuple[Any, ...] | None = connection.execute(_FIND, (number,)).fetchone()
            if row is not None:
                apart, body = row
                found[encode_id(number)] = (
                    memoryview(body) if apart is None else long_bodies.read(connection, apart)
                )
    finally:
        if connection.in_transaction:
            connection.execute('ROLLBACK')
    return found
