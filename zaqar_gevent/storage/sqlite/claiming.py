"""Claiming in the writing thread: taking free messages, dead letters, renewing, releasing."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

from zaqar_gevent.storage.sqlite import spools
from zaqar_gevent.storage.sqlite.collector import release_expired_claims
from zaqar_gevent.storage.sqlite.documents import message, page

_TOKEN_LENGTH = 32
_TOKEN_DIGITS = frozenset('0123456789abcdef')

_ROUNDS = 50
"""How often one claim moves dead letters away before it makes do with what is left."""

_FREE = """SELECT json_group_array(id), count(*) FROM (
    SELECT id FROM messages INDEXED BY messages_free
    WHERE spool = :spool AND claim IS NULL AND expires > :now {delays}
    ORDER BY id LIMIT :limit)"""
_FIND_FREE = {
    False: _FREE.format(delays=''),
    True: _FREE.format(delays='AND delayed_until <= :now'),
}

_TAKE = """UPDATE messages SET claim = :claim, claim_count = claim_count + 1,
        ttl = CASE WHEN expires < :claim_expires THEN :ttl + :grace ELSE ttl END,
        expires = CASE WHEN expires < :claim_expires THEN :claim_expires + :grace ELSE expires END
    WHERE id IN (SELECT value FROM json_each(:ids))"""

_EXTEND = """UPDATE messages SET ttl = :ttl + :grace, expires = :claim_expires + :grace
    WHERE claim = :claim AND expires < :claim_expires"""

HELD = page(f"""SELECT m.id AS id, {message(':token')} AS document
    FROM messages m INDEXED BY messages_held WHERE m.claim = :claim ORDER BY m.id""")
"""The page of the messages that a claim holds."""

_WORN = """SELECT json_group_array(id) FROM messages
    WHERE id IN (SELECT value FROM json_each(?)) AND claim_count >= ?"""

_BURY = """INSERT INTO messages
        (spool, claim_count, ttl, created, expires, delayed_until, client, checksum, body,
        encrypted)
    SELECT :spool, claim_count, ifnull(:ttl, ttl), created, ifnull(:now + :ttl, expires), 0,
        client, checksum, body, encrypted
    FROM messages WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY id"""

_GET = """SELECT id, ttl, expires FROM claims WHERE token = ? AND expires > ?
    AND spool = (SELECT id FROM spools WHERE project = ? AND name = ?)"""


class Lease(NamedTuple):
    """What is asked of a claim: seconds to live, and how much longer its messages live."""

    token: str
    ttl: int
    grace: int
    now: float

    @property
    def expires(self) -> float:
        # Whole seconds, as the ages and times to live that clients see.
        return int(self.now) + self.ttl


class DeadLetters(NamedTuple):
    """Where messages go that have been claimed `max_claims` times; `ttl` None keeps theirs."""

    queue: str
    max_claims: int
    ttl: int | None


def is_token(claim: Any) -> bool:
    """Whether `claim` could be a claim's id."""
    return (
        isinstance(claim, str) and len(claim) == _TOKEN_LENGTH and _TOKEN_DIGITS.issuperset(claim)
    )


def get(
    cursor: sqlite3.Cursor | sqlite3.Connection,
    project: str | None,
    queue: str,
    token: str,
    now: float,
) -> tuple[int, int, float] | None:
    """The row, time to live and end of a claim that has not expired."""
    row: tuple[int, int, float] | None = cursor.execute(
        _GET, (token, now, project or '', queue)
    ).fetchone()
    return row


def find_free(cursor: sqlite3.Cursor, spool: int, now: float, limit: int, delays: bool) -> str:
    """The first messages that can be claimed, as a JSON array of their numbers."""
    while True:
        more = release_expired_claims(cursor, now, spool)
        ids, found = cursor.execute(
            _FIND_FREE[delays], {'spool': spool, 'now': now, 'limit': limit}
        ).fetchone()
        if found == limit or not more:
            return str(ids)


def create(
    cursor: sqlite3.Cursor,
    project: str,
    queue: str,
    lease: Lease,
    limit: int,
    delays: bool,
    dead_letters: DeadLetters | None,
) -> bytes | None:
    """Claim messages; their page, or None when there are none to claim."""
    spool = spools.get(cursor, project, queue)
    if spool is None:
        return None
    ids = find_free(cursor, spool, lease.now, limit, delays)
    if dead_letters is not None:
        for _ in range(_ROUNDS):
            if not _bury(cursor, project, ids, lease.now, dead_letters):
                break
            ids = find_free(cursor, spool, lease.now, limit, delays)
        else:
            return None
    if ids == '[]':
        return None
    cursor.execute(
        'INSERT INTO claims (spool, token, ttl, expires) VALUES (?, ?, ?, ?)',
        (spool, lease.token, lease.ttl, lease.expires),
    )
    parameters = _parameters(lease, cursor.lastrowid or 0)
    cursor.execute(_TAKE, {**parameters, 'ids': ids})
    document: bytes = cursor.execute(HELD, parameters).fetchone()[0]
    return document


def _bury(
    cursor: sqlite3.Cursor, project: str, ids: str, now: float, dead_letters: DeadLetters
) -> bool:
    """Move those of the messages that are dead letters; whether there were any."""
    worn = cursor.execute(_WORN, (ids, dead_letters.max_claims)).fetchone()[0]
    if worn == '[]':
        return False
    spool = spools.get(cursor, project, dead_letters.queue)
    if spool is None:
        spool = spools.make(cursor, project, dead_letters.queue)
    # New ids, so that who follows the dead letter queue by its markers gets to see them.
    cursor.execute(_BURY, {'spool': spool, 'ttl': dead_letters.ttl, 'now': now, 'ids': worn})
    cursor.execute('DELETE FROM messages WHERE id IN (SELECT value FROM json_each(?))', (worn,))
    return True


def renew(cursor: sqlite3.Cursor, project: str | None, queue: str, lease: Lease) -> bool:
    """Start a claim's time to live anew; whether there is such a claim."""
    row = get(cursor, project, queue, lease.token, lease.now)
    if row is None:
        return False
    cursor.execute(
        'UPDATE claims SET ttl = ?, expires = ? WHERE id = ?', (lease.ttl, lease.expires, row[0])
    )
    cursor.execute(_EXTEND, _parameters(lease, row[0]))
    return True


def release(
    cursor: sqlite3.Cursor, project: str | None, queue: str, token: str, now: float
) -> None:
    """End a claim; its messages are free."""
    row = get(cursor, project, queue, token, now)
    if row is not None:
        cursor.execute('UPDATE messages SET claim = NULL WHERE claim = ?', (row[0],))
        cursor.execute('DELETE FROM claims WHERE id = ?', (row[0],))


def _parameters(lease: Lease, claim: int) -> dict[str, Any]:
    return {
        'claim': claim,
        'token': lease.token,
        'ttl': lease.ttl,
        'grace': lease.grace,
        'now': lease.now,
        'claim_expires': lease.expires,
    }
