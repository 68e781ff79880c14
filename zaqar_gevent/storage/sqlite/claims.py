"""Claims: leases on messages."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from oslo_utils import timeutils
from zaqar.storage import base, errors

from zaqar_gevent.settlements import Settlement
from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.interface import StoredMessage
from zaqar_gevent.storage.own_drivers import DeadLetters
from zaqar_gevent.storage.sqlite import apart, claiming, delays, leases, settling

if TYPE_CHECKING:
    from zaqar_gevent.storage.sqlite.driver import DataDriver


class ClaimController(own_drivers.ClaimController):
    """The claims of one file. `ttl` and `grace` are in seconds."""

    def __init__(self, driver: DataDriver) -> None:
        super().__init__(driver)
        self._database = driver.database

    def create(
        self,
        queue: str,
        metadata: Mapping[str, Any],
        project: str | None = None,
        limit: int = base.DEFAULT_MESSAGES_PER_CLAIM,
    ) -> tuple[str | None, Collection[StoredMessage]]:
        """Claim the first messages that are free; their claim and them, or None and none.

        A message lives at least until `grace` after the end of its claim. One that has been claimed
        as often as its queue allows goes to the dead letter queue instead, if that is in the same
        file (with pools, both queues must be in one pool) and does not lead back.

        metadata: the `ttl` and `grace` of the lease, in seconds; and `retry`, a `RetryDelay` which
            counts when it expires or is released, if the queue has one.
        """
        token = leases.new_token()

        def work(manner: claiming.Manner, *dead_letters: DeadLetters | None) -> claiming.Attempt:
            lease = _lease(token, metadata)
            new = claiming.NewClaim(project or '', queue, lease, limit, manner, dead_letters)
            attempt: claiming.Attempt = self._database.write(claiming.create, new)
            return attempt

        page = self.driver.take(queue, project, limit, work).page
        if page is None:
            return None, ()
        with apart.giving_back(self._database, project, queue, token):
            found = apart.find(page, as_bodies=self.driver.carries_bodies)
            messages = self._complete(found, queue, project)
        return (token, messages) if messages else (None, ())

    def find_claimable(self, queues: Sequence[tuple[str | None, str]]) -> list[int]:
        """Which of some queues, each (project, name), may have a message to claim; their numbers.

        One read for all of them.
        """
        names = [(project or '', name) for project, name in queues]
        document = msgspec.json.encode(names).decode()
        now = timeutils.utcnow_ts(microsecond=True)
        return self._database.scan(_find_claimable, document, now)  # type: ignore[no-any-return]

    def get(
        self, queue: str, claim_id: str, project: str | None = None
    ) -> tuple[dict[str, Any], Collection[StoredMessage]]:
        """A claim (`id`, `ttl`, `age` since it was last renewed) and the messages it holds.

        Raises `ClaimDoesNotExist`, also for an expired one.
        """
        now = timeutils.utcnow_ts(microsecond=True)
        found = claiming.is_token(claim_id) and self._database.read(
            _get, project, queue, claim_id, now, self.driver.carries_bodies
        )
        if not found:
            raise errors.ClaimDoesNotExist(claim_id, queue, project)
        ttl, expires, held = found
        messages = self._complete(held, queue, project)
        age = max(0, int(now - (expires - ttl)))
        return {'id': claim_id, 'ttl': ttl, 'age': age}, messages

    def _complete(
        self, found: apart.Found, queue: str, project: str | None
    ) -> Collection[StoredMessage]:
        as_bodies = self.driver.carries_bodies
        return apart.complete(found, self._database, project, queue, as_bodies=as_bodies)

    def update(
        self, queue: str, claim_id: str, metadata: Mapping[str, Any], project: str | None = None
    ) -> None:
        """Renew a claim: its time to live starts anew. Raises `ClaimDoesNotExist`."""
        if not claiming.is_token(claim_id) or not self._database.write(
            claiming.renew, project, queue, _lease(claim_id, metadata)
        ):
            raise errors.ClaimDoesNotExist(claim_id, queue, project)

    def delete(
        self,
        queue: str,
        claim_id: str,
        project: str | None = None,
        delay: float | None = None,
    ) -> None:
        """Release the messages of a claim, which may have ended already.

        delay: before they can be claimed again, in seconds; by default that of their queue.
        """
        if claiming.is_token(claim_id):
            now = timeutils.utcnow_ts(microsecond=True)
            self._database.write(claiming.release, project, queue, claim_id, now, delay)

    def settle(
        self, queue: str, settlements: Sequence[Settlement], project: str | None = None
    ) -> list[Exception | None]:
        """Settle single messages of claims, in one transaction; why each was not, or None.

        Raises `NoDeadLetterQueue` where one is rejected and there is nowhere to put it.
        """
        dead_letters = self.find_reject_target(queue, settlements, project)
        now = timeutils.utcnow_ts(microsecond=True)
        outcomes: list[Exception | None] = self._database.write(
            settling.settle, project or '', queue, settlements, now, dead_letters
        )
        return outcomes


# A claim that has expired may hold messages that nobody has released yet. Those after `grouped_to`
# are not registered by their groups.
_CLAIMABLE = f"""SELECT n.key FROM json_each(:names) n
    JOIN spools s ON s.project = json_extract(n.value, '$[0]')
        AND s.name = json_extract(n.value, '$[1]')
    WHERE EXISTS (SELECT 1 FROM messages m INDEXED BY messages_free
            WHERE m.spool = s.id AND m.claim IS NULL AND m.delayed_until = 0 AND m.expires > :now
            AND m.position > s.grouped_to)
        OR EXISTS (SELECT 1 FROM message_groups g INDEXED BY message_groups_ready
            WHERE g.grouping = s.grouping AND g.ready IS NOT NULL)
        OR {delays.IS_DUE.format(spool='s.id')}
        OR EXISTS (SELECT 1 FROM claims c INDEXED BY claims_of_spool
            WHERE c.spool = s.id AND c.expires <= :now)"""


def _find_claimable(connection: sqlite3.Connection, names: str, now: float) -> list[int]:
    rows = connection.execute(_CLAIMABLE, {'names': names, 'now': now})
    return [number for (number,) in rows]


def _lease(token: str, metadata: Mapping[str, Any]) -> claiming.Lease:
    now = timeutils.utcnow_ts(microsecond=True)
    retry = metadata.get('retry')
    stored = None if retry is None else msgspec.json.encode(retry).decode()
    return claiming.Lease(token, metadata['ttl'], metadata['grace'], now, stored)


def _get(
    connection: sqlite3.Connection,
    project: str | None,
    queue: str,
    token: str,
    now: float,
    as_bodies: bool,
) -> tuple[int, float, apart.Found] | None:
    leases = claiming.get(connection, project, queue, token, now)
    if not leases:
        return None
    held, ttl = leases[0]
    document = connection.execute(claiming.HELD_BY_TOKEN, {'token': token, 'now': now}).fetchone()[
        0
    ]
    return ttl, held.expires, apart.find(document, as_bodies=as_bodies)
