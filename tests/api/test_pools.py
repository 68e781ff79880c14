"""Pools and flavors, over every transport alike: queues land in the store that they ask for."""

from __future__ import annotations

import itertools
import pathlib
import sqlite3
import uuid
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import redis as redis_py

from tests.callers import TRANSPORTS, Answer, connect
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import ServerProcess
from zaqar_gevent.bodies import Body, Encoding

CONFIG = """
[DEFAULT]
admin_mode = True
pooling = True
"""


class Files:
    """Where pools of the embedded store are: a file for each."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory

    def uri(self, name: str) -> str:
        return f'sqlite:///{self._file(name)}'

    def read_bodies(self, name: str) -> list[Any]:
        """The bodies of the messages that a pool holds."""
        connection = sqlite3.connect(f'file:{self._file(name)}?mode=ro', uri=True)
        rows = connection.execute('SELECT encrypted, body FROM messages').fetchall()
        connection.close()
        return [Body(Encoding(encoding), body).value for encoding, body in rows]

    def _file(self, name: str) -> pathlib.Path:
        return self._directory / f'{name}.sqlite'


class Databases:
    """Where pools in Redis are: a database of the server for each."""

    _numbers = itertools.cycle(range(1, 16))

    def __init__(self, redis: RedisProcess) -> None:
        self._redis = redis
        self._chosen: dict[str, int] = {}

    def uri(self, name: str) -> str:
        return f'{self._redis.patient_uri}&dbid={self._number(name)}'

    def read_bodies(self, name: str) -> list[Any]:
        """The bodies of the messages that a pool holds."""
        with self._client(name) as client:
            ids = [one for key in client.keys('*.messages') for one in client.zrange(key, 0, -1)]
            return [msgpack.unpackb(client.hget(one, 'b')) for one in ids]

    def _number(self, name: str) -> int:
        if name not in self._chosen:
            self._chosen[name] = next(self._numbers)
            with self._client(name) as client:
                client.flushdb()
        return self._chosen[name]

    def _client(self, name: str) -> Any:
        return redis_py.Redis(port=self._redis.port, db=self._number(name))


class Administrator:
    """An administrator over one transport, with names and pools that nobody else uses."""

    def __init__(self, caller: Any, places: Files | Databases) -> None:
        self.caller = caller
        self._places = places
        self._prefix = uuid.uuid4().hex[:8]
        self._headers = {**caller.identity.headers(), 'X-Roles': 'admin'}

    def name(self, name: str) -> str:
        return f'{self._prefix}-{name}'

    def uri(self, name: str) -> str:
        return self._places.uri(self.name(name))

    def read_bodies(self, name: str) -> list[Any]:
        """The bodies of the messages that a pool holds, sorted."""
        return sorted(self._places.read_bodies(self.name(name)))

    def call(self, action: str, **arguments: Any) -> Answer:
        answer: Answer = self.caller.call(action, self._headers, **arguments)
        return answer

    def create_pool(self, name: str, **arguments: Any) -> Answer:
        members = {'weight': 100, 'uri': self.uri(name), **arguments}
        return self.call('pool_create', pool_name=self.name(name), **members)

    def create_flavor(self, name: str, *pools: str) -> Answer:
        names = [self.name(pool) for pool in pools]
        return self.call('flavor_create', flavor_name=self.name(name), pool_list=names)


@pytest.fixture(scope='module', params=['embedded', 'redis'])
def pooled_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with pools, whose catalogue is on each store in turn, as the pools are."""
    config = CONFIG
    if request.param == 'redis':
        config += ON_REDIS.format(redis=request.getfixturevalue('redis').uri)
    with ServerProcess(tmp_path_factory.mktemp('pooled'), config=config) as process:
        yield process


@pytest.fixture(params=TRANSPORTS)
def admin(
    request: pytest.FixtureRequest, pooled_server: ServerProcess, tmp_path: pathlib.Path
) -> Iterator[Administrator]:
    caller = connect(request.param, pooled_server.url, pooled_server.websocket_url)
    is_redis = request.node.callspec.params['pooled_server'] == 'redis'
    redis = request.getfixturevalue('redis') if is_redis else None
    administrator = Administrator(caller, Databases(redis) if redis else Files(tmp_path))
    yield administrator
    _clean_up(administrator)
    caller.close()


def _clean_up(admin: Administrator) -> None:
    """Leave the server without flavors and pools of this test."""
    for flavor in admin.call('flavor_list', limit=20).body['flavors']:
        admin.call('flavor_delete', flavor_name=flavor['name'])
    for pool in admin.call('pool_list', limit=20).body['pools']:
        admin.call('pool_update', pool_name=pool['name'], flavor='')
        assert admin.call('pool_delete', pool_name=pool['name']).status == 204


@pytest.fixture
def two_flavors(admin: Administrator) -> Administrator:
    """An administrator with the flavors `fast` and `large`, a pool of the same name in each."""
    for name in ('fast', 'large'):
        assert admin.create_pool(name).status == 201
        assert admin.create_flavor(name, name).status == 201
    return admin


def test_queues_land_in_the_store_of_their_flavor(two_flavors: Administrator) -> None:
    admin = two_flavors
    for queue, flavor in (('orders', 'fast'), ('archive', 'large'), ('bills', 'fast')):
        metadata = {'_flavor': admin.name(flavor)}
        created = admin.call('queue_create', queue_name=queue, metadata=metadata)
        assert created.status == 201
        messages = [{'body': f'{queue} {number}'} for number in range(2)]
        assert admin.call('message_post', queue_name=queue, messages=messages).status == 201
    assert admin.read_bodies('fast') == ['bills 0', 'bills 1', 'orders 0', 'orders 1']
    assert admin.read_bodies('large') == ['archive 0', 'archive 1']


def test_messages_are_read_and_claimed_from_their_pool(two_flavors: Administrator) -> None:
    admin = two_flavors
    metadata = {'_flavor': admin.name('large')}
    admin.call('queue_create', queue_name='orders', metadata=metadata)
    admin.call('message_post', queue_name='orders', messages=[{'body': 1}, {'body': 2}])
    listed = admin.call('message_list', queue_name='orders', echo=True)
    assert [message['body'] for message in listed.body['messages']] == [1, 2]
    claimed = admin.call('claim_create', queue_name='orders', limit=1)
    assert [message['body'] for message in claimed.body['messages']] == [1]


def test_a_dead_letter_queue_is_in_the_pool_of_its_source(two_flavors: Administrator) -> None:
    admin = two_flavors
    fast, large = ({'_flavor': admin.name(name)} for name in ('fast', 'large'))
    assert admin.call('queue_create', queue_name='far', metadata=large).status == 201
    # The pool of a new queue is known once it has been created.
    metadata = {**fast, '_dead_letter_queue': 'far'}
    refused = admin.call('queue_create', queue_name='new', metadata=metadata)
    assert refused.status == 400
    assert 'different pools' in str(refused.body)
    assert '$.metadata._dead_letter_queue' in str(refused.body)
    assert admin.call('queue_get', queue_name='new').body['_dead_letter_queue'] is None
    metadata = {**fast, '_dead_letter_queue': 'failed', '_max_claim_count': 1}
    assert admin.call('queue_create', queue_name='orders', metadata=metadata).status == 201
    change = {'op': 'replace', 'path': '/metadata/_dead_letter_queue', 'value': 'far'}
    refused = admin.call('queue_update', queue_name='orders', changes=[change])
    assert refused.status == 400
    assert 'different pools' in str(refused.body)
    admin.call('message_post', queue_name='orders', messages=[{'body': 1}])
    claim_id = admin.call('claim_create', queue_name='orders').body['claim_id']
    admin.call('claim_delete', queue_name='orders', claim_id=claim_id)
    assert admin.call('claim_create', queue_name='orders').status == 204
    stats = admin.call('queue_get_stats', queue_name='failed').body['messages']
    assert stats['total'] == 1
    listed = admin.call('queue_list', limit=20).body['queues']
    assert 'failed' in [one['name'] for one in listed]
    assert admin.read_bodies('fast') == [1]
    # From now on it is known where it is.
    metadata = {**large, '_max_claim_count': 1}
    assert admin.call('queue_create', queue_name='others', metadata=metadata).status == 201
    change['value'] = 'failed'
    assert admin.call('queue_update', queue_name='others', changes=[change]).status == 400


def test_a_post_with_an_id_is_made_once_in_its_pool(two_flavors: Administrator) -> None:
    admin = two_flavors
    for queue, flavor in (('orders', 'fast'), ('archive', 'large')):
        metadata = {'_flavor': admin.name(flavor)}
        admin.call('queue_create', queue_name=queue, metadata=metadata)
        post = {'queue_name': queue, 'messages': [{'body': 1}], 'post_id': 'p'}
        first, second = (admin.call('message_post', **post) for _ in range(2))
        assert first.status == second.status == 201
        # Over REST that is at the end of an address.
        assert str(first.body) == str(second.body)
        other = admin.call('message_post', **{**post, 'post_id': 'q'})
        assert str(other.body) != str(first.body)
        admin.call('queue_delete', queue_name=queue)
        admin.call('queue_create', queue_name=queue, metadata=metadata)
        anew = admin.call('message_post', **post)
        assert anew.status == 201
        listed = admin.call('message_list', queue_name=queue, echo=True)
        assert [message['body'] for message in listed.body['messages']] == [1]


def test_a_queue_of_a_missing_flavor_is_refused(two_flavors: Administrator) -> None:
    metadata = {'_flavor': 'nothing'}
    answer = two_flavors.call('queue_create', queue_name='orders', metadata=metadata)
    assert answer.status == 400
    assert '$.metadata._flavor' in str(answer.body)


def test_a_pool_is_what_was_registered(admin: Administrator) -> None:
    assert admin.create_pool('fast', weight=7, options={'a': 1}).status == 201
    pool = {'name': admin.name('fast'), 'weight': 7, 'uri': admin.uri('fast'), 'flavor': None}
    found = admin.call('pool_get', pool_name=admin.name('fast'))
    assert (found.status, found.body) == (200, pool)
    found = admin.call('pool_get', pool_name=admin.name('fast'), detailed=True)
    assert found.body == {**pool, 'options': {'a': 1}}


def test_pools_are_listed_a_page_at_a_time(admin: Administrator) -> None:
    for name in ('a', 'b', 'c'):
        admin.create_pool(name)
    first = admin.call('pool_list', limit=2)
    assert [pool['name'] for pool in first.body['pools']] == [admin.name('a'), admin.name('b')]
    second = admin.call('pool_list', limit=2, marker=first.body['marker'])
    assert [pool['name'] for pool in second.body['pools']] == [admin.name('c')]


def test_an_updated_pool_is_returned(admin: Administrator) -> None:
    admin.create_pool('fast')
    answer = admin.call('pool_update', pool_name=admin.name('fast'), weight=3)
    assert answer.status == 200
    assert (answer.body['weight'], answer.body['uri']) == (3, admin.uri('fast'))


def test_two_pools_in_one_place_are_a_conflict(admin: Administrator) -> None:
    admin.create_pool('fast')
    assert admin.create_pool('other', uri=admin.uri('fast')).status == 409


def test_what_needs_a_pool_that_is_not_there_is_a_conflict(two_flavors: Administrator) -> None:
    admin, metadata = two_flavors, {'_flavor': two_flavors.name('fast')}
    assert admin.call('queue_create', queue_name='failed', metadata=metadata).status == 201
    new = {'queue_name': 'new', 'messages': [{'body': 1, 'ttl': 60}]}
    answers = [
        admin.call('queue_create', queue_name='new'),
        admin.call('message_post', **new),
    ]
    redrive = admin.call('redrive_create', queue_name='failed', target='new')
    if 'cannot move dead letters' not in str(redrive.body):
        answers.append(redrive)
    for answer in answers:
        assert answer.status == 409
        assert 'There is no pool' in str(answer.body)


def test_the_last_pool_of_a_flavor_stays(two_flavors: Administrator) -> None:
    admin = two_flavors
    target = {'pool_name': admin.name('fast')}
    assert admin.call('pool_delete', **target).status == 403
    assert admin.call('flavor_delete', flavor_name=admin.name('fast')).status == 204
    assert admin.call('pool_delete', **target).status == 204
    assert admin.call('pool_get', **target).status == 404


def test_a_pool_that_is_not_there(admin: Administrator) -> None:
    target = {'pool_name': 'nothing'}
    assert admin.call('pool_get', **target).status == 404
    assert admin.call('pool_update', **target, weight=1).status == 404
    assert admin.call('pool_delete', **target).status == 204


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        ({'weight': -1}, '$.weight'),
        ({'weight': 'heavy'}, '$.weight'),
        ({'uri': 1}, '$.uri'),
        ({'uri': 'nowhere'}, '$.uri'),
        ({'uri': 'sqlite:////nothing/there/x.sqlite'}, '$.uri'),
        ({'options': []}, '$.options'),
        ({'colour': 'red'}, 'colour'),
    ],
)
def test_a_wrong_pool_is_named(admin: Administrator, arguments: dict[str, Any], told: str) -> None:
    answer = admin.create_pool('fast', **arguments)
    assert answer.status == 400
    assert told in str(answer.body)


@pytest.mark.parametrize('scheme', ['redis', 'postgresql', 'mongodb', 'swift'])
def test_a_password_in_the_uri_of_a_pool_is_not_told(admin: Administrator, scheme: str) -> None:
    answer = admin.create_pool('secret', uri=f'{scheme}://zaqar:Tops3cret/Pw9@127.0.0.1:1/db')
    assert answer.status == 400
    text = str(answer.body)
    assert 'percent-encoded' in text
    assert 'Tops3cret' not in text
    assert 'Pw9' not in text


def test_a_flavor_is_what_was_made(two_flavors: Administrator) -> None:
    admin = two_flavors
    answer = admin.call('flavor_get', flavor_name=admin.name('fast'))
    assert answer.status == 200
    assert (answer.body['name'], answer.body['pool_list']) == (
        admin.name('fast'),
        [admin.name('fast')],
    )
    assert {'FIFO', 'CLAIMS'} <= set(answer.body['capabilities'])


def test_flavors_are_listed_with_their_pools(two_flavors: Administrator) -> None:
    admin = two_flavors
    first = admin.call('flavor_list', limit=1)
    [flavor] = first.body['flavors']
    assert flavor == {'name': admin.name('fast'), 'pool_list': [admin.name('fast')]}
    [flavor] = admin.call('flavor_list', marker=first.body['marker'], detailed=True).body['flavors']
    assert flavor['name'] == admin.name('large')
    assert 'FIFO' in flavor['capabilities']


def test_an_updated_flavor_has_other_pools(two_flavors: Administrator) -> None:
    admin = two_flavors
    admin.create_pool('third')
    target = {'flavor_name': admin.name('fast')}
    answer = admin.call('flavor_update', **target, pool_list=[admin.name('third')])
    assert answer.status == 200
    assert answer.body['pool_list'] == [admin.name('third')]
    assert admin.call('flavor_get', **target).body['pool_list'] == [admin.name('third')]
    former = admin.call('pool_get', pool_name=admin.name('fast'))
    assert former.body['flavor'] is None


def test_a_deleted_flavor_leaves_its_pools(two_flavors: Administrator) -> None:
    admin = two_flavors
    target = {'flavor_name': admin.name('fast')}
    for _ in range(2):
        assert admin.call('flavor_delete', **target).status == 204
    assert admin.call('flavor_get', **target).status == 404
    assert admin.call('pool_get', pool_name=admin.name('fast')).body['flavor'] is None


def test_a_flavor_that_is_not_there(two_flavors: Administrator) -> None:
    admin = two_flavors
    target = {'flavor_name': 'nothing'}
    assert admin.call('flavor_get', **target).status == 404
    pools = [admin.name('fast')]
    assert admin.call('flavor_update', **target, pool_list=pools).status == 404


@pytest.mark.parametrize('action', ['flavor_create', 'flavor_update'])
@pytest.mark.parametrize(
    ('pool_list', 'told'),
    [
        (['nothing'], '$.pool_list[0]'),
        ([1], '$.pool_list[0]'),
        ([], '$.pool_list'),
        ('nothing', '$.pool_list'),
        (None, '$.pool_list'),
    ],
)
def test_a_wrong_flavor_is_named(
    two_flavors: Administrator, action: str, pool_list: Any, told: str
) -> None:
    admin = two_flavors
    answer = admin.call(action, flavor_name=admin.name('fast'), pool_list=pool_list)
    assert answer.status == 400
    assert told in str(answer.body)


@pytest.mark.parametrize(
    ('action', 'arguments'),
    [
        ('pool_list', {}),
        ('pool_create', {'pool_name': 'mine', 'weight': 1, 'uri': 'sqlite:////tmp/mine'}),
        ('flavor_create', {'flavor_name': 'mine', 'pool_list': ['mine']}),
    ],
)
def test_only_administrators_may(
    admin: Administrator, action: str, arguments: dict[str, Any]
) -> None:
    headers = {**admin.caller.identity.headers(), 'X-Roles': 'member'}
    assert admin.caller.call(action, headers, **arguments).status == 403


def test_without_pooling_there_are_no_pools(api: Any) -> None:
    administrator = {**api.identity.headers(), 'X-Roles': 'admin'}
    assert api.call('pool_list', administrator).status in (400, 404)
