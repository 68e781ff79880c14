"""A connection that works on the messages of a queue, each leased to it until it is settled."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from oslo_log import log
from zaqar.storage import errors as storage_errors

from zaqar_gevent.api import documents, errors
from zaqar_gevent.api.messages import present
from zaqar_gevent.api.push import Recipient, Source

if TYPE_CHECKING:
    from zaqar_gevent.push.hub import Hub

LOG = log.getLogger(__name__)

# Claims that are asked for at a time; the store commits them together.
_AT_ONCE = 16
# What a claim's expiry or a delay's end brings is no news: it is looked for this often.
_LOOK_SECONDS = 1.0
_OUTAGE_SECONDS = 1.0


class _Lease:
    """A claim on one message, and when to renew it, in seconds of `time.monotonic`."""

    __slots__ = ('claim_id', 'renew_at')

    def __init__(self, claim_id: str, renew_at: float) -> None:
        self.claim_id = claim_id
        self.renew_at = renew_at


class Consumer:
    """Claims messages as they come and pushes them; see `zaqar_gevent.api.push.Consumer`.

    A claim holds one message, so that each can be given back by itself.
    """

    def __init__(
        self,
        hub: Hub,
        source: Source,
        recipient: Recipient,
        lease: dict[str, int],
        *,
        credit: int,
        binary: bool,
    ) -> None:
        self.id = secrets.token_hex(8)
        self._hub = hub
        self._broker = hub.broker
        self._source = source
        self._recipient = recipient
        self._lease = lease
        self._credit = credit
        self._binary = binary
        self._leases: dict[str, _Lease] = {}
        self._settled = Event()
        self._is_stopped = False

    def start(self) -> None:
        """Begin, once the answer to the request has been sent."""
        gevent.spawn(self._run)
        gevent.spawn(self._keep)

    def acknowledge(self, message_ids: list[str]) -> None:
        for message_id, lease in self._take_out(message_ids):
            self._broker.messages.delete(
                self._source.name, message_id, project=self._source.project_id, claim=lease.claim_id
            )

    def release(self, message_ids: list[str]) -> None:
        self._give_back(self._take_out(message_ids))

    def stop(self) -> None:
        self._is_stopped = True
        self._settled.set()
        leases, self._leases = self._leases, {}
        self._give_back(list(leases.items()))

    def _take_out(self, message_ids: list[str]) -> list[tuple[str, _Lease]]:
        """The leases of messages, which are the caller's to end."""
        unknown = [one for one in message_ids if one not in self._leases]
        if unknown:
            raise errors.NotFound(
                f'Message {unknown[0]} is not leased to this consumer (any more).'
            )
        leases = [(one, self._leases.pop(one)) for one in dict.fromkeys(message_ids)]
        self._settled.set()
        return leases

    def _give_back(self, leases: list[tuple[str, _Lease]]) -> None:
        """End leases; what cannot be given back is free when its claim expires."""
        project_id, name = self._source
        jobs = [gevent.spawn(self._end, lease.claim_id) for _, lease in leases]
        gevent.joinall(jobs)
        if leases:
            self._broker.notifier.freed(name, project_id)

    def _end(self, claim_id: str) -> None:
        project_id, name = self._source
        try:
            self._broker.claims.delete(name, claim_id=claim_id, project=project_id)
        except storage_errors.ExceptionBase as error:
            LOG.warning('Claim %s is left to expire: %s', claim_id, error)

    def _run(self) -> None:
        with self._hub.listening(self._source) as news:
            while not self._is_over():
                self._settled.clear()
                news.clear()
                free = self._credit - len(self._leases)
                if free <= 0:
                    self._settled.wait()
                elif not self._recipient.has_room(1):
                    self._recipient.wait_for_room()
                elif not self._claim_safely(min(free, _AT_ONCE)):
                    news.wait(_LOOK_SECONDS)

    def _is_over(self) -> bool:
        return self._is_stopped or not self._recipient.is_open or self._hub.is_draining

    def _claim_safely(self, count: int) -> int:
        """How many messages were claimed and pushed."""
        try:
            return self._claim(count)
        except storage_errors.ExceptionBase as error:
            LOG.error('Consumer of %s cannot claim: %s', self._source.name, error)
            gevent.sleep(_OUTAGE_SECONDS)
            return 0

    def _claim(self, count: int) -> int:
        """Claim by one first, so that an empty queue is not asked so often."""
        claimed = [self._claim_one()]
        if claimed[0] is not None and count > 1:
            jobs = [gevent.spawn(self._claim_one) for _ in range(count - 1)]
            gevent.joinall(jobs)
            claimed += [job.get() for job in jobs]
        found = [one for one in claimed if one is not None]
        for claim_id, message in found:
            self._push(claim_id, message)
        return len(found)

    def _claim_one(self) -> tuple[str, dict[str, Any]] | None:
        claim_id, found = self._broker.claims.create(
            self._source.name, metadata=self._lease, project=self._source.project_id, limit=1
        )
        for message in found:
            return str(claim_id), message
        return None

    def _push(self, claim_id: str, message: dict[str, Any]) -> None:
        message_id = str(message['id'])
        if self._is_over():
            self._hub.at_last(self._give_back, [(message_id, _Lease(claim_id, 0))])
            return
        self._leases[message_id] = _Lease(claim_id, time.monotonic() + self._lease['ttl'] / 2)
        project_id, name = self._source
        metadata = self._broker.queues.get_metadata(name, project_id) or {}
        [seen] = present(self._broker, [message], metadata)
        seen['claim_id'] = claim_id
        push = {
            'push': 'message',
            'consumer_id': self.id,
            'queue_name': name,
            'message': seen,
        }
        encode = documents.encode_msgpack if self._binary else documents.encode_json
        self._recipient.push(encode(push), binary=self._binary, kind='message')

    def _keep(self) -> None:
        """Renew the leases while the connection lasts."""
        while not self._is_over():
            gevent.sleep(min(1.0, self._lease['ttl'] / 4))
            now = time.monotonic()
            for message_id, lease in tuple(self._leases.items()):
                if now >= lease.renew_at:
                    lease.renew_at = now + self._lease['ttl'] / 2
                    self._renew(message_id, lease)

    def _renew(self, message_id: str, lease: _Lease) -> None:
        project_id, name = self._source
        try:
            self._broker.claims.update(
                name, claim_id=lease.claim_id, metadata=self._lease, project=project_id
            )
        except storage_errors.ClaimDoesNotExist:
            # Settled meanwhile, or lost: whoever has it now, this consumer has not.
            self._leases.pop(message_id, None)
            self._settled.set()
        except storage_errors.ExceptionBase as error:
            LOG.warning('Claim %s could not be renewed: %s', lease.claim_id, error)
