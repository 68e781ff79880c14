"""Subscriptions as resources, over every transport alike."""

from typing import Any

import pytest

from tests.callers import RestCaller
from tests.server_process import ServerProcess

SUBSCRIBER = 'http://subscriber.example/hook'


def subscribe(api: Any, subscriber: str = SUBSCRIBER, **arguments: Any) -> dict[str, str]:
    """Subscribe to the queue `orders` and return what names the subscription."""
    answer = api.call(
        'subscription_create', queue_name='orders', subscriber=subscriber, **arguments
    )
    assert answer.status == 201
    return {'queue_name': 'orders', 'subscription_id': answer.body['subscription_id']}


def test_a_subscription_is_what_was_asked_for(api: Any) -> None:
    target = subscribe(api, ttl=600, options={'a': 1})
    answer = api.call('subscription_get', **target)
    assert answer.status == 200
    assert 0 <= answer.body.pop('age') <= 5
    assert answer.body == {
        'id': target['subscription_id'],
        'source': 'orders',
        'subscriber': SUBSCRIBER,
        'ttl': 600,
        'options': {'a': 1},
        'confirmed': False,
    }


def test_a_subscription_has_the_servers_time_to_live(api: Any) -> None:
    target = subscribe(api)
    assert api.call('subscription_get', **target).body['ttl'] == 3600


def test_a_queue_is_created_for_its_first_subscription(api: Any) -> None:
    subscribe(api)
    assert [queue['name'] for queue in api.call('queue_list').body['queues']] == ['orders']


def test_subscriptions_are_listed_a_page_at_a_time(api: Any) -> None:
    subscribers = {f'http://s{number}.example' for number in range(7)}
    for subscriber in subscribers:
        subscribe(api, subscriber)
    seen, marker = [], {}
    while True:
        page = api.call('subscription_list', queue_name='orders', limit=3, **marker)
        assert page.status == 200
        if not page.body['subscriptions']:
            break
        assert len(page.body['subscriptions']) <= 3
        seen += [subscription['subscriber'] for subscription in page.body['subscriptions']]
        marker = {'marker': page.body['marker']}
    assert len(seen) == 7
    assert set(seen) == subscribers


def test_a_queue_without_subscriptions_lists_none(api: Any) -> None:
    answer = api.call('subscription_list', queue_name='nowhere')
    assert (answer.status, answer.body['subscriptions']) == (200, [])


def test_an_unconfirmed_duplicate_is_the_same_subscription(api: Any) -> None:
    assert subscribe(api) == subscribe(api)


def test_a_confirmed_duplicate_is_a_conflict(api: Any) -> None:
    target = subscribe(api)
    assert api.call('subscription_confirm', **target, confirmed=True).status == 204
    answer = api.call('subscription_create', queue_name='orders', subscriber=SUBSCRIBER)
    assert answer.status == 409


def test_a_confirmation_is_withdrawn(api: Any) -> None:
    target = subscribe(api)
    for confirmed in (True, False):
        assert api.call('subscription_confirm', **target, confirmed=confirmed).status == 204
        assert api.call('subscription_get', **target).body['confirmed'] is confirmed


def test_an_update_changes_what_it_names(api: Any) -> None:
    target = subscribe(api, ttl=600, options={'a': 1})
    assert api.call('subscription_update', **target, ttl=300).status == 204
    found = api.call('subscription_get', **target).body
    assert (found['ttl'], found['options'], found['subscriber']) == (300, {'a': 1}, SUBSCRIBER)
    changes = {'subscriber': 'http://other.example', 'options': {'b': 2}}
    assert api.call('subscription_update', **target, **changes).status == 204
    found = api.call('subscription_get', **target).body
    assert (found['ttl'], found['options']) == (300, {'b': 2})
    assert found['subscriber'] == 'http://other.example'


def test_an_update_to_the_subscriber_of_another_is_a_conflict(api: Any) -> None:
    subscribe(api)
    target = subscribe(api, 'http://other.example')
    assert api.call('subscription_update', **target, subscriber=SUBSCRIBER).status == 409


def test_a_deleted_subscription_is_gone_and_deleting_it_again_succeeds(api: Any) -> None:
    target = subscribe(api)
    for _ in range(2):
        assert api.call('subscription_delete', **target).status == 204
    assert api.call('subscription_get', **target).status == 404


@pytest.mark.parametrize(
    ('action', 'arguments'),
    [
        ('subscription_get', {}),
        ('subscription_update', {'ttl': 300}),
        ('subscription_confirm', {'confirmed': True}),
    ],
)
def test_a_subscription_that_is_not_there(api: Any, action: str, arguments: dict[str, Any]) -> None:
    subscribe(api)
    target = {'queue_name': 'orders', 'subscription_id': 'nothing'}
    assert api.call(action, **target, **arguments).status == 404


def test_projects_do_not_see_each_others_subscriptions(api: Any) -> None:
    target = subscribe(api)
    other = {**api.identity.headers(), 'X-Project-ID': 'another-project'}
    assert api.call('subscription_get', other, **target).status == 404
    listed = api.call('subscription_list', other, queue_name='orders')
    assert listed.body['subscriptions'] == []


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        ({'subscriber': 1}, '$.subscriber'),
        ({'subscriber': 'no address'}, 'subscriber type'),
        ({'subscriber': 'ftp://a.example'}, 'subscriber type'),
        ({'subscriber': 'http://[::1'}, '$'),
        ({'subscriber': SUBSCRIBER, 'ttl': 'long'}, 'must be an integer or null, not a string'),
        ({'subscriber': SUBSCRIBER, 'ttl': 'long'}, '$.ttl'),
        ({'subscriber': SUBSCRIBER, 'ttl': 60.5}, '$.ttl'),
        ({'subscriber': SUBSCRIBER, 'ttl': 1}, 'TTL'),
        ({'subscriber': SUBSCRIBER, 'ttl': 2**62}, 'TTL'),
        ({'subscriber': SUBSCRIBER, 'options': 1}, 'must be a dict or null, not an integer'),
        ({'subscriber': SUBSCRIBER, 'options': []}, '$.options'),
        ({'subscriber': SUBSCRIBER, 'options': {'post_data': 1}}, '$.options.post_data'),
        ({'subscriber': SUBSCRIBER, 'options': {'post_headers': []}}, '$.options.post_headers'),
        (
            {'subscriber': SUBSCRIBER, 'options': {'_retry_policy': {'minimum_delay': 'x'}}},
            '$.options._retry_policy.minimum_delay',
        ),
        ({'subscriber': SUBSCRIBER, 'options': {'x': 'y' * 16384}}, 'at most 16384 bytes'),
        ({'subscriber': f'http://a.example/{"x" * 8192}'}, 'at most 8192 characters'),
    ],
)
def test_a_wrong_subscription_is_named(api: Any, arguments: dict[str, Any], told: str) -> None:
    answer = api.call('subscription_create', queue_name='orders', **arguments)
    assert answer.status == 400
    assert told in str(answer.body)
    assert api.call('subscription_list', queue_name='orders').body['subscriptions'] == []


def test_options_may_have_so_many_bytes_and_no_more(api: Any) -> None:
    target = subscribe(api, options={'x': 'y' * (16384 - len('{"x":""}'))})
    larger = {'x': 'y' * (16385 - len('{"x":""}'))}
    answer = api.call('subscription_update', **target, options=larger)
    assert answer.status == 400
    assert 'max_subscription_options_size' in str(answer.body)
    assert api.call('subscription_update', **target, ttl=300).status == 204


@pytest.mark.parametrize('arguments', [{}, {'subscriber': None}])
def test_over_rest_a_subscriber_is_needed(server: ServerProcess, arguments: dict[str, Any]) -> None:
    caller = RestCaller(server.url)
    answer = caller.call('subscription_create', queue_name='orders', **arguments)
    assert answer.status == 400
    assert 'Missing parameter `subscriber`' in str(answer.body)
    caller.close()


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        ({}, 'subscriber, ttl and options'),
        ({'ttl': 'long'}, '$.ttl'),
        ({'ttl': 1}, 'TTL'),
        ({'subscriber': 'ftp://a.example'}, 'subscriber type'),
        ({'options': {'post_data': 1}}, '$.options.post_data'),
    ],
)
def test_a_wrong_update_is_named(api: Any, arguments: dict[str, Any], told: str) -> None:
    target = subscribe(api, ttl=600)
    before = api.call('subscription_get', **target).body
    answer = api.call('subscription_update', **target, **arguments)
    assert answer.status == 400
    assert told in str(answer.body)
    after = api.call('subscription_get', **target).body
    assert {**after, 'age': 0} == {**before, 'age': 0}


@pytest.mark.parametrize('arguments', [{}, {'confirmed': 1}, {'confirmed': None}])
def test_a_wrong_confirmation_is_named(api: Any, arguments: dict[str, Any]) -> None:
    target = subscribe(api)
    answer = api.call('subscription_confirm', **target, **arguments)
    assert answer.status == 400
    assert 'confirmed' in str(answer.body)


@pytest.mark.parametrize('limit', [0, 21])
def test_a_wrong_limit_is_refused(api: Any, limit: int) -> None:
    answer = api.call('subscription_list', queue_name='orders', limit=limit)
    assert answer.status == 400
    assert '20' in str(answer.body)
