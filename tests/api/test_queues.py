"""Queues, over every transport alike."""

from typing import Any

import pytest
import requests

from tests.callers import RestCaller
from tests.server_process import ServerProcess


def test_a_queue_is_created_once(api: Any) -> None:
    assert api.call('queue_create', queue_name='orders').status == 201
    assert api.call('queue_create', queue_name='orders').status == 204


def test_a_queue_has_the_metadata_it_was_created_with_and_the_servers_defaults(api: Any) -> None:
    metadata = {'owner': 'shop', '_default_message_ttl': 120}
    api.call('queue_create', queue_name='orders', metadata=metadata)
    answer = api.call('queue_get', queue_name='orders')
    assert answer.status == 200
    assert answer.body == {
        'owner': 'shop',
        '_default_message_ttl': 120,
        '_default_message_delay': 0,
        '_max_messages_post_size': 262144,
        '_dead_letter_queue': None,
        '_dead_letter_queue_messages_ttl': None,
        '_max_claim_count': None,
        '_enable_encrypt_messages': False,
    }


def test_creating_a_queue_again_leaves_its_metadata(api: Any) -> None:
    api.call('queue_create', queue_name='orders', metadata={'owner': 'shop'})
    api.call('queue_create', queue_name='orders', metadata={'owner': 'thief'})
    assert api.call('queue_get', queue_name='orders').body['owner'] == 'shop'


def test_a_missing_queue_reads_as_an_empty_one(api: Any) -> None:
    answer = api.call('queue_get', queue_name='nowhere')
    assert answer.status == 200
    assert answer.body['_default_message_ttl'] == 3600


def test_queues_are_listed_by_name_a_page_at_a_time(api: Any) -> None:
    names = [f'q{number:02}' for number in range(15)]
    for name in reversed(names):
        api.call('queue_create', queue_name=name)
    first = api.call('queue_list')
    assert [queue['name'] for queue in first.body['queues']] == names[:10]
    second = api.call('queue_list', marker=first.body['marker'], limit=3)
    assert [queue['name'] for queue in second.body['queues']] == names[10:13]


def test_a_detailed_list_has_metadata(api: Any) -> None:
    api.call('queue_create', queue_name='orders', metadata={'node': 31})
    [queue] = api.call('queue_list', detailed=True).body['queues']
    assert queue['metadata']['node'] == 31
    assert queue['metadata']['_default_message_ttl'] == 3600


def test_queues_are_filtered_by_name_and_metadata_and_counted(api: Any) -> None:
    api.call('queue_create', queue_name='red-1', metadata={'size': 30})
    api.call('queue_create', queue_name='red-2', metadata={'size': 40})
    api.call('queue_create', queue_name='blue', metadata={'size': 30})
    found = api.call('queue_list', name='red', metadata={'size': 30}).body['queues']
    assert [queue['name'] for queue in found] == ['red-1']
    assert api.call('queue_list', with_count=True, limit=1).body['count'] == 3


def test_projects_do_not_see_each_others_queues(api: Any) -> None:
    api.call('queue_create', queue_name='orders')
    other = {'X-Project-ID': 'another-project', 'Client-ID': api.identity.client_id}
    names = [queue['name'] for queue in api.call('queue_list', headers=other).body['queues']]
    assert 'orders' not in names


def test_a_patch_adds_replaces_and_removes_metadata(api: Any) -> None:
    api.call('queue_create', queue_name='orders', metadata={'keep': 1, 'change': 1, 'drop': 1})
    answer = api.call(
        'queue_update',
        queue_name='orders',
        changes=[
            {'op': 'add', 'path': '/metadata/new', 'value': [1]},
            {'op': 'replace', 'path': '/metadata/change', 'value': 2},
            {'op': 'remove', 'path': '/metadata/drop'},
            {'op': 'replace', 'path': '/metadata/_default_message_ttl', 'value': 300},
        ],
    )
    assert answer.status == 200
    own = {name: value for name, value in answer.body.items() if not name.startswith('_')}
    assert own == {'keep': 1, 'change': 2, 'new': [1]}
    assert answer.body['_default_message_ttl'] == 300
    assert api.call('queue_get', queue_name='orders').body == answer.body


@pytest.mark.parametrize('op', ['replace', 'remove'])
def test_a_patch_of_what_is_not_there_is_a_conflict(api: Any, op: str) -> None:
    api.call('queue_create', queue_name='orders')
    change = {'op': op, 'path': '/metadata/nothing', 'value': 1}
    assert api.call('queue_update', queue_name='orders', changes=[change]).status == 409


def test_a_patch_of_a_missing_queue_is_404(api: Any) -> None:
    change = {'op': 'add', 'path': '/metadata/x', 'value': 1}
    assert api.call('queue_update', queue_name='nowhere', changes=[change]).status == 404


def test_metadata_cannot_be_patched_beyond_its_limit(api: Any) -> None:
    api.call('queue_create', queue_name='orders')
    statuses = [
        api.call(
            'queue_update',
            queue_name='orders',
            changes=[{'op': 'add', 'path': f'/metadata/k{number}', 'value': 'x' * 30_000}],
        ).status
        for number in range(3)
    ]
    assert statuses == [200, 200, 400]


def test_stats_count_free_and_claimed_messages(api: Any) -> None:
    posted = api.call(
        'message_post', queue_name='orders', messages=[{'body': number} for number in range(5)]
    ).body['message_ids']
    api.call('claim_create', queue_name='orders', limit=2)
    stats = api.call('queue_get_stats', queue_name='orders').body['messages']
    assert (stats['total'], stats['claimed'], stats['free']) == (5, 2, 3)
    assert stats['oldest']['id'] == posted[0]
    assert stats['newest']['id'] == posted[-1]


def test_a_missing_queue_has_stats_of_zero(api: Any) -> None:
    answer = api.call('queue_get_stats', queue_name='nowhere')
    assert answer.status == 200
    assert answer.body == {'messages': {'claimed': 0, 'free': 0, 'total': 0}}


def test_a_deleted_queue_has_lost_its_messages(api: Any) -> None:
    api.call('message_post', queue_name='orders', messages=[{'body': 1}])
    assert api.call('queue_delete', queue_name='orders').status == 204
    api.call('queue_create', queue_name='orders')
    assert api.call('message_list', queue_name='orders', echo=True).body['messages'] == []


def test_deleting_a_missing_queue_succeeds(api: Any) -> None:
    assert api.call('queue_delete', queue_name='nowhere').status == 204


@pytest.mark.parametrize('resource_types', [None, ['messages'], ['subscriptions']])
def test_a_purge_removes_the_messages_it_is_asked_to(
    api: Any, resource_types: list[str] | None
) -> None:
    api.call('message_post', queue_name='orders', messages=[{'body': n} for n in range(12)])
    arguments = {} if resource_types is None else {'resource_types': resource_types}
    assert api.call('queue_purge', queue_name='orders', **arguments).status == 204
    left = api.call('queue_get_stats', queue_name='orders').body['messages']['total']
    assert left == (12 if resource_types == ['subscriptions'] else 0)


def test_rest_tells_an_empty_body_from_none(server: ServerProcess) -> None:
    """As upstream: without a body a purge removes everything, and with one it must say what."""
    caller = RestCaller(server.url)
    url = f'{server.url}/v2/queues/orders'
    headers = caller.identity.headers()

    def ask(method: str, path: str, body: str | None) -> int:
        return requests.request(
            method, url + path, data=body, headers=headers, timeout=60
        ).status_code

    caller.call('message_post', queue_name='orders', messages=[{'body': 1}])
    refused = requests.post(f'{url}/purge', data='{}', headers=headers, timeout=60)
    assert refused.status_code == 400
    assert 'resource_types' in refused.json()['description']
    assert caller.call('queue_get_stats', queue_name='orders').body['messages']['total'] == 1
    assert ask('POST', '/purge', None) == 204
    assert caller.call('queue_get_stats', queue_name='orders').body['messages']['total'] == 0
    assert ask('PATCH', '/claims/none', None) == 400
    assert ask('PATCH', '/claims/none', '{}') == 404
    caller.close()
