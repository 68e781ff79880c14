"""Topics, which are queues under another name, over every transport alike."""

from typing import Any

import pytest


def test_a_topic_is_created_once(api: Any) -> None:
    assert api.call('topic_create', topic_name='news').status == 201
    assert api.call('topic_create', topic_name='news').status == 204


def test_a_topic_has_its_metadata_and_only_the_defaults_of_a_topic(api: Any) -> None:
    api.call('topic_create', topic_name='news', metadata={'owner': 'desk'})
    answer = api.call('topic_get', topic_name='news')
    assert answer.status == 200
    assert answer.body == {
        'owner': 'desk',
        '_max_messages_post_size': 262144,
        '_default_message_ttl': 3600,
        '_default_message_delay': 0,
    }


def test_topics_are_listed_by_name_a_page_at_a_time(api: Any) -> None:
    names = [f't{number:02}' for number in range(12)]
    for name in reversed(names):
        api.call('topic_create', topic_name=name)
    first = api.call('topic_list')
    assert [topic['name'] for topic in first.body['topics']] == names[:10]
    second = api.call('topic_list', marker=first.body['marker'])
    assert [topic['name'] for topic in second.body['topics']] == names[10:]


def test_a_detailed_list_has_metadata(api: Any) -> None:
    api.call('topic_create', topic_name='news', metadata={'node': 31})
    [topic] = api.call('topic_list', detailed=True).body['topics']
    assert topic['metadata']['node'] == 31
    assert topic['metadata']['_default_message_ttl'] == 3600
    assert '_max_claim_count' not in topic['metadata']


def test_topics_are_listed_without_a_count(api: Any) -> None:
    api.call('topic_create', topic_name='news')
    answer = api.call('topic_list', with_count=True)
    assert (answer.status, len(answer.body['topics'])) == (200, 1)
    assert 'count' not in answer.body


def test_topics_are_not_queues(api: Any) -> None:
    api.call('topic_create', topic_name='news')
    api.call('queue_create', queue_name='orders')
    assert [topic['name'] for topic in api.call('topic_list').body['topics']] == ['news']
    assert [queue['name'] for queue in api.call('queue_list').body['queues']] == ['orders']


def test_a_patch_changes_metadata(api: Any) -> None:
    api.call('topic_create', topic_name='news', metadata={'keep': 1, 'drop': 1})
    answer = api.call(
        'topic_update',
        topic_name='news',
        changes=[
            {'op': 'remove', 'path': '/metadata/drop'},
            {'op': 'add', 'path': '/metadata/new', 'value': 2},
            {'op': 'replace', 'path': '/metadata/_default_message_ttl', 'value': 300},
        ],
    )
    assert answer.status == 200
    own = {name: value for name, value in answer.body.items() if not name.startswith('_')}
    assert own == {'keep': 1, 'new': 2}
    assert answer.body['_default_message_ttl'] == 300
    assert api.call('topic_get', topic_name='news').body == answer.body


def test_a_patch_of_a_missing_topic_is_404(api: Any) -> None:
    change = {'op': 'add', 'path': '/metadata/x', 'value': 1}
    assert api.call('topic_update', topic_name='nothing', changes=[change]).status == 404


def test_a_patch_of_what_is_not_there_is_a_conflict(api: Any) -> None:
    api.call('topic_create', topic_name='news')
    change = {'op': 'remove', 'path': '/metadata/nothing'}
    assert api.call('topic_update', topic_name='news', changes=[change]).status == 409


def test_a_missing_topic_has_stats_of_zero(api: Any) -> None:
    answer = api.call('topic_get_stats', topic_name='nothing')
    assert answer.status == 200
    assert answer.body == {'messages': {'claimed': 0, 'free': 0, 'total': 0}}


def test_a_deleted_topic_is_gone_and_deleting_it_again_succeeds(api: Any) -> None:
    api.call('topic_create', topic_name='news')
    for _ in range(2):
        assert api.call('topic_delete', topic_name='news').status == 204
    assert api.call('topic_list').body['topics'] == []


def test_a_purge_removes_the_subscriptions_of_a_topic(api: Any) -> None:
    api.call('topic_create', topic_name='news')
    api.call('topic_subscription_create', topic_name='news', subscriber='http://a.example')
    assert api.call('topic_purge', topic_name='news').status == 204
    left = api.call('topic_subscription_list', topic_name='news').body['subscriptions']
    assert left == []


def test_a_topic_is_subscribed_to(api: Any) -> None:
    created = api.call(
        'topic_subscription_create', topic_name='news', subscriber='http://a.example', ttl=300
    )
    assert created.status == 201
    target = {'topic_name': 'news', 'subscription_id': created.body['subscription_id']}
    found = api.call('topic_subscription_get', **target)
    assert (found.body['subscriber'], found.body['source']) == ('http://a.example', 'news')
    assert api.call('topic_subscription_update', **target, ttl=400).status == 204
    assert api.call('topic_subscription_confirm', **target, confirmed=True).status == 204
    found = api.call('topic_subscription_get', **target)
    assert (found.body['ttl'], found.body['confirmed']) == (400, True)
    assert api.call('topic_subscription_delete', **target).status == 204
    assert api.call('topic_subscription_get', **target).status == 404


@pytest.mark.parametrize('name', ['n' * 65, 'with space', 'semi;colon'])
def test_a_wrong_topic_name_is_refused(api: Any, name: str) -> None:
    answer = api.call('topic_create', topic_name=name)
    assert answer.status == 400
    assert '$.topic_name' in str(answer.body)


@pytest.mark.parametrize(
    ('metadata', 'told'),
    [
        ({'_default_message_ttl': 'long'}, '$.metadata._default_message_ttl'),
        ({'_default_message_ttl': 1}, '_default_message_ttl'),
        ({'x': 'y' * 70_000}, 'too large'),
    ],
)
def test_wrong_metadata_is_named(api: Any, metadata: dict[str, Any], told: str) -> None:
    answer = api.call('topic_create', topic_name='news', metadata=metadata)
    assert answer.status == 400
    assert told in str(answer.body)
