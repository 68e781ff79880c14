"""The operations of the API: where each is in REST, and what may be asked twice.

An operation is named as over WebSocket, and its arguments and result have the form of the
WebSocket as well; `rest` turns them into those of REST.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

JSON = 'application/json'
JSON_PATCH = 'application/openstack-messaging-v2.0-json-patch'

_VARIABLE = re.compile(r'{(\w+)}')
# Changes of metadata that do the same when they are made twice.
_REPEATABLE_CHANGES = frozenset({'add', 'replace'})


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation and its route.

    query: arguments that go into the query, by the parameter's name. payload: the argument that is
    the body; all that are left are its members where there is none. filters: the argument whose
    members are parameters of the query. is_repeatable: whether doing it twice is as good as once.
    """

    name: str
    method: str
    path: str
    query: Mapping[str, str] = dataclasses.field(default_factory=dict)
    payload: str | None = None
    filters: str | None = None
    media_type: str = JSON
    is_repeatable: bool = True

    @property
    def variables(self) -> list[str]:
        """The arguments that are parts of the path."""
        return _VARIABLE.findall(self.path)

    def may_repeat(self, arguments: Mapping[str, Any]) -> bool:
        """Whether it may be asked again when it is not known whether it has been done."""
        if 'post_id' in arguments:
            return True
        if self.name in ('message_delete_many', 'topic_message_delete_many'):
            return arguments.get('pop') is None
        if self.payload == 'changes':
            changes = arguments.get('changes') or ()
            return all(change.get('op') in _REPEATABLE_CHANGES for change in changes)
        return self.is_repeatable


def _same(*names: str, **others: str) -> dict[str, str]:
    return {**{name: name for name in names}, **others}


_MESSAGES = '/v2/queues/{queue_name}/messages'
_CLAIMS = '/v2/queues/{queue_name}/claims'
_CLAIM = _CLAIMS + '/{claim_id}'
_QUEUES = '/v2/queues'
_QUEUE = '/v2/queues/{queue_name}'
_SUBSCRIPTIONS = _QUEUE + '/subscriptions'
_SUBSCRIPTION = _SUBSCRIPTIONS + '/{subscription_id}'
_LISTED = _same('marker', 'limit', 'detailed', 'name', 'with_count')
_READ = _same('marker', 'limit', 'echo', 'include_claimed', 'include_delayed', 'wait')

_OF_BOTH = (
    Operation('message_post', 'POST', _MESSAGES, is_repeatable=False),
    Operation('message_list', 'GET', _MESSAGES, _READ),
    Operation('message_get_many', 'GET', _MESSAGES, _same(ids='message_ids')),
    Operation('message_get', 'GET', _MESSAGES + '/{message_id}'),
    Operation('message_delete', 'DELETE', _MESSAGES + '/{message_id}', _same('claim_id')),
    Operation(
        'message_delete_many',
        'DELETE',
        _MESSAGES,
        _same('claim_ids', 'pop', ids='message_ids'),
    ),
    Operation('subscription_list', 'GET', _SUBSCRIPTIONS, _same('marker', 'limit')),
    Operation('subscription_create', 'POST', _SUBSCRIPTIONS, is_repeatable=False),
    Operation('subscription_get', 'GET', _SUBSCRIPTION),
    Operation('subscription_update', 'PATCH', _SUBSCRIPTION),
    Operation('subscription_delete', 'DELETE', _SUBSCRIPTION),
    Operation('subscription_confirm', 'PUT', _SUBSCRIPTION + '/confirm'),
)
_QUEUES_OWN = (
    Operation('queue_list', 'GET', _QUEUES, _LISTED, filters='metadata'),
    Operation('queue_create', 'PUT', _QUEUE, payload='metadata'),
    Operation('queue_get', 'GET', _QUEUE),
    Operation('queue_delete', 'DELETE', _QUEUE),
    Operation('queue_update', 'PATCH', _QUEUE, payload='changes', media_type=JSON_PATCH),
    Operation('queue_get_stats', 'GET', _QUEUE + '/stats'),
    Operation('queue_purge', 'POST', _QUEUE + '/purge', is_repeatable=False),
)
_OTHERS = (
    Operation('queue_share', 'POST', _QUEUE + '/share'),
    Operation('claim_create', 'POST', _CLAIMS, _same('limit', 'wait'), is_repeatable=False),
    Operation('claim_get', 'GET', _CLAIM),
    Operation('claim_update', 'PATCH', _CLAIM),
    Operation('claim_delete', 'DELETE', _CLAIM),
    Operation('get_versions', 'GET', '/'),
    Operation('get_home_doc', 'GET', '/v2/'),
    Operation('get_capabilities', 'GET', '/v2/capabilities'),
    Operation('ping_node', 'GET', '/v2/ping'),
    Operation('check_node_health', 'GET', '/v2/health'),
    Operation('get_openapi', 'GET', '/v2/openapi.json'),
    Operation('get_asyncapi', 'GET', '/v2/asyncapi.json'),
    Operation('flavor_list', 'GET', '/v2/flavors', _same('marker', 'limit', 'detailed')),
    Operation('flavor_get', 'GET', '/v2/flavors/{flavor_name}'),
    Operation('flavor_create', 'PUT', '/v2/flavors/{flavor_name}'),
    Operation('flavor_update', 'PATCH', '/v2/flavors/{flavor_name}'),
    Operation('flavor_delete', 'DELETE', '/v2/flavors/{flavor_name}'),
    Operation('pool_list', 'GET', '/v2/pools', _same('marker', 'limit', 'detailed')),
    Operation('pool_get', 'GET', '/v2/pools/{pool_name}', _same('detailed')),
    Operation('pool_create', 'PUT', '/v2/pools/{pool_name}'),
    Operation('pool_update', 'PATCH', '/v2/pools/{pool_name}'),
    Operation('pool_delete', 'DELETE', '/v2/pools/{pool_name}'),
)


def _topic_twin(operation: Operation) -> Operation:
    """The same operation on topics."""
    name = operation.name
    twin = name.replace('queue_', 'topic_') if name.startswith('queue_') else f'topic_{name}'
    path = operation.path.replace('queues', 'topics').replace('queue_name', 'topic_name')
    return dataclasses.replace(operation, name=twin, path=path)


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        *_OF_BOTH,
        *_QUEUES_OWN,
        *(_topic_twin(operation) for operation in (*_OF_BOTH, *_QUEUES_OWN)),
        *_OTHERS,
    )
}


def may_repeat(action: str, arguments: Mapping[str, Any]) -> bool:
    """Whether an operation, known here or not, may be asked again without knowing whether it was
    done: those that are not known may not."""
    operation = OPERATIONS.get(action)
    return operation is not None and operation.may_repeat(arguments)
