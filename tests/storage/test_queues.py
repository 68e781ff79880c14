"""Queues, topics, subscriptions, and what operators manage."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from zaqar.storage import errors

from tests.storage.conftest import Store


def names(results: Any) -> list[str]:
    return [one['name'] for one in next(results)]


def test_metadata_is_kept(store: Store) -> None:
    name = store.queue(color='red', _default_message_ttl=300, nested={'a': [1, None]})
    metadata = {'color': 'red', '_default_message_ttl': 300, 'nested': {'a': [1, None]}}
    assert store.queues.get(name) == store.queues.get_metadata(name) == metadata
    assert not store.queues.create(name, metadata={'color': 'blue'})
    assert store.queues.get(name) == metadata
    store.queues.set_metadata(name, {'color': 'blue'})
    assert store.queues.get(name) == {'color': 'blue'}
    with pytest.raises(errors.QueueDoesNotExist):
        store.queues.set_metadata('nowhere', {})
    with pytest.raises(errors.QueueDoesNotExist):
        store.queues.get_metadata('nowhere')


def test_a_marker_may_have_any_character(store: Store) -> None:
    for name in ('a', 'ab', 'b'):
        store.queues.create(name, project='marked')
    # PostgreSQL has no texts with this character.
    for marker, found in (('a\0', ['ab', 'b']), ('a\0z', ['ab', 'b']), ('\0', ['a', 'ab', 'b'])):
        assert names(store.queues.list(project='marked', marker=marker)) == found


def test_queues_are_listed_by_name_whatever_is_deleted(store: Store) -> None:
    for number in range(30):
        store.queues.create(f'n{number:02}.x', project='listed', metadata={'number': number})
    store.queues.create('elsewhere', project='other')
    listed: list[str] = []
    for _ in range(5):
        marker = listed[-1] if listed else None
        listed += names(store.queues.list(project='listed', marker=marker, limit=3))
        store.queues.delete(listed[-1], project='listed')
    assert listed == [f'n{number:02}.x' for number in range(15)]
    detailed = next(store.queues.list(project='listed', marker='n28.x', detailed=True))
    assert list(detailed) == [{'name': 'n29.x', 'metadata': {'number': 29}}]
    assert store.queues.calculate_resource_count(project='listed') == 25


def test_queues_are_found_by_name_and_metadata(store: Store) -> None:
    for number in range(250):
        store.queues.create(f'f{number:03}', project='found', metadata={'odd': number % 2 == 1})
    found = names(store.queues.list(project='found', name='f24', limit=20))
    assert found == [f'f24{digit}' for digit in range(10)]
    found = names(store.queues.list(project='found', kfilter={'odd': True}, limit=3, marker='f240'))
    assert found == ['f241', 'f243', 'f245']


def test_topics_are_apart_from_queues(store: Store) -> None:
    assert store.topics.create('t', metadata={'a': 1})
    assert store.topics.get('t') == {'a': 1}
    assert not store.queues.exists('t')
    assert names(store.topics.list()) == ['t']
    store.post('t', 'x')
    assert store.list('t') == ['x']
    assert store.topics.stats('t')['messages']['total'] == 1
    store.topics.delete('t')
    with pytest.raises(errors.QueueDoesNotExist):
        store.post('t', 'x')


def subscribe(store: Store, queue: str, subscriber: str, ttl: int = 300) -> Any:
    return store.subscriptions.create(queue, subscriber, ttl, {'a': 1})


def test_subscriptions_are_unique(store: Store) -> None:
    queue, other = store.queue(), store.queue()
    one = subscribe(store, queue, 'http://a')
    assert one is not None
    assert subscribe(store, queue, 'http://a') is None
    two = subscribe(store, queue, 'http://b')
    assert subscribe(store, other, 'http://a') is not None
    with pytest.raises(errors.SubscriptionAlreadyExists):
        store.subscriptions.update(queue, two, subscriber='http://a')
    store.subscriptions.update(queue, two, subscriber='http://b', ttl=500)
    found = store.subscriptions.get(queue, two)
    assert (found['subscriber'], found['ttl']) == ('http://b', 500)
    assert store.subscriptions.get_with_subscriber(queue, 'http://b')['id'] == two
    store.subscriptions.delete(queue, one)
    assert subscribe(store, queue, 'http://a') is not None


def test_subscriptions_are_confirmed(store: Store) -> None:
    queue = store.queue()
    one = subscribe(store, queue, 'http://a')
    assert store.subscriptions.get(queue, one)['confirmed'] is False
    store.subscriptions.confirm(queue, one)
    assert store.subscriptions.get(queue, one)['confirmed'] is True
    store.subscriptions.confirm(queue, one, confirmed=False)
    found = store.subscriptions.get(queue, one)
    assert (
        found
        == {
            'id': one,
            'source': queue,
            'subscriber': 'http://a',
            'ttl': 300,
            'age': 0,
            'options': {'a': 1},
            'confirmed': False,
        }
        or found['age'] > 0
    )


def test_subscriptions_count_within_their_queue_and_project(store: Store) -> None:
    queue, other = store.queue(), store.queue()
    one = subscribe(store, queue, 'http://a')
    for place in ({'queue': other}, {'queue': queue, 'project': 'p'}):
        with pytest.raises(errors.SubscriptionDoesNotExist):
            store.subscriptions.get(subscription_id=one, **place)
        with pytest.raises(errors.SubscriptionDoesNotExist):
            store.subscriptions.update(subscription_id=one, ttl=60, **place)
        with pytest.raises(errors.SubscriptionDoesNotExist):
            store.subscriptions.confirm(subscription_id=one, **place)
        store.subscriptions.delete(subscription_id=one, **place)
    assert store.subscriptions.exists(queue, one)


def test_subscriptions_go_on_after_a_deleted_marker(store: Store) -> None:
    queue = store.queue()
    for number in range(5):
        subscribe(store, queue, f'http://{number}')
    listed: list[str] = []
    for _ in range(3):
        results = store.subscriptions.list(queue, marker=listed[-1] if listed else None, limit=2)
        page = [one['id'] for one in next(results)]
        listed += page
        store.subscriptions.delete(queue, page[-1])
    assert len(listed) == len(set(listed)) == 5


def test_pools_are_kept(store: Store) -> None:
    pools = store.control.pools_controller
    pools.create('p1', 100, 'redis://one', options={'a': 1})
    pools.create('p2', 50, 'redis://two', flavor='gold')
    assert names(pools.list()) == ['p1', 'p2']
    assert names(pools.list(marker='p1')) == ['p2']
    pools.update('p1', weight=7)
    assert pools.get('p1', detailed=True) == {
        'name': 'p1',
        'uri': 'redis://one',
        'weight': 7,
        'flavor': None,
        'options': {'a': 1},
    }
    assert [one['name'] for one in pools.get_pools_by_flavor({'name': 'gold'})] == ['p2']
    with pytest.raises(errors.PoolInUseByFlavor):
        pools.delete('p2')
    pools.drop_all()
    with pytest.raises(errors.PoolDoesNotExist):
        pools.get('p1')


def test_flavors_are_kept(store: Store) -> None:
    flavors = store.control.flavors_controller
    # Of the name of its project, and of another flavor's.
    flavors.create('gold', project='gold', capabilities={'fifo': True})
    flavors.create('tin', project='gold', capabilities={})
    found = flavors.get('gold', project='gold', detailed=True)
    assert found == {'name': 'gold', 'capabilities': {'fifo': True}}
    assert names(flavors.list(project='gold')) == ['gold', 'tin']
    flavors.update('gold', project='gold', capabilities={})
    flavors.delete('gold', project='gold')
    with pytest.raises(errors.FlavorDoesNotExist):
        flavors.get('gold', project='gold')
    flavors.drop_all()


def test_the_catalogue_is_kept(store: Store) -> None:
    catalogue = store.control.catalogue_controller
    catalogue.insert('project', 'q', 'p1')
    assert catalogue.get('project', 'q') == {'queue': 'q', 'project': 'project', 'pool': 'p1'}
    catalogue.update('project', 'q', pool='p2')
    assert [one['pool'] for one in catalogue.list('project')] == ['p2']
    catalogue.delete('project', 'q')
    with pytest.raises(errors.QueueNotMapped):
        catalogue.get('project', 'q')
    catalogue.drop_all()


def test_filters_are_met_by_few_of_many_queues(store: Store) -> None:
    project = 'many'
    for number in range(30):
        metadata = {'number': number, 'fill': 'x' * 30_000}
        store.queues.create(f'{number:02}', metadata=metadata, project=project)
    found = store.queues.list(kfilter={'number': 17}, limit=5, project=project)
    assert [one['name'] for one in next(found)] == ['17']
    pages, marker = [], None
    while True:
        results = store.queues.list(limit=7, marker=marker, detailed=True, project=project)
        page = list(next(results))
        if not page:
            break
        assert all(len(one['metadata']['fill']) == 30_000 for one in page)
        pages.append([one['name'] for one in page])
        marker = next(results)
    assert [len(page) for page in pages] == [7, 7, 7, 7, 2]
    assert [*itertools.chain(*pages)] == [f'{number:02}' for number in range(30)]


def test_a_subscriber_is_found_among_many(store: Store) -> None:
    queue = store.queue()
    for number in range(620):
        store.subscriptions.create(queue, f'http://example.org/{number}', 300, {})
    for number in (0, 350, 619):
        found = store.subscriptions.get_with_subscriber(queue, f'http://example.org/{number}')
        assert found['subscriber'] == f'http://example.org/{number}'
    listed = list(next(store.subscriptions.list(queue, limit=1000)))
    assert len({one['id'] for one in listed}) == 620
