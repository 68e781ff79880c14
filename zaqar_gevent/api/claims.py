"""Claims: leases on messages, so that one worker at a time has each of them."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any, NotRequired, TypedDict

import msgspec

from zaqar_gevent.api import waiting
from zaqar_gevent.api.context import Context
from zaqar_gevent.api.messages import Message, answer_with, collected
from zaqar_gevent.api.operation import Reply, Request, operation
from zaqar_gevent.api.settling import check_delay
from zaqar_gevent.storage.features import Feature
from zaqar_gevent.storage.interface import StoredMessage, StoredPage


class CreateClaim(Request):
    """`ttl`: of the claim. `grace`: how long its messages live at least when it ends; in seconds.

    `wait`: for how long to wait for a message where there is none, in seconds, at most 20.
    """

    queue_name: str
    limit: int | None = None
    wait: float | None = None
    ttl: int | msgspec.UnsetType = msgspec.UNSET
    grace: int | msgspec.UnsetType = msgspec.UNSET


class NamedClaim(Request):
    queue_name: str
    claim_id: str


class ReleaseClaim(NamedClaim):
    """`delay`: seconds until the messages can be claimed again, at most
    `[transport] max_message_delay` (900 by default). Left out, it is that of `_retry_delay` of the
    queue, if it had one when they were claimed.
    """

    delay: float | None = None


class UpdateClaim(NamedClaim):
    """`ttl`: of the claim, from now on. `grace`: how long its messages live at least when it ends;
    both in seconds.
    """

    ttl: int | msgspec.UnsetType = msgspec.UNSET
    grace: int | msgspec.UnsetType = msgspec.UNSET


class CreatedClaim(TypedDict):
    claim_id: str | None
    messages: NotRequired[list[Message]]


class Claim(TypedDict):
    ttl: int
    age: int
    messages: list[Message]


@operation(
    'claim_create',
    rest='POST /v2/queues/{queue_name}/claims{?limit,wait}',
    policy='claims:create',
    success=(201, 204),
    relation='rel/post_claim',
)
def create_claim(context: Context, request: CreateClaim) -> Reply:
    """Claim the oldest unclaimed messages (201); 204 when there are none.

    `ttl` is how long the claim holds, `grace` how long its messages live at least when it ends.
    Both are at least 60 seconds, and by default at most 43200 (`[transport] max_claim_ttl` and
    `max_claim_grace`).
    """
    broker = context.broker
    lease = _lease(context, request)
    broker.limits.claim_creation(lease, limit=request.limit)
    asked = broker.with_retry_delay(lease, request.queue_name, context.project_id)
    # PERF: not by `given`, which looks at any number of members.
    options = {} if request.limit is None else {'limit': request.limit}

    def claim() -> tuple[str, Collection[StoredMessage]]:
        context.check_present()
        claim_id, found = broker.claims.create(
            request.queue_name, metadata=asked, project=context.project_id, **options
        )
        return claim_id or '', collected(found)

    claim_id, messages = waiting.wait_for(
        context,
        request.queue_name,
        request.wait,
        claim,
        lambda result: bool(result[1]),
        takes=True,
    )
    if not messages:
        return Reply(204, CreatedClaim(claim_id=claim_id or None))
    context.undo = functools.partial(_take_back, context, request.queue_name, claim_id)
    return Reply(201, {'claim_id': claim_id, 'messages': _held(context, claim_id, messages)})


@operation(
    'claim_get',
    rest='GET /v2/queues/{queue_name}/claims/{claim_id}',
    policy='claims:get',
    relation='rel/claim',
)
def get_claim(context: Context, request: NamedClaim) -> Claim:
    """Get a claim's age, its time to live and the messages it holds."""
    claim, found = context.broker.claims.get(
        request.queue_name, claim_id=request.claim_id, project=context.project_id
    )
    return {
        'ttl': claim['ttl'],
        'age': claim['age'],
        'messages': _held(context, request.claim_id, collected(found)),
    }


@operation(
    'claim_update',
    rest='PATCH /v2/queues/{queue_name}/claims/{claim_id}',
    policy='claims:update',
    success=204,
    relation='rel/patch_claim',
    needs_body=True,
    repeat=True,
)
def update_claim(context: Context, request: UpdateClaim) -> str:
    """Renew a claim: its time to live starts anew.

    `ttl` and `grace` have the limits that they have when a claim is created: at least 60 seconds.
    """
    lease = _lease(context, request)
    context.broker.limits.claim_updating(lease)
    context.broker.claims.update(
        request.queue_name,
        claim_id=request.claim_id,
        metadata=lease,
        project=context.project_id,
    )
    return f'Claim {request.claim_id} updated.'


@operation(
    'claim_delete',
    rest='DELETE /v2/queues/{queue_name}/claims/{claim_id}{?delay}',
    policy='claims:delete',
    success=204,
    relation='rel/delete_claim',
)
def delete_claim(context: Context, request: ReleaseClaim) -> str:
    """Release a claim's messages; a claim that does not exist is as good as released.

    They keep their positions in the queue, and can be claimed again after the `delay`.
    """
    if request.delay is not None:
        check_delay(context, request.delay, '$.delay')
        context.broker.require(Feature.RETRIES, request.queue_name, context.project_id, '$.delay')
    _release(context, request.queue_name, request.claim_id, **request.given('delay'))
    return f'Claim {request.claim_id} deleted.'


def _take_back(context: Context, queue_name: str, claim_id: str) -> None:
    """Release messages that were claimed for a client that cannot be told: at once."""
    features = context.broker.features_for(queue_name, context.project_id)
    has_retries = Feature.RETRIES in features.offered
    _release(context, queue_name, claim_id, **({'delay': 0.0} if has_retries else {}))


def _release(context: Context, queue_name: str, claim_id: str, **delay: float) -> None:
    context.broker.claims.delete(queue_name, claim_id=claim_id, project=context.project_id, **delay)
    context.broker.released(queue_name, context.project_id, delay.values())


def _lease(context: Context, request: CreateClaim | UpdateClaim) -> dict[str, Any]:
    defaults = context.broker.defaults
    return {
        'ttl': defaults.claim_ttl if request.ttl is msgspec.UNSET else request.ttl,
        'grace': defaults.claim_grace if request.grace is msgspec.UNSET else request.grace,
    }


def _held(context: Context, claim_id: str, found: Collection[StoredMessage]) -> list[Message]:
    """The messages of a claim as clients see them."""
    messages = answer_with(context, found, counted=context.shows_extensions)
    if not isinstance(found, StoredPage):
        # A page of a claim says so by itself.
        for message in messages:
            message['claim_id'] = claim_id
    return messages
