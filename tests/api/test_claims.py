"""Claims, over every transport alike."""

from typing import Any

from tests.api.test_messages import bodies_of, post


def test_a_claim_takes_the_oldest_free_messages(api: Any) -> None:
    post(api, *range(5))
    first = api.call('claim_create', queue_name='orders', limit=3)
    assert first.status == 201
    assert bodies_of(first) == [0, 1, 2]
    assert {message['claim_id'] for message in first.body['messages']} == {first.body['claim_id']}
    assert bodies_of(api.call('claim_create', queue_name='orders')) == [3, 4]


def test_there_may_be_nothing_to_claim(api: Any) -> None:
    assert api.call('claim_create', queue_name='nowhere').status == 204


def test_a_claim_keeps_its_messages_alive(api: Any) -> None:
    post(api, 1, ttl=60)
    answer = api.call('claim_create', queue_name='orders', ttl=500, grace=100)
    assert answer.body['messages'][0]['ttl'] == 600


def test_a_claim_tells_its_time_to_live_and_its_messages(api: Any) -> None:
    post(api, 1, 2)
    claim_id = api.call('claim_create', queue_name='orders', ttl=120, grace=60).body['claim_id']
    answer = api.call('claim_get', queue_name='orders', claim_id=claim_id)
    assert answer.status == 200
    assert answer.body['ttl'] == 120
    assert 0 <= answer.body['age'] <= 5
    assert bodies_of(answer) == [1, 2]


def test_an_updated_claim_has_its_new_time_to_live(api: Any) -> None:
    post(api, 1)
    claim_id = api.call('claim_create', queue_name='orders', ttl=120, grace=60).body['claim_id']
    target = {'queue_name': 'orders', 'claim_id': claim_id}
    assert api.call('claim_update', **target, ttl=300, grace=60).status == 204
    for grace in (-1, 43201, 10**12):
        refused = api.call('claim_update', **target, ttl=300, grace=grace)
        assert refused.status == 400
        assert '$.grace' in str(refused.body)
    assert api.call('claim_get', **target).body['ttl'] == 300


def test_a_deleted_claim_gives_its_messages_back(api: Any) -> None:
    post(api, 1)
    claim_id = api.call('claim_create', queue_name='orders').body['claim_id']
    target = {'queue_name': 'orders', 'claim_id': claim_id}
    assert api.call('claim_delete', **target).status == 204
    assert api.call('claim_get', **target).status == 404
    assert bodies_of(api.call('claim_create', queue_name='orders')) == [1]


def test_a_claim_that_is_not_there(api: Any) -> None:
    target = {'queue_name': 'orders', 'claim_id': 'nothing'}
    assert api.call('claim_get', **target).status == 404
    assert api.call('claim_update', **target, ttl=100).status == 404
    assert api.call('claim_delete', **target).status == 204


def test_a_message_claimed_too_often_moves_to_the_dead_letter_queue(api: Any) -> None:
    api.call('queue_create', queue_name='dead')
    metadata = {
        '_max_claim_count': 2,
        '_dead_letter_queue': 'dead',
        '_dead_letter_queue_messages_ttl': 7200,
    }
    api.call('queue_create', queue_name='orders', metadata=metadata)
    post(api, 'poison')
    for _ in range(2):
        claim = api.call('claim_create', queue_name='orders')
        assert bodies_of(claim) == ['poison']
        api.call('claim_delete', queue_name='orders', claim_id=claim.body['claim_id'])
    assert api.call('claim_create', queue_name='orders').status == 204
    [dead] = api.call('message_list', queue_name='dead', echo=True).body['messages']
    assert (dead['body'], dead['ttl']) == ('poison', 7200)
