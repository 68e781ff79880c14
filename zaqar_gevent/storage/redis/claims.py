"""Claims: leases on messages."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from oslo_utils import timeutils
from zaqar.storage import base, errors

from zaqar_gevent.settlements import Settlement
from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.interface import StoredMessage
from zaqar_gevent.storage.redis import keys
from zaqar_gevent.storage.redis.documents import Page
from zaqar_gevent.storage.redis.messages import (
    claim_argument,
    exact_time,
    iso_time,
    new_ids,
)
from zaqar_gevent.storage.redis.servers import load

if TYPE_CHECKING:
    from zaqar_gevent.storage.redis.driver import DataDriver

MOST_GRACE = 10**9
"""A message does not live longer than this for a claim; Redis cannot count any further."""

_GET = load('claim_get', is_write=False)
_RENEW = load('claim_renew')
_RELEASE = load('claim_release')
_SETTLE = load('settle', is_repeatable=False)


class ClaimController(own_drivers.ClaimController):
    """The claims of one server. `ttl` and `grace` are in seconds."""

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
        as often as its queue allows goes to the dead letter queue instead, if that is on the same
        server (with pools, both queues must be in one pool) and does not lead back.
        """
        claim = _new_id()
        lease = (claim, metadata['ttl'], min(metadata['grace'], MOST_GRACE))
        found = self.driver.take(queue, project, limit, lease, metadata.get('retry'))
        return (claim, found) if found else (None, ())

    def get(
        self, queue: str, claim_id: str, project: str | None = None
    ) -> tuple[dict[str, Any], Collection[StoredMessage]]:
        """A claim (`id`, `ttl`, `age` since it was last renewed) and the messages it holds.

        Raises `ClaimDoesNotExist`, also for an expired one.
        """
        now = timeutils.utcnow_ts()
        found = self._server.run(
            _GET,
            self._places(queue, project),
            self._checked(queue, project),
            now,
            claim_argument(claim_id),
            self.driver.shared,
        )
        if found is None:
            raise errors.ClaimDoesNotExist(claim_id, queue, project)
        ttl, expires, held = int(found[0]), int(float(found[1])), found[2]
        age = max(0, now - (expires - ttl))
        return {'id': claim_id, 'ttl': ttl, 'age': age}, self.driver.present(Page(held))

    def update(
        self, queue: str, claim_id: str, metadata: Mapping[str, Any], project: str | None = None
    ) -> None:
        """Renew a claim: its time to live starts anew. Raises `ClaimDoesNotExist`."""
        if not self._server.run(
            _RENEW,
            self._places(queue, project),
            self._checked(queue, project),
            timeutils.utcnow_ts(),
            claim_argument(claim_id),
            metadata.get('ttl', 0),
            min(metadata.get('grace', 0), MOST_GRACE),
            self.driver.shared,
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
        self._server.run(
            _RELEASE,
            (
                keys.messages(queue, project),
                keys.claims(queue, project),
                keys.head(queue, project),
            ),
            timeutils.utcnow_ts(),
            claim_argument(claim_id),
            self.driver.shared,
            exact_time(),
            '' if delay is None else delay,
        )

    def settle(
        self, queue: str, settlements: Sequence[Settlement], project: str | None = None
    ) -> list[Exception | None]:
        """Settle single messages of claims in one script; why each was not, or None.

        Raises `NoDeadLetterQueue` where one is rejected and there is nowhere to put it.
        """
        now = timeutils.utcnow_ts()
        dead_letters = self.find_reject_target(queue, settlements, project)
        target = dead_letters.queue if dead_letters else queue
        arguments: list[Any] = []
        for one in settlements:
            arguments += (
                one.kind.name.lower(),
                one.message_id,
                claim_argument(one.claim_id),
                '' if one.delay is None else one.delay,
                '' if one.reason is None else f'={one.reason}',
                one.ttl,
                min(one.grace, MOST_GRACE),
            )
        dead_letter_key = keys.messages(target, project)
        found = self._server.run(
            _SETTLE,
            (
                keys.messages(queue, project),
                keys.claims(queue, project),
                keys.head(queue, project),
                dead_letter_key,
                keys.rank_counter(target, project),
                *self.driver.names(project),
            ),
            now,
            exact_time(),
            queue,
            (dead_letters and dead_letters.ttl) or '',
            new_ids(dead_letter_key),
            iso_time(now),
            *arguments,
        )
        return [_refusal(one, code) for one, code in zip(settlements, found, strict=True)]

    def _places(self, queue: str, project: str | None) -> tuple[str, ...]:
        return (
            keys.messages(queue, project),
            keys.claims(queue, project),
            keys.queues(project),
            keys.head(queue, project),
        )

    def _checked(self, queue: str, project: str | None) -> str:
        """The queue if the script is to see whether it exists: upstream leaves its claims there."""
        return keys.queue(queue, project) if self.driver.keeps_names else ''


def _new_id() -> str:
    """A UUID of version 4. PERF: to make an object of it takes longer than all else here."""
    digits = os.urandom(16).hex()
    return f'{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}'


def _refusal(settlement: Settlement, code: int) -> Exception | None:
    """The outcome of a message by the script's code."""
    refusals: dict[int, Callable[[], Exception]] = {
        1: lambda: errors.MessageIsClaimed(settlement.message_id),
        2: lambda: errors.MessageNotClaimedBy(settlement.message_id, settlement.claim_id),
    }
    return refusals[code]() if code else None
