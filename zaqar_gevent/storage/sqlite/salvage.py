"""Removes expired rows from a damaged file, as far as they can be removed.

Each attempt is a transaction of its own, and one that fails is followed by a new connection: after
it has met damage, SQLite cannot even undo a part of a transaction dependably.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from zaqar_gevent.storage.sqlite import deleting
from zaqar_gevent.storage.sqlite.outage import is_damage
from zaqar_gevent.storage.sqlite.schema import PIECE_NUMBERS

STEP = 100
"""Rows of a kind that one attempt removes at most."""

MAX_DAMAGED = 5000
"""Damaged rows of a kind that are passed over; beyond them, no more of the kind are removed."""

Row = tuple[int, int | None]
"""The number of a row, and of the spool that it belongs to."""


class Kind(NamedTuple):
    """Rows that expire or have been left behind.

    find: queries for their numbers and spools; the second one where the first meets damage.
    remove: statements that remove those with given numbers; None for messages.
    """

    find: tuple[str, ...]
    remove: tuple[str, ...] | None


_OTHERS = 'NOT IN (SELECT value FROM json_each(:damaged))'
_THESE = 'IN (SELECT value FROM json_each(:rows))'

_EXPIRED_MESSAGES = f"""SELECT id, spool FROM messages INDEXED BY messages_expiry
    WHERE expires <= :now AND id {_OTHERS} ORDER BY expires {{order}} LIMIT :limit"""

_DOOMED_MESSAGES = f"""SELECT m.id, NULL FROM doomed_spools d
    CROSS JOIN messages m INDEXED BY {{index}} ON m.spool = d.id AND {{condition}}
    WHERE m.id {_OTHERS} LIMIT :limit"""


_KINDS = {
    'claims': Kind(
        (f'SELECT id, spool FROM claims WHERE expires <= :now AND id {_OTHERS} LIMIT :limit',),
        (
            f'DELETE FROM claims WHERE id {_THESE}',
            f'UPDATE messages SET claim = NULL WHERE claim {_THESE}',
        ),
    ),
    'messages': Kind(
        (_EXPIRED_MESSAGES.format(order='ASC'), _EXPIRED_MESSAGES.format(order='DESC')),
        None,
    ),
    'subscriptions': Kind(
        (
            f"""SELECT id, NULL FROM subscriptions
            WHERE expires <= :now AND id {_OTHERS} LIMIT :limit""",
        ),
        (f'DELETE FROM subscriptions WHERE id {_THESE}',),
    ),
    'receipts': Kind(
        (
            f"""SELECT DISTINCT spool, spool FROM receipts INDEXED BY receipts_expiry
            WHERE expires <= :now AND spool {_OTHERS} LIMIT :limit""",
        ),
        (f'DELETE FROM receipts WHERE expires <= :now AND spool {_THESE}',),
    ),
    'free messages of deleted queues': Kind(
        (
            _DOOMED_MESSAGES.format(
                index='messages_free', condition='m.claim IS NULL AND m.delayed_until = 0'
            ),
        ),
        None,
    ),
    'delayed messages of deleted queues': Kind(
        (_DOOMED_MESSAGES.format(index='messages_delayed', condition='m.delayed_until > 0'),),
        None,
    ),
    'held messages of deleted queues': Kind(
        (_DOOMED_MESSAGES.format(index='messages_held_in_order', condition='m.claim IS NOT NULL'),),
        None,
    ),
    'claims of deleted queues': Kind(
        (
            f"""SELECT c.id, NULL FROM doomed_spools d JOIN claims c ON c.spool = d.id
            WHERE c.id {_OTHERS} LIMIT :limit""",
        ),
        (f'DELETE FROM claims WHERE id {_THESE}',),
    ),
    'groups of deleted queues': Kind(
        (f'SELECT id, NULL FROM groupings WHERE spool IS NULL AND id {_OTHERS} LIMIT :limit',),
        (
            f'DELETE FROM message_groups WHERE grouping {_THESE}',
            f'DELETE FROM groupings WHERE id {_THESE}',
        ),
    ),
    'bodies without a message': Kind(
        (
            f"""SELECT id, NULL FROM bodies_in_pieces INDEXED BY bodies_without_message
            WHERE keep_until IS NOT NULL AND keep_until <= :now AND id {_OTHERS} LIMIT :limit""",
        ),
        (
            f'UPDATE bodies_in_pieces SET keep_until = 0 WHERE id {_THESE}',
            f"""DELETE FROM body_pieces WHERE id IN (
            SELECT p.id FROM json_each(:rows) j CROSS JOIN body_pieces p
            ON p.id {PIECE_NUMBERS.format(body='j.value')})""",
            f'DELETE FROM bodies_in_pieces WHERE id {_THESE}',
        ),
    ),
    'deleted queues': Kind(
        (
            f"""SELECT id, NULL FROM doomed_spools d WHERE id {_OTHERS}
            AND NOT EXISTS (SELECT 1 FROM messages m
                WHERE m.spool = d.id AND m.claim IS NULL AND m.delayed_until = 0)
            AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.spool = d.id AND m.delayed_until > 0)
            AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.spool = d.id AND m.claim IS NOT NULL)
            LIMIT :limit""",
        ),
        (f'DELETE FROM doomed_spools WHERE id {_THESE}',),
    ),
}


class Salvage:
    """The rest of the work, and the rows found damaged.

    found: the spool of what the last step found to be damaged, if that is known.
    """

    def __init__(self) -> None:
        self.found: int | None = None
        self._damaged: dict[str, set[int]] = {kind: set() for kind in _KINDS}
        self._unreadable: set[str] = set()
        self._tasks: list[tuple[str, list[Row]]] = []

    def step(self, cursor: sqlite3.Cursor, now: float) -> bool:
        """Remove a few rows; whether there are more.

        After damage, which is raised, `cursor` and its connection must not be used any more.
        """
        self.found = None
        if not self._tasks:
            for kind in _KINDS:
                self._find(cursor, kind, now)
            return bool(self._tasks)
        kind, rows = self._tasks.pop()
        try:
            cursor.execute('BEGIN IMMEDIATE')
            remove, ids = _KINDS[kind].remove, _as_array(rows)
            if remove is None:
                deleting.delete(cursor, ids)
            else:
                for statement in remove:
                    cursor.execute(statement, {'rows': ids, 'now': now})
            cursor.execute('COMMIT')
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                self._part(kind, rows)
            raise
        return True

    def _find(self, cursor: sqlite3.Cursor, kind: str, now: float) -> None:
        """Find a few rows, from either end and fewer where there is damage."""
        damaged = self._damaged[kind]
        if len(damaged) > MAX_DAMAGED or kind in self._unreadable:
            return
        for limit in (STEP, STEP // 10, 1):
            for query in _KINDS[kind].find:
                parameters = {'now': now, 'damaged': _as_array((each,) for each in damaged)}
                try:
                    rows = cursor.execute(query, {**parameters, 'limit': limit}).fetchall()
                except sqlite3.DatabaseError as error:
                    if not is_damage(error):
                        raise
                else:
                    if rows:
                        self._tasks.append((kind, rows))
                    return
        self._unreadable.add(kind)

    def _part(self, kind: str, rows: list[Row]) -> None:
        """Try the halves of the rows that could not be removed together; one is damaged."""
        if len(rows) > 1:
            middle = len(rows) // 2
            self._tasks += [(kind, rows[middle:]), (kind, rows[:middle])]
        else:
            number, self.found = rows[0]
            self._damaged[kind].add(number)


def _as_array(rows: Iterable[Sequence[int | None]]) -> str:
    return msgspec.json.encode([row[0] for row in rows]).decode()
