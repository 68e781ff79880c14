"""Claims: leases on messages."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from oslo_utils import timeutils
from zaqar.storage import base, errors

from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.core.pages import EMPTY_PAGE, read_page
from zaqar_gevent.storage.interface import StoredMessage
from zaqar_gevent.storage.postgresql import documents, kinds, numbers

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
    ) -> tuple[str | None, Iterator[StoredMessage]]:
        """Claim the first messages that are free; their claim and them, or None and none.

        A message that would expire before its claim lives until `grace` after it. One that has
        been claimed as often as its queue allows goes to the dead letter queue instead, if that
        is in the same database (with pools, both queues must be in one pool) and does not lead
        back.
        """
        token = uuid.uuid4().hex
        document = self.driver.take(queue, project, limit, (token, *_lease(metadata)))
        if document == EMPTY_PAGE:
            return None, iter(())
        return token, iter(read_page(document, as_bodies=self.driver.carries_bodies))

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
    ) -> tuple[dict[str, Any], Iterator[StoredMessage]]:
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
        messages = read_page(document, as_bodies=self.driver.carries_bodies)
        return {'id': claim_id, 'ttl': ttl, 'age': age}, iter(messages)

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

        There is never a `delay`, since this store does not offer retries yet.
        """
        now = timeutils.utcnow_ts(microsecond=True)
        token = documents.decode_token(claim_id)
        if token is not None:
            self._server.call(kinds.WRITES, 'release', project or '', queue, now, token)


def _lease(metadata: Mapping[str, Any]) -> tuple[int, int]:
    """The TTL and grace of a claim, whose sum is the TTL of its messages."""
    return (
        numbers.clamp(metadata['ttl'], numbers.MAX_LEASE),
        numbers.clamp(metadata['grace'], numbers.MAX_LEASE),
    )
