"""Removing messages: by id, under a claim, or from the front of the queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
from zaqar.storage import errors

from zaqar_gevent.bodies import Data
from zaqar_gevent.storage.core.group_commit import Outcome, coalesced
from zaqar_gevent.storage.core.pages import EMPTY_PAGE, encode_id
from zaqar_gevent.storage.own_drivers import DeadLetters
from zaqar_gevent.storage.sqlite import (
    claiming,
    collector,
    deleting,
    groups,
    leases,
    long_bodies,
    spools,
    staging,
    steps,
    tallies,
)
from zaqar_gevent.storage.sqlite.documents import message, page
from zaqar_gevent.storage.sqlite.long_bodies import StagedBody
from zaqar_gevent.storage.sqlite.transaction import Transaction

_SPOOL = '(SELECT id FROM spools WHERE project = ? AND name = ?)'

# For each an array in JSON: spool, id, token of the claim or null, and the time.
_ALLOWED = """json_each(?) j
    CROSS JOIN messages m ON m.id = json_extract(j.value, '$[1]')
        AND m.spool = json_extract(j.value, '$[0]')
    WHERE json_extract(j.value, '$[2]') IS (SELECT c.token FROM claims c
        WHERE c.id = m.claim AND c.expires > json_extract(j.value, '$[3]'))"""
_LOOK_AT_ALLOWED = deleting.looking_at(_ALLOWED)
_FIND_ALLOWED = f'SELECT m.id AS id FROM {_ALLOWED}'

_HOLDER = f"""SELECT c.token FROM messages m
    LEFT JOIN claims c ON c.id = m.claim AND c.expires > ?
    WHERE m.id = ? AND m.spool = {_SPOOL} AND m.expires > ?"""

_HOLDERS = f"""SELECT m.id, c.token FROM messages m
    LEFT JOIN claims c ON c.id = m.claim AND c.expires > ?
    WHERE m.id IN (SELECT value FROM json_each(?)) AND m.spool = {_SPOOL} AND m.expires > ?"""

# For each call an array in JSON: project, queue, token of the claim or null, the time, and ids.
_LOOK_AT_ALL = deleting.looking_at("""(
        SELECT (SELECT id FROM spools WHERE project = json_extract(value, '$[0]')
                AND name = json_extract(value, '$[1]')) AS spool,
            json_extract(value, '$[2]') AS token, json_extract(value, '$[3]') AS now,
            json_extract(value, '$[4]') AS ids
        FROM json_each(?) LIMIT -1) j
    CROSS JOIN json_each(j.ids) i
    CROSS JOIN messages m ON m.id = i.value AND m.spool = j.spool
    WHERE j.token IS NULL
        OR j.token = (SELECT c.token FROM claims c WHERE c.id = m.claim AND c.expires > j.now)""")

_FIND_MANY = f"""SELECT id FROM messages
    WHERE id IN (SELECT value FROM json_each(?)) AND spool = {_SPOOL}"""

PURGE_STEP = 500
"""Messages that all purges together delete at most in one transaction, up to `steps.BYTES`."""

# The delayed ones first, which are visible by the next step if they are due meanwhile.
_PURGED = (
    f"""SELECT id, {steps.SIZE} FROM messages INDEXED BY messages_delayed
        WHERE spool = ? AND delayed_until > 0 AND id <= ? LIMIT ?""",
    f"""SELECT id, {steps.SIZE} FROM messages INDEXED BY messages_free
        WHERE spool = ? AND claim IS NULL AND delayed_until = 0 AND id <= ? LIMIT ?""",
)
_PURGE = tuple(steps.first(rows, most='?') for rows in _PURGED)

_POPPED = page(
    f"""SELECT m.position AS position, {message('NULL')}
    FROM messages m WHERE m.id IN (SELECT value FROM json_each(:ids)) ORDER BY m.position""",
    'count(*) - count(body)',
)

HOLD_SECONDS = 60.0
"""For how long a pop has messages whose long bodies are still to be read."""

_HOLD = 'UPDATE messages SET claim = :claim WHERE id IN (SELECT value FROM json_each(:ids))'
_HELD = """SELECT json_group_array(m.id) FROM messages m JOIN claims c ON c.id = m.claim
    WHERE m.id IN (SELECT value FROM json_each(?)) AND c.token = ?"""
_END_HOLD = f'DELETE FROM claims WHERE token = ? AND {leases.HOLDS_NOTHING}'


class Deletion(NamedTuple):
    """A message to be deleted if it is free, or if `claim` holds it."""

    project: str
    queue: str
    number: int
    claim: str | None
    now: float


@coalesced(in_order=True)
def delete(cursor: sqlite3.Cursor, calls: Sequence[tuple[Deletion]]) -> list[Outcome]:
    """Delete messages; for each call None, or why its message was not deleted."""
    deletions = [deletion for (deletion,) in calls]
    names = {(one.project, one.queue) for one in deletions}
    own = {name: spools.get(cursor, *name) for name in names}
    rows = [
        (own[one.project, one.queue], one.number, one.claim, one.now)
        for one in deletions
        if one.claim is None or claiming.is_token(one.claim)
    ]
    document = (msgspec.json.encode(rows).decode(),)
    # PERF: nearly always every message is there, and no other claim holds it.
    numbers = [one.number for one in deletions]
    if deleting.delete_all(cursor, numbers, _LOOK_AT_ALLOWED, document):
        return [None] * len(deletions)
    deleting.delete_found(cursor, _FIND_ALLOWED, document)
    return [_get_refusal(cursor, deletion) for deletion in deletions]


def _get_refusal(cursor: sqlite3.Cursor, deletion: Deletion) -> Outcome:
    """Why a message was not deleted; None if it is gone."""
    project, queue, number, claim, now = deletion
    row = cursor.execute(_HOLDER, (now, number, project, queue, now)).fetchone()
    if row is None:
        return None
    [holder] = row
    message_id = encode_id(number)
    if claim is None:
        return errors.MessageIsClaimed(message_id)
    if not claiming.is_token(claim):
        return errors.ClaimDoesNotExist(claim, queue, project or None)
    if holder is None:
        return errors.MessageNotClaimed(message_id)
    if not claiming.get(cursor, project, queue, claim, now):
        return errors.ClaimDoesNotExist(claim, queue, project or None)
    return errors.MessageNotClaimedBy(message_id, claim)


class Deletions(NamedTuple):
    """Messages to be deleted; with `claims`, only if those hold them all."""

    project: str
    queue: str
    numbers: Sequence[int]
    claims: Sequence[str]
    now: float


@coalesced(in_order=True)
def delete_many(cursor: sqlite3.Cursor, calls: Sequence[tuple[Deletions]]) -> list[Outcome]:
    """Delete messages; for each call None, or why none of its messages was deleted."""
    deletions = [one for (one,) in calls]
    # PERF: nearly always every message is there, and the claim holds it that should.
    if all(len(one.claims) <= 1 for one in deletions):
        rows = [
            (one.project, one.queue, next(iter(one.claims), None), one.now, one.numbers)
            for one in deletions
        ]
        numbers = [number for one in deletions for number in one.numbers]
        document = (msgspec.json.encode(rows).decode(),)
        if deleting.delete_all(cursor, numbers, _LOOK_AT_ALL, document):
            return [None] * len(deletions)
    return [_delete_many(cursor, one) for one in deletions]


def _delete_many(cursor: sqlite3.Cursor, one: Deletions) -> Outcome:
    scope = (one.project, one.queue)
    ids = msgspec.json.encode(one.numbers).decode()
    if one.claims:
        rows = cursor.execute(_HOLDERS, (one.now, ids, *scope, one.now)).fetchall()
        try:
            _check_holders(rows, one.claims, one.project or None, one.queue)
        except errors.ExceptionBase as error:
            return error
    deleting.delete_found(cursor, _FIND_MANY, (ids, *scope))
    return None


def _check_holders(
    rows: list[tuple[int, str | None]], claims: Sequence[str], project: str | None, queue: str
) -> None:
    holders = {holder for _, holder in rows}
    for claim in claims:
        if not claiming.is_token(claim) or (rows and claim not in holders):
            raise errors.ClaimDoesNotExist(claim, queue, project)
    for number, holder in rows:
        if holder is None:
            raise errors.MessageNotClaimed(encode_id(number))
        if holder not in claims:
            raise errors.ClaimDoesNotExist(holder, queue, project)


def pop(
    cursor: Transaction,
    project: str,
    queue: str,
    now: float,
    limit: int,
    manner: claiming.Manner,
    *dead_letters: DeadLetters | None,
) -> claiming.Attempt:
    """Take the first messages that are not claimed, or a step towards that.

    dead_letters: where they go, once that has been asked for.
    """
    spool, grouping = groups.open_spool(cursor, project, queue, manner.mode)
    if spool is None:
        return claiming.Attempt(EMPTY_PAGE)
    free = claiming.find_free(cursor, spool, grouping, now, limit, is_patient=manner.is_patient)
    step = claiming.clear_way(cursor, project, queue, now, free, dead_letters)
    if step is not None:
        return step
    ids = free.ids
    document, _, apart = cursor.execute(_POPPED, {'ids': ids, 'now': now}).fetchone()
    token = None
    if apart:
        token = _hold(cursor, spool, ids, free.size, now + HOLD_SECONDS)
    else:
        deleting.delete(cursor, ids)
    if grouping is not None and free.grouped is not None:
        groups.took(cursor, spool, grouping, free.grouped)
    return claiming.Attempt(document, token=token)


def _hold(cursor: sqlite3.Cursor, spool: int, ids: str, count: int, until: float) -> str:
    """Keep messages for the pop that is to remove them, as a claim would; the token of the lease.

    It is no claim of theirs: if its process ends before, they are as they were.
    """
    token = leases.new_token()
    claim = leases.add(cursor, spool, token, int(HOLD_SECONDS), until, None)
    cursor.execute(_HOLD, {'claim': claim, 'ids': ids})
    tallies.claimed(cursor, spool, [(count, until)])
    return token


def remove_held(
    cursor: sqlite3.Cursor, project: str, queue: str, token: str, numbers: Sequence[int]
) -> list[int]:
    """Remove the messages that a pop has read, as far as its lease still holds them; which.

    The queue says whose call it is.
    """
    asked = msgspec.json.encode(numbers).decode()
    held: str = cursor.execute(_HELD, (asked, token)).fetchone()[0]
    deleting.delete(cursor, held)
    cursor.execute(_END_HOLD, (token,))
    removed: list[int] = msgspec.json.decode(held)
    return removed


def get_last_id(connection: sqlite3.Connection) -> int:
    """The highest id that a message of the file has had."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
    return 0 if row is None else int(row[0])


class Purge(NamedTuple):
    """The messages of a queue up to the id `last` that are not claimed at `now`."""

    project: str
    queue: str
    last: int
    now: float


@coalesced()
def purge(cursor: Transaction, calls: Sequence[tuple[Purge]]) -> list[Outcome]:
    """Delete some of the messages that are not claimed; for each call whether there may be more.

    However many purges there are, one transaction deletes no more than one step, since others wait
    for it.
    """
    step = max(1, PURGE_STEP // len(calls))
    most = max(1, steps.BYTES // len(calls))
    return [_purge(cursor, *call[0], step, most) for call in calls]


def _purge(
    cursor: Transaction, project: str, queue: str, last: int, now: float, step: int, most: int
) -> bool:
    spool = spools.get(cursor, project, queue)
    if spool is None:
        return False
    more = collector.release_expired_claims(cursor, now, spool, most)
    for query in _PURGE:
        found = deleting.delete_found(cursor, query, (spool, last, step, most))
        # The number of a step's messages does not tell what ended it early.
        more = more or found > 0
    return more


_RESTORE = f"""INSERT OR IGNORE INTO messages
        (id, spool, claim_count, ttl, created, expires, delayed_until, checksum, body, encrypted,
        placed, attributes, message_group, dead_letter, long_body)
    SELECT ?, {_SPOOL}, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ? WHERE {_SPOOL} IS NOT NULL"""


class Popped(NamedTuple):
    """A message that was taken from the front of its queue."""

    number: int
    claim_count: int
    ttl: int
    created: float
    checksum: str | None
    body: Data | StagedBody
    encoding: int
    placed: int | None = None
    attributes: str | None = None
    group: str | None = None
    dead_letter: str | None = None


def part(popped: Iterable[Popped]) -> Iterator[list[Popped]]:
    """The messages in their order, as many together as a step may have."""
    step: list[Popped] = []
    size = 0
    for one in popped:
        step.append(one)
        size += len(one.body)
        if size >= steps.BYTES:
            yield step
            step, size = [], 0
    if step:
        yield step


def restore(cursor: sqlite3.Cursor, project: str, queue: str, popped: Sequence[Popped]) -> None:
    """Put messages that were taken back in their places, if their queue still exists."""
    scope = (project, queue)
    staged = staging.numbers(one.body for one in popped)
    if staged and not staging.are_there(cursor, staged):
        raise staging.given_up()
    for one in popped:
        body, number = long_bodies.split(cursor, one.body)
        cursor.execute(
            _RESTORE,
            (
                *(one.number, *scope, one.claim_count, one.ttl, one.created),
                *(one.created + one.ttl, one.checksum, body, one.encoding, one.placed),
                *(one.attributes, one.group, one.dead_letter, number),
                *scope,
            ),
        )
        if cursor.rowcount > 0:
            tallies.restored(cursor, one.number)
            groups.restored(cursor, one.number)
            if number is not None and number < 0:
                staging.take(cursor, [-number])
        elif number is not None and number > 0:
            long_bodies.remove(cursor, number)
        elif number is not None:
            staging.discard(cursor, [-number])
