"""Settling many messages of claims in one request, each with an outcome of its own.

A worker acknowledges (deletes), releases, rejects or extends up to `MAX_ENTRIES` messages of a
queue together. A message that cannot be settled does not hold up the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, NotRequired, TypedDict

import msgspec
from zaqar.storage import errors as storage_errors

from zaqar_gevent.api import errors
from zaqar_gevent.api.context import Context
from zaqar_gevent.api.operation import Request, operation
from zaqar_gevent.settlements import Settle, Settlement
from zaqar_gevent.storage.features import Feature

MAX_ENTRIES = 100
"""Messages of one request."""

MAX_REASON = 1024
"""Characters of the reason for which a message is rejected."""

Reason = Annotated[str, msgspec.Meta(max_length=MAX_REASON)]


class _Entry(msgspec.Struct):
    message_id: str


class HeldMessage(_Entry):
    """A message, and the claim that holds it."""

    claim_id: str


class AcknowledgedMessage(_Entry):
    """Without `claim_id`, the message is deleted only if no claim holds it."""

    claim_id: str | None = None


class ReleasedMessage(HeldMessage):
    """`delay`: seconds until the message can be claimed again, at most
    `[transport] max_message_delay` (900 by default). Left out, it is that of `_retry_delay` of the
    queue, if it has one.
    """

    delay: float | None = None


class RejectedMessage(HeldMessage):
    """`reason`: at most 1024 characters, which stay with the dead letter."""

    reason: Reason | None = None


class ExtendedMessage(HeldMessage):
    """`ttl`: of the lease, from now on. `grace`: how long the message lives at least when it ends.

    Both in seconds, with the limits of claims.
    """

    ttl: int | msgspec.UnsetType = msgspec.UNSET
    grace: int | msgspec.UnsetType = msgspec.UNSET


class AcknowledgeMany(Request):
    queue_name: str
    entries: list[AcknowledgedMessage]


class ReleaseMany(Request):
    queue_name: str
    entries: list[ReleasedMessage]


class RejectMany(Request):
    queue_name: str
    entries: list[RejectedMessage]


class ExtendMany(Request):
    queue_name: str
    entries: list[ExtendedMessage]


class Outcome(TypedDict):
    """`status` is 204 for a message that was settled. For any other it is that of an error, which
    `code`, `title` and `description` describe.
    """

    message_id: str
    status: int
    code: NotRequired[str]
    title: NotRequired[str]
    description: NotRequired[str]


class Outcomes(TypedDict):
    """One outcome for each entry, in their order."""

    outcomes: list[Outcome]


@operation(
    'message_ack_many',
    rest='POST /v2/queues/{queue_name}/messages/ack',
    policy='messages:delete',
)
def acknowledge_many(context: Context, request: AcknowledgeMany) -> Outcomes:
    """Delete messages that a worker has done with, up to 100, each with an outcome of its own.

    A message that is gone already is as good as deleted (204).
    """
    return _settle(
        context,
        request.queue_name,
        [Settlement(Settle.DELETE, one.message_id, one.claim_id) for one in request.entries],
    )


@operation(
    'message_release_many',
    rest='POST /v2/queues/{queue_name}/messages/release',
    policy='claims:delete',
)
def release_many(context: Context, request: ReleaseMany) -> Outcomes:
    """Give messages of claims back, up to 100, each after a delay of its own.

    A message keeps its position in the queue.
    """
    for index, one in enumerate(request.entries):
        check_delay(context, one.delay, f'$.entries[{index}].delay')
    return _settle(
        context,
        request.queue_name,
        [
            Settlement(Settle.RELEASE, one.message_id, one.claim_id, delay=one.delay)
            for one in request.entries
        ],
    )


@operation(
    'message_reject_many',
    rest='POST /v2/queues/{queue_name}/messages/reject',
    policy='claims:delete',
)
def reject_many(context: Context, request: RejectMany) -> Outcomes:
    """Move messages of claims to the queue's dead letter queue at once, up to 100.

    The queue must have a `_dead_letter_queue` in the same store.
    """
    return _settle(
        context,
        request.queue_name,
        [
            Settlement(Settle.REJECT, one.message_id, one.claim_id, reason=one.reason)
            for one in request.entries
        ],
    )


@operation(
    'message_extend_many',
    rest='POST /v2/queues/{queue_name}/messages/extend',
    policy='claims:update',
    repeat=True,
)
def extend_many(context: Context, request: ExtendMany) -> Outcomes:
    """Begin the leases of single messages of claims anew, up to 100; the others stay as they are.

    The claim keeps its id. When the claim as a whole is renewed, all its leases are.
    """
    defaults, limits = context.broker.defaults, context.broker.limits
    settlements = []
    for one in request.entries:
        ttl = defaults.claim_ttl if one.ttl is msgspec.UNSET else one.ttl
        grace = defaults.claim_grace if one.grace is msgspec.UNSET else one.grace
        limits.claim_updating({'ttl': ttl, 'grace': grace})
        settlements.append(
            Settlement(Settle.EXTEND, one.message_id, one.claim_id, ttl=ttl, grace=grace)
        )
    return _settle(context, request.queue_name, settlements)


def check_delay(context: Context, delay: float | None, place: str) -> None:
    """Raise `errors.BadRequest` for a delay that a released message cannot have."""
    most = context.broker.limit('max_message_delay')
    if delay is not None and not 0 <= delay <= most:
        raise errors.BadRequest(
            f'The delay must be 0 to {most} seconds, not {delay:g} - at `{place}`'
        )


def _settle(context: Context, queue_name: str, settlements: list[Settlement]) -> Outcomes:
    broker, project = context.broker, context.project_id
    if not 1 <= len(settlements) <= MAX_ENTRIES:
        raise errors.BadRequest(
            f'There must be 1 to {MAX_ENTRIES} entries, not {len(settlements)} - at `$.entries`'
        )
    broker.require(Feature.SETTLEMENTS, queue_name, project, '$.entries')
    found = broker.claims.settle(queue_name, settlements, project=project)
    if any(one.kind in (Settle.RELEASE, Settle.REJECT) for one in settlements):
        delays = [one.delay for one in settlements if one.delay is not None]
        broker.released(queue_name, project, delays)
    elif any(one.kind is Settle.DELETE for one in settlements):
        broker.deleted(queue_name, project)
    return {'outcomes': [*_outcomes(settlements, found)]}


def _outcomes(
    settlements: Iterable[Settlement], found: Iterable[Exception | None]
) -> Iterable[Outcome]:
    for one, error in zip(settlements, found, strict=True):
        if error is None:
            yield {'message_id': one.message_id, 'status': 204}
            continue
        failure = _failure(one, error)
        yield {
            'message_id': one.message_id,
            'status': failure.status,
            'code': failure.code,
            'title': failure.title,
            'description': failure.description,
        }


def _failure(settlement: Settlement, error: Exception) -> errors.APIError:
    match error:
        case storage_errors.MessageIsClaimed():
            return errors.Forbidden('A claim holds this message; give its claim_id.')
        case storage_errors.ClaimDoesNotExist() | storage_errors.NotPermitted():
            return errors.NotFound(
                f'The claim {settlement.claim_id} does not hold this message (any more).'
            )
        case storage_errors.ExceptionBase():
            return errors.from_storage(error, 'settling')
        case _:
            raise error
