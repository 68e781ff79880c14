"""Settling single messages of claims in the writing thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from zaqar.storage import errors

from zaqar_gevent.settlements import Settle, Settlement
from zaqar_gevent.storage.core.pages import decode_id
from zaqar_gevent.storage.own_drivers import DeadLetters
from zaqar_gevent.storage.sqlite import claiming, leases, releasing, removal, spools, tallies
from zaqar_gevent.storage.sqlite.releasing import HeldLease
from zaqar_gevent.storage.sqlite.transaction import Transaction

_LEASE = """SELECT c.id, c.spool, c.expires, c.retry
    FROM messages m JOIN claims c ON c.id = m.claim
    WHERE m.id = ? AND m.spool = ? AND c.token = ? AND c.expires > ? AND m.expires > ?"""

_EXTEND = """UPDATE messages SET claim = :claim,
        ttl = CASE WHEN expires < :ends + :grace THEN :ttl + :grace ELSE ttl END,
        expires = max(expires, :ends + :grace)
    WHERE id = :id"""

Outcome = Exception | None


def settle(
    cursor: Transaction,
    project: str,
    queue: str,
    settlements: Sequence[Settlement],
    now: float,
    dead_letters: DeadLetters | None,
) -> list[Outcome]:
    """Settle each message; why it was not, or None.

    dead_letters: where rejected messages go.
    """
    spool = spools.get(cursor, project, queue)
    return [_settle(cursor, project, queue, spool, one, now, dead_letters) for one in settlements]


def _settle(
    cursor: Transaction,
    project: str,
    queue: str,
    spool: int | None,
    one: Settlement,
    now: float,
    dead_letters: DeadLetters | None,
) -> Outcome:
    number = decode_id(one.message_id)
    if one.kind is Settle.DELETE:
        if number is None:
            return None
        deletion = removal.Deletion(project, queue, number, one.claim_id, now)
        outcomes: list[Outcome] = removal.delete(cursor, [(deletion,)])
        return outcomes[0]
    row = None
    if number is not None and spool is not None and claiming.is_token(one.claim_id):
        row = cursor.execute(_LEASE, (number, spool, one.claim_id, now, now)).fetchone()
    if row is None or number is None:
        not_held: Exception = errors.MessageNotClaimedBy(one.message_id, one.claim_id)
        return not_held
    lease = HeldLease(*row)
    match one.kind:
        case Settle.RELEASE:
            releasing.free(cursor, lease, f'[{number}]', now, now, one.delay)
        case Settle.REJECT:
            assert dead_letters is not None
            claiming.dead_letter(
                cursor, project, queue, f'[{number}]', now, dead_letters, one.reason
            )
        case Settle.EXTEND:
            _extend(cursor, lease, number, one, now)
    return None


def _extend(
    cursor: Transaction, lease: HeldLease, number: int, one: Settlement, now: float
) -> None:
    """Give a message a lease of its own, under the same claim."""
    ends = now + one.ttl
    token = str(one.claim_id)
    claim = leases.find_or_add(cursor, lease.spool, token, one.ttl, ends, lease.retry)
    tallies.released(cursor, lease.number, 1)
    cursor.execute(
        _EXTEND,
        {'claim': claim, 'ttl': one.ttl, 'grace': one.grace, 'ends': ends, 'id': number},
    )
    tallies.claimed(cursor, lease.spool, [(1, ends)])
    _drop_if_empty(cursor, lease)


def _drop_if_empty(cursor: sqlite3.Cursor, lease: HeldLease) -> None:
    """A claim whose messages all have leases of their own need not be kept for itself."""
    cursor.execute(f'DELETE FROM claims WHERE id = ? AND {leases.HOLDS_NOTHING}', (lease.number,))
