"""What a client gets wrong: told with a 4xx and the place, over every transport alike."""

from typing import Any

import pytest
import requests

from tests.callers import TRANSPORTS, RestCaller, connect

GOOD_ID = '3381af92-2b9e-11e3-b191-71861300734c'
POST = 'message_post'

WRONG_ARGUMENTS: list[tuple[str, dict[str, Any], str]] = [
    (POST, {'messages': [{'body': 1}, {'ttl': 60}]}, '$.messages[1]'),
    (POST, {'messages': [{'body': 1, 'ttl': '60'}]}, '$.messages[0].ttl'),
    (POST, {'messages': [{'body': 1, 'ttl': 60.5}]}, '$.messages[0].ttl'),
    (POST, {'messages': [{'body': 1, 'ttl': True}]}, '$.messages[0].ttl'),
    (POST, {'messages': [{'body': 1, 'delay': []}]}, '$.messages[0].delay'),
    (POST, {'messages': [{'body': 1, 'ttl': None}]}, '$.messages[0].ttl'),
    ('claim_create', {'ttl': None}, '$.ttl'),
    ('claim_create', {'grace': None}, '$.grace'),
    ('claim_update', {'claim_id': 'x', 'ttl': None}, '$.ttl'),
    ('claim_update', {'claim_id': 'x', 'grace': None}, '$.grace'),
    (POST, {'messages': [1]}, '$.messages[0]'),
    (POST, {'messages': {}}, '$.messages'),
    (POST, {'messages': None}, '$.messages'),
    (POST, {}, 'messages'),
    (POST, {'messages': []}, 'No messages'),
    (POST, {'messages': [{'body': 1, 'ttl': 59}]}, 'TTL'),
    (POST, {'messages': [{'body': 1, 'ttl': 1209601}]}, 'TTL'),
    ('queue_create', {'metadata': {'_default_message_ttl': ''}}, '$.metadata._default_message_ttl'),
    ('queue_create', {'metadata': {'_max_claim_count': True}}, '$.metadata._max_claim_count'),
    ('queue_create', {'metadata': {'_dead_letter_queue': 1}}, '$.metadata._dead_letter_queue'),
    ('queue_create', {'metadata': {'_default_message_ttl': 1}}, '_default_message_ttl'),
    (
        'queue_create',
        {'metadata': {'_retry_policy': {'minimum_delay': ''}}},
        '$.metadata._retry_policy.minimum_delay',
    ),
    ('queue_create', {'metadata': {'x': 'y' * 70_000}}, 'too large'),
    ('queue_update', {'changes': [{'op': 'turn', 'path': '/metadata/x'}]}, '$.changes[0].op'),
    ('queue_update', {'changes': [{'op': 'add', 'path': 1, 'value': 1}]}, '$.changes[0].path'),
    ('queue_update', {'changes': [{'op': 'add', 'path': '/x', 'value': 1}]}, '/x'),
    ('queue_update', {'changes': [{'op': 'add', 'path': '/metadata/x'}]}, 'value'),
    ('queue_update', {'changes': [1]}, '$.changes[0]'),
    *(
        (
            'queue_update',
            {'changes': [{'op': 'add', 'path': path, 'value': 1}]},
            '$.changes[0].path',
        )
        for path in ('{a}', '{0}', '{', '/metadata', '/metadata/a/b', '/metadata/', '/metadata/a~2')
    ),
    ('queue_purge', {'resource_types': ['everything']}, '$.resource_types[0]'),
    ('queue_purge', {'resource_types': 'messages'}, '$.resource_types'),
    ('claim_create', {'ttl': 59}, 'TTL'),
    ('subscription_create', {'subscriber': ''}, '$.subscriber'),
    *(
        (action, {'subscriber': subscriber, **more}, '$.subscriber')
        for action, more in (
            ('subscription_create', {}),
            ('subscription_update', {'subscription_id': 'x'}),
        )
        for subscriber in (
            *(' http://a.example/', 'http://a.example/ ', '\thttp://a.example/', '\xa0http://a/'),
            *('\nhttp://a.example/', 'http://a.example/\n', 'ht\ntp://a.example/', 'http://a/\0'),
            *('trust+http://a.example/', 'trust+https://a.example/', 'Trust+HTTP://a.example/'),
        )
    ),
    ('subscription_create', {'subscriber': 'ftp://a.example/'}, 'subscriber type'),
    *(
        ('subscription_create', {'subscriber': subscriber}, '$.subscriber')
        for subscriber in ('mailto:', 'MAILTO:', 'mailto:nobody', 'mailto:?subject=a@b')
    ),
    *(
        (
            'subscription_create',
            {'subscriber': 'mailto:a@b.example', 'options': {option: 1}},
            f'$.options.{option}',
        )
        for option in ('subject', 'from')
    ),
    ('subscription_create', {'subscriber': 'http://a.example/', 'ttl': 0}, '$.ttl'),
    ('claim_create', {'ttl': 'long'}, '$.ttl'),
    ('claim_create', {'grace': 43201}, 'grace'),
    ('message_list', {'limit': 21}, '20'),
    ('message_list', {'limit': 0}, '20'),
    ('message_get_many', {'message_ids': ['x'] * 21}, '20'),
    ('message_delete_many', {}, 'pop'),
    ('message_delete_many', {'pop': 21}, '20'),
    ('message_delete_many', {'pop': 1, 'message_ids': ['x']}, 'pop'),
]


@pytest.mark.parametrize(('action', 'arguments', 'told'), WRONG_ARGUMENTS)
def test_a_wrong_argument_is_named(
    api: Any, action: str, arguments: dict[str, Any], told: str
) -> None:
    answer = api.call(action, queue_name='orders', **arguments)
    assert answer.status == 400
    assert told in str(answer.body)
    assert api.call('ping_node').status == 204


@pytest.mark.parametrize('action', ['queue_create', 'message_list', 'claim_create'])
@pytest.mark.parametrize('name', ['n' * 65, 'with space', 'semi;colon', 'ünder', '%', 'line\n'])
def test_a_wrong_queue_name_is_refused(api: Any, action: str, name: str) -> None:
    answer = api.call(action, queue_name=name)
    assert answer.status == 400
    assert '$.queue_name' in str(answer.body)


@pytest.mark.parametrize(
    'headers',
    [
        {},
        {'X-Project-ID': 'p'},
        {'Client-ID': GOOD_ID},
        {'Client-ID': GOOD_ID, 'X-Project-ID': ''},
        {'Client-ID': 'not a uuid', 'X-Project-ID': 'p'},
        {'Client-ID': '', 'X-Project-ID': 'p'},
        {'Client-ID': GOOD_ID, 'X-Project-ID': 'p' * 257},
    ],
)
def test_a_request_without_a_proper_identity_is_refused(api: Any, headers: dict[str, str]) -> None:
    assert api.call('queue_get', queue_name='orders', headers=headers).status == 400


@pytest.mark.parametrize('marker', ['xyz', '', '-1', 'z' * 1000, '99999999999999999999'])
def test_a_bad_marker_lists_nothing_or_everything_but_never_fails(api: Any, marker: str) -> None:
    api.call(POST, queue_name='orders', messages=[{'body': 1}])
    answer = api.call('message_list', queue_name='orders', echo=True, marker=marker)
    assert answer.status == 200


def test_a_post_just_over_the_limit_is_refused(api: Any) -> None:
    messages = [{'body': 'x' * 262_144}]
    answer = api.call(POST, queue_name='orders', messages=messages)
    assert answer.status == 400
    assert '262144' in str(answer.body)


def test_an_integer_of_more_than_64_bits_is_refused(server: Any) -> None:
    for transport in ('rest', 'ws-json'):
        caller = connect(transport, server.url, server.websocket_url)
        answer = caller.call(POST, queue_name='orders', messages=[{'body': [2**63]}])
        assert answer.status == 400
        assert 'messages[0].body[0]' in str(answer.body)
        caller.close()


@pytest.mark.parametrize('project_id', [' zaqar_gevent', 'demo ', '\tdemo', ' '])
def test_a_project_cannot_begin_or_end_with_white_space(api: Any, project_id: str) -> None:
    """No HTTP header can name such a project; in one of them servers keep what they share."""
    if isinstance(api, RestCaller):
        pytest.skip('an HTTP header has no such value')
    headers = {'Client-ID': GOOD_ID, 'X-Project-ID': project_id}
    for action in ('queue_get', 'queue_create'):
        answer = api.call(action, headers=headers, queue_name='fleet')
        assert answer.status == 400
        assert 'X-Project-ID' in str(answer.body)


# By header: another spelling of its name.
SPELLINGS = {
    'X-Project-ID': 'x-project-id',
    'Client-ID': 'CLIENT-ID',
    'X-Roles': 'X-ROLES',
    'X-User-ID': 'X-User-Id',
    'OpenStack-API-Version': 'openstack-api-version',
    'URL-Signature': 'Url-Signature',
    'traceparent': 'Traceparent',
}


@pytest.mark.parametrize('name', SPELLINGS)
def test_a_header_in_two_spellings_is_refused(api: Any, name: str) -> None:
    """Two readers could take either for the one that counts."""
    if isinstance(api, RestCaller):
        pytest.skip('headers of HTTP that are repeated are tested with heads')
    given = {'Client-ID': GOOD_ID, 'X-Project-ID': 'p', name: GOOD_ID}
    answer = api.call('queue_list', headers={**given, SPELLINGS[name]: f'{GOOD_ID} '})
    assert answer.status == 400
    assert 'must not have two values' in str(answer.body)
    # python-zaqarclient says the same twice.
    others = {'Client-ID': GOOD_ID, 'client-id': GOOD_ID, 'X-Project-ID': 'p', 'x-project-id': 'p'}
    others |= {'X-Other': 'a', 'x-other': 'b'}
    assert api.call('queue_list', headers=others).status == 200


@pytest.mark.parametrize('name', ['X-User-ID', 'X-Roles'])
@pytest.mark.parametrize('value', ['poster\n', '\x1fposter', 'a,poster\x7f', 'po\0ster'])
def test_a_user_or_role_with_control_characters_is_refused(api: Any, name: str, value: str) -> None:
    if isinstance(api, RestCaller):
        pytest.skip('an HTTP header has no such value')
    headers = {'Client-ID': GOOD_ID, 'X-Project-ID': 'p', name: value}
    answer = api.call('queue_list', headers=headers)
    assert answer.status == 400
    assert name in str(answer.body)


@pytest.mark.parametrize('value', ['1_0', '%2B1', '+1', '%201', '1%20', '%D9%A1', '1.0', '--1'])
def test_an_integer_in_a_query_is_of_ascii_digits(server: Any, value: str) -> None:
    rest = RestCaller(server.url)
    url = f'{server.url}/v2/queues'
    for name in ('limit', 'wait'):
        if name == 'wait' and value == '1.0':
            continue
        path = url if name == 'limit' else f'{url}/q/messages'
        answer = requests.get(f'{path}?{name}={value}', headers=rest.identity.headers(), timeout=60)
        assert answer.status_code == 400, name
        assert name in answer.json()['description']
    same = requests.get(f'{url}?limit=010', headers=rest.identity.headers(), timeout=60)
    assert same.status_code == 200


@pytest.mark.parametrize('count', [1500, 101])
def test_so_many_filters_are_refused(api: Any, count: int) -> None:
    answer = api.call('queue_list', metadata={f'k{number}': 1 for number in range(count)})
    assert 400 <= answer.status < 500
    assert api.call('queue_list', metadata={f'k{n}': 1 for n in range(100)}).status == 200


def test_a_null_in_a_retry_policy_is_a_member_left_out(api: Any) -> None:
    policy = {'_retry_policy': {'minimum_delay': None, 'maximum_delay': None}}
    assert api.call('queue_create', queue_name='orders', metadata=policy).status == 201
    policy['_retry_policy']['maximum_delay'] = 1
    answer = api.call('queue_create', queue_name='others', metadata=policy)
    assert answer.status == 400
    assert 'minimum_delay' in str(answer.body)


@pytest.mark.parametrize('transport', [name for name in TRANSPORTS if name != 'rest'])
@pytest.mark.parametrize('project', ['p\0', '\0', 'p\n', '\x1fp', 'p\x7f'])
def test_a_project_that_no_header_of_http_could_name_is_refused(
    server: Any, transport: str, project: str
) -> None:
    caller = connect(transport, server.url, server.websocket_url)
    headers = {'Client-ID': GOOD_ID, 'X-Project-ID': project}
    for action in ('queue_get', 'queue_create', 'queue_get_stats'):
        answer = caller.call(action, queue_name='orders', headers=headers)
        assert answer.status == 400
        assert 'X-Project-ID' in str(answer.body)
    caller.close()
