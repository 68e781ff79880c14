"""How many messages a spool has, and how many bytes, counted without walking through them.

A spool's row has the numbers of its messages and of those that claims hold, and the bytes of its
messages, which are added up for its project (see `usage`). What expires later by
itself is counted by the second in which it does, in `endings`. So the counts at any time are those
of the spool less what has ended since, second by second.

What has happened last is not in these counts yet, which a post or a deletion would have to pay for.
Messages that were posted last are counted one by one, until there are `STEP`. What is deleted, held
or freed is noted in `changes`, and is added to the counts when `CHANGES` have gathered.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable

from zaqar_gevent.storage.sqlite import inserting
from zaqar_gevent.storage.sqlite.documents import SPOOL
from zaqar_gevent.storage.sqlite.schema import MESSAGE_BYTES, SECOND

STEP = 256
"""Numbers that are given to messages between two counts."""

NEW = 'FROM messages m NOT INDEXED WHERE m.id > (SELECT last FROM tallied)'
"""SQL for the messages, as `m`, that are not counted yet."""

_COUNT_NEW = (
    f"""INSERT INTO endings (spool, second, expiring)
        SELECT spool, {SECOND.format(time='expires')}, count(*) {NEW} GROUP BY 1, 2
        ON CONFLICT (spool, second) DO UPDATE SET expiring = expiring + excluded.expiring""",
    f"""UPDATE spools SET total = total + new.count, bytes = spools.bytes + new.bytes
        FROM (SELECT spool, count(*) AS count, sum({MESSAGE_BYTES}) AS bytes
            {NEW} GROUP BY spool) new
        WHERE spools.id = new.spool""",
    "UPDATE tallied SET last = (SELECT seq FROM sqlite_sequence WHERE name = 'messages')",
)

CHANGES = 128
"""Changes that are kept until they are counted."""

_LAST_CHANGE = 'SELECT max(id) FROM changes'

_GATHER = (
    """INSERT INTO endings (spool, second, expiring)
        SELECT spool, expires_at, sum(expiring) AS sum FROM changes
        WHERE expires_at IS NOT NULL GROUP BY 1, 2 HAVING sum != 0
        ON CONFLICT (spool, second) DO UPDATE SET expiring = expiring + excluded.expiring""",
    """INSERT INTO endings (spool, second, freed)
        SELECT spool, frees_at, sum(freed) AS sum FROM changes
        WHERE frees_at IS NOT NULL GROUP BY 1, 2 HAVING sum != 0
        ON CONFLICT (spool, second) DO UPDATE SET freed = freed + excluded.freed""",
    'DELETE FROM endings WHERE expiring = 0 AND freed = 0',
    """UPDATE spools SET
            total = total + c.expiring, held = held + c.freed, bytes = spools.bytes + c.bytes
        FROM (SELECT spool, sum(expiring) AS expiring, sum(freed) AS freed, sum(bytes) AS bytes
            FROM changes GROUP BY spool) c
        WHERE spools.id = c.spool""",
    'DELETE FROM changes',
)

_RESTORED = f"""INSERT INTO changes (spool, expiring, expires_at, freed, bytes)
    SELECT m.spool, 1, {SECOND.format(time='m.expires')}, 0, {MESSAGE_BYTES} FROM messages m
    WHERE m.id = ? AND m.id <= (SELECT last FROM tallied)"""

CHANGE_COLUMNS = 'spool, expiring, expires_at, freed, frees_at, bytes'

_CHANGED = f"""INSERT INTO changes ({CHANGE_COLUMNS})
    SELECT {', '.join(f"json_extract(value, '$[{place}]')" for place in range(6))}
    FROM json_each(?)"""

_CLAIMED = 'spool, expiring, freed, frees_at'

_RELEASED = f"""INSERT INTO changes (spool, expiring, freed, frees_at)
    SELECT spool, 0, -:count, {SECOND.format(time='expires')} FROM claims WHERE id = :claim"""

MAX_LOOKED_AT = 1000
"""Delays and claims that end in the present second are counted singly, up to this many."""

_JUST_EXPIRED = f"""SELECT count(*) FROM (
        SELECT spool FROM messages INDEXED BY messages_expiry
        WHERE expires > :second AND expires <= :now LIMIT {MAX_LOOKED_AT})
    WHERE spool = s.id"""

_JUST_FREED = f"""SELECT count(*) FROM (
        SELECT id FROM claims INDEXED BY claims_of_spool
        WHERE spool = s.id AND expires > :second AND expires <= :now LIMIT {MAX_LOOKED_AT}) ended
    CROSS JOIN messages m INDEXED BY messages_held ON m.claim = ended.id"""

COUNTS = f"""SELECT s.total - ifnull(sum(e.expiring), 0) + noted.expiring + (
        SELECT count(*) {NEW} AND spool = s.id AND expires > :second)
    - ({_JUST_EXPIRED}) AS total,
    s.held - ifnull(sum(e.freed), 0) + noted.freed - ({_JUST_FREED}) AS claimed
    FROM spools s CROSS JOIN (
        SELECT ifnull(sum(CASE WHEN expires_at > :second THEN expiring END), 0) AS expiring,
            ifnull(sum(CASE WHEN frees_at > :second THEN freed END), 0) AS freed
        FROM changes NOT INDEXED WHERE spool = {SPOOL}) noted
    LEFT JOIN endings e ON e.spool = s.id AND e.second <= :second
    WHERE s.id = {SPOOL}"""
"""The messages of a queue that have not expired, and those of them that are claimed.

`:second` is the last whole second before `:now`. If more messages of the file, or claims of the
queue, end within a second than are looked at, some are counted until it is over.

A row of nulls for a queue without any.
"""


def update(cursor: sqlite3.Cursor, last: int, given: int) -> None:
    """Count new messages if it is time, now that `given` numbers up to `last` have been given."""
    if last // STEP != (last - given) // STEP:
        for statement in _COUNT_NEW:
            cursor.execute(statement)


def gather(cursor: sqlite3.Cursor) -> None:
    """At the end of a transaction: add the changes to the counts if there are enough of them."""
    if (cursor.execute(_LAST_CHANGE).fetchone()[0] or 0) >= CHANGES:
        for statement in _GATHER:
            cursor.execute(statement)


def restored(cursor: sqlite3.Cursor, number: int) -> None:
    """A message is back that was deleted."""
    cursor.execute(_RESTORED, (number,))


def changed(cursor: sqlite3.Cursor, changes: str) -> None:
    """The counts change by a JSON array of arrays of `CHANGE_COLUMNS`."""
    cursor.execute(_CHANGED, (changes,))


def claimed(cursor: sqlite3.Cursor, spool: int, claims: Iterable[tuple[int, float]]) -> None:
    """New claims hold messages: of each, how many and until when."""
    rows = [(spool, 0, count, math.ceil(expires)) for count, expires in claims]
    inserting.insert(cursor, 'changes', _CLAIMED, rows)


def released(cursor: sqlite3.Cursor, claim: int, count: int) -> None:
    """A claim holds `count` messages less, and others still."""
    cursor.execute(_RELEASED, {'claim': claim, 'count': count})
