"""Redrives: dead letters that are moved back to where they are from, or to another queue."""

from __future__ import annotations

import datetime
from contextlib import nullcontext
from typing import Any, TypedDict

from zaqar.storage import errors as storage_errors
from zaqar.transport.validation import ValidationFailed

from zaqar_gevent.api import errors
from zaqar_gevent.api.broker import Broker
from zaqar_gevent.api.context import Context
from zaqar_gevent.api.operation import operation
from zaqar_gevent.api.queues import NamedQueue
from zaqar_gevent.redrives import NewRedrive, State, StoredRedrive
from zaqar_gevent.storage.features import Feature
from zaqar_gevent.storage.interface import RedriveController

MAX_LIMIT = 2**31 - 1
MIN_RATE = 0.01
MAX_RATE = 100_000.0


class CreateRedrive(NamedQueue):
    """`target`: the queue that the messages go to; left out, each goes to the queue that it is
    from. `limit`: messages that are moved at most. `rate`: messages a second at most, 0.01 to
    100000.
    """

    target: str | None = None
    limit: int | None = None
    rate: float | None = None


class ListRedrives(NamedQueue):
    marker: str | None = None
    limit: int | None = None


class NamedRedrive(NamedQueue):
    redrive_id: str


class Redrive(TypedDict):
    """`state` is `running`, `finished`, `cancelled` or `stopped`, with the `reason` why it cannot
    go on. `moved`: messages that were moved. `left`: messages that do not say where they are from,
    and stay. `started` and `ended` are times in ISO 8601.
    """

    id: str
    target: str | None
    limit: int | None
    rate: float | None
    state: str
    reason: str | None
    moved: int
    left: int
    started: str
    ended: str | None


class RedrivePage(TypedDict):
    redrives: list[Redrive]
    marker: str


class CreatedRedrive(TypedDict):
    redrive_id: str


@operation(
    'redrive_create',
    rest='POST /v2/queues/{queue_name}/redrives',
    policy='redrives:create',
    success=201,
)
def create_redrive(context: Context, request: CreateRedrive) -> CreatedRedrive:
    """Begin to move a queue's dead letters back to where they are from, or to another queue.

    The server does it in the background, oldest first, with what the queue holds now and nobody has
    claimed. The messages keep their bodies, attributes and groups. They come to the end of the
    target with the TTL that they had before they were dead letters, which begins anew, and count as
    never claimed.
    """
    broker = context.broker
    _check_numbers(request)
    _check_exists(broker, request.queue_name, context.project_id)
    controller = _redrives_of(context, request.queue_name)
    if request.target is not None:
        try:
            broker.limits.queue_identification(request.target, context.project_id)
        except ValidationFailed as error:
            raise errors.BadRequest(f'{error} - at `$.target`') from None
        if request.target == request.queue_name:
            raise errors.BadRequest(
                'The target is the queue itself; name another queue, or none for the queues that '
                'the messages are from - at `$.target`'
            )
        prepare_target(broker, controller, request.queue_name, request.target, context.project_id)
    limits = broker.redrives
    created = controller.create(
        request.queue_name,
        NewRedrive(request.target, request.limit, request.rate, limits.of_queue, limits.of_project),
        context.project_id,
    )
    limits.began()
    return {'redrive_id': created['id']}


@operation(
    'redrive_list',
    rest='GET /v2/queues/{queue_name}/redrives{?marker,limit}',
    policy='redrives:get_all',
)
def list_redrives(context: Context, request: ListRedrives) -> RedrivePage:
    """List a queue's redrives, oldest first, a page at a time.

    Those that are over are forgotten after `redrive_retention` seconds (7 days by default), and
    when the queue has had 100 more.
    """
    context.broker.limits.subscription_listing(limit=request.limit)
    found = _redrives_of(context, request.queue_name).list(
        request.queue_name, context.project_id, request.marker, **request.given('limit')
    )
    marker = found[-1]['id'] if found else request.marker or ''
    return {'redrives': [_present(one) for one in found], 'marker': marker}


@operation(
    'redrive_get',
    rest='GET /v2/queues/{queue_name}/redrives/{redrive_id}',
    policy='redrives:get',
)
def get_redrive(context: Context, request: NamedRedrive) -> Redrive:
    """Get the state of a redrive, and how many messages it has moved."""
    controller = _redrives_of(context, request.queue_name)
    found = controller.get(request.queue_name, request.redrive_id, context.project_id)
    return _present(found)


@operation(
    'redrive_delete',
    rest='DELETE /v2/queues/{queue_name}/redrives/{redrive_id}',
    policy='redrives:delete',
    success=204,
)
def delete_redrive(context: Context, request: NamedRedrive) -> dict[str, Any]:
    """Cancel a redrive: what it has moved stays moved. One that is over stays as it is."""
    _redrives_of(context, request.queue_name).end(
        request.queue_name, request.redrive_id, context.project_id, State.CANCELLED
    )
    return {}


def prepare_target(
    broker: Broker,
    controller: RedriveController,
    queue_name: str,
    target: str,
    project: str | None,
) -> None:
    """See that messages of a queue can be moved to another, which is created if need be.

    controller: the redrives of the store that moves them.

    Raises `errors.BadRequest` where the two are in different stores, and what a post raises where
    the project has all the queues, or the target all the messages, that it may have.
    """
    quotas = broker.project_quotas
    if not broker.queues.exists(target, project=project):
        with quotas.new_queue(target, project) if quotas.limit_queues else nullcontext():
            try:
                broker.queues.create(target, project=project)
            except storage_errors.NoPoolFound:
                raise errors.no_pool(target) from None
    stores = [broker.redrives_for(name, project) for name in (queue_name, target)]
    if any(store != controller for store in stores):
        raise errors.BadRequest(
            f'The queues {queue_name} and {target} are in different pools; messages can be moved '
            'within a pool only - at `$.target`'
        )
    if quotas.limit_posts:
        # The bytes are there already.
        with quotas.new_post(1, 0, target, project):
            pass


def _check_numbers(request: CreateRedrive) -> None:
    if request.limit is not None and not 1 <= request.limit <= MAX_LIMIT:
        raise errors.BadRequest(f'The limit must be 1 to {MAX_LIMIT} messages - at `$.limit`')
    if request.rate is not None and not MIN_RATE <= request.rate <= MAX_RATE:
        raise errors.BadRequest(
            f'The rate must be {MIN_RATE} to {MAX_RATE:.0f} messages a second - at `$.rate`'
        )


def _redrives_of(context: Context, queue_name: str) -> RedriveController:
    broker, project = context.broker, context.project_id
    controller = broker.redrives_for(queue_name, project)
    if controller is None:
        _check_exists(broker, queue_name, project)
        raise errors.BadRequest(f'{broker.lack_of(Feature.REDRIVES, queue_name, project)}.')
    return controller


def _check_exists(broker: Broker, queue_name: str, project: str | None) -> None:
    """Raise `errors.NotFound` where there is neither a queue nor a message of it.

    Upstream's servers put dead letters into queues that were never created.
    """
    if broker.queues.exists(queue_name, project=project):
        return
    found = broker.messages.list(
        queue_name, project, limit=1, echo=True, include_claimed=True, include_delayed=True
    )
    if not list(next(found)):
        raise errors.NotFound(f'There is no queue {queue_name}.')


def _present(redrive: StoredRedrive) -> Redrive:
    return {
        'id': redrive['id'],
        'target': redrive['target'],
        'limit': redrive['limit'],
        'rate': redrive['rate'],
        'state': redrive['state'],
        'reason': redrive['reason'],
        'moved': redrive['moved'],
        'left': redrive['left'],
        'started': _moment(redrive['created']),
        'ended': None if redrive['ended'] is None else _moment(redrive['ended']),
    }


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime('%Y-%m-%dT%H:%M:%SZ')
