"""Retries and single messages of claims, over every transport and on every store that can."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from tests.callers import TRANSPORTS, RestCaller, new_identity
from tests.extensions.conftest import CAPABLE, Extended
from tests.faults.client import DIALECTS
from tests.functional.test_push import Subscriber
from tests.redis_process import RedisProcess
from tests.server_process import ServerProcess
from tests.stores import serve_on

QUEUE = {'queue_name': 'work'}


def post(api: Any, *bodies: Any, **more: Any) -> list[str]:
    messages = [{'body': body, 'ttl': 600, **more} for body in bodies]
    answer = api.call('message_post', **QUEUE, messages=messages)
    assert answer.status == 201, answer
    ids: list[str] = answer.body['message_ids']
    return ids


def claim(api: Any, **more: Any) -> Any:
    answer = api.call('claim_create', **QUEUE, ttl=60, grace=60, **more)
    return answer.body if answer.status == 201 else None


def listed(api: Any, **more: Any) -> list[Any]:
    answer = api.call('message_list', **QUEUE, echo=True, **more)
    return [message['body'] for message in answer.body['messages']]


def statuses(answer: Any) -> list[int]:
    assert answer.status == 200, answer
    return [outcome['status'] for outcome in answer.body['outcomes']]


def wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_claims_say_how_often_a_message_was_claimed_before(extended: Extended) -> None:
    post(extended, 1)
    for count in range(3):
        found = claim(extended)
        assert [message['claim_count'] for message in found['messages']] == [count]
        claim_id = found['claim_id']
        [held] = extended.call('claim_get', **QUEUE, claim_id=claim_id).body['messages']
        assert held['claim_count'] == count
        assert extended.call('claim_delete', **QUEUE, claim_id=claim_id).status == 204


def test_who_does_not_ask_is_not_told(extended: Extended) -> None:
    post(extended, 1)
    plain = extended.plain
    answer = plain.call('claim_create', **QUEUE, ttl=60, grace=60)
    is_known = getattr(plain, 'subprotocols', ()) != ()
    assert ('claim_count' in answer.body['messages'][0]) is is_known


def test_a_claim_is_given_back_with_a_delay(extended: Extended) -> None:
    post(extended, 1, 2)
    claim_id = claim(extended)['claim_id']
    assert extended.call('claim_delete', **QUEUE, claim_id=claim_id, delay=2).status == 204
    assert claim(extended) is None
    assert listed(extended) == []
    assert listed(extended, include_delayed=True) == [1, 2]
    post(extended, 3)
    wait_for(lambda: listed(extended) == [1, 2, 3])


@pytest.mark.parametrize('action', ['claim_delete', 'message_release_many'])
def test_a_claim_waits_for_a_retry_of_less_than_a_second(extended: Extended, action: str) -> None:
    [message_id] = post(extended, 1)
    claim_id = claim(extended)['claim_id']
    delay = 0.4
    began = time.monotonic()
    if action == 'claim_delete':
        extended.call(action, **QUEUE, claim_id=claim_id, delay=delay)
    else:
        entry = {'message_id': message_id, 'claim_id': claim_id, 'delay': delay}
        assert statuses(extended.call(action, **QUEUE, entries=[entry])) == [204]
    released = time.monotonic()
    found = claim(extended, wait=20)
    assert [message['body'] for message in found['messages']] == [1]
    assert time.monotonic() - began >= delay
    # A claim that nobody wakes waits for all of its time.
    assert time.monotonic() - released < 15


@pytest.mark.parametrize('delay', [-1, 901, 1e300])
def test_a_delay_that_is_too_long_is_refused(extended: Extended, delay: float) -> None:
    [message_id] = post(extended, 1)
    claim_id = claim(extended)['claim_id']
    answer = extended.call('claim_delete', **QUEUE, claim_id=claim_id, delay=delay)
    assert answer.status == 400
    assert '0 to 900 seconds' in str(answer.body)
    entry = {'message_id': message_id, 'claim_id': claim_id, 'delay': delay}
    answer = extended.call('message_release_many', **QUEUE, entries=[entry])
    assert answer.status == 400
    assert '$.entries[0].delay' in str(answer.body)


def test_a_queue_has_a_delay_of_its_own(extended: Extended) -> None:
    metadata = {'_retry_delay': {'initial': 2, 'factor': 1}}
    assert extended.call('queue_create', **QUEUE, metadata=metadata).status == 201
    post(extended, 1)
    claim_id = claim(extended)['claim_id']
    extended.call('claim_delete', **QUEUE, claim_id=claim_id)
    assert claim(extended) is None
    wait_for(lambda: listed(extended) == [1])
    found = claim(extended)
    assert found['messages'][0]['claim_count'] == 1
    extended.call('claim_delete', **QUEUE, claim_id=found['claim_id'], delay=0)
    assert listed(extended) == [1]


@pytest.mark.parametrize(
    ('setting', 'told'),
    [
        ({'initial': -1}, '>= 0'),
        ({'factor': 0.5}, '>= 1'),
        ({'factor': 11}, '<= 10'),
        ({'max': 43201}, '<= 43200'),
        ({'max': 'x'}, 'not a string'),
        ({'inital': 5}, 'inital'),
        ({'initial': 5, 'max': 4}, '`initial` must be at most `max`'),
        ({'initial': 301}, '301 is larger than 300'),
        ([1], 'not a list'),
    ],
)
def test_a_setting_that_is_not_valid_is_refused(
    extended: Extended, setting: Any, told: str
) -> None:
    answer = extended.call('queue_create', **QUEUE, metadata={'_retry_delay': setting})
    assert answer.status == 400
    assert told in str(answer.body)
    assert '$.metadata._retry_delay' in str(answer.body)


def test_many_messages_are_settled_each_with_an_outcome(extended: Extended) -> None:
    metadata = {'_dead_letter_queue': 'dead'}
    assert extended.call('queue_create', **QUEUE, metadata=metadata).status == 201
    ids = post(extended, *range(6), attributes={'a': 'b'})
    claim_id = claim(extended, limit=5)['claim_id']

    def entries(*numbers: int, **more: Any) -> list[dict[str, Any]]:
        return [{'message_id': ids[one], 'claim_id': claim_id, **more} for one in numbers]

    acknowledge = [*entries(0), *entries(0), *entries(5), {'message_id': ids[5]}]
    acknowledge += [{'message_id': ids[1]}, {'message_id': ids[1], 'claim_id': 'none'}]
    answer = extended.call('message_ack_many', **QUEUE, entries=acknowledge)
    assert statuses(answer) == [204, 204, 404, 204, 403, 404]
    refused = answer.body['outcomes'][4]
    assert refused['message_id'] == ids[1]
    assert refused['code'] == 'forbidden'
    assert 'claim_id' in refused['description']
    answer = extended.call('message_release_many', **QUEUE, entries=entries(1, 1))
    assert statuses(answer) == [204, 404]
    answer = extended.call('message_release_many', **QUEUE, entries=entries(2, delay=900))
    assert statuses(answer) == [204]
    answer = extended.call(
        'message_reject_many', **QUEUE, entries=entries(3, 3, reason='no such sku')
    )
    assert statuses(answer) == [204, 404]
    answer = extended.call('message_extend_many', **QUEUE, entries=entries(4, 3, ttl=300, grace=60))
    assert statuses(answer) == [204, 404]
    assert listed(extended) == [1]
    assert listed(extended, include_delayed=True) == [1, 2]
    held = extended.call('claim_get', **QUEUE, claim_id=claim_id).body['messages']
    assert [message['body'] for message in held] == [4]
    [dead] = extended.call('message_list', queue_name='dead', echo=True).body['messages']
    facts = dead['dead_letter']
    assert facts.pop('at')[10] == 'T'
    assert facts == {
        'queue': 'work',
        'message_id': ids[3],
        'claim_count': 1,
        'reason': 'no such sku',
        'ttl': 600,
    }
    assert dead['attributes'] == {'a': 'b'}
    plain = extended.plain.call('message_list', queue_name='dead', echo=True).body['messages']
    assert ('dead_letter' in plain[0]) is (getattr(extended.plain, 'subprotocols', ()) != ())


def test_what_cannot_be_settled_at_all_is_refused(extended: Extended) -> None:
    [message_id] = post(extended, 1)
    claim_id = claim(extended)['claim_id']
    entry = {'message_id': message_id, 'claim_id': claim_id}
    for entries, told in (
        ([], '1 to 100 entries'),
        ([entry] * 101, '1 to 100 entries'),
        ([{'message_id': message_id}], 'claim_id'),
        ([{**entry, 'reason': 'x' * 1025}], '1024'),
        ([entry], 'has no dead letter queue'),
    ):
        answer = extended.call('message_reject_many', **QUEUE, entries=entries)
        assert answer.status == 400
        assert told in str(answer.body)
    answer = extended.call('message_extend_many', **QUEUE, entries=[{**entry, 'ttl': 59}])
    assert answer.status == 400


def test_a_store_that_cannot_says_so(incapable: Any) -> None:
    for _ in TRANSPORTS:
        caller = incapable()
        [message_id] = post(caller, 1)
        claim_id = claim(caller)['claim_id']
        answers = [
            caller.call('claim_delete', **QUEUE, claim_id=claim_id, delay=1),
            caller.call(
                'message_release_many',
                **QUEUE,
                entries=[{'message_id': message_id, 'claim_id': claim_id}],
            ),
            caller.call('queue_create', queue_name='q', metadata={'_retry_delay': {}}),
        ]
        assert [answer.status for answer in answers] == [400, 400, 201]
        setting = {'_retry_delay': {'initial': 1}}
        answer = caller.call('queue_create', queue_name='other', metadata=setting)
        assert answer.status == 400
        assert 'cannot delay retries' in str(answer.body)
        assert '$.metadata._retry_delay' in str(answer.body)
        assert caller.call('claim_delete', **QUEUE, claim_id=claim_id).status == 204
        caller.close()


def test_a_setting_that_the_store_ignores_is_in_nobodys_way(
    redis: RedisProcess, tmp_path: pathlib.Path
) -> None:
    """It may be there from before the data came to this store."""
    with serve_on('redis', redis, tmp_path) as server:
        caller = RestCaller(server.url)
        setting = {'_retry_delay': {'initial': 1}}
        assert caller.call('queue_create', **QUEUE).status == 201
        key = f'{caller.identity.project_id}.{QUEUE["queue_name"]}'
        redis.client.hset(key, 'm', msgpack.packb(setting))
        for value, status in (({'initial': 1}, 200), ({'initial': 2}, 400), ({'initial': 1}, 200)):
            changes = [
                {'op': 'add', 'path': '/metadata/owner', 'value': 'me'},
                {'op': 'replace', 'path': '/metadata/_retry_delay', 'value': value},
            ]
            assert caller.call('queue_update', **QUEUE, changes=changes).status == status
        found = caller.call('queue_get', **QUEUE).body
        assert (found['owner'], found['_retry_delay']) == ('me', {'initial': 1})
        caller.close()


# Consumers


COMPACT = [dialect for dialect in DIALECTS if dialect.subprotocol]
CONSUMERS = [('server', dialect) for dialect in COMPACT]
CONSUMERS += [(store, COMPACT[-1]) for store in CAPABLE[1:]]


@pytest.fixture(params=CONSUMERS, ids=lambda param: f'{param[0]}-{param[1]}')
def consumer(request: pytest.FixtureRequest) -> Iterator[tuple[ServerProcess, Subscriber]]:
    """A server on a store that can, and a connection to it."""
    name, dialect = request.param
    server: ServerProcess = request.getfixturevalue(name)
    with Subscriber(server.port, dialect, identity=new_identity()) as worker:
        yield server, worker  # type: ignore[misc]


def test_a_consumer_releases_with_a_delay_and_rejects_with_a_reason(
    consumer: tuple[ServerProcess, Subscriber],
) -> None:
    server, worker = consumer
    rest = Extended(RestCaller(server.url, identity=worker.identity))
    rest.call('queue_create', **QUEUE, metadata={'_dead_letter_queue': 'dead'})
    post(rest, 1)
    created = worker.call('queue_consume', **QUEUE, credit=1)
    assert created.status == 201
    target = {'consumer_id': created.body['consumer_id']}
    began = time.monotonic()
    for count in range(2):
        message = worker.push()['message']
        assert message['claim_count'] == count
        if not count:
            ids = [message['id']]
            assert worker.call('message_release', **target, message_ids=ids, delay=1).status == 204
    assert time.monotonic() - began >= 1
    assert worker.call('message_release', **target, message_ids=ids, delay=901).status == 400
    assert worker.call('message_reject', **target, message_ids=ids, reason='bad').status == 204
    assert worker.call('message_reject', **target, message_ids=ids).status == 404
    [dead] = rest.call('message_list', queue_name='dead', echo=True).body['messages']
    assert dead['dead_letter']['reason'] == 'bad'
    assert dead['dead_letter']['claim_count'] == 2
