"""Claims: leases on messages."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from oslo_utils import timeutils
from zaqar.storage import base, errors

from zaqar_gevent.retry_delays import RetryDelay
from zaqar_gevent.settlements import Settle, Settlement
from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.core.pages import EMPTY_PAGE, decode_id, read_page, read_taken
from zaqar_gevent.storage.interface import StoredMessage
from zaqar_gevent.storage.postgresql import documents, kinds, messages, numbers

if TYPE_CHECKING:
    from zaqar_gevent.storage.postgresql.driver import DataDriver


class ClaimController(own_drivers.ClaimController):
    """The claims of one database. `ttl` and `grace` are in seconds."""

    def __init__(self, driver: DataDriver) -> None:
        super().__init__(driver)
        self._server = driver.server

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
        database (with pools, both queues must be in one pool) and does not lead back.

        metadata: the `ttl` and `grace` of the lease, in seconds; and `retry`, a `RetryDelay` which
            counts when it expires or is released, if the queue has one.
        """
        token = uuid.uuid4().hex
        lease = (token, *_lease(metadata), encode_retry(metadata.get('retry')))
        document = self.driver.take(queue, project, limit, lease)
        if document == EMPTY_PAGE:
            return None, ()

        def give_back(_: list[StoredMessage]) -> None:
            self.delete(queue, token, project, delay=0)

        as_bodies = self.driver.carries_bodies
        return token, read_taken(document, give_back, queue, project, as_bodies=as_bodies)

    def find_claimable(self, queues: Sequence[tuple[str | None, str]]) -> list[int]:
        """Which of some queues, each (project, name), may have a message to claim; their numbers.

        One read for all of them.
        """
        names = msgspec.json.encode([(project or '', name) for project, name in queues])
        now = timeutils.utcnow_ts(microsecond=True)
        found: list[int] = self._server.call(kinds.SCANS, 'find_claimable', now, names)[0]
        return found

    def get(
        self, queue: str, claim_id: str, project: str | None = None
    ) -> tuple[dict[str, Any], Collection[StoredMessage]]:
        """A claim (`id`, `ttl`, `age` since it was last renewed) and the messages it holds.

        Raises `ClaimDoesNotExist`, also for an expired one.
        """
        now = timeutils.utcnow_ts(microsecond=True)
        token = documents.decode_token(claim_id)
        facts, document = (None, b'')
        if token is not None:
            facts, document = self._server.call(
                kinds.READS, 'get_claim', project or '', queue, now, token
            )
        if facts is None:
            raise errors.ClaimDoesNotExist(claim_id, queue, project)
        ttl, expires = facts
        age = max(0, int(now - (expires - ttl)))
        found = read_page(document, as_bodies=self.driver.carries_bodies)
        return {'id': claim_id, 'ttl': ttl, 'age': age}, found

    def update(
        self, queue: str, claim_id: str, metadata: Mapping[str, Any], project: str | None = None
    ) -> None:
        """Renew a claim: its time to live starts anew. Raises `ClaimDoesNotExist`."""
        now = timeutils.utcnow_ts(microsecond=True)
        token = documents.decode_token(claim_id)
        if (
            token is None
            or not self._server.call(
                kinds.WRITES,
                'renew',
                *(project or '', queue, now, token, *_lease(metadata)),
            )[0]
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
        now = timeutils.utcnow_ts(microsecond=True)
        token = documents.decode_token(claim_id)
        if token is not None:
            due, _ = self._server.call(
                kinds.WRITES, 'release', project or '', queue, now, token, delay
            )
            if due is not None:
                self._server.upkeep.delayed(due)

    def settle(
        self, queue: str, settlements: Sequence[Settlement], project: str | None = None
    ) -> list[Exception | None]:
        """Settle single messages of claims, in one transaction; why each was not, or None.

        Raises `NoDeadLetterQueue` where one is rejected and there is nowhere to put it.
        """
        dead = self.find_reject_target(queue, settlements, project)
        outcomes: list[Exception | None] = [_refuse_malformed(one) for one in settlements]
        places = [
            place
            for place, one in enumerate(settlements)
            if outcomes[place] is None and decode_id(one.message_id) is not None
        ]
        if not places:
            return outcomes
        now = timeutils.utcnow_ts(microsecond=True)
        (found, due), _ = self._server.call(
            # Whoever gives positions in a queue waits for its lock.
            kinds.WRITES if dead is None else kinds.STEPS,
            'settle',
            *(project or '', queue, now),
            msgspec.json.encode([_entry(settlements[place]) for place in places]),
            dead and dead.queue,
            None if dead is None or dead.ttl is None else numbers.clamp(dead.ttl),
            dead is not None and dead.is_made_with_first,
            # What is released or rejected once more is not held any more.
            is_repeatable=all(
                settlements[place].kind in (Settle.DELETE, Settle.EXTEND) for place in places
            ),
        )
        if due is not None:
            self._server.upkeep.delayed(due)
        self._server.upkeep.removed(project or '', queue, len(places))
        for place, outcome in zip(places, found, strict=True):
            one = settlements[place]
            if outcome == _NOT_HELD:
                outcomes[place] = errors.MessageNotClaimedBy(one.message_id, one.claim_id)
            elif outcome:
                outcomes[place] = messages.refuse_to_delete(
                    outcome, one.message_id, one.claim_id, queue, project
                )
        return outcomes


_NOT_HELD = 5

_KINDS = {Settle.DELETE: 'd', Settle.RELEASE: 'r', Settle.REJECT: 'x', Settle.EXTEND: 'e'}


def _refuse_malformed(one: Settlement) -> Exception | None:
    """The reason why a message with an invalid id, or claim id, cannot be settled."""
    if one.kind is Settle.DELETE:
        return None
    if decode_id(one.message_id) is None or documents.decode_token(one.claim_id) is None:
        refusal: Exception = errors.MessageNotClaimedBy(one.message_id, one.claim_id)
        return refusal
    return None


def _entry(one: Settlement) -> dict[str, Any]:
    """A settlement as `settle` in functions.sql takes it."""
    entry: dict[str, Any] = {'k': _KINDS[one.kind], 'i': decode_id(one.message_id)}
    if one.claim_id is not None:
        # No claim has a new id.
        entry['c'] = documents.decode_token(one.claim_id) or str(uuid.uuid4())
    if one.delay is not None:
        entry['y'] = one.delay
    if one.reason is not None:
        entry['w'] = msgspec.json.encode(one.reason).decode()
    if one.kind is Settle.EXTEND:
        entry.update(
            t=numbers.clamp(one.ttl, numbers.MAX_LEASE),
            g=numbers.clamp(one.grace, numbers.MAX_LEASE),
        )
    return entry


def encode_retry(retry: RetryDelay | None) -> str | None:
    """The delay of retries of a lease as a parameter."""
    if retry is None:
        return None
    return documents.encode_array((retry.initial, retry.factor, retry.max))


def _lease(metadata: Mapping[str, Any]) -> tuple[int, int]:
    """The TTL and grace of a claim, whose sum is the TTL of its messages."""
    return (
        numbers.clamp(metadata['ttl'], numbers.MAX_LEASE),
        numbers.clamp(metadata['grace'], numbers.MAX_LEASE),
    )
