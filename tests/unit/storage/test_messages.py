"""What becomes of messages and claims, by a clock that the tests move."""

import itertools
import uuid

import pytest
from zaqar.storage import errors

from zaqar_gevent.storage.sqlite import posting

BAD_IDS = ['', 'xyz', 'f' * 16, '-000000000000001', '0' * 15, '0' * 17, 'É' * 16, None, 7]


def test_messages_come_back_in_the_order_of_posting(store):
    store.post(*range(130))
    store.post(130)
    assert store.bodies(limit=200) == list(range(131))


@pytest.mark.parametrize(
    'body',
    [
        None,
        True,
        0,
        -1.5,
        2**70,
        '',
        'é\n"\\\u2028',
        [],
        {'': {}},
        {'deep': [[{'a': None}]]},
    ],
)
def test_a_body_comes_back_as_it_was_posted(store, body):
    store.post(body)
    assert store.bodies() == [body]


def test_an_expired_message_is_gone(store, clock):
    [message_id] = store.post('short', ttl=10)
    store.post('long')
    clock.advance(10)
    assert store.bodies() == ['long']
    assert store.queues.stats('q')['messages']['total'] == 1
    with pytest.raises(errors.MessageDoesNotExist):
        store.messages.get('q', message_id)


def test_a_delayed_message_is_listed_when_its_time_has_come(store, clock):
    store.post('later', delay=5)
    assert store.bodies() == []
    assert store.bodies(include_delayed=True) == ['later']
    clock.advance(5)
    assert store.bodies() == ['later']


@pytest.mark.parametrize('metadata', [{}, {'_default_message_delay': 5}])
def test_a_delayed_message_is_claimed_and_popped_when_it_is_due(store, clock, metadata):
    store.queues.set_metadata('q', metadata)
    store.post('first', 'second', delay=5)
    for _ in range(2):
        assert store.claim() == (None, [])
        assert store.messages.pop('q', 5) == []
        clock.advance(2.4)
    clock.advance(0.2)
    assert [message['body'] for message in store.claim(limit=1)[1]] == ['first']
    assert [message['body'] for message in store.messages.pop('q', 5)] == ['second']


def test_a_client_does_not_hear_its_own_echo(store):
    mine, theirs = uuid.uuid4(), uuid.uuid4()
    store.post('mine', client=mine)
    store.post('theirs', client=str(theirs))
    assert store.bodies(echo=False, client_uuid=str(mine)) == ['theirs']
    assert store.bodies(echo=False, client_uuid=theirs) == ['mine']
    assert store.bodies(client_uuid=mine) == ['mine', 'theirs']


def test_a_marker_leads_to_what_came_after_it(store):
    store.post(*range(5))
    results = store.messages.list('q', echo=True, limit=2)
    assert [message['body'] for message in next(results)] == [0, 1]
    marker = next(results)
    assert store.bodies(marker=marker) == [2, 3, 4]


def test_the_marker_of_an_empty_page_leads_to_what_comes_later(store):
    [last] = store.post('first')
    results = store.messages.list('q', echo=True, marker=last)
    assert list(next(results)) == []
    store.post('second')
    assert store.bodies(marker=next(results)) == ['second']


@pytest.mark.parametrize('bad', BAD_IDS)
def test_what_is_not_an_id_names_nothing(store, bad):
    store.post('there')
    store.messages.delete('q', bad)
    store.messages.bulk_delete('q', [bad])
    assert list(store.messages.bulk_get('q', [bad])) == []
    with pytest.raises(errors.MessageDoesNotExist):
        store.messages.get('q', bad)
    if bad:
        assert store.bodies(marker=bad) == []
    assert store.bodies() == ['there']


@pytest.mark.parametrize('bad', BAD_IDS)
def test_what_is_not_a_claim_does_not_exist(store, bad):
    [message_id] = store.post('there')
    store.claims.delete('q', bad)
    with pytest.raises(errors.ClaimDoesNotExist):
        store.claims.get('q', bad)
    with pytest.raises(errors.ClaimDoesNotExist):
        store.claims.update('q', bad, {'ttl': 60, 'grace': 60})
    if bad is not None:
        with pytest.raises(errors.ClaimDoesNotExist):
            store.messages.delete('q', message_id, claim=bad)


def test_ids_are_not_used_again_after_deletion(store):
    ids = store.post('a', 'b')
    store.messages.bulk_delete('q', ids)
    assert store.post('c')[0] > max(ids)


def test_messages_of_another_queue_or_project_are_out_of_reach(store):
    store.queues.create('q', project='p')
    [message_id] = store.post('ours')
    store.messages.bulk_delete('q', [message_id], project='p')
    with pytest.raises(errors.MessageDoesNotExist):
        store.messages.get('q', message_id, project='p')
    assert store.bodies(project='p') == []
    assert store.bodies() == ['ours']


def test_posting_to_a_queue_that_does_not_exist_is_refused(store):
    with pytest.raises(errors.QueueDoesNotExist):
        store.post('lost', queue='nowhere')


def test_a_client_that_is_not_a_uuid_is_refused(store):
    with pytest.raises(ValueError):
        store.post('x', client='me')


def test_popped_messages_are_gone_and_claimed_ones_stay(store):
    store.post(*range(4))
    store.claim(limit=1)
    assert [message['body'] for message in store.messages.pop('q', 2)] == [1, 2]
    assert store.bodies(include_claimed=True) == [0, 3]


def test_a_claim_hides_its_messages_until_it_expires(store, clock):
    store.post(*range(3))
    claim_id, claimed = store.claim(limit=2, ttl=60)
    assert [message['body'] for message in claimed] == [0, 1]
    assert {message['claim_id'] for message in claimed} == {claim_id}
    assert store.bodies() == [2]
    assert store.bodies(include_claimed=True) == [0, 1, 2]
    clock.advance(60)
    assert store.bodies() == [0, 1, 2]
    assert {message['claim_id'] for message in store.list(include_claimed=True)} == {None}
    with pytest.raises(errors.ClaimDoesNotExist):
        store.claims.get('q', claim_id)
    again, claimed = store.claim(limit=5)
    assert again != claim_id
    assert [message['claim_count'] for message in claimed] == [2, 2, 1]


def test_renewing_a_claim_starts_its_time_anew(store, clock):
    store.post('work', ttl=60)
    claim_id, _ = store.claim(ttl=60)
    clock.advance(50)
    store.claims.update('q', claim_id, {'ttl': 100, 'grace': 20})
    clock.advance(99)
    claim, [message] = store.claims.get('q', claim_id)
    assert claim == {'id': claim_id, 'ttl': 100, 'age': 99}
    assert message['ttl'] == 120
    store.claims.delete('q', claim_id)
    assert store.bodies() == ['work']


def test_many_expired_claims_do_not_hide_what_can_be_claimed(store, clock):
    for body in range(120):
        store.post(body)
        _, [message] = store.claim(ttl=60)
        if body < 110:
            store.messages.bulk_delete('q', [message['id']])
    clock.advance(60)
    assert len(store.claim(limit=20)[1]) == 10


def test_who_may_delete_a_message(store, clock):
    first, second, free = store.post('first', 'second', 'free')
    mine, _ = store.claim(limit=1)
    other, _ = store.claim(limit=1)
    with pytest.raises(errors.MessageIsClaimed):
        store.messages.delete('q', first)
    with pytest.raises(errors.MessageNotClaimedBy):
        store.messages.delete('q', first, claim=other)
    with pytest.raises(errors.ClaimDoesNotExist):
        store.messages.delete('q', first, claim=uuid.uuid4().hex)
    with pytest.raises(errors.MessageNotClaimed):
        store.messages.delete('q', free, claim=mine)
    store.messages.delete('q', first, claim=mine)
    store.messages.delete('q', first, claim=mine)
    store.messages.delete('q', free)
    clock.advance(60)
    with pytest.raises(errors.MessageNotClaimed):
        store.messages.delete('q', second, claim=other)
    store.messages.delete('q', second)
    assert store.bodies(include_claimed=True) == []


def test_deleting_many_under_claims_is_all_or_nothing(store):
    ids = store.post(*range(4))
    one, _ = store.claim(limit=1)
    two, _ = store.claim(limit=1)
    with pytest.raises(errors.MessageNotClaimed):
        store.messages.bulk_delete('q', ids[:3], claim_ids=[one, two])
    with pytest.raises(errors.ClaimDoesNotExist):
        store.messages.bulk_delete('q', ids[:1], claim_ids=[one, two])
    with pytest.raises(errors.ClaimDoesNotExist):
        store.messages.bulk_delete('q', ids[:2], claim_ids=[one])
    assert len(store.list(include_claimed=True)) == 4
    store.messages.bulk_delete('q', ids[:2], claim_ids=[one, two])
    assert store.bodies(include_claimed=True) == [2, 3]


def test_a_message_claimed_too_often_goes_to_the_dead_letters(store, clock):
    store.queues.create('dead')
    store.queues.set_metadata(
        'q',
        {
            '_max_claim_count': 2,
            '_dead_letter_queue': 'dead',
            '_dead_letter_queue_messages_ttl': 5000,
        },
    )
    store.post('poison', ttl=3600)
    marker = store.post('elsewhere', queue='dead')[0]
    for _ in range(2):
        assert len(store.claim(ttl=60)[1]) == 1
        clock.advance(60)
    store.post('good')
    _, claimed = store.claim(limit=1)
    assert [message['body'] for message in claimed] == ['good']
    [dead] = store.list('dead', marker=marker)
    assert (dead['body'], dead['ttl'], dead['claim_count']) == ('poison', 5000, 2)
    clock.advance(4999)
    assert store.bodies('dead') == ['poison']
    clock.advance(1)
    assert store.bodies('dead') == []


def test_nothing_but_dead_letters_is_nothing_to_claim(store, clock):
    store.queues.set_metadata('q', {'_max_claim_count': 1, '_dead_letter_queue': 'dead'})
    store.post(*range(30))
    store.claim(limit=20)
    store.claim(limit=20)
    clock.advance(60)
    assert store.claim(limit=20) == (None, [])
    store.queues.create('dead')
    assert len(store.list('dead', limit=100)) == 30


@pytest.mark.parametrize(
    'cycle',
    [('q', 'q'), ('q', 'r', 'q'), ('q', 'r', 's', 'q'), ('q', *(f'r{n}' for n in range(50)))],
)
def test_dead_letters_that_would_come_back_stay_and_can_be_claimed(store, clock, cycle):
    for queue, following in itertools.pairwise(cycle):
        store.queues.create(queue)
        settings = {'_max_claim_count': 1, '_dead_letter_queue': following}
        store.queues.set_metadata(queue, settings)
    ids = store.post(1, 2, ttl=1000)
    for _ in range(3):
        _, claimed = store.claim(ttl=60)
        assert [message['id'] for message in claimed] == ids
        clock.advance(60)
    assert store.bodies() == [1, 2]


@pytest.mark.parametrize('most', [None, 0, -1])
def test_what_has_never_been_claimed_is_no_dead_letter(store, most):
    store.queues.set_metadata('q', {'_max_claim_count': most, '_dead_letter_queue': 'dead'})
    store.post(1)
    assert [message['body'] for message in store.claim()[1]] == [1]


def test_dead_letters_come_to_rest_in_a_cycle_that_they_do_not_come_from(store, clock):
    store.queues.create('r')
    store.queues.set_metadata('q', {'_max_claim_count': 1, '_dead_letter_queue': 'r'})
    store.queues.set_metadata('r', {'_max_claim_count': 1, '_dead_letter_queue': 'r'})
    store.post('poison', ttl=1000)
    store.claim(ttl=60)
    clock.advance(60)
    assert store.claim() == (None, [])
    for _ in range(2):
        assert [message['body'] for message in store.claim('r', ttl=60)[1]] == ['poison']
        clock.advance(60)


def test_statistics_tell_free_from_claimed(store, clock):
    ids = store.post(*range(5), ttl=100)
    store.claim(limit=2, ttl=50, grace=0)
    clock.advance(10.5)
    stats = store.queues.stats('q')['messages']
    assert (stats['free'], stats['claimed'], stats['total']) == (3, 2, 5)
    assert stats['oldest'] == {'id': ids[0], 'age': 10, 'created': '1970-01-12T13:46:40Z'}
    assert stats['newest']['id'] == ids[4]
    clock.advance(40)
    stats = store.queues.stats('q')['messages']
    assert (stats['free'], stats['claimed'], stats['total']) == (5, 0, 5)
    clock.advance(50)
    assert store.queues.stats('q') == {'messages': {'free': 0, 'claimed': 0, 'total': 0}}


def test_a_deleted_queue_comes_back_empty(store):
    store.post('old')
    claim_id, _ = store.claim()
    store.queues.delete('q')
    store.queues.create('q')
    assert store.bodies(include_claimed=True) == []
    with pytest.raises(errors.ClaimDoesNotExist):
        store.claims.get('q', claim_id)
    store.data.gc()
    assert count_rows(store, 'messages') == count_rows(store, 'claims') == 0


def test_a_topic_shares_the_messages_of_the_queue_of_its_name(store):
    store.data.topic_controller.create('q')
    store.post('kept')
    store.queues.delete('q')
    assert store.bodies() == ['kept']
    store.data.topic_controller.delete('q')
    store.queues.create('q')
    assert store.bodies() == []


def test_collection_removes_what_has_expired(store, clock):
    store.post(*range(1200), ttl=10)
    store.post('kept')
    store.data.subscription_controller.create('q', 'http://x', 10, {})
    store.claim(ttl=5, grace=0)
    clock.advance(11)
    store.data.gc()
    assert count_rows(store, 'messages') == 1
    assert count_rows(store, 'subscriptions') == count_rows(store, 'claims') == 0


def test_posts_of_any_number_of_messages_keep_their_order(store):
    for number in (1, 2, 3, 7, 63, 64, 65, 200):
        store.queues.create(f'q{number}')
        ids = store.post(*range(number), queue=f'q{number}')
        assert ids == sorted(set(ids)) and len(ids) == number
        assert store.bodies(f'q{number}', limit=0) == list(range(number))


def test_posts_of_one_transaction_are_told_apart(store):
    store.queues.create('r')
    row = (60, 0.0, 9e9, 0.0, None, None, '1', False)
    posts = [
        (posting.Post('', 'q', [row] * 3, True),),
        (posting.Post('', 'missing', [row], True),),
        (posting.Post('', 'r', [row], True),),
        (posting.Post('', 'q', [row] * 2, True),),
    ]
    first, missing, second, third = store.database.write(lambda cursor: posting.post(cursor, posts))
    assert isinstance(missing, errors.QueueDoesNotExist)
    assert (first[1] + 1, second[1] + 1, third[1] - third[0]) == (second[0], third[0], 1)
    assert len(store.list('q')) == 5
    assert len(store.list('r')) == 1


def count_rows(store, table):
    return store.database.scan(
        lambda connection: connection.execute(f'SELECT count(*) FROM {table}').fetchone()[0]
    )
