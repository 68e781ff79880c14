"""The service itself: its versions, its operations, whether it is alive and well."""

from __future__ import annotations

from typing import Any, TypedDict

from zaqar_gevent.api import errors, microversions
from zaqar_gevent.api.broker import Capabilities
from zaqar_gevent.api.context import Context
from zaqar_gevent.api.operation import REGISTRY, Kind, Operation, Request, operation
from zaqar_gevent.api.project_quotas import QuotaUsage

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
MICROVERSIONS = {
    'min_version': str(microversions.MINIMUM),
    'max_version': str(microversions.MAXIMUM),
}


# Where upstream's home document differs from the routes, and what it leaves out.
_PARAMETERS = {'claim_id': 'claim'}
_MEANINGS = {'claim': 'claim_id'}
_LIMITS = {'message': 'messages_limit'}
_UNDESCRIBED = frozenset({'name', 'with_count', 'include_delayed', 'wait', 'claim_ids', 'delay'})
_TEMPLATES = frozenset({'rel/ping'})
_ACCEPTING = frozenset({'rel/patch_claim', 'rel/subscription_patch'})


class NoArguments(Request):
    """Nothing is asked beyond the operation itself."""


@operation(
    'get_versions',
    rest='GET /',
    policy=None,
    success=300,
    anonymous=True,
    any_version=True,
)
def get_versions(context: Context, request: NoArguments) -> dict[str, Any]:
    """List the versions of the API; for version 2.1, with `min_version` and `max_version`.

    For a version that is not served, the answer is that for the latest one.
    """
    if context.shows_extensions:
        return {'versions': [{**VERSION, **MICROVERSIONS}]}
    return {'versions': [VERSION]}


@operation('get_capabilities', rest='GET /v2/capabilities', policy=None, anonymous=True)
def get_capabilities(context: Context, request: NoArguments) -> Capabilities:
    """Say what this server offers and allows."""
    return context.broker.capabilities


@operation('get_home_doc', rest='GET /v2/', policy=None)
def get_home_document(context: Context, request: NoArguments) -> dict[str, Any]:
    """Get the home document (draft-nottingham-json-home-03): every resource and its methods."""
    broker = context.broker
    offered = REGISTRY.offered(admin=broker.conf.admin_mode, pooling=broker.conf.pooling)
    resources: dict[str, dict[str, Any]] = {}
    for offer in offered.values():
        if offer.relation is not None and (broker.has_topics or offer.kind is Kind.QUEUE):
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


class QuotaReport(TypedDict):
    """`quotas`: by the names of the options `[quota]`."""

    quotas: dict[str, QuotaUsage]


@operation('quota_get', rest='GET /v2/quotas', policy='quotas:get')
def get_quotas(context: Context, request: NoArguments) -> QuotaReport:
    """Get what the project uses, and what it may use; null for no limit.

    `used` is null for what is counted for each queue, or for a moment only.
    """
    return {'quotas': context.broker.project_quotas.usage_of(context.project_id)}


def _add_resource(resources: dict[str, dict[str, Any]], relation: str, offer: Operation) -> None:
    """Describe an operation as upstream does, with its names of what a request holds."""
    route = offer.route
    resource = resources.setdefault(
        relation, {'hints': {'allow': [], 'formats': {'application/json': {}}}}
    )
    kind = offer.name.partition('_')[0]
    query = [_PARAMETERS.get(name, name) for name in route.query if name not in _UNDESCRIBED]
    path = route.path.replace('{subscription_id}', '{subscriptions_id}')
    template = path + ('{?' + ','.join(query) + '}' if query else '')
    variables = [part[1:-1] for part in path.split('/') if part.startswith('{')]
    if variables or query:
        resource['href-template'] = template
        resource['href-vars'] = {
            name: f'param/{_variable(kind, name)}' for name in (*variables, *query)
        }
    else:
        resource['href-template' if relation in _TEMPLATES else 'href'] = path
    methods = [method for method in route.methods if method != 'HEAD']
    resource['hints']['allow'] = sorted(
        [*resource['hints']['allow'], *methods], key=lambda method: method != 'GET'
    )
    if relation in _ACCEPTING or 'POST' in methods:
        resource['hints']['accept-post'] = ['application/json']
    if relation.endswith('subscriptions_post'):
        resource['href-vars']['limit'] = f'param/{_variable(kind, "limit")}'


def _variable(kind: str, name: str) -> str:
    """The name of a variable in upstream's documentation, by the kind of resource."""
    if name == 'limit':
        return _LIMITS.get(kind, f'{kind}_limit')
    return _MEANINGS.get(name, name)
