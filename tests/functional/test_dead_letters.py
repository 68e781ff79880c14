"""Metadata that would lose messages, found in upstream's Redis store: it does no harm there."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from tests.callers import RestCaller
from tests.functional.test_stores import server  # noqa: F401
from tests.redis_process import RedisProcess
from tests.server_process import ServerProcess


@pytest.fixture
def rest(server: ServerProcess) -> RestCaller:  # noqa: F811
    return RestCaller(server.url)


def write_metadata(
    server: ServerProcess,  # noqa: F811
    redis: RedisProcess,
    rest: RestCaller,
    name: str,
    metadata: dict[str, Any],
) -> None:
    """Set what the API refuses by now, or another server has written."""
    key = f'{rest.identity.project_id}.{name}'
    assert redis.client.hset(key, 'm', msgpack.packb(metadata)) == 0


def claim_all(rest: RestCaller, name: str) -> list[Any]:
    """Claim what there is and give it back; the bodies."""
    answer = rest.call('claim_create', queue_name=name, ttl=60, grace=60)
    if answer.status == 204:
        return []
    assert answer.status == 201, answer.body
    claim_id = answer.body['claim_id']
    assert rest.call('claim_delete', queue_name=name, claim_id=claim_id).status == 204
    return [message['body'] for message in answer.body['messages']]


@pytest.mark.parametrize('server', ['redis', 'upstream'], indirect=True)
@pytest.mark.parametrize(
    'metadata',
    [
        {'_max_claim_count': 1, '_dead_letter_queue': 'orders'},
        {'_max_claim_count': 1, '_dead_letter_queue': 'b'},
        {'_max_claim_count': 1, '_dead_letter_queue': None},
        {'_max_claim_count': None, '_dead_letter_queue': 'dead'},
        {'_max_claim_count': 0, '_dead_letter_queue': 'dead'},
    ],
    ids=['itself', 'cycle', 'null', 'uncounted', 'zero'],
)
def test_messages_stay_and_can_be_claimed(
    server: ServerProcess,  # noqa: F811
    redis: RedisProcess,
    rest: RestCaller,
    metadata: dict[str, Any],
) -> None:
    for name in ('orders', 'b', 'dead'):
        assert rest.call('queue_create', queue_name=name).status == 201
    write_metadata(server, redis, rest, 'orders', metadata)
    write_metadata(
        server, redis, rest, 'b', {'_max_claim_count': 1, '_dead_letter_queue': 'orders'}
    )
    messages = [{'body': number, 'ttl': 300} for number in (1, 2)]
    assert rest.call('message_post', queue_name='orders', messages=messages).status == 201
    for _ in range(4):
        assert claim_all(rest, 'orders') == [1, 2]


@pytest.mark.parametrize('server', ['redis', 'upstream'], indirect=True)
def test_dead_letters_go_to_a_queue_with_a_dot_where_they_can(
    request: pytest.FixtureRequest,
    server: ServerProcess,  # noqa: F811
    redis: RedisProcess,
    rest: RestCaller,
) -> None:
    """Upstream's driver splits the name, and would put them elsewhere: there they stay."""
    can = request.node.callspec.params['server'] == 'redis'
    for name in ('orders', 'orders.dead'):
        assert rest.call('queue_create', queue_name=name).status == 201
    metadata = {'_max_claim_count': 1, '_dead_letter_queue': 'orders.dead'}
    write_metadata(server, redis, rest, 'orders', metadata)
    messages = [{'body': number, 'ttl': 300} for number in (1, 2)]
    assert rest.call('message_post', queue_name='orders', messages=messages).status == 201
    assert claim_all(rest, 'orders') == [1, 2]
    assert claim_all(rest, 'orders') == ([] if can else [1, 2])
    assert claim_all(rest, 'orders.dead') == ([1, 2] if can else [])


@pytest.mark.parametrize('server', ['redis'], indirect=True)
def test_dead_letters_that_can_be_moved_are(
    server: ServerProcess,  # noqa: F811
    redis: RedisProcess,
    rest: RestCaller,
) -> None:
    metadata = {'_max_claim_count': 1, '_dead_letter_queue': 'dead'}
    assert rest.call('queue_create', queue_name='dead').status == 201
    assert rest.call('queue_create', queue_name='orders', metadata=metadata).status == 201
    messages = [{'body': 1, 'ttl': 300}]
    assert rest.call('message_post', queue_name='orders', messages=messages).status == 201
    assert claim_all(rest, 'orders') == [1]
    assert claim_all(rest, 'orders') == []
    stats = rest.call('queue_get_stats', queue_name='dead').body['messages']
    assert stats['total'] == 1
