"""Redis and what may manage it, chosen by an ordinary configuration file."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.callers import TRANSPORTS, connect
from tests.redis_process import RedisProcess
from tests.server_process import ServerProcess
from tests.stores import serve_on


@pytest.fixture(scope='module', params=['redis', 'upstream', 'sqlalchemy', 'pooled'])
def server(
    request: pytest.FixtureRequest, redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server on Redis; by upstream's driver, too, managed by SQLAlchemy, and pooled."""
    with serve_on(request.param, redis, tmp_path_factory.mktemp(request.param)) as process:
        yield process


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_messages_are_kept_claimed_and_deleted(server: ServerProcess, transport: str) -> None:
    caller: Any = connect(transport, server.url, server.websocket_url)
    metadata = {'owner': 'shop'}
    assert caller.call('queue_create', queue_name='orders', metadata=metadata).status == 201
    assert caller.call('queue_get', queue_name='orders').body['owner'] == 'shop'
    messages = [{'body': number, 'ttl': 300} for number in range(3)]
    assert caller.call('message_post', queue_name='orders', messages=messages).status == 201
    listed = caller.call('message_list', queue_name='orders', echo=True).body['messages']
    assert [message['body'] for message in listed] == [0, 1, 2]
    claim = caller.call('claim_create', queue_name='orders', limit=1, ttl=60, grace=60).body
    [claimed] = claim['messages']
    target = {'queue_name': 'orders', 'message_id': claimed['id']}
    assert caller.call('message_delete', **target).status == 403
    assert caller.call('message_delete', **target, claim_id=claim['claim_id']).status == 204
    stats = caller.call('queue_get_stats', queue_name='orders').body['messages']
    assert stats['total'] == 2
    assert caller.call('queue_delete', queue_name='orders').status == 204
    caller.close()


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_a_queue_is_subscribed_to(server: ServerProcess, transport: str) -> None:
    caller: Any = connect(transport, server.url, server.websocket_url)
    created = caller.call(
        'subscription_create', queue_name='orders', subscriber='http://127.0.0.1:1/', ttl=600
    )
    assert created.status == 201
    target = {'queue_name': 'orders', 'subscription_id': created.body['subscription_id']}
    assert caller.call('subscription_get', **target).body['ttl'] == 600
    assert caller.call('subscription_delete', **target).status == 204
    assert caller.call('subscription_get', **target).status == 404
    caller.close()


@pytest.mark.parametrize(
    ('server', 'seconds'), [('sqlalchemy', 300), ('pooled', 0)], indirect=['server']
)
def test_a_post_is_made_once_where_queues_are_elsewhere(
    server: ServerProcess, seconds: int
) -> None:
    api: Any = connect('v2-json', server.url, server.websocket_url)
    # Pools are of many kinds, so none is promised.
    assert api.call('get_capabilities').body['idempotency_seconds'] == seconds
    post = {'queue_name': 'q', 'messages': [{'body': 1}], 'post_id': 'p-1'}
    first, second = (api.call('message_post', **post) for _ in range(2))
    assert (first.status, first.body) == (second.status, second.body)
    assert len(api.call('message_list', queue_name='q', echo=True).body['messages']) == 1


@pytest.mark.parametrize('server', ['upstream'], indirect=True)
@pytest.mark.parametrize('transport', TRANSPORTS)
def test_a_store_that_cannot_tell_posts_apart_says_so(
    server: ServerProcess, transport: str
) -> None:
    api: Any = connect(transport, server.url, server.websocket_url)
    assert api.call('get_capabilities').body['idempotency_seconds'] == 0
    answer = api.call('message_post', queue_name='q', messages=[{'body': 1}], post_id='p-1')
    assert answer.status == 400
    assert 'post_id' in str(answer.body)
    assert api.call('message_list', queue_name='q', echo=True).body['messages'] == []


def test_a_management_store_that_is_gone_is_told(tmp_path: pathlib.Path) -> None:
    config = f"""
        [drivers]
        message_store = sqlite
        management_store = sqlite
        [drivers:message_store:sqlite]
        uri = sqlite:///{tmp_path}/messages.sqlite
        [drivers:management_store:sqlite]
        uri = sqlite:///{tmp_path}/management.sqlite
        """
    with ServerProcess(tmp_path, config=config) as server:
        assert requests.get(f'{server.url}/healthcheck', timeout=60).status_code == 200
        (tmp_path / 'management.sqlite').rename(tmp_path / 'elsewhere')
        time.sleep(1)
        assert requests.get(f'{server.url}/healthcheck', timeout=60).status_code == 503
