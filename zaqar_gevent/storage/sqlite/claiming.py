"""Claiming in the writing thread: taking free messages, dead letters, renewing, releasing."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from zaqar_gevent.message_groups import GroupMode
from zaqar_gevent.storage.own_drivers import DeadLetters
from zaqar_gevent.storage.sqlite import (
    delays,
    groups,
    long_bodies,
    releasing,
    spools,
    steps,
    tallies,
)
from zaqar_gevent.storage.sqlite.collector import release_expired_claims
from zaqar_gevent.storage.sqlite.documents import message, page
from zaqar_gevent.storage.sqlite.releasing import LEASE_COLUMNS, HeldLease
from zaqar_gevent.storage.sqlite.transaction import Transaction

# Those that were copied from another store are UUIDs with hyphens.
_TOKEN_LENGTHS = (32, 36)
_TOKEN_DIGITS = frozenset('0123456789abcdef-')

ROUNDS = 50
"""How many times as many dead letters one claim moves away at most as it may have messages."""

MOST_BEHIND = 10_000
"""Steps of registering messages by groups that one claim takes at most, before it takes those
that it has found."""

EXPIRED_STEP = 250
"""Messages at the front of a queue of which one claim removes those that have expired, up to
`steps.BYTES`."""

# Messages that a claim would walk through again and again; most queues have none.
_LOOK_AT_FRONT = """SELECT (SELECT due FROM delays WHERE spool = :spool) <= :now, (
    SELECT expires FROM messages INDEXED BY messages_free
    WHERE spool = :spool AND claim IS NULL AND delayed_until = 0
    ORDER BY position LIMIT 1) <= :now, EXISTS (
    SELECT 1 FROM claims WHERE spool = :spool AND expires <= :now)"""

_EXPIRED = f"""SELECT id, size FROM (
    SELECT id, position, expires, {steps.SIZE} FROM messages INDEXED BY messages_free
    WHERE spool = ? AND claim IS NULL AND delayed_until = 0
    ORDER BY position LIMIT ?) WHERE expires <= ?"""
_DROP_EXPIRED = f'DELETE FROM messages WHERE id IN ({steps.first(_EXPIRED)})'

_FIND_FREE = """SELECT json_group_array(id), count(*), min(expires), max(claim_count) FROM (
    SELECT id, expires, claim_count FROM messages INDEXED BY messages_free
    WHERE spool = :spool AND claim IS NULL AND delayed_until = 0 AND expires > :now
    ORDER BY position LIMIT :limit)"""

HAS_ENDED_RETRIES = """EXISTS (SELECT 1 FROM claims INDEXED BY claims_of_spool
    WHERE spool = {spool} AND expires <= :now AND retry IS NOT NULL)"""
"""SQL for whether leases of a spool have ended whose messages may be due for a retry."""

_TAKE = """UPDATE messages SET claim = :claim, claim_count = claim_count + 1
    WHERE id IN (SELECT value FROM json_each(:ids))"""

_EXTEND = """UPDATE messages SET ttl = :ttl + :grace, expires = :claim_expires + :grace
    WHERE claim = :claim AND expires < :claim_expires + :grace"""

HELD_BY_TOKEN = page(f"""SELECT m.position AS position, {message(':token')}
    FROM claims c JOIN messages m INDEXED BY messages_held ON m.claim = c.id
    WHERE c.token = :token AND c.expires > :now ORDER BY m.position""")
"""The page of the messages that all leases of a claim hold."""

HELD = page(f"""SELECT m.position AS position, {message(':token')}
    FROM messages m INDEXED BY messages_held WHERE m.claim = :claim ORDER BY m.position""")
"""The page of the messages that a new claim holds."""

_EXHAUSTED = steps.first(
    f"""SELECT id, position, {steps.SIZE} FROM messages
    WHERE id IN (SELECT value FROM json_each(?)) AND claim_count >= ?""",
    'position',
    columns='json_group_array(id)',
)

_DEAD_LETTER = """INSERT INTO messages
        (spool, claim_count, ttl, created, expires, delayed_until, client, checksum, body,
        encrypted, attributes, message_group, long_body, dead_letter)
    SELECT :spool, claim_count, ifnull(:ttl, ttl), created, ifnull(:now + :ttl, expires), 0,
        client, checksum, body, encrypted, attributes, message_group, long_body,
        json_object('queue', :queue, 'message_id', format('%016x', id), 'claim_count', claim_count,
            'at', strftime('%Y-%m-%dT%H:%M:%SZ', :now, 'unixepoch'), 'reason', :reason,
            'ttl', ttl)
    FROM messages WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY position"""

_MAKE_QUEUE = """INSERT INTO queues (project, kind, name, metadata)
    SELECT :project, 'queue', :name, '{}' WHERE NOT EXISTS (SELECT 1 FROM queues
        WHERE project = :project AND kind IN ('queue', 'topic') AND name = :name)"""

_GET = f"""SELECT {LEASE_COLUMNS}, ttl FROM claims WHERE token = ? AND expires > ?
    AND spool = (SELECT id FROM spools WHERE project = ? AND name = ?)
    ORDER BY NOT EXISTS (
        SELECT 1 FROM messages INDEXED BY messages_held WHERE claim = claims.id), expires"""


class Lease(NamedTuple):
    """The request for a claim: seconds to live, and those its messages live at least after it.

    retry: the delay before its messages are claimed again, as it is stored; None for none.
    """

    token: str
    ttl: int
    grace: int
    now: float
    retry: str | None = None

    @property
    def expires(self) -> float:
        return self.now + self.ttl


def is_token(claim: Any) -> bool:
    """Whether `claim` could be a claim's id."""
    return (
        isinstance(claim, str) and len(claim) in _TOKEN_LENGTHS and _TOKEN_DIGITS.issuperset(claim)
    )


def get(
    cursor: sqlite3.Cursor | sqlite3.Connection,
    project: str | None,
    queue: str,
    token: str,
    now: float,
) -> list[tuple[HeldLease, int]]:
    """The leases of a claim that have not expired, with the time to live of each.

    There are several where messages have been given leases of their own: first those that hold
    messages, by when they end.
    """
    rows = cursor.execute(_GET, (token, now, project or '', queue)).fetchall()
    return [(HeldLease(*row), ttl) for *row, ttl in rows]


class Free(NamedTuple):
    """Messages that can be claimed: a JSON array of their numbers, how many, when one expires.

    claims: the most claims that one of them has had. may_grow: whether these are fewer than asked
        for, and there may be more by another step. is_behind: whether that is one of registering
        messages by groups, of which there may be many. grouped: what there is to note of groups
        once they have been taken; None where the queue does not care for groups.
    """

    ids: str
    size: int
    expires: float
    claims: int
    may_grow: bool
    is_behind: bool = False
    grouped: groups.Found | None = None


def find_free(
    cursor: Transaction,
    spool: int,
    grouping: groups.Grouping | None,
    now: float,
    limit: int,
    *,
    is_patient: bool,
) -> Free:
    """The first messages of a spool that can be claimed, after a step towards more of them.

    is_patient: see `groups.find`.
    """
    is_due, has_expired, has_ended = cursor.execute(
        _LOOK_AT_FRONT, {'spool': spool, 'now': now}
    ).fetchone()
    has_more = bool(is_due) and delays.place_of_spool(cursor, spool, now).has_more
    if has_expired:
        cursor.execute(_DROP_EXPIRED, (spool, EXPIRED_STEP, now))
    if has_ended:
        has_more |= release_expired_claims(cursor, now, spool)
    if grouping is not None:
        grouped = groups.find(cursor, spool, grouping, now, limit, is_patient=is_patient)
        may_grow = (has_more or grouped.is_behind) and grouped.size < limit
        return Free(
            *(grouped.ids, grouped.size, grouped.expires, grouped.claims or 0, may_grow),
            *(may_grow and grouped.is_behind, grouped),
        )
    ids, found, expires, claims = cursor.execute(
        _FIND_FREE, {'spool': spool, 'now': now, 'limit': limit}
    ).fetchone()
    return Free(ids, found, expires, claims or 0, has_more and found < limit)


def show_due(cursor: Transaction, project: str, queue: str, now: float) -> tuple[int, bool]:
    """Make some of the messages of a queue visible that are due, those of ended leases included.

    Returns how many were placed, and whether more are due.
    """
    spool = spools.get(cursor, project, queue)
    if spool is None:
        return 0, False
    has_more = release_expired_claims(cursor, now, spool)
    placed = delays.place_of_spool(cursor, spool, now)
    return placed.number, placed.has_more or has_more


class Attempt(NamedTuple):
    """What a call of `create`, or of `removal.pop`, has come to.

    page: of the messages that were taken; None for none. is_over: whether it was all, rather
        than a step before another attempt. dead_lettered: how many dead letters were moved away.
    may_have_dead_letters: whether it must be known first where dead letters go. is_behind: see
        `Free`.
    """

    page: bytes | None
    is_over: bool = True
    dead_lettered: int = 0
    may_have_dead_letters: bool = False
    is_behind: bool = False


class Manner(NamedTuple):
    """How a claim or a pop takes messages.

    mode: of the groups of the queue; None to read it from the metadata in this file. is_patient:
        see `groups.find`.
    """

    mode: GroupMode | None
    is_patient: bool


def create(
    cursor: Transaction,
    project: str,
    queue: str,
    lease: Lease,
    limit: int,
    manner: Manner,
    *dead_letters: DeadLetters | None,
) -> Attempt:
    """Claim messages, or take a step towards that: so others' writes come between long steps.

    dead_letters: where they go, once that has been asked for.
    """
    spool, grouping = groups.open_spool(cursor, project, queue, manner.mode)
    if spool is None:
        return Attempt(None)
    free = find_free(cursor, spool, grouping, lease.now, limit, is_patient=manner.is_patient)
    step = clear_way(cursor, project, queue, lease.now, free, dead_letters)
    if step is not None:
        return step
    if not free.size:
        return Attempt(None)
    cursor.execute(
        'INSERT INTO claims (spool, token, ttl, expires, retry) VALUES (?, ?, ?, ?, ?)',
        (spool, lease.token, lease.ttl, lease.expires, lease.retry),
    )
    parameters = _parameters(lease, cursor.lastrowid or 0)
    tallies.claimed(cursor, spool, free.size, lease.expires)
    cursor.execute(_TAKE, {**parameters, 'ids': free.ids})
    if grouping is not None and free.grouped is not None:
        groups.took(cursor, spool, grouping, free.grouped)
    # PERF: few messages have to live longer, and no index has to be changed for all others.
    if free.expires < lease.expires + lease.grace:
        cursor.execute(_EXTEND, parameters)
    return Attempt(cursor.execute(HELD, parameters).fetchone()[0])


def clear_way(
    cursor: Transaction,
    project: str,
    queue: str,
    now: float,
    free: Free,
    dead_letters: Sequence[DeadLetters | None],
) -> Attempt | None:
    """Take a step towards what was found, if one is needed before it can be taken.

    dead_letters: see `create`.
    """
    if free.claims and not dead_letters:
        return Attempt(None, False, may_have_dead_letters=True)
    for known in dead_letters:
        if known is not None and free.claims >= known.max_claims:
            dead_lettered = _dead_letter_exhausted(cursor, project, queue, free.ids, now, known)
            if dead_lettered:
                return Attempt(None, False, dead_lettered)
    if free.may_grow:
        return Attempt(None, False, is_behind=free.is_behind)
    return None


def _dead_letter_exhausted(
    cursor: sqlite3.Cursor,
    project: str,
    queue: str,
    ids: str,
    now: float,
    dead_letters: DeadLetters,
) -> int:
    """Move a step of those of the messages that are dead letters; how many."""
    exhausted = cursor.execute(_EXHAUSTED, (ids, dead_letters.max_claims)).fetchone()[0]
    if exhausted == '[]':
        return 0
    return dead_letter(cursor, project, queue, exhausted, now, dead_letters, None)


def dead_letter(
    cursor: sqlite3.Cursor,
    project: str,
    queue: str,
    ids: str,
    now: float,
    dead_letters: DeadLetters,
    reason: str | None,
) -> int:
    """Move messages of a queue to its dead letter queue; how many. `ids` is a JSON array."""
    spools.check(cursor, project, dead_letters.queue)
    spool = spools.get(cursor, project, dead_letters.queue)
    if spool is None:
        spool = spools.make(cursor, project, dead_letters.queue)
    if dead_letters.is_made_with_first:
        cursor.execute(_MAKE_QUEUE, {'project': project, 'name': dead_letters.queue})
    # New ids, so that who follows the dead letter queue by its markers gets to see them.
    cursor.execute(
        _DEAD_LETTER,
        {
            'spool': spool,
            'ttl': dead_letters.ttl,
            'now': now,
            'ids': ids,
            'queue': queue,
            'reason': reason,
        },
    )
    dead_lettered = cursor.rowcount
    tallies.update(cursor, cursor.lastrowid or 0, dead_lettered)
    long_bodies.leave_to_others(cursor, ids)
    cursor.execute('DELETE FROM messages WHERE id IN (SELECT value FROM json_each(?))', (ids,))
    return dead_lettered


def renew(cursor: sqlite3.Cursor, project: str | None, queue: str, lease: Lease) -> bool:
    """Start a claim's time to live anew; whether there is such a claim."""
    leases = get(cursor, project, queue, lease.token, lease.now)
    for held, _ in leases:
        cursor.execute(
            'UPDATE claims SET ttl = ?, expires = ? WHERE id = ?',
            (lease.ttl, lease.expires, held.number),
        )
        cursor.execute(_EXTEND, _parameters(lease, held.number))
    return bool(leases)


def release(
    cursor: Transaction,
    project: str | None,
    queue: str,
    token: str,
    now: float,
    delay: float | None = None,
) -> None:
    """End a claim; its messages are free, after `delay` seconds or that of their queue."""
    for held, _ in get(cursor, project, queue, token, now):
        releasing.free_all(cursor, held, now, now, delay)


def _parameters(lease: Lease, claim: int) -> dict[str, Any]:
    return {
        'claim': claim,
        'token': lease.token,
        'ttl': lease.ttl,
        'grace': lease.grace,
        'now': lease.now,
        'claim_expires': lease.expires,
    }
