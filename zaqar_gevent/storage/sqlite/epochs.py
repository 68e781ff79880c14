"""Tells which markers this file can have given.

Ids grow, so a file that is replaced by a new one, or by an older backup, gives the same ids again
for other messages. A follower that comes with a marker of before would miss those messages without
a word. So an epoch begins whenever the file is opened to be written: it has a random name, and the
ids that are given from then on are its own. A marker is the position of a message, which is its id
unless it was delayed, with the name of its epoch. It is valid if the file knows the epoch and the
position is older than the next one.

A backup knows the epochs up to its own making, and the last of them ends where the backup does,
since the server that opens it begins another. So every marker that was given after the backup was
made is told from the new ones, whatever ids have been given since.

A message's id alone is taken as a marker, too, wherever the message has its position. It is told
from one that was never given only as long as no message has got this id.
"""

from __future__ import annotations

import sqlite3

from zaqar_gevent.storage.core.position_markers import NAME_LENGTH

_LAST_ID = "(SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages')"

# One that has given no ids yet gives way: a backup may have been made of it.
_BEGIN = f"""INSERT INTO epochs (first, name)
    VALUES ({_LAST_ID} + 1, lower(hex(randomblob({NAME_LENGTH // 2}))))
    ON CONFLICT (first) DO UPDATE SET name = excluded.name"""

OF_ID = '(SELECT name FROM epochs WHERE first <= {id} ORDER BY first DESC LIMIT 1)'
"""SQL for the name of the epoch that an id is of; to be formatted with it."""

POSITION = 'ifnull((SELECT placed FROM messages WHERE id = :marker), :marker)'
"""SQL for the position of the message whose id is `:marker`."""

IS_GIVEN = {
    False: f':marker <= {_LAST_ID}',
    True: f"""(:marker <= {_LAST_ID} AND EXISTS (
        SELECT 1 FROM epochs e WHERE e.name = :epoch AND NOT EXISTS (
            SELECT 1 FROM epochs later WHERE later.first > e.first AND later.first <= :marker)))""",
}
"""SQL for whether `:marker` can have been given, without and with the name of an `:epoch`."""


def begin(connection: sqlite3.Connection) -> None:
    """Begin an epoch, in a transaction of its own."""
    connection.execute(_BEGIN)
