"""The service itself, over every transport alike."""

from importlib.metadata import version
from typing import Any

from zaqar_gevent.api import REGISTRY


def test_the_versions_need_no_identity(api: Any) -> None:
    answer = api.call('get_versions', headers={})
    assert answer.status == 300
    assert [version['id'] for version in answer.body['versions']] == ['2']


def test_the_capabilities_need_no_identity(api: Any) -> None:
    answer = api.call('get_capabilities', headers={})
    assert answer.status == 200
    assert answer.body == {
        'server': f'zaqar_gevent/{version("zaqar_gevent")}',
        'protocols': ['zaqar.v2'],
        'max_in_flight': 64,
        'max_message_size': 262144 + 65536,
        'ping_interval': 25.0,
        'idle_timeout': 0.0,
        'max_wait': 20,
        'idempotency_seconds': 300,
    }


def test_a_ping_has_no_content(api: Any) -> None:
    assert api.call('ping_node').status == 204


def test_health_tries_the_store(api: Any) -> None:
    administrator = {**api.identity.headers(), 'X-Roles': 'admin'}
    answer = api.call('check_node_health', headers=administrator)
    assert answer.status == 200
    assert answer.body['storage_reachable'] is True
    operations = answer.body['operation_status']
    assert operations
    assert all(operation['succeeded'] for operation in operations.values())


def test_the_home_document_has_every_operation(api: Any) -> None:
    resources = api.call('get_home_doc').body['resources']
    for operation in REGISTRY:
        if operation.relation is not None and not operation.pooling:
            resource = resources[operation.relation]
            # As upstream, it does not name HEAD.
            assert {*operation.route.methods} - {'HEAD'} <= {*resource['hints']['allow']}
