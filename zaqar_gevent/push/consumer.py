"""A connection that works on the messages of a queue, each leased to it until it is settled."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Callable, Sequence
from logging import ERROR, WARNING
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from oslo_log import log
from zaqar.storage import errors as storage_errors

from zaqar_gevent.api import documents, errors
from zaqar_gevent.api.grants import Grant
from zaqar_gevent.api.messages import count_claims, present_all
from zaqar_gevent.api.push import News, Recipient, Source
from zaqar_gevent.logs import level_of
from zaqar_gevent.push.clock_steps import ClockStepDetector
from zaqar_gevent.settlements import Settle, Settlement
from zaqar_gevent.storage.features import Feature

if TYPE_CHECKING:
    from zaqar_gevent.push.push_hub import PushHub

LOG = log.getLogger(__name__)

# Messages that are claimed, or claims that are renewed, at a time.
_AT_ONCE = 16
# A lease is renewed after this share of its time to live. A store may count whole seconds, so
# that a claim lives up to a second less than was asked for.
_RENEWED_AFTER = 1 / 3
# The hub tells of messages that can be claimed.
_WAIT_SECONDS = 60.0
_OUTAGE_SECONDS = 1.0

# What the store says of a message whose claim has ended meanwhile.
_LOST = (storage_errors.ClaimDoesNotExist, storage_errors.NotPermitted)


class _Lease:
    """A claim on one or more messages, and when to renew it, in seconds of `time.monotonic`."""

    __slots__ = ('claim_id', 'renew_at')

    def __init__(self, claim_id: str, renew_at: float) -> None:
        self.claim_id = claim_id
        self.renew_at = renew_at


Claimed = tuple[_Lease, dict[str, Any]]


class PushConsumer:
    """Claims messages as they come and pushes them; see `zaqar_gevent.api.push.Consumer`.

    Each message can be settled by itself. Where the store cannot do that with the messages of one
    claim, each has a claim of its own.

    source: the queue. grant: it ends with this. binary: whether it is pushed MsgPack.
    is_stopped: whether it gets no more.
    """

    def __init__(
        self,
        push_hub: PushHub,
        source: Source,
        recipient: Recipient,
        lease: dict[str, int],
        *,
        credit: int,
        binary: bool,
        grant: Grant,
    ) -> None:
        self.id = secrets.token_hex(8)
        self._push_hub = push_hub
        self._broker = push_hub.broker
        self.source = source
        self.grant = grant
        self.binary = binary
        self._recipient = recipient
        self._lease = lease
        self._credit = credit
        self._leases: dict[str, _Lease] = {}
        self._settled = Event()
        self._has_claimed = Event()
        self._has_claimed.set()
        self._news: News | None = None
        self._is_keeping = False
        self.is_stopped = False

    def start(self) -> None:
        """Begin, once the answer to the request has been sent.

        Raises `errors.TooMany` where the project has as many as it may have.
        """
        self._broker.quotas.consumers.take(self.source.project_id)
        gevent.spawn(self._run)

    def acknowledge(self, message_ids: list[str]) -> None:
        leases, unknown = self._take_out(message_ids)
        outcomes = self._settle(Settle.DELETE, self._delete, leases)
        project_id, name = self.source
        self._broker.deleted(name, project_id)
        failures = _failures(outcomes)
        lost = [error for error in failures if isinstance(error, _LOST)]
        if len(lost) < len(failures):
            # To be tried again as a whole: a message that is gone is as good as deleted.
            self._put_back(leases)
            raise next(error for error in failures if error not in lost)
        _tell_of(unknown + _lost_of(leases, outcomes))

    def release(self, message_ids: list[str], delay: float | None = None) -> None:
        leases, unknown = self._take_out(message_ids)
        self._give_back(leases, delay)
        _tell_of(unknown)

    def reject(self, message_ids: list[str], reason: str | None) -> None:
        leases, unknown = self._take_out(message_ids)
        try:
            outcomes = self._settle_together(Settle.REJECT, leases, reason=reason)
        except Exception:
            self._put_back(leases)
            raise
        project_id, name = self.source
        self._broker.released(name, project_id)
        _tell_of(unknown + _lost_of(leases, outcomes))

    def stop(self) -> None:
        """Give all messages back, those that are being claimed as well, and claim no more."""
        if not self.is_stopped:
            self.is_stopped = True
            self._broker.quotas.consumers.give_back(self.source.project_id)
        self._settled.set()
        if self._news is not None:
            self._news.set()
        leases, self._leases = self._leases, {}
        # All that a claim still holds is this consumer's.
        ended = {lease.claim_id: (message_id, lease) for message_id, lease in leases.items()}
        self._tell_given_back(_failures(_each(self._end, list(ended.values()))))
        self._has_claimed.wait()

    def _take_out(self, message_ids: list[str]) -> tuple[list[tuple[str, _Lease]], list[str]]:
        """The leases of messages, which are the caller's to end, and the ids of those without."""
        wanted = dict.fromkeys(message_ids)
        unknown = [one for one in wanted if one not in self._leases]
        leases = [(one, self._leases.pop(one)) for one in wanted if one in self._leases]
        self._settled.set()
        return leases, unknown

    def _put_back(self, leases: list[tuple[str, _Lease]]) -> None:
        """Hold leases on; those of a consumer that was stopped meanwhile are ended."""
        if self.is_stopped:
            self._give_back(leases)
        else:
            for message_id, lease in leases:
                self._hold(message_id, lease)

    def _give_back(self, leases: list[tuple[str, _Lease]], delay: float | None = None) -> None:
        """End leases; messages that cannot be given back are free when their claims expire.

        delay: before the messages can be claimed again; None for that of the queue.
        """
        if leases:
            end = functools.partial(self._end, delay=delay)
            outcomes = self._settle(Settle.RELEASE, end, leases, delay=delay)
            self._tell_given_back(_failures(outcomes), delay)

    def _tell_given_back(self, failures: Sequence[Exception], delay: float | None = None) -> None:
        """Wake others who wait for messages; log what could not be given back."""
        for failure in failures:
            if not isinstance(failure, _LOST):
                LOG.log(level_of(failure, WARNING), 'A claim is left to expire: %s', failure)
        project_id, name = self.source
        try:
            self._broker.released(name, project_id, () if delay is None else (delay,))
        except Exception as error:
            LOG.log(
                level_of(error, WARNING),
                'Nobody is told of what was given back to %s: %s',
                name,
                error,
            )

    def _settle(
        self,
        kind: Settle,
        settle_one: Callable[[str, _Lease], Any],
        leases: list[tuple[str, _Lease]],
        **options: Any,
    ) -> list[Any]:
        """Settle messages; of each the error, if there is one.

        settle_one: does it where each message has a claim of its own.
        """
        if not leases:
            return []
        if not self._can_share_claims():
            return _each(settle_one, leases)
        try:
            return self._settle_together(kind, leases, **options)
        except Exception as error:
            return [error] * len(leases)

    def _settle_together(
        self, kind: Settle, leases: list[tuple[str, _Lease]], **options: Any
    ) -> list[Any]:
        project_id, name = self.source
        settlements = [
            Settlement(kind, message_id, lease.claim_id, **options) for message_id, lease in leases
        ]
        return list(self._broker.claims.settle(name, settlements, project=project_id))

    def _can_share_claims(self) -> bool:
        project_id, name = self.source
        return Feature.SETTLEMENTS in self._broker.features_for(name, project_id).offered

    def _delete(self, message_id: str, lease: _Lease) -> None:
        project_id, name = self.source
        self._broker.messages.delete(name, message_id, project=project_id, claim=lease.claim_id)

    def _end(self, message_id: str, lease: _Lease, delay: float | None = None) -> None:
        project_id, name = self.source
        # Not every store knows delays.
        options = {} if delay is None else {'delay': delay}
        self._broker.claims.delete(name, claim_id=lease.claim_id, project=project_id, **options)

    def _run(self) -> None:
        with self._push_hub.listening(self.source, takes=True) as news:
            self._news = news
            while not self._is_over():
                self._settled.clear()
                news.clear()
                free = self._credit - len(self._leases)
                if free <= 0:
                    self._settled.wait()
                elif not self._recipient.has_room(1):
                    self._push_hub.feed(self.source).wake_taker()
                    self._recipient.wait_for_room()
                elif self._claim_safely(min(free, _AT_ONCE)):
                    # There may be more, for others who wait.
                    self._push_hub.feed(self.source).wake_taker()
                else:
                    news.wait(_WAIT_SECONDS)

    def _is_over(self) -> bool:
        return (
            self.is_stopped
            or self.grant.is_over
            or not self._recipient.is_open
            or self._push_hub.is_draining
        )

    def _claim_safely(self, count: int) -> int:
        """How many messages were claimed and pushed."""
        self._has_claimed.clear()
        try:
            return self._claim(count)
        except Exception as error:
            LOG.log(
                level_of(error, ERROR), 'Consumer of %s cannot claim: %s', self.source.name, error
            )
        finally:
            self._has_claimed.set()
        gevent.sleep(_OUTAGE_SECONDS)
        return 0

    def _claim(self, count: int) -> int:
        failures: list[Exception] = []
        project_id, name = self.source
        # One of a group at a time, since workers do several messages at once.
        is_ordered = self._broker.has_ordered_groups(name, project_id)
        if self._can_share_claims() and not is_ordered:
            found = self._claim_some(count)
        else:
            found, failures = self._claim_by_one(count)
        failures += [error for one in found if (error := self._push(*one)) is not None]
        if failures:
            raise failures[0]
        return len(found)

    def _claim_some(self, count: int) -> list[Claimed]:
        """Messages of one claim."""
        project_id, name = self.source
        metadata = self._broker.with_retry_delay(self._lease, name, project_id)
        claim_id, found = self._broker.claims.create(
            name, metadata=metadata, project=project_id, limit=count
        )
        lease = _Lease(str(claim_id), self._renewal_time())
        return [(lease, message) for message in found]

    def _claim_by_one(self, count: int) -> tuple[list[Claimed], list[Exception]]:
        """Messages, each of a claim of its own, and why some were not claimed.

        One first, so that an empty queue is not asked so often.
        """
        first = self._claim_some(1)
        if not first:
            return [], []
        outcomes = _each(self._claim_some, [(1,)] * (count - 1))
        failures = _failures(outcomes)
        found = [*first, *(one for some in outcomes if isinstance(some, list) for one in some)]
        if self._push_hub.ids_keep_order:
            # Of those who claimed at once, one may have waited for something else meanwhile.
            found.sort(key=_position_of)
        return found, failures

    def _push(self, lease: _Lease, message: dict[str, Any]) -> Exception | None:
        """Push a message, or give it back; why it could not be pushed."""
        message_id = str(message['id'])
        failure = None
        try:
            payload = self._write(lease.claim_id, message)
        except Exception as error:
            failure = error
        if failure is not None or self._is_over():
            self._give_back([(message_id, lease)])
        else:
            self._hold(message_id, lease)
            self._recipient.push(payload, binary=self.binary, kind='message', grant=self.grant)
        return failure

    def _write(self, claim_id: str, message: dict[str, Any]) -> bytes:
        project_id, name = self.source
        [seen] = present_all(self._broker, [message], project_id)
        seen['claim_id'] = claim_id
        count_claims([seen], [message])
        push = {
            'push': 'message',
            'consumer_id': self.id,
            'queue_name': name,
            'message': seen,
        }
        return documents.encode(push, binary=self.binary)

    def _hold(self, message_id: str, lease: _Lease) -> None:
        """Renew a lease from now on."""
        self._leases[message_id] = lease
        if not self._is_keeping:
            self._is_keeping = True
            gevent.spawn(self._keep)

    def _keep(self) -> None:
        """Renew the leases while the connection lasts; all at once when the wall clock was set."""
        clock_steps = ClockStepDetector()
        while self._leases and not self._is_over():
            gevent.sleep(min(1.0, self._lease['ttl'] / 8))
            now = time.monotonic()
            has_stepped = clock_steps.has_stepped()
            due = [
                (lease,)
                for lease in dict.fromkeys(self._leases.values())
                if has_stepped or now >= lease.renew_at
            ]
            for begin in range(0, len(due), _AT_ONCE):
                _each(self._renew, due[begin : begin + _AT_ONCE])
        self._is_keeping = False

    def _renewal_time(self) -> float:
        return time.monotonic() + self._lease['ttl'] * _RENEWED_AFTER

    def _renew(self, lease: _Lease) -> None:
        project_id, name = self.source
        lease.renew_at = self._renewal_time()
        try:
            self._broker.claims.update(
                name, claim_id=lease.claim_id, metadata=self._lease, project=project_id
            )
        except storage_errors.ClaimDoesNotExist:
            # Settled meanwhile, or lost to another consumer.
            held = self._leases.items()
            for message_id in [one for one, own in held if own is lease]:
                del self._leases[message_id]
            self._settled.set()
        except Exception as error:
            LOG.log(
                level_of(error, WARNING), 'Claim %s is not renewed yet: %s', lease.claim_id, error
            )
            lease.renew_at = time.monotonic()


def _position_of(claimed: Claimed) -> str:
    message = claimed[1]
    position: str = message.get('position') or message['id']
    return position


def _lost_of(leases: list[tuple[str, _Lease]], outcomes: Sequence[Any]) -> list[str]:
    """The messages whose leases had ended, of those that were settled."""
    return [
        message_id
        for (message_id, _), outcome in zip(leases, outcomes, strict=True)
        if isinstance(outcome, Exception)
    ]


def _tell_of(message_ids: list[str]) -> None:
    """Raise `errors.NotLeased` where there are such messages."""
    if message_ids:
        raise errors.NotLeased(message_ids)


def _failures(outcomes: Sequence[Any]) -> list[Exception]:
    return [one for one in outcomes if isinstance(one, Exception)]


def _each(job: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The results or errors of a job for each of the arguments; all run at once."""

    def attempt(*own: Any) -> Any:
        try:
            return job(*own)
        except Exception as error:
            return error

    jobs = [gevent.spawn(attempt, *own) for own in arguments]
    gevent.joinall(jobs)
    return [one.value for one in jobs]
