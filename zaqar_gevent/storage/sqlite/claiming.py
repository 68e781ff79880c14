"""Claiming in the writing thread: taking free messages, dead letters, renewing, releasing."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from zaqar.storage import errors

from zaqar_gevent.message_groups import GroupMode
from zaqar_gevent.storage.core.group_commit import Outcome, coalesced
from zaqar_gevent.storage.own_drivers import DeadLetters
from zaqar_gevent.storage.sqlite import (
    delays,
    deleting,
    groups,
    inserting,
    leases,
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
_FIND_EXPIRED = steps.first(_EXPIRED)

_FIND_FREE = """SELECT json_group_array(id), count(*), min(expires), max(claim_count) FROM (
    SELECT id, expires, claim_count FROM messages INDEXED BY messages_free
    WHERE spool = :spool AND claim IS NULL AND delayed_until = 0 AND expires > :now
    ORDER BY position LIMIT :limit)"""

# PERF: as the messages will be once they are taken, so that they need not be looked for again.
_TAKEN = message(
    ':token', 'm.claim_count + 1', 'CASE WHEN m.expires < :ends THEN :ttl + :grace ELSE m.ttl END'
)

_FIND_PAGE = page(
    f"""SELECT m.position AS position, {_TAKEN}, m.expires AS expires, m.claim_count AS claim_count
    FROM messages m INDEXED BY messages_free
    WHERE m.spool = :spool AND m.claim IS NULL AND m.delayed_until = 0 AND m.expires > :now
    AND m.position > :after ORDER BY m.position LIMIT :limit""",
    *('count(*)', 'min(expires)', 'max(claim_count)'),
)

_GET_PAGE = page(f"""SELECT m.position AS position, {_TAKEN} FROM messages m
    WHERE m.id IN (SELECT value FROM json_each(:ids)) ORDER BY m.position""")

HAS_ENDED_RETRIES = """EXISTS (SELECT 1 FROM claims INDEXED BY claims_of_spool
    WHERE spool = {spool} AND expires <= :now AND retry IS NOT NULL)"""
"""SQL for whether leases of a spool have ended whose messages may be due for a retry."""

_TAKE = """UPDATE messages SET claim = :claim, claim_count = claim_count + 1
    WHERE id IN (SELECT value FROM json_each(:ids))"""

_TAKE_SPAN = """UPDATE messages INDEXED BY messages_free
    SET claim = :claim, claim_count = claim_count + 1
    WHERE spool = :spool AND claim IS NULL AND delayed_until = 0 AND expires > :now
    AND position > :after AND position <= :last"""

_EXTEND = """UPDATE messages SET ttl = :ttl + :grace, expires = :ends
    WHERE claim = :claim AND expires < :ends"""

HELD_BY_TOKEN = page(f"""SELECT m.position AS position, {message(':token')}
    FROM claims c INDEXED BY claims_of_token
    JOIN messages m INDEXED BY messages_held ON m.claim = c.id
    WHERE c.token = :token AND c.expires > :now ORDER BY m.position""")
"""The page of the messages that all leases of a claim hold."""

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

_GET = f"""SELECT {LEASE_COLUMNS}, ttl FROM claims INDEXED BY claims_of_token
    WHERE token = ? AND expires > ?
    AND spool = (SELECT id FROM spools WHERE project = ? AND name = ?)
    ORDER BY {leases.HOLDS_NOTHING}, expires"""


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
    is_due, has_expired, has_ended = _look_at_front(cursor, spool, now)
    has_more = bool(is_due) and delays.place_of_spool(cursor, spool, now).has_more
    if has_expired:
        deleting.delete_found(cursor, _FIND_EXPIRED, (spool, EXPIRED_STEP, now))
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


def _look_at_front(cursor: sqlite3.Cursor, spool: int, now: float) -> tuple[Any, ...]:
    """Whether messages of a spool are due, the first has expired, and a claim has ended."""
    values = {'spool': spool, 'now': now}
    return cursor.execute(_LOOK_AT_FRONT, values).fetchone()  # type: ignore[no-any-return]


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
        `Free`. token: of the lease that holds what a pop takes until its long bodies are read;
        None where the messages are removed already.
    """

    page: bytes | None
    is_over: bool = True
    dead_lettered: int = 0
    may_have_dead_letters: bool = False
    is_behind: bool = False
    token: str | None = None


class Manner(NamedTuple):
    """How a claim or a pop takes messages.

    mode: of the groups of the queue; None to read it from the metadata in this file. is_patient:
        see `groups.find`.
    """

    mode: GroupMode | None
    is_patient: bool


class NewClaim(NamedTuple):
    """A request for a claim of up to `limit` messages.

    dead_letters: where they go, once that has been asked for.
    """

    project: str
    queue: str
    lease: Lease
    limit: int
    manner: Manner
    dead_letters: tuple[DeadLetters | None, ...] = ()


@coalesced(in_order=True)
def create(cursor: Transaction, calls: Sequence[tuple[NewClaim]]) -> list[Outcome]:
    """For each call: claim messages, or take a step towards that. Others' writes come between
    long steps.
    """
    by_queue: dict[tuple[str, str, GroupMode | None], list[int]] = {}
    for place, (one,) in enumerate(calls):
        key = (one.project, one.queue, one.manner.mode)
        by_queue.setdefault(key, []).append(place)
    outcomes: list[Outcome] = [None] * len(calls)
    for key, places in by_queue.items():
        asked = [calls[place][0] for place in places]
        for place, outcome in zip(places, _create_of_queue(cursor, *key, asked), strict=True):
            outcomes[place] = outcome
    return outcomes


def _create_of_queue(
    cursor: Transaction,
    project: str,
    queue: str,
    mode: GroupMode | None,
    asked: Sequence[NewClaim],
) -> list[Outcome]:
    spool, grouping = groups.open_spool(cursor, project, queue, mode)
    if spool is None:
        return [Attempt(None) for _ in asked]
    outcomes: list[Outcome] = [None] * len(asked)
    now = max(one.lease.now for one in asked)
    if grouping is None:
        if not any(_look_at_front(cursor, spool, now)):
            outcomes = _create_in_order(cursor, spool, asked, now)
    elif len(asked) > 1 and not any(_look_at_front(cursor, spool, now)):
        outcomes = _create_of_each_group(cursor, spool, grouping, asked, now)
    return [
        _create_alone(cursor, one) if outcome is None else outcome
        for one, outcome in zip(asked, outcomes, strict=True)
    ]


class _Taking(NamedTuple):
    """Messages that a claim takes: how many, when the first of them expires, and their page."""

    lease: Lease
    size: int
    expires: float
    page: bytes


def _create_in_order(
    cursor: sqlite3.Cursor, spool: int, asked: Sequence[NewClaim], now: float
) -> list[Outcome]:
    """Claim the first free messages; None for each claim that is not as simple."""
    outcomes: list[Outcome] = []
    taken = []
    spans = []
    after = 0
    for one in asked:
        span = {'spool': spool, 'now': now, 'after': after}
        values = {**_parameters(one.lease), **span, 'limit': one.limit}
        document, last, size, expires, claims = cursor.execute(_FIND_PAGE, values).fetchone()
        if not size:
            outcomes.append(Attempt(None))
        elif claims and not one.dead_letters:
            outcomes.append(Attempt(None, False, may_have_dead_letters=True))
        elif _may_have_dead_letters(one, claims):
            outcomes.append(None)
        else:
            outcomes.append(Attempt(document))
            taken.append(_Taking(one.lease, size, expires, document))
            spans.append({**span, 'last': last})
            after = last
    claims = _add(cursor, spool, taken)
    for claim, span in zip(claims, spans, strict=True):
        cursor.execute(_TAKE_SPAN, {**span, 'claim': claim})
    _prolong(cursor, taken, claims)
    return outcomes


def _create_of_each_group(
    cursor: Transaction,
    spool: int,
    grouping: groups.Grouping,
    asked: Sequence[NewClaim],
    now: float,
) -> list[Outcome]:
    """Claim a message of each of the next groups; None for claims that are not as simple."""
    limit = sum(one.limit for one in asked)
    found = groups.find_of_each(cursor, spool, grouping, now, limit)
    if found is None or any(_may_have_dead_letters(one, found.claims or 0) for one in asked):
        return [None] * len(asked)
    numbers = msgspec.json.decode(found.ids)
    parts = []
    for one in asked:
        parts.append(numbers[: one.limit])
        numbers = numbers[one.limit :]
    leases = [one.lease for one in asked]
    outcomes = _take(cursor, spool, leases, parts, found.expires)
    groups.took(cursor, spool, grouping, found)
    return outcomes


def _may_have_dead_letters(one: NewClaim, claims: int) -> bool:
    """Whether there may be dead letters among messages of which one has had so many claims."""
    if not one.dead_letters:
        return claims > 0
    return any(known is not None and claims >= known.max_claims for known in one.dead_letters)


def _take(
    cursor: sqlite3.Cursor,
    spool: int,
    leases: Sequence[Lease],
    numbers: Sequence[Sequence[int]],
    expires: float,
) -> list[Outcome]:
    """Take messages for each lease, none of which expires before `expires`."""
    taken = []
    documents = [msgspec.json.encode(some).decode() for some in numbers]
    for lease, some, ids in zip(leases, numbers, documents, strict=True):
        found = cursor.execute(_GET_PAGE, {**_parameters(lease), 'ids': ids}).fetchone()
        taken.append(_Taking(lease, len(some), expires, found[0]))
    claims = _add(cursor, spool, taken)
    for claim, ids in zip(claims, documents, strict=True):
        cursor.execute(_TAKE, {'claim': claim, 'ids': ids})
    _prolong(cursor, taken, claims)
    return [Attempt(one.page) for one in taken]


def _add(cursor: sqlite3.Cursor, spool: int, taken: Sequence[_Taking]) -> range:
    """Add the claims that take messages; their numbers."""
    rows = [
        (spool, one.token, one.ttl, one.expires, one.retry)
        for one in (each.lease for each in taken)
    ]
    last = inserting.insert(cursor, 'claims', leases.COLUMNS, rows)
    tallies.claimed(cursor, spool, [(one.size, one.lease.expires) for one in taken])
    return range(last - len(rows) + 1, last + 1)


def _prolong(cursor: sqlite3.Cursor, taken: Sequence[_Taking], claims: Sequence[int]) -> None:
    """Let messages that were taken live as long as their claims ask for."""
    for claim, one in zip(claims, taken, strict=True):
        # PERF: few messages have to live longer, and no index has to be changed for all others.
        if one.expires < one.lease.expires + one.lease.grace:
            cursor.execute(_EXTEND, {**_parameters(one.lease), 'claim': claim})


def _create_alone(cursor: Transaction, one: NewClaim) -> Outcome:
    project, queue, lease, limit, manner, dead_letters = one
    try:
        spool, grouping = groups.open_spool(cursor, project, queue, manner.mode)
        assert spool is not None
        free = find_free(cursor, spool, grouping, lease.now, limit, is_patient=manner.is_patient)
        step = clear_way(cursor, project, queue, lease.now, free, dead_letters)
    except errors.ExceptionBase as error:
        return error
    if step is not None:
        return step
    if not free.size:
        return Attempt(None)
    [outcome] = _take(cursor, spool, [lease], [msgspec.json.decode(free.ids)], free.expires)
    if grouping is not None and free.grouped is not None:
        groups.took(cursor, spool, grouping, free.grouped)
    return outcome


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
    deleting.delete(cursor, ids)
    return dead_lettered


def renew(cursor: sqlite3.Cursor, project: str | None, queue: str, lease: Lease) -> bool:
    """Start a claim's time to live anew; whether there is such a claim."""
    leases = get(cursor, project, queue, lease.token, lease.now)
    for held, _ in leases:
        cursor.execute(
            'UPDATE claims SET ttl = ?, expires = ? WHERE id = ?',
            (lease.ttl, lease.expires, held.number),
        )
        cursor.execute(_EXTEND, {**_parameters(lease), 'claim': held.number})
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


def _parameters(lease: Lease) -> dict[str, Any]:
    return {
        'token': lease.token,
        'ttl': lease.ttl,
        'grace': lease.grace,
        'now': lease.now,
        'ends': lease.expires + lease.grace,
    }
