"""Groups of messages, over every transport and on every store that can."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.callers import TRANSPORTS, RestCaller, new_identity
from tests.extensions.conftest import VERSION, Extended
from tests.faults.client import DIALECTS, Dialect
from tests.functional.test_push import Subscriber
from tests.receivers import Receivers
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch

QUEUE = {'queue_name': 'work'}
ORDERED = {'_ordered_groups': True}


def post(api: Any, *groups: str | None, **more: Any) -> Any:
    """Post a message to each group, with its number among them as its body."""
    messages = [
        {'body': body, 'ttl': 600, **({} if group is None else {'group': group}), **more}
        for body, group in enumerate(groups)
    ]
    return api.call('message_post', **QUEUE, messages=messages)


def create(api: Any, **metadata: Any) -> None:
    assert api.call('queue_create', **QUEUE, metadata=metadata).status == 201


def claim(api: Any, limit: int = 10, **more: Any) -> tuple[str | None, list[Any]]:
    """Claim messages; the claim and their bodies."""
    answer = api.call('claim_create', **QUEUE, ttl=60, grace=60, limit=limit, **more)
    assert answer.status in (201, 204), answer
    found = answer.body.get('messages', []) if answer.status == 201 else []
    claim_id = answer.body['claim_id'] if found else None
    return claim_id, [message['body'] for message in found]


def groups(messages: Any) -> list[Any]:
    return [message.get('group') for message in messages]


# What is given back


def test_a_group_is_given_back_wherever_the_message_is(extended: Extended) -> None:
    create(extended, _dead_letter_queue='dead', _max_claim_count=1)
    answer = post(extended, 'ä b/%', None, 'x' * 128)
    assert answer.status == 201, answer
    ids = answer.body['message_ids']
    expected = ['ä b/%', None, 'x' * 128]
    listed = extended.call('message_list', **QUEUE, echo=True).body['messages']
    assert groups(listed) == expected
    got = extended.call('message_get', **QUEUE, message_id=ids[0]).body['messages']
    assert got['group'] == expected[0]
    several = extended.call('message_get_many', **QUEUE, message_ids=ids).body['messages']
    assert sorted(groups(several), key=str) == sorted(expected, key=str)
    claimed = extended.call('claim_create', **QUEUE, ttl=60, grace=60, limit=2)
    assert groups(claimed.body['messages']) == expected[:2]
    claim_id = claimed.body['claim_id']
    held = extended.call('claim_get', **QUEUE, claim_id=claim_id).body['messages']
    assert groups(held) == expected[:2]
    popped = extended.call('message_delete_many', **QUEUE, pop=2).body['messages']
    assert groups(popped) == expected[2:]
    extended.call('claim_delete', **QUEUE, claim_id=claim_id)
    assert claim(extended) == (None, [])
    dead = extended.call('message_list', queue_name='dead', echo=True).body['messages']
    assert groups(dead) == expected[:2]


def test_who_does_not_ask_is_not_told(extended: Extended) -> None:
    post(extended, 'a')
    plain = extended.plain
    is_known = getattr(plain, 'subprotocols', ()) != ()
    listed = plain.call('message_list', **QUEUE, echo=True).body['messages']
    assert ('group' in listed[0]) is is_known
    popped = plain.call('message_delete_many', **QUEUE, pop=1).body['messages']
    assert ('group' in popped[0]) is is_known


def test_what_cannot_be_a_group_is_refused(extended: Extended) -> None:
    for group in ('', 'x' * 129, 'a\nb', 'a\x00', 5, ['a']):
        answer = post(extended, 'ok', group)
        assert answer.status == 400, group
        assert '$.messages[1].group' in str(answer.body)
    assert extended.call('message_list', **QUEUE, echo=True).body['messages'] == []


def test_settings_must_be_true_or_false(extended: Extended) -> None:
    for name in ('_ordered_groups', '_fair_groups'):
        answer = extended.call('queue_create', **QUEUE, metadata={name: 1})
        assert answer.status == 400
        assert f'$.metadata.{name}' in str(answer.body)


@pytest.mark.parametrize('dialect', DIALECTS, ids=str)
def test_a_group_is_pushed_to_who_knows_it(server: ServerProcess, dialect: Dialect) -> None:
    identity = new_identity()
    poster = RestCaller(server.url, identity=identity)
    with Subscriber(server.port, dialect, identity=identity) as subscriber:
        headers = {**identity.headers(), **VERSION}
        request: dict[str, Any] = {'action': 'subscription_create', 'headers': headers, 'id': 1}
        request['body'] = QUEUE
        subscriber.send(subscriber.frame(request))
        assert dialect.status(subscriber.answer()) == 201
        assert post(poster, 'a').status == 201
        pushed = subscriber.push()
    poster.close()
    message = pushed['message'] if dialect.subprotocol else pushed
    assert message['group'] == 'a'


def test_webhooks_get_it_as_a_header(server: ServerProcess) -> None:
    api = RestCaller(server.url)
    with Receivers() as receivers:
        path = f'prompt/{api.identity.project_id}'
        subscriber = receivers.url(path)
        created = api.call('subscription_create', **QUEUE, subscriber=subscriber, options={})
        assert created.status == 201
        assert post(api, 'ä b', None).status == 201
        assert post(api, 'c', delay=1).status == 201
        received = receivers.wait_for(3, path)
    headers = [{name.lower(): value for name, value in one.headers.items()} for one in received]
    assert sorted(one.get('zaqar-group', '') for one in headers) == ['', '%C3%A4%20b', 'c']
    assert not any('group' in one.document for one in received)
    api.close()


def test_a_store_that_cannot_says_so(incapable: Any, request: pytest.FixtureRequest) -> None:
    can_be_mended = request.node.callspec.params['incapable'] == 'redis'
    for _ in TRANSPORTS:
        caller = incapable()
        answer = post(caller, None, 'a')
        assert answer.status == 400
        assert ('shared_with_upstream = false' in str(answer.body)) == can_be_mended
        assert 'cannot keep groups' in str(answer.body)
        assert '$.messages[1].group' in str(answer.body)
        for name in ('_ordered_groups', '_fair_groups'):
            answer = caller.call('queue_create', **QUEUE, metadata={name: True})
            assert answer.status == 400
            assert f'$.metadata.{name}' in str(answer.body)
        setting = {'_fair_groups': False}
        assert caller.call('queue_create', queue_name='fair', metadata=setting).status == 201
        caller.close()


# In order, in turn


def test_an_ordered_group_is_with_one_claim_at_a_time(extended: Extended) -> None:
    create(extended, **ORDERED)
    post(extended, 'a', 'a', 'b', None, 'a')
    first, found = claim(extended, 2)
    assert found == [0, 1]
    assert claim(extended)[1] == [2, 3]
    assert claim(extended)[1] == []
    assert extended.call('claim_delete', **QUEUE, claim_id=first).status == 204
    assert claim(extended, 2)[1] == [0, 1]
    assert extended.call('message_delete_many', **QUEUE, pop=5).body['messages'] == []


def test_fair_groups_have_their_turns(extended: Extended) -> None:
    create(extended, _fair_groups=True, _ordered_groups=True)
    post(extended, *['big'] * 10, 'small', None)
    assert sorted(claim(extended, 3)[1]) == [0, 10, 11]


def test_the_setting_may_come_later_and_go_again(extended: Extended) -> None:
    post(extended, 'a', 'a', 'b')
    assert claim(extended, 1)[1] == [0]

    def set_to(value: bool) -> None:
        changes = [{'op': 'add', 'path': '/metadata/_ordered_groups', 'value': value}]
        assert extended.call('queue_update', **QUEUE, changes=changes).status == 200

    set_to(True)
    assert claim(extended)[1] == [2]
    set_to(False)
    assert claim(extended)[1] == [1]


def settle(action: str, **entry: Any) -> Callable[[Any, str, str], Any]:
    def run(api: Any, claim_id: str, message_id: str) -> Any:
        one = {'message_id': message_id, 'claim_id': claim_id, **entry}
        return api.call(action, **QUEUE, entries=[one])

    return run


FREED = {
    'claim_delete': lambda api, claim_id, _: api.call('claim_delete', **QUEUE, claim_id=claim_id),
    'delayed_release': lambda api, claim_id, _: api.call(
        'claim_delete', **QUEUE, claim_id=claim_id, delay=0.3
    ),
    'message_delete': lambda api, claim_id, message_id: api.call(
        'message_delete', **QUEUE, message_id=message_id, claim_id=claim_id
    ),
    'message_delete_many': lambda api, claim_id, message_id: api.call(
        'message_delete_many', **QUEUE, message_ids=[message_id], claim_ids=[claim_id]
    ),
    'message_ack_many': settle('message_ack_many'),
    'message_release_many': settle('message_release_many'),
    'message_reject_many': settle('message_reject_many', reason='no'),
}


def test_a_claim_that_waits_is_woken_when_a_group_is_free(extended: Extended) -> None:
    create(extended, **ORDERED, _dead_letter_queue='dead', _max_claim_count=90)
    other = RestCaller(extended.url, identity=extended.identity)
    for action, free in FREED.items():
        ids = post(extended, 'a', 'a').body['message_ids']
        claim_id, found = claim(extended, 1)
        assert found == [0]
        waited: list[Any] = []
        waiting = threading.Thread(target=lambda: waited.append(claim(other, 1, wait=20)))  # noqa: B023
        waiting.start()
        assert free(extended, claim_id, ids[0]).status in (200, 204), action
        waiting.join(60)
        is_back = 'release' in action or action == 'claim_delete'
        assert [one for _, one in waited] == [[0] if is_back else [1]], action
        assert extended.call('message_delete_many', **QUEUE, message_ids=ids).status == 204
    other.close()


def test_a_claim_that_waits_is_woken_when_groups_are_no_longer_in_order(
    extended: Extended,
) -> None:
    create(extended, **ORDERED)
    other = RestCaller(extended.url, identity=extended.identity)
    post(extended, 'a', 'a')
    assert claim(extended, 1)[1] == [0]
    waited: list[Any] = []
    waiting = threading.Thread(target=lambda: waited.append(claim(other, 1, wait=20)))
    watch = Stopwatch()
    waiting.start()
    time.sleep(0.5)
    change = {'op': 'replace', 'path': '/metadata/_ordered_groups', 'value': False}
    assert extended.call('queue_update', **QUEUE, changes=[change]).status == 200
    waiting.join(60)
    other.close()
    assert [found for _, found in waited] == [[1]]
    assert watch.seconds() < 15


# Consumers


@pytest.fixture(params=[dialect for dialect in DIALECTS if dialect.subprotocol], ids=str)
def worker(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Subscriber]:
    dialect: Dialect = request.param
    with Subscriber(server.port, dialect, identity=new_identity()) as worker:
        yield worker  # type: ignore[misc]


def test_what_a_consumer_holds_holds_up_its_group(
    server: ServerProcess, worker: Subscriber
) -> None:
    rest = Extended(RestCaller(server.url, identity=worker.identity))
    create(rest, **ORDERED, _dead_letter_queue='dead')
    post(rest, 'a', 'a', 'a', 'b')
    created = worker.call('queue_consume', **QUEUE, credit=1)
    target = {'consumer_id': created.body['consumer_id']}
    message = worker.push()['message']
    assert (message['body'], message['group']) == (0, 'a')
    assert claim(rest)[1] == [3]
    for action, following in (('message_ack', 1), ('message_release', 1), ('message_reject', 2)):
        assert worker.call(action, **target, message_ids=[message['id']]).status == 204
        message = worker.push()['message']
        assert (message['body'], message['group']) == (following, 'a')
        assert claim(rest)[1] == []
    rest.close()


def test_a_consumer_has_a_group_in_its_order(server: ServerProcess, worker: Subscriber) -> None:
    rest = Extended(RestCaller(server.url, identity=worker.identity))
    create(rest, **ORDERED)
    post(rest, *['a'] * 40)
    created = worker.call('queue_consume', **QUEUE, credit=5)
    target = {'consumer_id': created.body['consumer_id']}
    for number in range(40):
        message = worker.push()['message']
        assert message['body'] == number
        assert worker.call('message_ack', **target, message_ids=[message['id']]).status == 204
    rest.close()
