"""Messages, over every transport alike."""

from typing import Any

import pytest

ENCRYPTED = {'_enable_encrypt_messages': True}


def post(api: Any, *bodies: Any, queue_name: str = 'orders', **members: Any) -> list[str]:
    """Post messages with these bodies and return their ids."""
    messages = [{'body': body, **members} for body in bodies]
    answer = api.call('message_post', queue_name=queue_name, messages=messages)
    assert answer.status == 201
    ids: list[str] = answer.body['message_ids']
    return ids


def bodies_of(answer: Any) -> list[Any]:
    return [message['body'] for message in answer.body['messages']]


def test_what_is_posted_is_listed_in_order(api: Any) -> None:
    ids = post(api, 'a', {'nested': [1, 2.5, None, True]}, 'snö ☃', ttl=300)
    answer = api.call('message_list', queue_name='orders', echo=True)
    assert answer.status == 200
    assert [message['id'] for message in answer.body['messages']] == ids
    assert bodies_of(answer) == ['a', {'nested': [1, 2.5, None, True]}, 'snö ☃']
    assert all(message['ttl'] == 300 for message in answer.body['messages'])
    assert all(message['claim_id'] is None for message in answer.body['messages'])


def test_a_client_does_not_hear_its_own_messages_unless_it_asks(api: Any) -> None:
    post(api, 1)
    assert bodies_of(api.call('message_list', queue_name='orders')) == []
    other = {**api.identity.headers(), 'Client-ID': 'a0b1c2d3-2b9e-11e3-b191-71861300734c'}
    assert bodies_of(api.call('message_list', queue_name='orders', headers=other)) == [1]


def test_pages_follow_their_markers_to_the_end(api: Any) -> None:
    post(api, *range(10))
    seen, marker = [], {}
    while True:
        page = api.call('message_list', queue_name='orders', echo=True, limit=4, **marker)
        if not page.body['messages']:
            break
        seen += bodies_of(page)
        marker = {'marker': page.body['marker']}
    assert seen == list(range(10))


def test_claimed_messages_are_listed_only_when_asked_for(api: Any) -> None:
    post(api, 1, 2)
    claim_id = api.call('claim_create', queue_name='orders', limit=1).body['claim_id']
    assert bodies_of(api.call('message_list', queue_name='orders', echo=True)) == [2]
    all_of_them = api.call('message_list', queue_name='orders', echo=True, include_claimed=True)
    assert bodies_of(all_of_them) == [1, 2]
    assert all_of_them.body['messages'][0]['claim_id'] == claim_id


def test_a_delayed_message_is_not_delivered_yet(api: Any) -> None:
    api.call('queue_create', queue_name='orders', metadata={'_default_message_delay': 60})
    post(api, 'later')
    post(api, 'now', delay=0)
    assert bodies_of(api.call('message_list', queue_name='orders', echo=True)) == ['now']
    both = api.call('message_list', queue_name='orders', echo=True, include_delayed=True)
    assert bodies_of(both) == ['later', 'now']
    assert bodies_of(api.call('claim_create', queue_name='orders')) == ['now']


def test_a_queue_gives_its_time_to_live_to_messages_without_one(api: Any) -> None:
    api.call('queue_create', queue_name='orders', metadata={'_default_message_ttl': 999})
    [message_id] = post(api, 1)
    answer = api.call('message_get', queue_name='orders', message_id=message_id)
    assert answer.body['messages']['ttl'] == 999


def test_one_message_is_got_by_its_id(api: Any) -> None:
    [message_id] = post(api, {'sku': 42})
    answer = api.call('message_get', queue_name='orders', message_id=message_id)
    assert answer.status == 200
    assert answer.body['messages']['body'] == {'sku': 42}
    assert 0 <= answer.body['messages']['age'] <= 5


def test_a_message_of_another_project_is_not_found(api: Any) -> None:
    [message_id] = post(api, 1)
    other = {**api.identity.headers(), 'X-Project-ID': 'another-project'}
    answer = api.call('message_get', queue_name='orders', message_id=message_id, headers=other)
    assert answer.status == 404


@pytest.mark.parametrize('message_id', ['nothing', '0' * 16, 'ffffffffffffffff', 'é', '-1'])
def test_a_message_that_is_not_there_is_404(api: Any, message_id: str) -> None:
    post(api, 1)
    answer = api.call('message_get', queue_name='orders', message_id=message_id)
    assert answer.status == 404


def test_many_messages_are_got_by_their_ids(api: Any) -> None:
    ids = post(api, 1, 2, 3)
    answer = api.call('message_get_many', queue_name='orders', message_ids=[ids[0], ids[2], 'no'])
    assert bodies_of(answer) == [1, 3]


def test_a_deleted_message_is_gone_and_deleting_it_again_succeeds(api: Any) -> None:
    [message_id] = post(api, 1)
    for _ in range(2):
        answer = api.call('message_delete', queue_name='orders', message_id=message_id)
        assert answer.status == 204
    gone = api.call('message_get', queue_name='orders', message_id=message_id)
    assert gone.status == 404


def test_a_claimed_message_is_deleted_only_with_its_claim(api: Any) -> None:
    [message_id] = post(api, 1)
    claim_id = api.call('claim_create', queue_name='orders').body['claim_id']
    target = {'queue_name': 'orders', 'message_id': message_id}
    assert api.call('message_delete', **target).status == 403
    assert api.call('message_delete', **target, claim_id='0' * 32).status == 400
    assert api.call('message_delete', **target, claim_id=claim_id).status == 204


def test_an_unclaimed_message_is_not_deleted_with_a_claim(api: Any) -> None:
    [_, second] = post(api, 1, 2)
    claim_id = api.call('claim_create', queue_name='orders', limit=1).body['claim_id']
    answer = api.call('message_delete', queue_name='orders', message_id=second, claim_id=claim_id)
    assert answer.status == 400
    assert api.call('message_get', queue_name='orders', message_id=second).status == 200


def test_many_messages_are_deleted_by_their_ids(api: Any) -> None:
    ids = post(api, *range(5))
    answer = api.call('message_delete_many', queue_name='orders', message_ids=[*ids[:3], 'no'])
    assert answer.status == 204
    assert bodies_of(api.call('message_list', queue_name='orders', echo=True)) == [3, 4]


def test_popped_messages_come_from_the_front_and_are_gone(api: Any) -> None:
    post(api, *range(5))
    answer = api.call('message_delete_many', queue_name='orders', pop=2)
    assert answer.status == 200
    assert bodies_of(answer) == [0, 1]
    assert bodies_of(api.call('message_list', queue_name='orders', echo=True)) == [2, 3, 4]


def test_popping_an_empty_queue_gives_nothing(api: Any) -> None:
    answer = api.call('message_delete_many', queue_name='orders', pop=1)
    assert (answer.status, answer.body) == (200, {'messages': []})


def test_a_queue_may_limit_the_size_of_a_post(api: Any) -> None:
    api.call('queue_create', queue_name='orders', metadata={'_max_messages_post_size': 200})
    small, large = [{'body': 'x' * 100}], [{'body': 'x' * 200}]
    assert api.call('message_post', queue_name='orders', messages=small).status == 201
    assert api.call('message_post', queue_name='orders', messages=large).status == 400


def test_bodies_of_an_encrypted_queue_are_read_as_they_were_posted(api: Any) -> None:
    api.call('queue_create', queue_name='secret', metadata=ENCRYPTED)
    posted = ['text', {'sku': 42}, [1, None], 'I1\n.', "cos\nsystem\n(S'false'\ntR."]
    ids = post(api, *posted, queue_name='secret')
    listed = api.call('message_list', queue_name='secret', echo=True)
    assert bodies_of(listed) == posted
    one = api.call('message_get', queue_name='secret', message_id=ids[1])
    assert one.body['messages']['body'] == {'sku': 42}
    assert bodies_of(api.call('claim_create', queue_name='secret', limit=2)) == posted[:2]
    assert bodies_of(api.call('message_delete_many', queue_name='secret', pop=3)) == posted[2:]


def test_a_message_is_read_over_any_transport(api: Any, server: Any) -> None:
    from tests.callers import TRANSPORTS, connect

    post(api, {'sku': 42})
    for transport in TRANSPORTS:
        other = connect(transport, server.url, server.websocket_url, api.identity)
        listed = other.call('message_list', queue_name='orders', echo=True)
        assert bodies_of(listed) == [{'sku': 42}]
        other.close()


def test_a_post_that_is_repeated_with_its_id_is_made_once(api: Any) -> None:
    arguments = {'queue_name': 'orders', 'messages': [{'body': 1}, {'body': 2}], 'post_id': 'p-1'}
    first = api.call('message_post', **arguments)
    assert first.status == 201
    assert api.call('message_post', **arguments) == first
    assert bodies_of(api.call('message_list', queue_name='orders', echo=True)) == [1, 2]


@pytest.mark.parametrize('post_id', ['', 'x' * 65, 7])
def test_an_id_of_a_post_that_is_none_is_refused(api: Any, post_id: Any) -> None:
    messages = [{'body': 1}]
    answer = api.call('message_post', queue_name='orders', messages=messages, post_id=post_id)
    assert answer.status == 400
    assert '$.post_id' in str(answer.body)
