"""Consumers: connections that are pushed messages to work on, each leased until it is settled.

Over REST the same work is done with claims; the two mix on one queue.
"""

from __future__ import annotations

from typing import Any, TypedDict

from zaqar_gevent.api import errors
from zaqar_gevent.api.context import Context
from zaqar_gevent.api.operation import Request, operation
from zaqar_gevent.api.push import Consumer, Source, connected
from zaqar_gevent.api.settling import Reason, check_delay
from zaqar_gevent.storage.features import Feature

MAX_CREDIT = 1000


class ConsumeQueue(Request):
    """`credit`: how many messages may be unsettled at a time, at most 1000.

    `ttl` and `grace` of the claims, in seconds; they are renewed while the connection lasts.
    """

    queue_name: str
    credit: int = 1
    ttl: int | None = None
    grace: int | None = None


class NamedConsumer(Request):
    consumer_id: str


class SettleMessages(NamedConsumer):
    message_ids: list[str]


class ReleaseMessages(SettleMessages):
    """`delay`: seconds until they can be claimed again, at most `[transport] max_message_delay`
    (900 by default). Left out, it is that of `_retry_delay` of the queue, if it has one.
    """

    delay: float | None = None


class RejectMessages(SettleMessages):
    """`reason`: at most 1024 characters, which stay with the dead letters."""

    reason: Reason | None = None


class CreatedConsumer(TypedDict):
    consumer_id: str


@operation('queue_consume', rest=None, policy='claims:create', success=201)
def consume_queue(context: Context, request: ConsumeQueue) -> CreatedConsumer:
    """Receive the messages of a queue as they come, each claimed for this connection.

    `credit` is how many messages may be unsettled at a time, 1 to 1000. `ttl` and `grace` of the
    claims are at least 60 seconds, by default at most 43200.
    """
    broker = context.broker
    if not 1 <= request.credit <= MAX_CREDIT:
        raise errors.BadRequest(f'The credit must be 1 to {MAX_CREDIT} messages - at `$.credit`')
    lease = {
        'ttl': broker.defaults.claim_ttl if request.ttl is None else request.ttl,
        'grace': broker.defaults.claim_grace if request.grace is None else request.grace,
    }
    broker.limits.claim_creation(lease)
    consumer_id = connected(context).consume(
        Source(context.project_id, request.queue_name),
        lease,
        credit=request.credit,
        binary=context.binary,
        grant=context.grant,
    )
    return {'consumer_id': consumer_id}


@operation('message_ack', rest=None, policy='messages:delete', success=204)
def acknowledge_messages(context: Context, request: SettleMessages) -> dict[str, Any]:
    """Delete messages that a consumer of this connection has done with."""
    _named(context, request).acknowledge(request.message_ids)
    return {}


@operation('message_release', rest=None, policy='claims:delete', success=204)
def release_messages(context: Context, request: ReleaseMessages) -> dict[str, Any]:
    """Give messages of a consumer of this connection back to the queue, perhaps after a delay."""
    consumer = _named(context, request)
    if request.delay is not None:
        check_delay(context, request.delay, '$.delay')
        project_id, queue_name = consumer.source
        context.broker.require(Feature.RETRIES, queue_name, project_id, '$.delay')
    consumer.release(request.message_ids, request.delay)
    return {}


@operation('message_reject', rest=None, policy='claims:delete', success=204)
def reject_messages(context: Context, request: RejectMessages) -> dict[str, Any]:
    """Move messages of a consumer of this connection to the dead letter queue at once."""
    consumer = _named(context, request)
    project_id, queue_name = consumer.source
    context.broker.require(Feature.SETTLEMENTS, queue_name, project_id, '$.message_ids')
    consumer.reject(request.message_ids, request.reason)
    return {}


@operation('consumer_stop', rest=None, policy='claims:delete', success=204, repeat=True)
def stop_consumer(context: Context, request: NamedConsumer) -> dict[str, Any]:
    """End a consumer of this connection; its unsettled messages go back to the queue."""
    _named(context, request).stop()
    return {}


def _named(context: Context, request: NamedConsumer) -> Consumer:
    return connected(context).consumer(request.consumer_id, context.project_id)
