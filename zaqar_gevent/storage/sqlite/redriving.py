"""Redrives in the writing thread; see `zaqar_gevent.redrives`."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any

import msgspec

from zaqar_gevent import redrives
from zaqar_gevent.redrives import (
    NewRedrive,
    RedriveDoesNotExist,
    State,
    Step,
    StoredRedrive,
    TooManyRedrives,
)
from zaqar_gevent.storage.core.pages import decode_id, encode_id
from zaqar_gevent.storage.sqlite import deleting, long_bodies, spools, steps, tallies
from zaqar_gevent.storage.sqlite.collector import release_expired_claims
from zaqar_gevent.storage.sqlite.documents import alone
from zaqar_gevent.storage.sqlite.transaction import DueMessage, DueQueue, Transaction

_COLUMNS = 'id, target, moved, remaining, rate, state, reason, passed_over, created, updated'

_OF_QUEUE = 'WHERE project = :project AND queue = :queue'

_COUNT_RUNNING = """SELECT count(*) FILTER (WHERE queue = :queue), count(*) FROM redrives
    WHERE next_at IS NOT NULL AND project = :project"""

_FORGET_OLDEST = f"""DELETE FROM redrives WHERE next_at IS NULL AND id IN (
    SELECT id FROM redrives {_OF_QUEUE} ORDER BY id DESC LIMIT -1 OFFSET :kept)"""

_CREATE = """INSERT INTO redrives
        (project, queue, spool, target, last, remaining, rate, state, created, updated, next_at)
    VALUES (:project, :queue, :spool, :target,
        (SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages'),
        :remaining, :rate, :state, :now, :now, :now)"""

_GET = f'SELECT {_COLUMNS} FROM redrives {_OF_QUEUE} AND id = :id'

_LIST = f'SELECT {_COLUMNS} FROM redrives {_OF_QUEUE} AND id > :after ORDER BY id LIMIT :limit'

_END = f"""UPDATE redrives SET state = :state, reason = :reason, updated = :now, next_at = NULL
    {_OF_QUEUE} AND id = :id AND next_at IS NOT NULL"""

_FORGET = 'DELETE FROM redrives WHERE next_at IS NULL AND updated <= ?'

_NEXT = 'SELECT min(next_at) FROM redrives WHERE next_at IS NOT NULL'

_DUE = """SELECT project, queue, id FROM redrives WHERE next_at <= ? AND next_at IS NOT NULL
    ORDER BY next_at, id LIMIT ?"""

_RUNNING = f"""SELECT spool, target, after, last, remaining, rate FROM redrives
    {_OF_QUEUE} AND id = :id AND next_at <= :now"""

# Messages that were claimed or delayed when the redrive passed them stay where they are.
_FREE = f"""SELECT id, position, {steps.SIZE},
        ifnull(:target, json_extract(dead_letter, '$.queue')) AS target
    FROM messages INDEXED BY messages_free
    WHERE spool = :spool AND claim IS NULL AND delayed_until = 0 AND expires > :now
    AND position > :after AND position <= :last ORDER BY position LIMIT :limit"""
_FIND = steps.first(
    _FREE,
    'position',
    f'{redrives.STEP_BYTES}',
    columns='json_group_array(json_array(id, position, target))',
)

_MOVE = """INSERT INTO messages
        (spool, claim_count, ttl, created, expires, delayed_until, client, checksum, body,
        encrypted, attributes, message_group, long_body)
    SELECT :spool, 0, ifnull(json_extract(dead_letter, '$.ttl'), ttl), :now,
        :now + ifnull(json_extract(dead_letter, '$.ttl'), ttl), 0, client, checksum, body,
        encrypted, attributes, nullif(message_group, ''), long_body
    FROM messages WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY position"""

_HAS_SUBSCRIPTIONS = """SELECT EXISTS (SELECT 1 FROM subscriptions
    WHERE project = :project AND source = :queue AND expires > :now)"""

_MOVED = f"""SELECT {alone('NULL')} FROM messages m
    WHERE m.id BETWEEN :first AND :last ORDER BY m.id"""

_COUNT = """UPDATE redrives SET moved = moved + :moved, passed_over = passed_over + :left,
    remaining = remaining - :moved, after = :after, updated = :now, next_at = :next_at,
    state = :state WHERE id = :id"""


def create(
    cursor: sqlite3.Cursor, project: str, queue: str, new: NewRedrive, now: float
) -> StoredRedrive:
    """Begin a redrive; raises `TooManyRedrives`."""
    scope = {'project': project, 'queue': queue}
    of_queue, of_project = cursor.execute(_COUNT_RUNNING, scope).fetchone()
    if of_queue >= new.most_of_queue:
        raise TooManyRedrives('queue', new.most_of_queue)
    if of_project >= new.most_of_project:
        raise TooManyRedrives('project', new.most_of_project)
    cursor.execute(_FORGET_OLDEST, {**scope, 'kept': redrives.KEPT_OF_QUEUE - 1})
    values = {'target': new.target, 'remaining': new.limit, 'rate': new.rate, 'now': now}
    spool = spools.get(cursor, project, queue)
    cursor.execute(_CREATE, {**scope, **values, 'spool': spool, 'state': State.RUNNING.value})
    row = cursor.execute(_GET, {**scope, 'id': cursor.lastrowid}).fetchone()
    return _present(row)


def get(
    connection: sqlite3.Connection, project: str, queue: str, redrive_id: str
) -> StoredRedrive | None:
    """A redrive of a queue, if there is one."""
    scope = {'project': project, 'queue': queue, 'id': decode_id(redrive_id)}
    row = connection.execute(_GET, scope).fetchone()
    return None if row is None else _present(row)


def read_list(
    connection: sqlite3.Connection, project: str, queue: str, after: int, limit: int
) -> list[StoredRedrive]:
    """The redrives of a queue after a number, oldest first."""
    scope = {'project': project, 'queue': queue, 'after': after, 'limit': limit}
    return [_present(row) for row in connection.execute(_LIST, scope)]


def end(
    cursor: sqlite3.Cursor,
    project: str,
    queue: str,
    redrive_id: str,
    state: State,
    reason: str | None,
    now: float,
) -> None:
    """End a redrive that runs; raises `RedriveDoesNotExist`."""
    scope = {'project': project, 'queue': queue, 'id': decode_id(redrive_id)}
    if cursor.execute(_GET, scope).fetchone() is None:
        raise RedriveDoesNotExist(redrive_id, queue, project or None)
    cursor.execute(_END, {**scope, 'state': state.value, 'reason': reason, 'now': now})


def find_due(
    connection: sqlite3.Connection, now: float, limit: int
) -> tuple[list[tuple[str, str, str]], float | None]:
    """Redrives whose next step is due; and when the first step of all is due."""
    due = [
        (project, queue, encode_id(number))
        for project, queue, number in connection.execute(_DUE, (now, limit))
    ]
    return due, connection.execute(_NEXT).fetchone()[0]


def forget(cursor: sqlite3.Cursor, before: float) -> None:
    """Forget redrives that were over at `before`."""
    cursor.execute(_FORGET, (before,))


def step(
    cursor: Transaction,
    project: str,
    queue: str,
    redrive_id: str,
    now: float,
    targets: Collection[str],
) -> Step:
    """Move some messages if it is time; see `RedriveController.step` of the interface."""
    number = decode_id(redrive_id)
    scope = {'project': project, 'queue': queue, 'id': number, 'now': now}
    row = cursor.execute(_RUNNING, scope).fetchone()
    if row is None:
        return Step(0)
    spool, target, after, last, remaining, rate = row
    if spool is not None and spool != spools.get(cursor, project, queue):
        reason = redrives.FORGOTTEN_QUEUE
        cursor.execute(_END, {**scope, 'state': State.STOPPED.value, 'reason': reason})
        return Step(0)
    found: list[tuple[int, int, str | None]] = []
    if spool is not None:
        release_expired_claims(cursor, now, spool)
        limit = redrives.step_size(rate, remaining)
        parameters = {'spool': spool, 'target': target, 'after': after, 'last': last, 'now': now}
        [document] = cursor.execute(_FIND, {**parameters, 'limit': limit}).fetchone()
        found = msgspec.json.decode(document)
    moving: dict[str, list[int]] = {}
    left = 0
    wanted = None
    for message, position, where in found:
        if where is None or where == queue:
            left += 1
        elif where in targets:
            moving.setdefault(where, []).append(message)
        else:
            wanted = where
            break
        after = position
    for name, ids in moving.items():
        _move(cursor, project, name, ids, now)
    moved = sum(map(len, moving.values()))
    if wanted is not None and not moved and not left:
        return Step(0, wanted)
    is_over = not found or moved == remaining
    cursor.execute(
        _COUNT,
        {
            'id': number,
            'moved': moved,
            'left': left,
            'after': after,
            'now': now,
            'next_at': None if is_over else now + redrives.pause_after(moved, rate),
            'state': (State.FINISHED if is_over else State.RUNNING).value,
        },
    )
    return Step(moved, wanted)


def _move(cursor: Transaction, project: str, queue: str, ids: list[int], now: float) -> None:
    """Move messages to the end of a queue, in their order, and notify its listeners."""
    spools.check(cursor, project, queue)
    spool = spools.get(cursor, project, queue)
    if spool is None:
        spool = spools.make(cursor, project, queue)
    document = msgspec.json.encode(ids).decode()
    cursor.execute(_MOVE, {'spool': spool, 'now': now, 'ids': document})
    last = cursor.lastrowid or 0
    tallies.update(cursor, last, len(ids))
    long_bodies.leave_to_others(cursor, document)
    deleting.delete(cursor, document)
    scope = {'project': project, 'queue': queue, 'now': now}
    messages: list[DueMessage] = []
    if cursor.execute(_HAS_SUBSCRIPTIONS, scope).fetchone()[0]:
        span = {'first': last - len(ids) + 1, 'last': last, 'now': now}
        messages = [DueMessage(one, 0, None) for (one,) in cursor.execute(_MOVED, span)]
    cursor.due.append(DueQueue(project, queue, messages))


def _present(row: tuple[Any, ...]) -> StoredRedrive:
    number, target, moved, remaining, rate, state, reason, left, created, updated = row
    return {
        'id': encode_id(number),
        'target': target,
        'limit': None if remaining is None else moved + remaining,
        'rate': rate,
        'state': state,
        'reason': reason,
        'moved': moved,
        'left': left,
        'created': created,
        'ended': None if state == State.RUNNING else updated,
    }
