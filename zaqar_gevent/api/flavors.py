"""Flavors: kinds of pools that a queue may ask for, for administrators."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict, cast

import msgspec

from zaqar_gevent.api import errors
from zaqar_gevent.api.context import Context
from zaqar_gevent.api.operation import Request, operation

PoolNames = Annotated[list[str], msgspec.Meta(min_length=1)]


class ListFlavors(Request):
    marker: str | None = None
    limit: int | None = None
    detailed: bool = False


class NamedFlavor(Request):
    flavor_name: str


class CreateFlavor(NamedFlavor, forbid_unknown_fields=True):
    """A flavor's capabilities are those of its first pool."""

    pool_list: PoolNames
    capabilities: dict[str, Any] | None = None


class UpdateFlavor(NamedFlavor):
    pool_list: PoolNames


class Flavor(TypedDict):
    name: str
    pool_list: NotRequired[list[str]]
    capabilities: NotRequired[list[str]]


class FlavorPage(TypedDict):
    flavors: list[Flavor]
    marker: NotRequired[str]


@operation(
    'flavor_list',
    rest='GET /v2/flavors{?detailed,limit,marker}',
    policy='flavors:get_all',
    relation='rel/flavors',
    admin=True,
    pooling=True,
)
def list_flavors(context: Context, request: ListFlavors) -> FlavorPage:
    """List the flavors, a page at a time; in detail with their capabilities."""
    context.broker.limits.flavor_listing(limit=request.limit)
    paging = request.given('marker', 'limit')
    results = context.broker.control.flavors_controller.list(project=context.project_id, **paging)
    found: list[Flavor] = list(next(results))
    if not found:
        return {'flavors': []}
    marker = next(results)
    for flavor in found:
        pools = _pools_of(context, flavor['name'])
        if pools:
            flavor['pool_list'] = pools
        if request.detailed:
            flavor['capabilities'] = _capabilities(context, flavor['name'])
    return {'flavors': found, 'marker': marker}


@operation(
    'flavor_get',
    rest='GET /v2/flavors/{flavor_name}',
    policy='flavors:get',
    relation='rel/flavor',
    admin=True,
    pooling=True,
)
def get_flavor(context: Context, request: NamedFlavor) -> Flavor:
    """Get one flavor with its pools and capabilities."""
    found = cast(
        Flavor,
        context.broker.control.flavors_controller.get(
            request.flavor_name, project=context.project_id
        ),
    )
    found['capabilities'] = _capabilities(context, request.flavor_name)
    found['pool_list'] = _pools_of(context, request.flavor_name)
    return found


@operation(
    'flavor_create',
    rest='PUT /v2/flavors/{flavor_name}',
    policy='flavors:create',
    success=201,
    relation='rel/flavor',
    admin=True,
    pooling=True,
)
def create_flavor(context: Context, request: CreateFlavor) -> str:
    """Make the named pools a flavor."""
    control = context.broker.control
    _check_pools(context, request, 'create')
    control.flavors_controller.create(
        request.flavor_name,
        project=context.project_id,
        capabilities=control.pools_controller.capabilities(name=request.pool_list[0]),
    )
    _assign(context, request.pool_list, request.flavor_name)
    return f'Flavor {request.flavor_name} created.'


@operation(
    'flavor_update',
    rest='PATCH /v2/flavors/{flavor_name}',
    policy='flavors:update',
    relation='rel/flavor',
    admin=True,
    pooling=True,
    repeat=True,
)
def update_flavor(context: Context, request: UpdateFlavor) -> Flavor:
    """Give a flavor other pools and get the result."""
    control = context.broker.control
    name, project = request.flavor_name, context.project_id
    control.flavors_controller.get(name, project=project)
    _check_pools(context, request, 'update')
    before = _pools_of(context, name)
    capabilities = control.pools_controller.capabilities(name=request.pool_list[0])
    control.flavors_controller.update(name, project=project, capabilities=capabilities)
    _assign(context, request.pool_list, name)
    _assign(context, [pool for pool in before if pool not in request.pool_list], '')
    changed = cast(Flavor, control.flavors_controller.get(name, project=project))
    changed['capabilities'] = [capability.name for capability in capabilities]
    changed['pool_list'] = request.pool_list
    return changed


@operation(
    'flavor_delete',
    rest='DELETE /v2/flavors/{flavor_name}',
    policy='flavors:delete',
    success=204,
    relation='rel/flavor',
    admin=True,
    pooling=True,
)
def delete_flavor(context: Context, request: NamedFlavor) -> str:
    """Delete a flavor; its pools stay, without one."""
    _assign(context, _pools_of(context, request.flavor_name), '')
    context.broker.control.flavors_controller.delete(
        request.flavor_name, project=context.project_id
    )
    return f'Flavor {request.flavor_name} removed.'


def _pools_of(context: Context, flavor: str) -> list[str]:
    pools = context.broker.control.pools_controller.get_pools_by_flavor(flavor={'name': flavor})
    return [pool['name'] for pool in pools]


def _capabilities(context: Context, flavor: str) -> list[str]:
    found = context.broker.control.pools_controller.capabilities(flavor={'name': flavor})
    return [capability.name for capability in found]


def _check_pools(context: Context, request: CreateFlavor | UpdateFlavor, intent: str) -> None:
    for index, name in enumerate(request.pool_list):
        if not context.broker.control.pools_controller.exists(name):
            raise errors.BadRequest(
                f'Flavor {request.flavor_name} could not be {intent}d, '
                f'error:Pool {name} does not exist - at `$.pool_list[{index}]`',
                title=f'Unable to {intent}',
            )


def _assign(context: Context, pools: list[str], flavor: str) -> None:
    for pool in pools:
        context.broker.control.pools_controller.update(pool, flavor=flavor)
