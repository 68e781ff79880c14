"""Limits of projects, over every transport, on the stores that count what is limited."""

from __future__ import annotations

import pathlib
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.callers import TRANSPORTS, Identity, connect
from tests.postgres_process import ON_POSTGRESQL, PostgresProcess
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import ServerProcess
from tests.stores import UNSHARED
from zaqar_gevent.client import Client, TooManyRequests

LIMITS = """
[quota]
zaqar_queues = 2
override = rich: zaqar_queues=-1
zaqar_connections = 2
override = stopped: zaqar_requests_per_second=0
"""
USAGE = """
zaqar_bytes = 1000
zaqar_subscriptions = 2
"""
MESSAGES = 'zaqar_messages_per_queue = 3\n'
BODY = {'body': 1, 'ttl': 300}


@pytest.fixture(scope='module')
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(
        tmp_path_factory.mktemp('embedded'), config=LIMITS + MESSAGES + USAGE
    ) as process:
        yield process


@pytest.fixture(scope='module')
def on_postgresql(
    postgres: PostgresProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    config = ON_POSTGRESQL.format(uri=postgres.uri, schema='limited') + LIMITS + MESSAGES + USAGE
    with ServerProcess(tmp_path_factory.mktemp('postgresql'), config=config) as process:
        yield process


@pytest.fixture(scope='module')
def on_redis(
    redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp('redis')
    config = UNSHARED.format(redis=redis.uri, directory=directory) + LIMITS + USAGE
    with ServerProcess(directory, config=config) as process:
        yield process


COUNTING = [*(f'embedded {transport}' for transport in TRANSPORTS), 'on_postgresql rest']
ALL = [*COUNTING, 'on_redis rest', 'on_redis v2-msgpack']


@pytest.fixture
def caller(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A caller of a new project."""
    server, transport = request.param.split()
    process = request.getfixturevalue(server)
    caller = connect(transport, process.url, process.websocket_url)
    yield caller
    caller.close()


def as_project(caller: Any, project: str) -> dict[str, str]:
    headers: dict[str, str] = Identity(project, caller.identity.client_id).headers()
    return headers


@pytest.mark.parametrize('caller', ALL, indirect=True)
def test_a_project_has_no_more_queues_than_it_may_have(caller: Any) -> None:
    assert [caller.call('queue_create', queue_name=name).status for name in 'ab'] == [201, 201]
    refused = caller.call('queue_create', queue_name='c')
    assert refused.status == 429
    assert refused.body['code'] == 'quota_exceeded'
    # Neither does a post create one, and one that exists is left as it is.
    assert caller.call('message_post', queue_name='c', messages=[BODY]).status == 429
    assert caller.call('queue_create', queue_name='a').status == 204
    found = caller.call('quota_get').body['quotas']
    assert found['zaqar_queues'] == {'used': 2, 'allowed': 2}
    caller.call('queue_delete', queue_name='a')
    assert caller.call('message_post', queue_name='c', messages=[BODY]).status == 201


@pytest.mark.parametrize('caller', ['embedded rest'], indirect=True)
def test_another_project_may_have_more(caller: Any) -> None:
    rich = as_project(caller, 'rich')
    for _ in range(3):
        name = uuid.uuid4().hex
        assert caller.call('queue_create', headers=rich, queue_name=name).status == 201


@pytest.mark.parametrize('caller', COUNTING, indirect=True)
def test_a_queue_has_no_more_messages_than_it_may_have(caller: Any) -> None:
    def post(count: int, **more: Any) -> Any:
        return caller.call('message_post', queue_name='q', messages=[{**BODY, **more}] * count)

    never = post(4)
    assert (never.status, never.body['code']) == (413, 'body_too_large')
    ids = [*post(2).body['message_ids'], *post(1, delay=60).body['message_ids']]
    refused = post(1)
    assert (refused.status, refused.body['code']) == (429, 'quota_exceeded')
    # Each queue has as many.
    assert caller.call('message_post', queue_name='r', messages=[BODY]).status == 201
    assert caller.call('claim_create', queue_name='q', limit=1, ttl=60, grace=60).status == 201
    assert post(1).status == 429
    caller.call('message_delete', queue_name='q', message_id=ids[1])
    assert post(2).status == 429
    assert post(1).status == 201


@pytest.mark.parametrize('caller', ALL, indirect=True)
def test_a_project_has_no_more_bytes_than_it_may_have(caller: Any) -> None:
    def post(*sizes: int, **more: Any) -> Any:
        messages = [{'body': 'x' * size, 'ttl': 300, **more} for size in sizes]
        return caller.call('message_post', queue_name='q', messages=messages)

    def used() -> int:
        found = caller.call('quota_get').body['quotas']['zaqar_bytes']
        assert found['allowed'] == 1000
        return int(found['used'])

    assert used() == 0
    for never in (post(600, 600), post(1200), post(1, attributes={'a': 'y' * 1200})):
        assert (never.status, never.body['code']) == (413, 'body_too_large')
    ids = post(400, 300).body['message_ids']
    assert 700 <= used() <= 720
    refused = post(400)
    assert (refused.status, refused.body['code']) == (429, 'quota_exceeded')
    refused = post(10, attributes={'a': 'y' * 300})
    assert refused.status == 429
    # All queues together.
    more = [{'body': 'x' * 400, 'ttl': 300}]
    assert caller.call('message_post', queue_name='r', messages=more).status == 429
    assert post(100, delay=60).status == 201
    assert caller.call('claim_create', queue_name='q', limit=1, ttl=60, grace=60).status == 201
    assert post(300).status == 429
    caller.call('message_delete', queue_name='q', message_id=ids[1])
    assert 500 <= used() <= 520
    assert post(300).status == 201


@pytest.mark.parametrize('caller', ALL, indirect=True)
def test_a_repeated_post_is_answered_as_the_first_where_there_is_no_room_left(caller: Any) -> None:
    def post(post_id: str, text: str = 'x' * 600) -> Any:
        message = {'body': text, 'ttl': 300}
        return caller.call('message_post', queue_name='q', messages=[message], post_id=post_id)

    made = post('p1')
    assert (made.status, post('p2').status) == (201, 429)
    again = post('p1')
    assert (again.status, again.body['message_ids']) == (201, made.body['message_ids'])
    # One that can never be stored is no exception.
    assert post('p3', 'x' * 2000).status == 413
    assert len(caller.call('message_list', queue_name='q', echo=True).body['messages']) == 1


@pytest.mark.parametrize('caller', ALL, indirect=True)
def test_a_project_has_no_more_subscriptions_than_it_may_have(caller: Any) -> None:
    def subscribe(queue: str, number: int) -> Any:
        subscriber = f'http://127.0.0.1:1/{number}'
        return caller.call(
            'subscription_create', queue_name=queue, subscriber=subscriber, ttl=300, options={}
        )

    first = subscribe('q', 1)
    assert [first.status, subscribe('r', 2).status] == [201, 201]
    refused = subscribe('q', 3)
    assert (refused.status, refused.body['code']) == (429, 'quota_exceeded')
    # What is there already is answered as ever.
    assert subscribe('q', 1) == first
    found = caller.call('quota_get').body['quotas']['zaqar_subscriptions']
    assert found == {'used': 2, 'allowed': 2}
    named = {'queue_name': 'q', 'subscription_id': first.body['subscription_id']}
    assert caller.call('subscription_delete', **named).status == 204
    assert subscribe('q', 3).status == 201


@pytest.mark.parametrize('caller', ['embedded v2-json'], indirect=True)
def test_subscriptions_of_connections_count(caller: Any) -> None:
    for queue in 'qr':
        assert caller.call('subscription_create', queue_name=queue, ttl=300).status == 201
    assert caller.call('subscription_create', queue_name='s', ttl=300).status == 429
    assert caller.call('subscription_create', queue_name='q', ttl=300).status == 409


@pytest.mark.parametrize('caller', COUNTING, indirect=True)
def test_a_project_makes_no_more_requests_than_it_may_make(caller: Any) -> None:
    refused = caller.call('queue_list', headers=as_project(caller, 'stopped'))
    assert (refused.status, refused.body['code']) == (429, 'quota_exceeded')
    # What is public is not counted.
    assert caller.call('get_capabilities', headers={}).status == 200


@pytest.mark.parametrize('transport', [one for one in TRANSPORTS if one != 'rest'])
def test_a_project_has_no_more_connections_than_it_may_have(
    embedded: ServerProcess, transport: str
) -> None:
    project = uuid.uuid4().hex
    callers = [connect(transport, embedded.url, embedded.websocket_url) for _ in range(4)]
    headers = as_project(callers[0], project)
    statuses = [one.call('ping_node', headers=headers).status for one in callers[:3]]
    assert statuses == [204, 204, 429]
    assert callers[0].call('ping_node', headers=headers).status == 204
    found = callers[0].call('quota_get', headers=headers).body['quotas']
    assert found['zaqar_connections'] == {'used': 2, 'allowed': 2}
    # One that goes over to another project makes room; so does one that ends.
    assert callers[0].call('ping_node').status == 204
    assert callers[2].call('ping_node', headers=headers).status == 204
    assert callers[3].call('ping_node', headers=headers).status == 429
    callers[1].close()
    ends = time.monotonic() + 60
    while callers[3].call('ping_node', headers=headers).status != 204:
        assert time.monotonic() < ends, 'a connection that has ended still counts'
        time.sleep(0.05)
    for one in callers:
        one.close()


def test_an_answer_says_when_to_ask_again(embedded: ServerProcess) -> None:
    headers = Identity('stopped', str(uuid.uuid4())).headers()
    answer = requests.get(f'{embedded.url}/v2/queues', headers=headers, timeout=30)
    assert answer.status_code == 429
    assert int(answer.headers['Retry-After']) > 0


def test_the_client_tells_of_quotas(embedded: ServerProcess) -> None:
    # Not over REST, however slow the machine is: its connections are not counted.
    with Client(embedded.url, project=uuid.uuid4().hex, transport='websocket') as client:
        quotas = client.quotas()
        assert quotas['zaqar_queues'] == {'used': 0, 'allowed': 2}
        assert quotas['zaqar_messages_per_queue'] == {'used': None, 'allowed': 3}
        assert quotas['zaqar_requests_per_second'] == {'used': None, 'allowed': None}
        assert quotas['zaqar_connections'] == {'used': 1, 'allowed': 2}
        client.queue('a').create()
        client.queue('b').create()
        with pytest.raises(TooManyRequests):
            client.queue('c').create()


def test_a_store_that_does_not_count_is_refused_at_start(
    redis: RedisProcess, tmp_path: pathlib.Path
) -> None:
    config = ON_REDIS.format(redis=redis.uri, directory=tmp_path) + LIMITS + MESSAGES + USAGE
    with (
        pytest.raises(Exception, match=r'zaqar_messages_per_queue: .* zaqar_bytes, zaqar_subsc'),
        ServerProcess(tmp_path, config=config),
    ):
        pytest.fail('it was started')
