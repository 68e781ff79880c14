"""Deleting the rows of messages: whatever deletes messages of a file does it here.

Long bodies go with their messages, the groups of these are looked at, and `tallies` is told.

PERF: for all messages of a call together. Triggers would do it for each message, and cost more than
the deletion itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from zaqar_gevent.message_groups import GroupMode
from zaqar_gevent.storage.sqlite import tallies
from zaqar_gevent.storage.sqlite.schema import GROUP_READY, IN_GROUP, MESSAGE_BYTES, SECOND

# The limit keeps the inner query apart: bodies are not sorted, only their lengths. PERF: a claim is
# read once for all its messages. `more` is 1 for a message with a group, and 2 for a long body.
_LOOK = f"""SELECT ifnull(sum(count), 0), max(more),
        json_group_array(json_array({tallies.CHANGE_COLUMNS})) FILTER (WHERE expiring OR freed)
    FROM (
        SELECT sum(count) AS count, max(more) AS more, spool, -sum(is_counted * count) AS expiring,
            expires_at, -sum((claim IS NOT NULL) * count) AS freed, frees_at,
            -sum(is_counted * bytes) AS bytes
        FROM (
            SELECT claim, spool, expires_at, is_counted, count(*) AS count, sum(bytes) AS bytes,
                max(more) AS more,
                (SELECT {SECOND.format(time='expires')} FROM claims WHERE id = claim) AS frees_at
            FROM (
                SELECT m.claim, m.spool, {SECOND.format(time='m.expires')} AS expires_at,
                    m.id <= t.last AS is_counted, {MESSAGE_BYTES} AS bytes,
                    CASE WHEN m.long_body IS NOT NULL THEN 2 ELSE
                        m.member IS NOT NULL OR m.message_group IS NOT NULL END AS more
                FROM tallied t CROSS JOIN {{messages}} LIMIT -1)
            GROUP BY claim, spool, expires_at, is_counted)
        GROUP BY spool, expires_at, frees_at)"""

_THESE = 'SELECT value FROM json_each(:ids)'

_DELETE = 'DELETE FROM messages WHERE id IN (SELECT value FROM json_each(?))'

_DELETE_LONG = (
    f"""DELETE FROM long_bodies WHERE id IN (
        SELECT long_body FROM messages WHERE id IN ({_THESE}) AND long_body > 0)""",
    # Their pieces are removed later, some at a time.
    f"""UPDATE bodies_in_pieces SET keep_until = 0 WHERE id IN (
        SELECT -long_body FROM messages WHERE id IN ({_THESE}) AND long_body < 0)""",
)

# The groups that have a row which the deletion of messages may change. Where groups are not
# ordered, the deletion of a held message changes none.
_GROUPS = f"""SELECT json_group_array(DISTINCT g.id) FROM messages m
    CROSS JOIN spools s ON s.id = m.spool AND s.grouping != 0
    CROSS JOIN groupings p ON p.id = s.grouping
        AND (m.claim IS NULL OR p.mode & {GroupMode.ORDERED:d})
    CROSS JOIN message_groups g ON g.id = ifnull(
        (SELECT id FROM message_groups WHERE id = m.member AND grouping = s.grouping),
        (SELECT id FROM message_groups
            WHERE grouping = s.grouping AND name = ifnull(m.message_group, '')))
    WHERE m.id IN ({_THESE}) AND (m.member IS NOT NULL OR m.message_group IS NOT NULL)
    AND (m.claim IS NULL OR g.ready IS NULL)"""
_LOOK_AT_GROUPS = (
    f"""DELETE FROM message_groups WHERE id IN (SELECT value FROM json_each(?))
        AND NOT EXISTS (SELECT 1 {IN_GROUP.format(member='message_groups.id')})""",
    f"""UPDATE message_groups SET ready = {
        GROUP_READY.format(
            spool='(SELECT spool FROM groupings WHERE id = message_groups.grouping)', name='name'
        )
    } WHERE id IN (SELECT value FROM json_each(?))""",
)


def looking_at(messages: str) -> str:
    """The statement for `delete_all` of some messages.

    messages: SQL for a table `m` of messages, each of them once: what follows a FROM.
    """
    return _LOOK.format(messages=messages)


_LOOK_AT_THESE = looking_at(f'messages m WHERE m.id IN ({_THESE})')


def delete(cursor: sqlite3.Cursor, ids: str) -> int:
    """Delete the messages whose numbers are in a JSON array; how many there were."""
    if ids == '[]':
        return 0
    count, more, changes = cursor.execute(_LOOK_AT_THESE, {'ids': ids}).fetchone()
    _delete(cursor, ids, more, changes)
    return int(count)


def delete_found(
    cursor: sqlite3.Cursor, query: str, parameters: Sequence[Any] | Mapping[str, Any]
) -> int:
    """Delete the messages whose numbers a query gives as its column `id`; how many."""
    found = cursor.execute(f'SELECT json_group_array(id) FROM ({query})', parameters).fetchone()
    return delete(cursor, found[0])


def delete_all(
    cursor: sqlite3.Cursor, numbers: Sequence[int], statement: str, parameters: Sequence[Any]
) -> bool:
    """Delete messages if a statement of `looking_at` finds all of them; whether it does."""
    count, more, changes = cursor.execute(statement, parameters).fetchone()
    if count != len(numbers) or len({*numbers}) != count:
        return False
    _delete(cursor, msgspec.json.encode(numbers).decode(), more, changes)
    return True


def _delete(cursor: sqlite3.Cursor, ids: str, more: int | None, changes: str) -> None:
    groups = '[]'
    if more:
        if more > 1:
            for deletion in _DELETE_LONG:
                cursor.execute(deletion, {'ids': ids})
        groups = cursor.execute(_GROUPS, {'ids': ids}).fetchone()[0]
    cursor.execute(_DELETE, (ids,))
    if changes != '[]':
        tallies.changed(cursor, changes)
    if groups != '[]':
        for update in _LOOK_AT_GROUPS:
            cursor.execute(update, (groups,))
