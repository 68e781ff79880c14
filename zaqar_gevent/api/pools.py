"""Pools: the stores among which queues are spread, for administrators."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict, cast

import msgspec
from zaqar.storage import errors as storage_errors
from zaqar.storage import utils as storage_utils

from zaqar_gevent import uris
from zaqar_gevent.api import errors
from zaqar_gevent.api.context import Context
from zaqar_gevent.api.operation import Request, operation

Weight = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Uri = Annotated[str, msgspec.Meta(max_length=255)]
Name = Annotated[str, msgspec.Meta(max_length=255)]


class ListPools(Request):
    marker: str | None = None
    limit: int | None = None
    detailed: bool = False


class NamedPool(Request):
    pool_name: str


class GetPool(NamedPool):
    detailed: bool = False


class CreatePool(NamedPool, forbid_unknown_fields=True):
    """`uri` says where the store is, `options` are its driver's."""

    weight: Weight
    uri: Uri
    flavor: Name | None = None
    options: dict[str, Any] = msgspec.field(default_factory=dict)


class UpdatePool(NamedPool):
    weight: Weight | None = None
    uri: Uri | None = None
    flavor: Name | None = None
    options: dict[str, Any] | None = None


class Pool(TypedDict):
    name: str
    weight: int
    uri: str
    flavor: NotRequired[str | None]
    options: NotRequired[dict[str, Any]]


class PoolPage(TypedDict):
    pools: list[Pool]
    marker: NotRequired[str]


@operation(
    'pool_list',
    rest='GET /v2/pools{?detailed,limit,marker}',
    policy='pools:get_all',
    relation='rel/pools',
    admin=True,
    pooling=True,
)
def list_pools(context: Context, request: ListPools) -> PoolPage:
    """List the pools, a page at a time."""
    context.broker.limits.pool_listing(limit=request.limit)
    paging = request.given('marker', 'limit')
    results = context.broker.control.pools_controller.list(detailed=request.detailed, **paging)
    found = list(next(results))
    return {'pools': found, 'marker': next(results)} if found else {'pools': []}


@operation(
    'pool_get',
    rest='GET /v2/pools/{pool_name}{?detailed}',
    policy='pools:get',
    relation='rel/pool',
    admin=True,
    pooling=True,
)
def get_pool(context: Context, request: GetPool) -> Pool:
    """Get one pool, in detail with its options."""
    found = context.broker.control.pools_controller.get(request.pool_name, request.detailed)
    return cast(Pool, found)


@operation(
    'pool_create',
    rest='PUT /v2/pools/{pool_name}',
    policy='pools:create',
    success=201,
    relation='rel/pool',
    admin=True,
    pooling=True,
)
def create_pool(context: Context, request: CreatePool) -> str:
    """Register a store as a pool."""
    _check_connection(context, request.uri)
    try:
        context.broker.control.pools_controller.create(
            request.pool_name,
            weight=request.weight,
            uri=request.uri,
            flavor=request.flavor,
            options=request.options,
        )
    except storage_errors.PoolCapabilitiesMismatch as error:
        raise errors.BadRequest(str(error), title='Unable to create pool') from None
    except storage_errors.PoolAlreadyExists as error:
        raise errors.Conflict(str(error)) from None
    return f'Pool {request.pool_name} created.'


@operation(
    'pool_update',
    rest='PATCH /v2/pools/{pool_name}',
    policy='pools:update',
    relation='rel/pool',
    admin=True,
    pooling=True,
    repeat=True,
)
def update_pool(context: Context, request: UpdatePool) -> Pool:
    """Change a pool's weight, URI, flavor or options and get the result."""
    changes = request.given('weight', 'uri', 'flavor', 'options')
    if not changes:
        raise errors.BadRequest('One of weight, uri, flavor and options is required.')
    if request.uri is not None:
        _check_connection(context, request.uri)
    pools = context.broker.control.pools_controller
    try:
        pools.update(request.pool_name, **changes)
    except storage_errors.PoolCapabilitiesMismatch as error:
        raise errors.BadRequest(str(error), title='Unable to update pool') from None
    return cast(Pool, pools.get(request.pool_name, False))


@operation(
    'pool_delete',
    rest='DELETE /v2/pools/{pool_name}',
    policy='pools:delete',
    success=204,
    relation='rel/pool',
    admin=True,
    pooling=True,
)
def delete_pool(context: Context, request: NamedPool) -> str:
    """Deregister a pool; one that a flavor uses is refused."""
    try:
        context.broker.control.pools_controller.delete(request.pool_name)
    except storage_errors.PoolInUseByFlavor as error:
        raise errors.Forbidden(
            f'This pool is used by flavors {error.flavor}; It cannot be deleted.',
            title='Unable to delete',
        ) from None
    return f'Pool {request.pool_name} removed.'


def _check_connection(context: Context, uri: str) -> None:
    fault = uris.find_fault(uri)
    if fault is not None:
        raise errors.MalformedDocument(f'the URI cannot be read: {fault} - at `$.uri`')
    if not storage_utils.can_connect(uri, conf=context.broker.conf):
        raise errors.MalformedDocument(f'cannot connect to {uris.conceal(uri)} - at `$.uri`')
