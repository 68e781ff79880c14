"""The service itself: its versions, its operations, whether it is alive and well."""

from __future__ import annotations

from typing import Any

from zaqar_gevent.api import errors
from zaqar_gevent.api.broker import Capabilities
from zaqar_gevent.api.context import Context
from zaqar_gevent.api.operation import REGISTRY, Operation, Request, operation

VERSION = {
    'id': '2',
    'status': 'CURRENT',
    'updated': '2014-9-24T04:06:47Z',
    'media-types': [
        {
            'base': 'application/json',
            'type': 'application/vnd.openstack.messaging-v2+json',
        }
    ],
    'links': [{'href': '/v2/', 'rel': 'self'}],
}


class NoArguments(Request):
    """Nothing is asked beyond the operation itself."""


@operation('get_versions', rest='GET /', policy=None, success=300, anonymous=True)
def get_versions(context: Context, request: NoArguments) -> dict[str, Any]:
    """List the versions of the API."""
    return {'versions': [VERSION]}


@operation('get_capabilities', rest='GET /v2/capabilities', policy=None, anonymous=True)
def get_capabilities(context: Context, request: NoArguments) -> Capabilities:
    """Say what this server offers and allows."""
    return context.broker.capabilities


@operation('get_home_doc', rest='GET /v2/', policy=None)
def get_home_document(context: Context, request: NoArguments) -> dict[str, Any]:
    """Get the home document (draft-nottingham-json-home-03): every resource and its methods."""
    offered = REGISTRY.offered(
        admin=context.broker.conf.admin_mode, pooling=context.broker.conf.pooling
    )
    resources: dict[str, dict[str, Any]] = {}
    for offer in offered.values():
        if offer.relation is not None:
            _add_resource(resources, offer.relation, offer)
    return {'resources': resources}


@operation(
    'ping_node', rest='GET|HEAD /v2/ping', policy='ping:get', success=204, relation='rel/ping'
)
def ping(context: Context, request: NoArguments) -> dict[str, Any]:
    """Ask whether the server and its store are alive (204)."""
    if not context.broker.health.is_well():
        raise errors.ServiceUnavailable('The store cannot be reached.')
    return {}


@operation(
    'check_node_health',
    rest='GET /v2/health',
    policy='health:get',
    relation='rel/health',
    admin=True,
)
def check_health(context: Context, request: NoArguments) -> dict[str, Any]:
    """Try every kind of operation on the store and report how each went."""
    health: dict[str, Any] = context.broker.storage.health()
    return health


def _add_resource(resources: dict[str, dict[str, Any]], relation: str, offer: Operation) -> None:
    route = offer.route
    resource = resources.setdefault(
        relation, {'hints': {'allow': [], 'formats': {'application/json': {}}}}
    )
    if '{' in route.template:
        resource['href-template'] = route.template
        names = [part[1:-1] for part in route.path.split('/') if part.startswith('{')]
        resource['href-vars'] = {name: f'param/{name}' for name in (*names, *route.query)}
    else:
        resource['href'] = route.path
    resource['hints']['allow'].extend(route.methods)
    if 'POST' in route.methods:
        resource['hints']['accept-post'] = ['application/json']
