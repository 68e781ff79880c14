"""What goes wrong in Redis while others write there, or when Redis is gone."""

from __future__ import annotations

import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.callers import RestCaller
from tests.faults.client import COMPACT
from tests.functional.test_command import failure
from tests.functional.test_push import Subscriber
from tests.redis_process import ON_REDIS, ON_UPSTREAMS_REDIS, RedisProcess
from tests.server_process import ServerProcess

MANY = 1000
DELETERS = 3
# A busy machine has some of it.
OUTAGE_SECONDS = 10


DRIVERS = {'native': ON_REDIS, 'upstream': ON_UPSTREAMS_REDIS}


@pytest.fixture(scope='module', params=DRIVERS)
def server(
    request: pytest.FixtureRequest,
    redis: RedisProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    config = DRIVERS[request.param].format(redis=redis.patient_uri)
    with ServerProcess(tmp_path_factory.mktemp('server'), config=config) as process:
        yield process


@pytest.fixture
def rest(server: ServerProcess) -> RestCaller:
    return RestCaller(server.url)


def post(rest: RestCaller, queue_name: str, bodies: range) -> list[str]:
    """Post the messages, as many at a time as are allowed; their ids."""
    ids: list[str] = []
    for first in range(bodies.start, bodies.stop, 20):
        chunk = range(first, min(first + 20, bodies.stop))
        messages = [{'body': body, 'ttl': 300} for body in chunk]
        answer = rest.call('message_post', queue_name=queue_name, messages=messages)
        assert answer.status == 201, answer
        ids += answer.body['message_ids']
    return ids


def delete_meanwhile(rest: RestCaller, queue_name: str, ids: list[str]) -> threading.Thread:
    """Delete the messages one by one, several at a time, beside the caller."""

    def delete_some(some: list[str]) -> None:
        caller = RestCaller(rest.url, identity=rest.identity)
        for message_id in some:
            target = {'queue_name': queue_name, 'message_id': message_id}
            assert caller.call('message_delete', **target).status == 204

    def run() -> None:
        with ThreadPoolExecutor(DELETERS) as pool:
            list(pool.map(delete_some, [ids[n::DELETERS] for n in range(DELETERS)]))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def pages(rest: RestCaller, queue_name: str, marker: str | None, **more: Any) -> list[Any]:
    """The bodies of all messages after the marker, two a page."""
    bodies: list[Any] = []
    while True:
        given = {'marker': marker} if marker else {}
        page = rest.call('message_list', queue_name=queue_name, echo=True, limit=2, **given, **more)
        if not page.body.get('messages'):
            return bodies
        bodies += [message['body'] for message in page.body['messages']]
        marker = page.body['marker']


def test_no_queue_is_left_out_of_pages_while_others_are_deleted(rest: RestCaller) -> None:
    names = [f'q{number:02}' for number in range(30)]
    for name in names:
        assert rest.call('queue_create', queue_name=name).status == 201
    listed: list[str] = []
    for _ in range(15):
        marker = {'marker': listed[-1]} if listed else {}
        page = rest.call('queue_list', limit=1, **marker).body['queues']
        listed += [queue['name'] for queue in page]
        assert rest.call('queue_delete', queue_name=listed[-1]).status == 204
    assert listed == names[:15]


@pytest.mark.parametrize('more', [{}, {'include_claimed': True}], ids=['free', 'claimed'])
def test_no_message_is_left_out_of_pages_while_others_are_deleted(
    rest: RestCaller, more: dict[str, Any]
) -> None:
    ids = post(rest, 'orders', range(2 * MANY))
    deleting = delete_meanwhile(rest, 'orders', ids[: MANY - 1])
    listed = pages(rest, 'orders', ids[MANY - 1], **more)
    deleting.join()
    assert listed == list(range(MANY, 2 * MANY))


def test_the_page_after_the_first_message_begins_with_the_second(rest: RestCaller) -> None:
    ids = post(rest, 'orders', range(3))
    assert pages(rest, 'orders', ids[0]) == [1, 2]


def test_the_first_page_begins_with_the_first_free_message(rest: RestCaller) -> None:
    post(rest, 'orders', range(250))
    for limit in [20] * 10 + [10]:
        target = {'queue_name': 'orders', 'limit': limit, 'ttl': 300, 'grace': 60}
        assert rest.call('claim_create', **target).status == 201
    assert pages(rest, 'orders', None) == list(range(210, 250))
    assert pages(rest, 'orders', None, include_claimed=True) == list(range(250))


def test_many_claimed_messages_are_passed_and_counted(rest: RestCaller) -> None:
    """More than one command looks at."""
    ids = post(rest, 'orders', range(620))
    for _ in range(60):
        claim = rest.call('claim_create', queue_name='orders', ttl=300, grace=60, limit=10)
        assert claim.status == 201
    listed = rest.call('message_list', queue_name='orders', echo=True, limit=5).body['messages']
    assert [message['id'] for message in listed] == ids[600:605]
    counts = rest.call('queue_get_stats', queue_name='orders').body['messages']
    assert (counts['claimed'], counts['free'], counts['total']) == (600, 20, 620)


def test_a_large_queue_that_is_deleted_leaves_nothing(
    rest: RestCaller, redis: RedisProcess
) -> None:
    rest.call('queue_create', queue_name='orders')
    kept = post(rest, 'others', range(1))
    before = redis.client.dbsize()
    post(rest, 'orders', range(1100))
    for _ in range(60):
        rest.call('claim_create', queue_name='orders', ttl=300, grace=60, limit=1)
    assert rest.call('queue_delete', queue_name='orders').status == 204
    assert redis.client.dbsize() <= before
    listed = rest.call('message_list', queue_name='others', echo=True).body['messages']
    assert [message['id'] for message in listed] == kept


def test_no_message_is_left_out_of_a_subscription_while_others_are_deleted(
    server: ServerProcess, rest: RestCaller
) -> None:
    ids = post(rest, 'orders', range(MANY))
    with Subscriber(server.port, COMPACT, identity=rest.identity) as subscriber:
        subscriber.subscribe(marker=ids[-1])
        deleting = delete_meanwhile(rest, 'orders', ids[:-1])
        post(rest, 'orders', range(MANY, 2 * MANY))
        assert subscriber.bodies(MANY) == list(range(MANY, 2 * MANY))
        deleting.join()


def stats(rest: RestCaller, queue_name: str) -> tuple[int, int]:
    """How many messages are claimed and free."""
    counts = rest.call('queue_get_stats', queue_name=queue_name).body['messages']
    return counts['claimed'], counts['free']


def claim(rest: RestCaller, queue_name: str, **more: Any) -> Any:
    return rest.call('claim_create', queue_name=queue_name, **{'ttl': 300, 'grace': 60, **more})


def bury(rest: RestCaller, count: int) -> None:
    """Claim messages twice of which the second claim moves all to the dead letter queue."""
    assert rest.call('queue_create', queue_name='dead').status == 201
    metadata = {'_max_claim_count': 1, '_dead_letter_queue': 'dead'}
    assert rest.call('queue_create', queue_name='orders', metadata=metadata).status == 201
    post(rest, 'orders', range(count))
    first = claim(rest, 'orders')
    target = {'queue_name': 'orders', 'claim_id': first.body['claim_id']}
    assert rest.call('claim_delete', **target).status == 204


@pytest.mark.parametrize('how', ['claim', 'pop'])
def test_dead_letters_are_free_at_once_if_a_whole_claim_was_moved(
    rest: RestCaller, how: str
) -> None:
    bury(rest, 4)
    if how == 'claim':
        assert claim(rest, 'orders').status == 204
    else:
        popped = rest.call('message_delete_many', queue_name='orders', pop=4)
        assert popped.status == 200
        assert popped.body.get('messages', []) == []
    assert stats(rest, 'orders') == (0, 0)
    assert stats(rest, 'dead') == (0, 4)
    assert pages(rest, 'dead', None) == [0, 1, 2, 3]
    held = claim(rest, 'dead', limit=1)
    assert [message['body'] for message in held.body['messages']] == [0]
    popped = rest.call('message_delete_many', queue_name='dead', pop=1)
    assert [message['body'] for message in popped.body['messages']] == [1]
    listed = rest.call('message_list', queue_name='dead', echo=True).body['messages']
    target = {'queue_name': 'dead', 'message_id': listed[0]['id']}
    assert rest.call('message_delete', **target).status == 204
    assert pages(rest, 'dead', None) == [3]


def test_a_queue_that_is_created_again_has_no_claims(rest: RestCaller) -> None:
    post(rest, 'orders', range(3))
    target = {'queue_name': 'orders', 'claim_id': claim(rest, 'orders').body['claim_id']}
    assert rest.call('queue_delete', queue_name='orders').status == 204
    post(rest, 'orders', range(1))
    assert stats(rest, 'orders') == (0, 1)
    assert rest.call('claim_get', **target).status == 404
    assert rest.call('claim_update', **target, ttl=100, grace=60).status == 404
    assert rest.call('claim_delete', **target).status == 204
    assert stats(rest, 'orders') == (0, 1)


@pytest.mark.parametrize('how', ['deleted', 'expired'])
def test_a_claim_goes_on_without_messages_that_are_gone(
    rest: RestCaller,
    redis: RedisProcess,
    how: str,
) -> None:
    ids = post(rest, 'orders', range(3))
    claim_id = claim(rest, 'orders', limit=2).body['claim_id']
    target = {'queue_name': 'orders', 'claim_id': claim_id}
    if how == 'deleted':
        assert rest.call('message_delete', **target, message_id=ids[0]).status == 204
    else:
        assert redis.client.pexpire(ids[0], 0) == 1
    assert stats(rest, 'orders')[0] == 1
    held = rest.call('claim_get', **target)
    assert (held.status, [message['body'] for message in held.body['messages']]) == (200, [1])
    assert rest.call('claim_update', **target, ttl=100, grace=60).status == 204
    assert rest.call('claim_get', **target).body['ttl'] == 100
    assert rest.call('claim_delete', **target).status == 204
    assert not redis.client.exists(ids[0])
    assert stats(rest, 'orders')[0] == 0
    assert pages(rest, 'orders', None) == [1, 2]


def test_a_claim_that_redis_has_let_expire_is_not_found(
    rest: RestCaller,
    redis: RedisProcess,
) -> None:
    post(rest, 'orders', range(1))
    target = {'queue_name': 'orders', 'claim_id': claim(rest, 'orders').body['claim_id']}
    redis.client.delete(target['claim_id'])
    assert rest.call('claim_get', **target).status == 404


OPERATIONS: dict[str, dict[str, Any]] = {
    'message_post': {'messages': [{'body': 1, 'ttl': 300}]},
    'message_list': {},
    'queue_get_stats': {},
    'claim_create': {'ttl': 300, 'grace': 60},
    'subscription_list': {},
    'queue_list': {},
    'message_delete_many': {'pop': 1},
}


def try_all(rest: RestCaller) -> list[tuple[int, float]]:
    """Call all operations at once; the status of each and how many seconds it took."""

    def call(action: str) -> tuple[int, float]:
        target = {} if action == 'queue_list' else {'queue_name': 'orders'}
        caller = RestCaller(rest.url, identity=rest.identity)
        begun = time.monotonic()
        status = caller.call(action, **target, **OPERATIONS[action]).status
        return status, time.monotonic() - begun

    with ThreadPoolExecutor(len(OPERATIONS)) as pool:
        return list(pool.map(call, OPERATIONS))


@pytest.mark.parametrize('how', ['killed', 'stopped'])
@pytest.mark.parametrize('driver', DRIVERS)
@pytest.mark.timeout(300)
def test_operations_fail_in_time_while_redis_is_gone(
    tmp_path: pathlib.Path, driver: str, how: str
) -> None:
    with RedisProcess(tmp_path) as process:
        config = DRIVERS[driver].format(redis=process.uri)
        with ServerProcess(tmp_path / 'server', config=config) as server:
            rest = RestCaller(server.url)
            post(rest, 'orders', range(3))
            assert {status for status, _ in try_all(rest)} <= {200, 201, 204}
            if how == 'stopped':
                os.kill(process.pid, signal.SIGSTOP)
            else:
                process.__exit__()
            outages = try_all(rest) + try_all(rest)
            assert {status for status, _ in outages} == {503}
            assert max(seconds for _, seconds in outages) < OUTAGE_SECONDS
            if how == 'stopped':
                os.kill(process.pid, signal.SIGCONT)
            else:
                process.__enter__()
            assert {status for status, _ in try_all(rest)} <= {200, 201, 204}


@pytest.mark.timeout(300)
def test_an_idle_connection_that_redis_has_closed_is_replaced(
    rest: RestCaller,
    redis: RedisProcess,
) -> None:
    post(rest, 'orders', range(1))
    for _ in range(3):
        redis.client.client_kill_filter(_type='normal', skipme=True)
        post(rest, 'orders', range(1))


def test_a_server_that_evicts_is_refused_at_start(
    redis: RedisProcess, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / 'zaqar.conf'
    file.write_text(ON_REDIS.format(redis=redis.uri))
    redis.client.config_set('maxmemory', '1gb')
    redis.client.config_set('maxmemory-policy', 'volatile-ttl')
    try:
        line = failure('--port', '0', '--config-file', str(file))
    finally:
        redis.client.config_set('maxmemory-policy', 'noeviction')
        redis.client.config_set('maxmemory', 0)
    assert 'maxmemory-policy volatile-ttl' in line
    assert 'noeviction' in line
