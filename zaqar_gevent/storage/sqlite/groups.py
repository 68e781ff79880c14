"""Groups of messages in queues that have `_ordered_groups` or `_fair_groups`.

Such a queue has a grouping: a row for each of its groups, which the triggers of `schema` keep right
from then on. It tells the groups that have a message to be claimed, so that a claim looks neither
at the other groups nor at the messages that are held back.

A post does not write these rows, which would cost each post. Claims do it for the messages that
have come since, a step at a time, in the order of the positions: the spool's `grouped_to` is the
last position. The messages up to there have a row for their group, and those without a group have
the group ''. A group that has a row is right for its later messages as well.

When the settings of a queue change, it gets another grouping. The collector removes the old one.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from zaqar_gevent.message_groups import GroupMode
from zaqar_gevent.storage.sqlite.schema import GROUP_READY

STEP = 1000
"""Messages that are given to their groups in one step."""

EXPIRED_STEP = 250
"""Messages that have expired of which one claim removes those of its queue."""

_BEYOND_ALL = (1 << 63) - 1

# Metadata are told by the names of the settings first: most have none of them.
_GET = """SELECT s.id, s.grouping, s.grouped_to, g.mode, g.turn, (
        SELECT CASE WHEN instr(metadata, '_groups"') THEN
            (json_type(metadata, '$._ordered_groups') IS 'true')
            + 2 * (json_type(metadata, '$._fair_groups') IS 'true') ELSE 0 END
        FROM queues q WHERE q.project = s.project AND q.kind = 'queue' AND q.name = s.name)
    FROM spools s LEFT JOIN groupings g ON g.id = s.grouping
    WHERE s.project = ? AND s.name = ?"""

_PLACED = ' UNION ALL '.join(
    f"""SELECT {{columns}} FROM messages INDEXED BY {index}
    WHERE spool = :spool AND {condition} AND position > :reached AND position <= :reach"""
    for index, condition in (
        ('messages_free', 'claim IS NULL AND delayed_until = 0'),
        ('messages_held_in_order', 'claim IS NOT NULL'),
        ('messages_waiting', 'delayed_until > 0 AND placed IS NOT NULL'),
    )
)

_IS_BEHIND = """SELECT EXISTS (SELECT 1 FROM messages INDEXED BY messages_free
    WHERE spool = ? AND claim IS NULL AND delayed_until = 0 AND position > ?)"""

_REACH = f"""SELECT max(position), count(*) FROM (
    {_PLACED.format(columns='position')} ORDER BY position LIMIT :limit)"""

_NAMES = f"""SELECT json_group_array(name), count(*), max(is_new) FROM (
    SELECT ifnull(message_group, '') AS name, max(message_group IS NULL) AS is_new FROM (
        {_PLACED.format(columns='message_group, position')})
    GROUP BY 1 ORDER BY min(position))"""

_NAME_THE_REST = f"""UPDATE messages SET message_group = '' WHERE id IN (
    SELECT id FROM ({_PLACED.format(columns='id, message_group')}) WHERE message_group IS NULL)"""

_READY = GROUP_READY.format(spool=':spool', name='name')

_ADD = f"""INSERT OR IGNORE INTO message_groups (grouping, name, mode, turn, ready)
    SELECT :grouping, name, mode, turn, {_READY} FROM (
        SELECT value AS name, :mode AS mode, :turn + 1 + key AS turn FROM json_each(:names))"""

_LOOK = f"""UPDATE message_groups SET ready = {_READY}
    WHERE grouping = :grouping AND name IN (SELECT value FROM json_each(:names))"""
# Of the groups that had a row before. In ordered queues, those without anything to claim are held.
_LOOK_AT_EMPTY = f"{_LOOK} AND ready IS NULL AND (mode & 1 = 0 OR name = '')"

_FIRST = """SELECT id FROM messages INDEXED BY messages_group_free
    WHERE spool = :spool AND message_group = g.name AND message_group IS NOT NULL
    AND claim IS NULL AND delayed_until = 0 AND expires > :now AND position {after}
    AND position <= :reached ORDER BY position LIMIT 1"""

# A queue of groups: one is taken out with its first message, and put back with its next.
_FIND = """WITH RECURSIVE g (round, place, name, id, position, expires, claim_count) AS (
        SELECT * FROM (
            SELECT 0, {first_place}, g.name, m.id, m.position, m.expires, m.claim_count
            FROM message_groups g INDEXED BY message_groups_ready
            CROSS JOIN messages m ON m.id = ({first})
            WHERE g.grouping = :grouping AND g.ready IS NOT NULL ORDER BY g.ready LIMIT :limit)
        UNION ALL
        SELECT {next_round}, {next_place}, g.name, m.id, m.position, m.expires, m.claim_count
        FROM g CROSS JOIN messages m ON m.id = ({next})
        ORDER BY 1, 2 LIMIT :limit)
    SELECT json_group_array(id), count(*), min(expires), max(claim_count), json_group_array(name)
    FROM g"""
_FIRST_AND_NEXT = {
    'first': _FIRST.format(after='> 0'),
    'next': _FIRST.format(after='> g.position'),
}
_FIND_IN_ORDER = _FIND.format(
    first_place='m.position', next_round='0', next_place='m.position', **_FIRST_AND_NEXT
)
_FIND_IN_TURN = _FIND.format(
    first_place='g.ready', next_round='g.round + 1', next_place='g.place', **_FIRST_AND_NEXT
)

# What has expired is passed over in the index, again and again; there may be much of it.
_DROP_EXPIRED = f"""DELETE FROM messages WHERE id IN (
    SELECT id FROM (
        SELECT id, spool, claim FROM messages INDEXED BY messages_expiry
        WHERE expires <= ? LIMIT {EXPIRED_STEP})
    WHERE spool = ? AND claim IS NULL)"""

_TURN = """UPDATE message_groups SET turn = :turn + j.last,
        ready = CASE WHEN ready IS NULL THEN NULL ELSE :turn + j.last END
    FROM (SELECT value AS name, max(key) + 1 AS last FROM json_each(:names) GROUP BY value) j
    WHERE grouping = :grouping AND message_groups.name = j.name"""

_SPOOL_OF_MESSAGE = """SELECT s.id, s.grouping, json_array(ifnull(m.message_group, ''))
    FROM messages m JOIN spools s ON s.id = m.spool
    WHERE m.id = ? AND s.grouping != 0 AND m.position <= s.grouped_to"""

_PURGE = """DELETE FROM message_groups WHERE grouping = :grouping AND name IN (
    SELECT name FROM message_groups WHERE grouping = :grouping LIMIT :limit)"""


class Grouping(NamedTuple):
    """The grouping of a spool. reached: `grouped_to` of the spool."""

    number: int
    mode: GroupMode
    reached: int


class Found(NamedTuple):
    """Messages that can be claimed: see `claiming.Free`. names: the group of each, in JSON.

    is_behind: whether messages have no group yet that may be among them.
    """

    ids: str
    size: int
    expires: float
    claims: int | None
    names: str
    is_behind: bool


def open_spool(
    cursor: sqlite3.Cursor, project: str, queue: str, mode: GroupMode | None
) -> tuple[int | None, Grouping | None]:
    """The spool of a queue, and its grouping if it is to have one.

    mode: of the queue; None to read it from the metadata in this file.
    """
    row = cursor.execute(_GET, (project, queue)).fetchone()
    if row is None:
        return None, None
    spool, grouping, reached, present, _, wanted = row
    wanted = (wanted or 0) if mode is None else mode
    if wanted != (present or 0):
        grouping, reached = _begin(cursor, spool, wanted), 0
    return spool, Grouping(grouping, GroupMode(wanted), reached) if grouping else None


def _begin(cursor: sqlite3.Cursor, spool: int, mode: int) -> int:
    """Give a spool another grouping, or none; its number."""
    end(cursor, spool)
    grouping = 0
    if mode:
        cursor.execute('INSERT INTO groupings (spool, mode) VALUES (?, ?)', (spool, mode))
        grouping = cursor.lastrowid or 0
    cursor.execute('UPDATE spools SET grouping = ?, grouped_to = 0 WHERE id = ?', (grouping, spool))
    return grouping


def end(cursor: sqlite3.Cursor, spool: int) -> None:
    """Leave the grouping of a spool, if it has one, to the collector."""
    cursor.execute('UPDATE groupings SET spool = NULL WHERE spool = ?', (spool,))


def find(
    cursor: sqlite3.Cursor,
    spool: int,
    grouping: Grouping,
    now: float,
    limit: int,
    *,
    is_patient: bool,
) -> Found:
    """The first messages that can be claimed, after a step towards more of them.

    is_patient: whether nothing is taken in turn before all messages have been given to their
        groups. It is False for a claim that has tried often.
    """
    in_turn = bool(grouping.mode & GroupMode.FAIR)
    cursor.execute(_DROP_EXPIRED, (now, spool))
    is_behind = _is_behind(cursor, spool, grouping)
    if in_turn and is_behind:
        grouping, is_behind = _reach(cursor, spool, grouping)
        if is_behind and is_patient:
            return Found('[]', 0, 0.0, None, '[]', is_behind)
    found = _find(cursor, spool, grouping, now, limit)
    if is_behind and found[1] < limit and not in_turn:
        grouping, is_behind = _reach(cursor, spool, grouping)
        found = _find(cursor, spool, grouping, now, limit)
    return Found(*found, is_behind)


def took(cursor: sqlite3.Cursor, grouping: Grouping, names: str, count: int) -> None:
    """Messages of these groups were taken: it is the turn of the others."""
    if not grouping.mode & GroupMode.FAIR:
        return
    turn = _take_turns(cursor, grouping.number, count)
    cursor.execute(_TURN, {'grouping': grouping.number, 'names': names, 'turn': turn})


def restored(cursor: sqlite3.Cursor, number: int) -> None:
    """A message is back in its place, which claims may have come by already."""
    row = cursor.execute(_SPOOL_OF_MESSAGE, (number,)).fetchone()
    if row is None:
        return
    spool, grouping, names = row
    cursor.execute(
        "UPDATE messages SET message_group = '' WHERE id = ? AND message_group IS NULL", (number,)
    )
    mode = cursor.execute('SELECT mode FROM groupings WHERE id = ?', (grouping,)).fetchone()[0]
    _add(cursor, spool, Grouping(grouping, GroupMode(mode), 0), names, 1, _LOOK)


def collect(cursor: sqlite3.Cursor, limit: int) -> None:
    """Remove some rows of a grouping that is of no use any more."""
    row = cursor.execute('SELECT id FROM groupings WHERE spool IS NULL LIMIT 1').fetchone()
    if row is None:
        return
    cursor.execute(_PURGE, {'grouping': row[0], 'limit': limit})
    if cursor.rowcount < limit:
        cursor.execute('DELETE FROM groupings WHERE id = ?', row)


def _find(
    cursor: sqlite3.Cursor, spool: int, grouping: Grouping, now: float, limit: int
) -> tuple[str, int, float, int | None, str]:
    in_turn = grouping.mode & GroupMode.FAIR
    found: tuple[str, int, float, int | None, str] = cursor.execute(
        _FIND_IN_TURN if in_turn else _FIND_IN_ORDER,
        {
            'spool': spool,
            'grouping': grouping.number,
            'now': now,
            'limit': limit,
            'reached': _BEYOND_ALL if in_turn else grouping.reached,
        },
    ).fetchone()
    return found


def _is_behind(cursor: sqlite3.Cursor, spool: int, grouping: Grouping) -> bool:
    return bool(cursor.execute(_IS_BEHIND, (spool, grouping.reached)).fetchone()[0])


def _reach(cursor: sqlite3.Cursor, spool: int, grouping: Grouping) -> tuple[Grouping, bool]:
    """Give a step of messages to their groups; the grouping then, and whether there are more."""
    bounds = {'spool': spool, 'reached': grouping.reached, 'reach': _BEYOND_ALL}
    reach, count = cursor.execute(_REACH, {**bounds, 'limit': STEP}).fetchone()
    if not count:
        return grouping, False
    bounds['reach'] = reach
    names, groups, has_nameless = cursor.execute(_NAMES, bounds).fetchone()
    if has_nameless:
        cursor.execute(_NAME_THE_REST, bounds)
    _add(cursor, spool, grouping, names, groups, _LOOK_AT_EMPTY)
    cursor.execute('UPDATE spools SET grouped_to = ? WHERE id = ?', (reach, spool))
    return grouping._replace(reached=reach), count == STEP


def _add(
    cursor: sqlite3.Cursor, spool: int, grouping: Grouping, names: str, groups: int, look: str
) -> None:
    """Have rows for groups, whose `names` are in JSON; `look` at those that had one before."""
    turn = _take_turns(cursor, grouping.number, groups) if grouping.mode & GroupMode.FAIR else 0
    parameters = {'grouping': grouping.number, 'names': names}
    new = {'mode': int(grouping.mode), 'turn': turn, 'spool': spool}
    cursor.execute(_ADD, {**parameters, **new})
    cursor.execute(look, {**parameters, 'spool': spool})


def _take_turns(cursor: sqlite3.Cursor, grouping: int, count: int) -> int:
    """Take the next numbers of turns; the last one that was given before."""
    cursor.execute('UPDATE groupings SET turn = turn + ? WHERE id = ?', (count, grouping))
    row = cursor.execute('SELECT turn FROM groupings WHERE id = ?', (grouping,)).fetchone()
    return int(row[0]) - count
