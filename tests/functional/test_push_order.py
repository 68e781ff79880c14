"""On a connection, an answer comes before the pushes that its request causes: on every store."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.callers import RestCaller
from tests.faults.client import COMPACT, DEFAULT, DIALECTS, Dialect
from tests.functional.test_push import COMPACTS, Subscriber, is_push, post
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import ServerProcess

QUEUES = 10
"""Fresh queues, since what is known of a queue makes later requests faster."""

ENGINES = {'websockets': '', 'ws4py': '[zaqar_gevent]\nwebsocket_engine = ws4py\n'}


@pytest.fixture(scope='module', params=['sqlite', 'redis'])
def store(request: pytest.FixtureRequest, redis: RedisProcess) -> str:
    """The configuration of each store in turn."""
    if request.param == 'sqlite':
        return ''
    redis.client.flushall()
    return ON_REDIS.format(redis=redis.patient_uri)


@pytest.fixture(scope='module', params=list(ENGINES))
def server(
    request: pytest.FixtureRequest, store: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    directory: pathlib.Path = tmp_path_factory.mktemp('server')
    with ServerProcess(directory, config=store + ENGINES[request.param]) as process:
        yield process


@pytest.fixture(params=DIALECTS, ids=str)
def client(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Subscriber]:
    with Subscriber(server.port, request.param) as client:
        yield client


@pytest.fixture(params=COMPACTS, ids=str)
def worker(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Subscriber]:
    with Subscriber(server.port, request.param) as worker:
        yield worker


def ask_first(client: Subscriber, action: str, **body: Any) -> Any:
    """Ask for what causes pushes; the next frame has to be the answer. Its body."""
    assert not client.pushed, 'what was pushed before has to be looked at first'
    client.send(client.request(action, **body))
    answer = client.answer()
    assert not is_push(answer), f'a push comes before the answer to {action}: {answer}'
    assert client.dialect.status(answer) < 300, answer
    return answer['body']


def test_the_first_post_to_a_queue_is_answered_before_its_push(client: Subscriber) -> None:
    for number in range(QUEUES):
        client.subscribe(f'q{number}')
        messages = [{'body': number, 'ttl': 300}]
        ask_first(client, 'message_post', queue_name=f'q{number}', messages=messages)
        assert client.bodies(1) == [number]


def test_a_subscription_is_answered_before_what_it_begins_with(
    server: ServerProcess, client: Subscriber
) -> None:
    rest = RestCaller(server.url, identity=client.identity)
    for number in range(QUEUES):
        post(rest, number, queue_name=f'q{number}')
        created = ask_first(client, 'subscription_create', queue_name=f'q{number}', marker='')
        assert created['subscription_id']
        assert client.bodies(1) == [number]


@pytest.mark.parametrize('dialect', COMPACTS, ids=str)
def test_each_of_many_posts_in_flight_is_answered_before_its_push(
    server: ServerProcess, dialect: Dialect
) -> None:
    with Subscriber(server.port, dialect) as client:
        client.subscribe()
        count = 200
        for number in range(count):
            messages = [{'body': number, 'ttl': 300}]
            client.send(client.request('message_post', queue_name='orders', messages=messages))
        answered: set[str] = set()
        pushed: list[str] = []
        while len(pushed) < count or len(answered) < count:
            message = client.answer()
            if is_push(message):
                pushed.append(message['message']['id'])
                assert pushed[-1] in answered
            else:
                answered.update(message['body']['message_ids'])
        assert len(set(pushed)) == count


def test_a_consumer_is_answered_before_its_messages(
    server: ServerProcess, worker: Subscriber
) -> None:
    """When it begins, and when a message is acknowledged or released and makes room for another."""
    rest = RestCaller(server.url, identity=worker.identity)
    for number in range(QUEUES):
        queue_name = f'q{number}'
        ids = post(rest, 0, 1, queue_name=queue_name)
        consumer = ask_first(worker, 'queue_consume', queue_name=queue_name)['consumer_id']
        assert worker.push()['message']['id'] == ids[0]
        settled = {'consumer_id': consumer, 'message_ids': [ids[0]]}
        ask_first(worker, 'message_ack', **settled)
        assert worker.push()['message']['id'] == ids[1]
        settled['message_ids'] = [ids[1]]
        ask_first(worker, 'message_release', **settled)
        assert worker.push()['message']['id'] == ids[1]
        ask_first(worker, 'consumer_stop', consumer_id=consumer)


def test_who_gives_messages_back_is_answered_before_the_next_worker_gets_them(
    server: ServerProcess, worker: Subscriber
) -> None:
    """Be it another consumer of the same connection."""
    rest = RestCaller(server.url, identity=worker.identity)
    for number in range(QUEUES):
        queue_name = f'q{number}'
        post(rest, number, queue_name=queue_name)
        first = ask_first(worker, 'queue_consume', queue_name=queue_name)['consumer_id']
        assert worker.push()['consumer_id'] == first
        second = ask_first(worker, 'queue_consume', queue_name=queue_name)['consumer_id']
        ask_first(worker, 'consumer_stop', consumer_id=first)
        assert worker.push()['consumer_id'] == second
        ask_first(worker, 'consumer_stop', consumer_id=second)
        claim = ask_first(worker, 'claim_create', queue_name=queue_name, ttl=60, grace=60)
        third = ask_first(worker, 'queue_consume', queue_name=queue_name)['consumer_id']
        ask_first(worker, 'claim_delete', queue_name=queue_name, claim_id=claim['claim_id'])
        assert worker.push()['consumer_id'] == third
        ask_first(worker, 'consumer_stop', consumer_id=third)


@pytest.mark.parametrize('dialect', [DEFAULT, COMPACT], ids=str)
def test_pushes_come_while_a_request_waits_for_something_else(
    server: ServerProcess, dialect: Dialect
) -> None:
    with Subscriber(server.port, dialect) as client:
        client.subscribe('news')
        client.send(client.request('message_list', queue_name='empty', wait=20))
        rest = RestCaller(server.url, identity=client.identity)
        post(rest, 'meanwhile', queue_name='news')
        assert client.bodies(1) == ['meanwhile']
        post(rest, 'at last', queue_name='empty')
