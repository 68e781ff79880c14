"""Groups of messages in queues that have `_ordered_groups` or `_fair_groups`.

Such a queue has a grouping, and a row for each group that has registered messages: those that a
claim has come by. The spool's `grouped_to` is the last position that claims have come by. A
message up to there is held, has expired, or is registered, which means that its `member` is the
row of its group; messages without a group have the group ''. `ready` of the row tells whether one
of them can be claimed. So a claim looks neither at the other groups nor at the messages that are
held back.

A post does not register messages, which would cost each post. In an ordered queue most are never
registered: a claim takes the next messages as they are if none of their groups is held, and
registers a step of them otherwise. Claims of a fair queue register all messages before they take
any. A message that is given back is registered if claims have come by it before.

When the settings of a queue change, it gets another grouping. The collector removes the old one,
to which `member` of messages may still refer.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec

from zaqar_gevent.message_groups import GroupMode
from zaqar_gevent.storage.sqlite import deleting
from zaqar_gevent.storage.sqlite.schema import GROUP_READY, HELD_IN_GROUP, IN_GROUP

STEP = 1000
"""Messages that one step registers at most."""

_GROWTH = 4
"""How much more of an ordered queue is registered where too few of the messages can be claimed."""

EXPIRED_STEP = 250
"""Messages that have expired of which one claim removes those of its queue."""

# Metadata are told by the names of the settings first: most have none of them.
_GET = """SELECT s.id, s.grouping, s.grouped_to, g.mode, (
        SELECT CASE WHEN instr(metadata, '_groups"') THEN
            (json_type(metadata, '$._ordered_groups') IS 'true')
            + 2 * (json_type(metadata, '$._fair_groups') IS 'true') ELSE 0 END
        FROM queues q WHERE q.project = s.project AND q.kind = 'queue' AND q.name = s.name)
    FROM spools s LEFT JOIN groupings g ON g.id = s.grouping
    WHERE s.project = ? AND s.name = ?"""

_GET_OF_SPOOL = """SELECT g.id, g.mode, s.grouped_to FROM spools s JOIN groupings g
    ON g.id = s.grouping WHERE s.id = ?"""

_FREE = """FROM messages m INDEXED BY messages_free
    WHERE m.spool = :spool AND m.claim IS NULL AND m.delayed_until = 0"""

# What has expired of any queue is looked at first: most files have none of it.
_LOOK_AHEAD = """SELECT EXISTS (SELECT 1 FROM messages INDEXED BY messages_expiry
        WHERE expires <= :now),
    EXISTS (SELECT 1 FROM messages INDEXED BY messages_free
        WHERE spool = :spool AND claim IS NULL AND delayed_until = 0 AND position > :reached)"""

# The next messages of an ordered queue, as long as none of their groups is held.
_WALK_AND = f"""SELECT json_group_array(id), count(*), min(expires), max(claim_count),
        max(position), max(is_held){{more}}
    FROM (SELECT m.id, m.expires, m.claim_count, m.position, m.message_group, m.message_group != ''
            AND {HELD_IN_GROUP.format(spool=':spool', name='m.message_group')} AS is_held
        {_FREE} AND m.position > :reached AND m.expires > :now
        ORDER BY m.position LIMIT :limit)"""
_WALK = _WALK_AND.format(more='')
# And whether no two are of one group.
_WALK_APART = _WALK_AND.format(
    more=""", count(DISTINCT nullif(message_group, '')) = count(nullif(message_group, ''))"""
)

_NEXT = f"""SELECT json_group_array(id), max(position), count(*) FROM (
    SELECT m.id, m.position {_FREE} AND m.position > :reached ORDER BY m.position LIMIT :limit)"""

_NAMES = """SELECT json_group_array(name), count(*) FROM (
    SELECT ifnull(message_group, '') AS name FROM messages
    WHERE id IN (SELECT value FROM json_each(?)) GROUP BY 1 ORDER BY min(position))"""

_ADD = """INSERT OR IGNORE INTO message_groups (grouping, name, mode, turn)
    SELECT :grouping, value, :mode, :turn + 1 + key FROM json_each(:names)"""

_REGISTER = """UPDATE messages SET member = (SELECT id FROM message_groups
        WHERE grouping = :grouping AND name = ifnull(message_group, ''))
    WHERE id IN (SELECT value FROM json_each(:ids)) AND position <= :reach"""

_READY = GROUP_READY.format(spool=':spool', name='name')
_LOOK = f"""UPDATE message_groups SET ready = {_READY}
    WHERE grouping = :grouping AND name IN (SELECT value FROM json_each(:names))"""
# Of the groups that have nothing to claim: new messages come last.
_LOOK_AT_EMPTY = f'{_LOOK} AND ready IS NULL'

_FIRST = """SELECT id FROM messages INDEXED BY messages_member
    WHERE member = g.id AND claim IS NULL AND delayed_until = 0 AND expires > :now
    AND position > {after} ORDER BY position LIMIT 1"""

# A queue of groups: one is taken out with its first message, and put back with its next.
_FIND = """WITH RECURSIVE
    g (round, place, id, message, position, expires, claim_count, is_late) AS (
        SELECT * FROM (
            SELECT 0, {first_place}, g.id, m.id, m.position, m.expires, m.claim_count, {is_late}
            FROM message_groups g INDEXED BY message_groups_ready
            CROSS JOIN messages m ON m.id = ({first})
            WHERE g.grouping = :grouping AND g.ready IS NOT NULL ORDER BY g.ready LIMIT :limit)
        UNION ALL
        SELECT {next_round}, {next_place}, g.id, m.id, m.position, m.expires, m.claim_count, 0
        FROM g CROSS JOIN messages m ON m.id = ({next})
        ORDER BY 1, 2 LIMIT :limit)
    SELECT json_group_array(message), count(*), min(expires), max(claim_count),
        json_group_array(id), ifnull(max(is_late), 0)
    FROM g"""
_FIRST_AND_NEXT = {'first': _FIRST.format(after='0'), 'next': _FIRST.format(after='g.position')}
_FIND_IN_ORDER = _FIND.format(
    first_place='m.position',
    next_round='0',
    next_place='m.position',
    is_late='m.position > g.ready',
    **_FIRST_AND_NEXT,
)
# PERF: in turn, one message of each of the first groups is enough where there are so many groups.
# A group that was taken last comes last, so that few of the first are held: `ready` is not changed
# before one is met here.
_FIND_ONE_OF_EACH = f"""SELECT json_group_array(message), count(*), min(expires), max(claim_count),
        json_group_array(id), json_group_array(id) FILTER (WHERE is_last),
        json_group_array(id) FILTER (WHERE is_held)
    FROM (SELECT g.id, m.id AS message, m.expires, m.claim_count,
            NOT EXISTS (SELECT 1 {IN_GROUP.format(member='g.id')} AND position > m.position)
            AS is_last,
            g.mode & 1 AND g.name != ''
            AND {HELD_IN_GROUP.format(spool=':spool', name='g.name')} AS is_held
        FROM message_groups g INDEXED BY message_groups_ready
        CROSS JOIN messages m ON m.id = ({_FIRST.format(after='0')})
        WHERE g.grouping = :grouping AND g.ready IS NOT NULL ORDER BY g.ready LIMIT :limit)"""
_SET_ASIDE = """UPDATE message_groups SET ready = NULL
    WHERE id IN (SELECT value FROM json_each(?))"""

_FIND_IN_TURN = _FIND.format(
    first_place='g.ready',
    next_round='g.round + 1',
    next_place='g.place',
    is_late='0',
    **_FIRST_AND_NEXT,
)

# Expired messages are passed over in the index, again and again; there may be many.
_EXPIRED = f"""SELECT id FROM (
        SELECT id, spool, claim FROM messages INDEXED BY messages_expiry
        WHERE expires <= ? LIMIT {EXPIRED_STEP})
    WHERE spool = ? AND claim IS NULL"""

_LOOKED_AT_OF_GROUP = 25
"""Messages at the front of a group of which those that have expired are removed at a time."""

# `ready` of the first groups is to be right.
_EXPIRED_FIRST = f"""SELECT e.value AS id FROM (
        SELECT id FROM message_groups INDEXED BY message_groups_ready
        WHERE grouping = :grouping AND ready IS NOT NULL ORDER BY ready LIMIT :limit) g
    CROSS JOIN json_each((
        SELECT json_group_array(id) FILTER (WHERE expires <= :now) FROM (
            SELECT id, expires FROM messages INDEXED BY messages_member
            WHERE member = g.id AND claim IS NULL AND delayed_until = 0
            ORDER BY position LIMIT {_LOOKED_AT_OF_GROUP}))) e"""

_HAS_READY = """SELECT EXISTS (SELECT 1 FROM message_groups INDEXED BY message_groups_ready
    WHERE grouping = ? AND ready IS NOT NULL)"""

# After messages have been taken.
_TURN = """UPDATE message_groups SET turn = :turn + 1 + j.key, ready = :turn + 1 + j.key
    FROM json_each(:groups) j WHERE message_groups.id = j.value"""
_LOOK_AT_TAKEN = f"""UPDATE message_groups SET ready = {_READY}
    WHERE id IN (SELECT value FROM json_each(:groups))"""
_DROP_EMPTY = f"""DELETE FROM message_groups WHERE id IN (SELECT value FROM json_each(:groups))
    AND NOT EXISTS (SELECT 1 {IN_GROUP.format(member='message_groups.id')})"""

_PURGE = """DELETE FROM message_groups WHERE grouping = :grouping AND name IN (
    SELECT name FROM message_groups WHERE grouping = :grouping LIMIT :limit)"""


class Grouping(NamedTuple):
    """The grouping of a spool. reached: `grouped_to` of the spool."""

    number: int
    mode: GroupMode
    reached: int


class Found(NamedTuple):
    """Messages that can be claimed: see `claiming.Free`.

    is_behind: whether there may be more among those that claims have not come by. groups: the
    number of the group of each registered message, in JSON. emptied: those of them that have no
    message left, which may be some that have. reach: up to where claims have come once these have
    been taken.
    """

    ids: str
    size: int
    expires: float
    claims: int | None
    is_behind: bool
    groups: str
    emptied: str
    reach: int


_NONE = Found('[]', 0, 0.0, None, True, '[]', '[]', 0)


def open_spool(
    cursor: sqlite3.Cursor, project: str, queue: str, mode: GroupMode | None
) -> tuple[int | None, Grouping | None]:
    """The spool of a queue, and its grouping if it is to have one.

    mode: of the queue; None to read it from the metadata in this file.
    """
    row = cursor.execute(_GET, (project, queue)).fetchone()
    if row is None:
        return None, None
    spool, grouping, reached, present, wanted = row
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

    is_patient: whether nothing is taken in turn before all messages are registered. It is False
        for a claim that has tried often.
    """
    if grouping.mode & GroupMode.FAIR:
        return _find_in_turn(cursor, spool, grouping, now, limit, is_patient=is_patient)
    return _find_in_order(cursor, spool, grouping, now, limit)


def find_of_each(
    cursor: sqlite3.Cursor, spool: int, grouping: Grouping, now: float, limit: int
) -> Found | None:
    """The next messages that can be claimed, of as many groups, after a step towards more of them.

    Claims of some of them and then others take what each would find by itself. None if there are
    fewer, or something else has to be done before.
    """
    values = {'spool': spool, 'reached': grouping.reached, 'now': now}
    if grouping.mode & GroupMode.FAIR:
        has_expired, is_behind = cursor.execute(_LOOK_AHEAD, values).fetchone()
        if has_expired:
            return None
        if is_behind:
            grouping, is_behind = _register_next(cursor, spool, grouping, STEP)
        found = None if is_behind else _find_one_of_each(cursor, spool, grouping, now, limit)
        return found if found is not None and found.size == limit else None
    if cursor.execute(_HAS_READY, (grouping.number,)).fetchone()[0]:
        return None
    *walked, is_held, are_apart = cursor.execute(_WALK_APART, {**values, 'limit': limit}).fetchone()
    ids, count, expires, claims, reach = walked
    if count < limit or is_held or not are_apart:
        return None
    return _NONE._replace(ids=ids, size=count, expires=expires, claims=claims, reach=reach)


def _find_in_turn(
    cursor: sqlite3.Cursor,
    spool: int,
    grouping: Grouping,
    now: float,
    limit: int,
    *,
    is_patient: bool,
) -> Found:
    has_expired, is_behind = cursor.execute(
        _LOOK_AHEAD, {'spool': spool, 'reached': grouping.reached, 'now': now}
    ).fetchone()
    if has_expired:
        deleting.delete_found(cursor, _EXPIRED, (now, spool))
    if is_behind:
        grouping, is_behind = _register_next(cursor, spool, grouping, STEP)
        if is_behind and is_patient:
            return _NONE
    found = _find_one_of_each(cursor, spool, grouping, now, limit)
    if found.size < limit:
        found = _find_registered(cursor, grouping, now, limit)
    return found._replace(is_behind=bool(is_behind))


def _find_in_order(
    cursor: sqlite3.Cursor, spool: int, grouping: Grouping, now: float, limit: int
) -> Found:
    found = _NONE._replace(reach=grouping.reached)
    if cursor.execute(_HAS_READY, (grouping.number,)).fetchone()[0]:
        deleting.delete_found(cursor, _EXPIRED, (now, spool))
        found = _find_registered(cursor, grouping, now, limit)
    left = limit - found.size
    if left <= 0:
        return found
    walk = {'spool': spool, 'reached': grouping.reached, 'now': now, 'limit': left}
    ids, count, expires, claims, reach, is_held = cursor.execute(_WALK, walk).fetchone()
    if not count:
        return found._replace(is_behind=False)
    if not is_held:
        return _join(found, ids, count, expires, claims)._replace(
            is_behind=count == left, reach=reach
        )
    step, registered, is_behind = left, 0, True
    while is_behind and found.size < limit and registered < STEP:
        step = min(step, STEP - registered)
        grouping, is_behind = _register_next(cursor, spool, grouping, step)
        registered += step
        step *= _GROWTH
        found = _find_registered(cursor, grouping, now, limit)
    return found._replace(is_behind=is_behind)


def _join(found: Found, ids: str, count: int, expires: float, claims: int | None) -> Found:
    """With messages that are not registered."""
    if not found.size:
        return found._replace(ids=ids, size=count, expires=expires, claims=claims)
    return found._replace(
        ids=f'{found.ids[:-1]},{ids[1:]}',
        size=found.size + count,
        expires=min(found.expires, expires),
        claims=max(found.claims or 0, claims or 0),
    )


def took(cursor: sqlite3.Cursor, spool: int, grouping: Grouping, found: Found) -> None:
    """These messages were taken: claims have come by them, and it is the turn of other groups."""
    if found.reach > grouping.reached:
        cursor.execute('UPDATE spools SET grouped_to = ? WHERE id = ?', (found.reach, spool))
    if found.groups == '[]':
        return
    groups = {'groups': found.groups}
    if grouping.mode & GroupMode.FAIR:
        # In the order in which each has been taken from last.
        taken = [*dict.fromkeys(reversed(msgspec.json.decode(found.groups)))]
        groups['groups'] = msgspec.json.encode(taken[::-1]).decode()
        turn = _take_turns(cursor, grouping.number, len(taken))
        cursor.execute(_TURN, {**groups, 'turn': turn})
    else:
        cursor.execute(_LOOK_AT_TAKEN, {**groups, 'spool': spool})
    if found.emptied != '[]':
        cursor.execute(_DROP_EMPTY, {'groups': found.emptied})


def freed(cursor: sqlite3.Cursor, spool: int, ids: str) -> None:
    """Messages are free again, which claims may have come by already. `ids` is a JSON array."""
    row = cursor.execute(_GET_OF_SPOOL, (spool,)).fetchone()
    if row is not None:
        number, mode, reached = row
        _register(cursor, spool, Grouping(number, GroupMode(mode), reached), ids, _LOOK)


def restored(cursor: sqlite3.Cursor, number: int) -> None:
    """A message is back in its place."""
    [spool] = cursor.execute('SELECT spool FROM messages WHERE id = ?', (number,)).fetchone()
    freed(cursor, spool, f'[{number}]')


def collect(cursor: sqlite3.Cursor, limit: int) -> None:
    """Remove some rows of a grouping that is of no use any more."""
    row = cursor.execute('SELECT id FROM groupings WHERE spool IS NULL LIMIT 1').fetchone()
    if row is None:
        return
    cursor.execute(_PURGE, {'grouping': row[0], 'limit': limit})
    if cursor.rowcount < limit:
        cursor.execute('DELETE FROM groupings WHERE id = ?', row)


def _find_one_of_each(
    cursor: sqlite3.Cursor, spool: int, grouping: Grouping, now: float, limit: int
) -> Found:
    """The first message of each of the first groups, none of which is held."""
    values = {'spool': spool, 'grouping': grouping.number, 'now': now}
    step = limit
    while True:
        *found, held = cursor.execute(_FIND_ONE_OF_EACH, {**values, 'limit': step}).fetchone()
        if held == '[]' and step == limit:
            ids, size, expires, claims, groups, last = found
            return Found(ids, size, expires, claims, False, groups, last, grouping.reached)
        cursor.execute(_SET_ASIDE, (held,))
        step = limit if held == '[]' else step * _GROWTH


def _find_registered(cursor: sqlite3.Cursor, grouping: Grouping, now: float, limit: int) -> Found:
    in_turn = grouping.mode & GroupMode.FAIR
    values = {'grouping': grouping.number, 'now': now, 'limit': limit}
    while True:
        *found, is_late = cursor.execute(
            _FIND_IN_TURN if in_turn else _FIND_IN_ORDER, values
        ).fetchone()
        if not is_late:
            ids, size, expires, claims, groups = found
            return Found(ids, size, expires, claims, False, groups, groups, grouping.reached)
        deleting.delete_found(cursor, _EXPIRED_FIRST, values)


def _register_next(
    cursor: sqlite3.Cursor, spool: int, grouping: Grouping, step: int
) -> tuple[Grouping, bool]:
    """Register the next messages; the grouping then, and whether there are more."""
    ids, reach, count = cursor.execute(
        _NEXT, {'spool': spool, 'reached': grouping.reached, 'limit': step}
    ).fetchone()
    if not count:
        return grouping, False
    grouping = grouping._replace(reached=reach)
    cursor.execute('UPDATE spools SET grouped_to = ? WHERE id = ?', (reach, spool))
    _register(cursor, spool, grouping, ids, _LOOK_AT_EMPTY)
    return grouping, count == step


def _register(cursor: sqlite3.Cursor, spool: int, grouping: Grouping, ids: str, look: str) -> None:
    """Register those of the messages that claims have come by; `look` at their groups."""
    names, count = cursor.execute(_NAMES, (ids,)).fetchone()
    turn = _take_turns(cursor, grouping.number, count) if grouping.mode & GroupMode.FAIR else 0
    group = {'grouping': grouping.number, 'names': names}
    cursor.execute(_ADD, {**group, 'mode': int(grouping.mode), 'turn': turn})
    cursor.execute(_REGISTER, {'grouping': grouping.number, 'ids': ids, 'reach': grouping.reached})
    cursor.execute(look, {**group, 'spool': spool})


def _take_turns(cursor: sqlite3.Cursor, grouping: int, count: int) -> int:
    """Take the next numbers of turns; the last one that was given before."""
    cursor.execute('UPDATE groupings SET turn = turn + ? WHERE id = ?', (count, grouping))
    row = cursor.execute('SELECT turn FROM groupings WHERE id = ?', (grouping,)).fetchone()
    return int(row[0]) - count
