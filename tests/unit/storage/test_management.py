"""Queues, topics, subscriptions and pools; messages in other files than the names."""

import pytest
from osprofiler import opts as profiler_opts
from zaqar.common import cache as oslo_cache
from zaqar.conf import notification, pooling_catalog, profiler
from zaqar.storage import errors, pipeline, pooling
from zaqar.storage import utils as storage_utils
from zaqar.storage.sqlalchemy import driver as sqlalchemy_driver
from zaqar.storage.sqlalchemy import tables

from tests.unit.storage.conftest import make_conf
from zaqar_gevent.storage.errors import ScanTooLong
from zaqar_gevent.storage.sqlite import DataDriver, options
from zaqar_gevent.storage.sqlite import queues as queues_of_sqlite


def list_queues(store, **options):
    results = store.queues.list(**options)
    return [queue['name'] for queue in next(results)], next(results)


@pytest.fixture
def queues(store):
    store.queues.delete('q')
    for name, metadata in {
        'alpha': {'colour': 'red', 'size': 1, 'flag': True},
        'beta': {'colour': 'red', 'size': '1', 'flag': 1, 'tags': ['a', 'b']},
        'gamma_1%': {'a.b"c': 'red', 'colour': None},
    }.items():
        store.queues.create(name, metadata)
        store.queues.create(name, metadata, project='other')
    return store


def test_queues_are_listed_by_name_page_by_page(queues):
    assert list_queues(queues, limit=2) == (['alpha', 'beta'], 'beta')
    assert list_queues(queues, limit=2, marker='beta') == (['gamma_1%'], 'gamma_1%')
    assert list_queues(queues, marker='gamma_1%') == ([], None)
    assert len(list_queues(queues, limit=0)[0]) == 3
    assert queues.queues.calculate_resource_count() == 3
    assert queues.queues.calculate_resource_count('none') == 0


@pytest.mark.parametrize(
    'part, names',
    [
        ('a', ['alpha', 'beta', 'gamma_1%']),
        ('et', ['beta']),
        ('_1%', ['gamma_1%']),
        ('.*', []),
    ],
)
def test_queues_are_found_by_a_part_of_their_name(queues, part, names):
    assert list_queues(queues, name=part)[0] == names


@pytest.mark.parametrize(
    'kfilter, names',
    [
        ({'colour': 'red'}, ['alpha', 'beta']),
        ({'colour': 'red', 'size': 1}, ['alpha']),
        ({'size': '1'}, ['beta']),
        ({'flag': True}, ['alpha']),
        ({'flag': 1}, ['beta']),
        ({'colour': None}, ['gamma_1%']),
        ({'tags': ['a', 'b']}, ['beta']),
        ({'a.b"c': 'red'}, ['gamma_1%']),
        ({'missing': 'x'}, []),
    ],
)
def test_queues_are_found_by_their_metadata(queues, kfilter, names):
    assert list_queues(queues, kfilter=kfilter)[0] == names


@pytest.mark.parametrize(
    ('stored', 'wanted', 'is_equal'),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        (0, None, False),
        ([1], [True], False),
        ({'a': [1, 2]}, {'a': [1, 2]}, True),
        ('1', 1, False),
        ('', None, False),
    ],
)
def test_metadata_are_compared_as_json(store, stored, wanted, is_equal):
    store.queues.create('other', {'key': stored})
    names, _ = list_queues(store, kfilter={'key': wanted})
    assert names == (['other'] if is_equal else [])


def test_a_queue_without_a_key_has_not_null_there(queues):
    assert list_queues(queues, kfilter={'absent': None})[0] == []


@pytest.mark.parametrize('limit', [1, 3, 10, 0])
def test_a_list_that_is_made_in_steps_is_the_same(store, monkeypatch, limit):
    for number in range(9):
        store.queues.create(f'queue-{number}', {'odd': number % 2})
    whole = list_queues(store, kfilter={'odd': 1}, limit=limit)
    monkeypatch.setattr(queues_of_sqlite, 'STEP_SECONDS', -1)
    assert list_queues(store, kfilter={'odd': 1}, limit=limit) == whole
    assert whole[0] == [f'queue-{number}' for number in (1, 3, 5, 7)][: limit or None]


def test_each_document_is_parsed_once_however_many_filters(store, monkeypatch):
    wanted = {f'key-{number}': number for number in range(100)}
    store.queues.create('other', {**wanted, 'more': 1})
    parsed = []
    decode = queues_of_sqlite.msgspec.json.decode

    def count(text):
        parsed.append(text)
        return decode(text)

    monkeypatch.setattr(queues_of_sqlite.msgspec.json, 'decode', count)
    results = store.queues.list(kfilter=wanted, detailed=True)
    assert [queue['metadata']['more'] for queue in next(results)] == [1]
    assert len(parsed) == 2, 'those of `q` and `other`'


def test_a_list_that_takes_too_long_is_broken_off(store, monkeypatch):
    for number in range(3):
        store.queues.create(f'queue-{number}', {'number': number})
    monkeypatch.setattr(queues_of_sqlite, 'STEP_SECONDS', -1)
    store.database.scan_seconds = 0.0
    with pytest.raises(ScanTooLong, match='0 s'):
        list_queues(store, kfilter={'number': 2})


def test_queues_and_topics_of_one_name_are_two(store):
    topics = store.data.topic_controller
    with pytest.raises(errors.TopicDoesNotExist):
        topics.get_metadata('q')
    assert topics.create('q', {'is': 'topic'}) is True
    assert topics.create('q') is False
    topics.set_metadata('q', {'is': 'changed'})
    assert topics.get('q') == {'is': 'changed'}
    assert store.queues.get('q') == {}
    assert next(topics.list(detailed=True)).__next__() == {
        'name': 'q',
        'metadata': {'is': 'changed'},
    }
    assert topics.stats('q')['messages']['total'] == 0
    topics.delete('q')
    with pytest.raises(errors.TopicDoesNotExist):
        topics.stats('q')
    with pytest.raises(errors.TopicDoesNotExist):
        topics.set_metadata('q', {})
    assert store.queues.exists('q')


def test_messages_can_be_posted_to_a_topic(store):
    store.data.topic_controller.create('t')
    store.post('x', queue='t')
    assert store.bodies('t') == ['x']


def test_an_expired_subscription_is_none_and_makes_room(store, clock):
    subscriptions = store.data.subscription_controller
    first = subscriptions.create('q', 'http://x', 60, {'a': 1})
    assert subscriptions.create('q', 'http://x', 60, {}) is None
    clock.advance(59)
    assert subscriptions.get('q', first)['age'] == 59
    clock.advance(1)
    assert list(next(subscriptions.list('q'))) == []
    assert not subscriptions.exists('q', first)
    with pytest.raises(errors.SubscriptionDoesNotExist):
        subscriptions.get_with_subscriber('q', 'http://x')
    with pytest.raises(errors.SubscriptionDoesNotExist):
        subscriptions.confirm('q', first)
    assert subscriptions.create('q', 'http://x', 60, {}) not in (None, first)


def test_a_new_time_to_live_starts_at_once(store, clock):
    subscriptions = store.data.subscription_controller
    subscription = subscriptions.create('q', 'http://x', 60, {})
    clock.advance(50)
    subscriptions.update('q', subscription, ttl=60)
    clock.advance(59)
    assert subscriptions.get('q', subscription)['ttl'] == 60


def set_profiler_options(conf):
    profiler_opts.set_defaults(conf)
    conf.register_opts(profiler.ALL_OPTS, group=profiler.GROUP_NAME)


class Pools:
    """Upstream's pooling over two pools, each a file, as the server puts it together."""

    def __init__(self, directory, *, virtual=False):
        self.conf = make_conf(directory, messages='virtual.db')
        set_profiler_options(self.conf)
        self.conf.register_opts(notification.ALL_OPTS, group=notification.GROUP_NAME)
        self.conf.register_opts(pooling_catalog.ALL_OPTS, group=pooling_catalog.GROUP_NAME)
        self.conf.set_override('message_store', 'sqlite', 'drivers')
        self.conf.set_override('management_store', 'sqlite', 'drivers')
        self.conf.set_override('enable_virtual_pool', virtual, pooling_catalog.GROUP_NAME)
        oslo_cache.register_config(self.conf)
        cache = oslo_cache.get_cache(self.conf)
        self.control = storage_utils.load_storage_driver(self.conf, cache, control_mode=True)
        if not virtual:
            for name in ('one', 'two'):
                self.control.pools_controller.create(
                    name, 100, f'sqlite:///{directory}/{name}.db', options={'synchronous': 'full'}
                )
        self.pooling = pooling.DataDriver(self.conf, cache, self.control)
        self.data = pipeline.DataDriver(self.conf, self.pooling, self.control)

    def close(self):
        for driver in self.pooling._pool_catalog._drivers.values():
            driver.close()
        self.control.close()


@pytest.fixture(params=['pools', 'virtual pool'])
def pools(request, tmp_path):
    pools = Pools(tmp_path, virtual=request.param == 'virtual pool')
    yield pools
    pools.close()


def test_queues_in_pools_are_complete(pools):
    queues, messages = pools.data.queue_controller, pools.data.message_controller
    for number in range(6):
        queues.create(f'q{number}', project='p')
        messages.post(f'q{number}', [{'ttl': 60, 'body': number}], None, project='p')
    for number in range(6):
        results = messages.list(f'q{number}', project='p', echo=True)
        assert [message['body'] for message in next(results)] == [number]
        assert queues.stats(f'q{number}', project='p')['messages']['total'] == 1
    queues.delete('q0', project='p')
    assert not queues.exists('q0', project='p')
    queues.create('q0', project='p')
    assert queues.stats('q0', project='p')['messages']['total'] == 0
    assert pools.data.is_alive()


def test_each_pool_has_its_own_file(tmp_path):
    pools = Pools(tmp_path)
    for number in range(12):
        pools.data.queue_controller.create(f'q{number}')
        pools.data.message_controller.post(f'q{number}', [{'ttl': 60, 'body': 0}], None)
    drivers = pools.pooling._pool_catalog._drivers.values()
    paths = {driver._storage.database.path for driver in drivers}
    assert paths == {f'{tmp_path}/one.db', f'{tmp_path}/two.db'}
    assert storage_utils.can_connect(f'sqlite:///{tmp_path}/one.db', conf=pools.conf)
    assert not storage_utils.can_connect(f'sqlite:///{tmp_path}/no/one.db', conf=pools.conf)
    pools.close()


def test_a_dead_letter_queue_in_another_pool_takes_nothing(tmp_path, clock):
    pools = Pools(tmp_path)
    queues, claims = pools.data.queue_controller, pools.data.claim_controller
    for name, pool in (('q', 'one'), ('near', 'one'), ('far', 'two')):
        pools.control.catalogue_controller.insert('p', name, pool)
        queues.create(name, project='p')
    pools.data.message_controller.post('q', [{'ttl': 9999, 'body': 0}], None, project='p')

    def claim_with(dead_letter_queue):
        settings = {'_max_claim_count': 1, '_dead_letter_queue': dead_letter_queue}
        queues.set_metadata('q', settings, project='p')
        clock.advance(60)
        return claims.create('q', {'ttl': 60, 'grace': 60}, project='p')[0]

    assert claim_with('far') and claim_with('far')
    assert claim_with('near') is None
    assert queues.stats('near', project='p')['messages']['total'] == 1
    pools.close()


def test_names_may_be_kept_by_another_driver(tmp_path):
    conf = make_conf(tmp_path)
    set_profiler_options(conf)
    control = sqlalchemy_driver.ControlDriver(conf, None)
    tables.metadata.create_all(control.engine)
    data = DataDriver(conf, None, control)
    with pytest.raises(errors.QueueDoesNotExist):
        data.message_controller.post('q', [{'ttl': 60, 'body': 1}], None)
    data.queue_controller.create('q')
    data.message_controller.post('q', [{'ttl': 60, 'body': 1}], None)
    assert data.queue_controller.stats('q')['messages']['free'] == 1
    data.queue_controller.delete('q')
    assert not control.queue_controller.exists('q', None)
    data.queue_controller.create('q')
    assert data.queue_controller.stats('q')['messages']['free'] == 0
    data.close()


def test_the_options_are_told_by_group():
    assert [group for group, _ in options.list_opts()] == [
        'drivers:message_store:sqlite',
        'drivers:management_store:sqlite',
    ]
