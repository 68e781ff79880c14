"""What a message has beside its body, as the Python clients post and give it."""

from __future__ import annotations

import asyncio
import datetime
import time
import uuid
from collections.abc import Iterator

import pytest

from tests.server_process import ServerProcess
from zaqar_gevent.client import BadRequest, Client, aio

ATTRIBUTES = {'type': 'order', 'note': 'ä "b"'}


@pytest.fixture(params=['websocket', 'rest'])
def client(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Client]:
    with Client(server.url, project=uuid.uuid4().hex, transport=request.param) as client:
        yield client


def test_attributes_come_back_wherever_messages_do(client: Client) -> None:
    queue = client.queue('orders')
    [first] = queue.post({'sku': 42}, attributes=ATTRIBUTES)
    [second] = queue.post({'sku': 43})
    assert [message.attributes for message in queue.messages()] == [ATTRIBUTES, {}]
    assert queue.get(first).attributes == ATTRIBUTES
    assert [message.attributes for message in queue.get_messages([second])] == [{}]
    with queue.subscribe(marker='') as subscription:
        pushed = [subscription.receive(timeout=60) for _ in range(2)]
    assert [message and message.attributes for message in pushed] == [ATTRIBUTES, {}]
    with queue.claim() as claim:
        assert [message.attributes for message in claim] == [ATTRIBUTES, {}]
    with queue.consume() as consumer:
        message = consumer.receive(timeout=60)
        assert message is not None
        assert (message.attributes, message.attempt) == (ATTRIBUTES, 2)
    assert [message.attributes for message in queue.pop(2)] == [ATTRIBUTES, {}]


def test_a_group_comes_back_wherever_its_message_does(client: Client) -> None:
    queue = client.queue('orders')
    queue.create({'_ordered_groups': True})
    queue.post([1, 2], group='a b')
    queue.post(3)
    groups = ['a b', 'a b', None]
    assert [message.group for message in queue.messages()] == groups
    with queue.subscribe(marker='') as subscription:
        pushed = [subscription.receive(timeout=30) for _ in range(3)]
    assert [message and message.group for message in pushed] == groups
    with queue.claim(limit=1) as claim:
        assert [message.group for message in claim] == ['a b']
        with queue.claim() as other:
            assert [message.body for message in other] == [3]
    with queue.consume(credit=1) as consumer:
        message = consumer.receive(timeout=30)
        assert message is not None
        assert (message.body, message.group) == (1, 'a b')
    with pytest.raises(BadRequest, match=r'1 to 128 characters.*\$\.messages\[0\]\.group'):
        queue.post(1, group='x' * 129)


def test_wrong_attributes_are_refused_with_their_place(client: Client) -> None:
    with pytest.raises(BadRequest, match=r'\$\.messages\[1\]\.attributes'):
        client.call(
            'message_post',
            queue_name='q',
            messages=[{'body': 1}, {'body': 2, 'attributes': {'no name': ''}}],
        )
    with pytest.raises(BadRequest, match=r'must be a string.*\$\.messages\[0\]\.attributes'):
        client.queue('q').post(1, attributes={'a': 1})  # type: ignore[dict-item]


def test_a_dead_letter_says_where_it_is_from(client: Client) -> None:
    queue = client.queue('orders')
    queue.create({'_dead_letter_queue': 'dead'})
    ids = queue.post([1, 2], attributes=ATTRIBUTES)
    claim = queue.claim(limit=1)
    assert claim.messages[0].reject('no such sku')
    with queue.consume(credit=1) as consumer:
        message = consumer.receive(timeout=60)
        assert message is not None
        assert message.reject('not today')
    first, second = client.queue('dead').messages()
    assert [first.body, second.body] == [1, 2]
    assert first.attributes == second.attributes == ATTRIBUTES
    assert first.dead_letter is not None
    assert second.dead_letter is not None
    assert {**first.dead_letter, 'at': '', 'ttl': 0} == {
        'queue': 'orders',
        'message_id': ids[0],
        'claim_count': 1,
        'at': '',
        'reason': 'no such sku',
        'ttl': 0,
    }
    assert second.dead_letter['reason'] == 'not today'
    assert message.dead_letter is None


@pytest.mark.parametrize('form', ['datetime', 'number', 'text'])
def test_a_message_is_scheduled_by_any_form_of_time(client: Client, form: str) -> None:
    moment = datetime.datetime.now(datetime.timezone(datetime.timedelta(hours=2)))
    moment += datetime.timedelta(hours=1)
    forms = {'datetime': moment, 'number': moment.timestamp(), 'text': moment.isoformat()}
    queue = client.queue('orders')
    queue.post('later', deliver_at=forms[form])
    queue.post('now', deliver_at=time.time() - 5)
    assert [message.body for message in queue.messages()] == ['now']
    delayed = {message.body for message in queue.messages(include_delayed=True)}
    assert delayed == {'now', 'later'}
    with pytest.raises(BadRequest, match='1209600 seconds ahead'):
        queue.post('too late', deliver_at=moment.timestamp() + 15 * 24 * 3600)


def test_a_time_without_a_time_zone_is_refused_here(client: Client) -> None:
    naive = datetime.datetime(2026, 12, 1, 6)
    with pytest.raises(ValueError, match='no time zone'):
        client.queue('orders').post('later', deliver_at=naive)


def test_the_asyncio_client_has_the_same(server: ServerProcess) -> None:
    async def main() -> None:
        async with aio.Client(server.url, project=uuid.uuid4().hex) as client:
            queue = client.queue('orders')
            await queue.post(1, attributes=ATTRIBUTES, deliver_at=time.time())
            await queue.post(2, deliver_at=time.time() + 3600)
            async with queue.claim(limit=2) as claim:
                [message] = claim
                assert (message.attributes, message.attempt) == (ATTRIBUTES, 1)

    asyncio.run(main())
