"""Messages: posted, listed, read, taken, deleted and expired."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest
from zaqar.storage import errors

from tests.storage.conftest import CLIENT, Store
from zaqar_gevent.bodies import Encoding, encode_json
from zaqar_gevent.markers import MarkerNotGiven
from zaqar_gevent.storage.errors import UndecodableValue
from zaqar_gevent.storage.interface import StoredPage

OTHER = str(uuid.uuid4())

BODIES: list[Any] = [
    'text',
    '',
    'ä\u20ac\U0001f600\x00',
    0,
    -(2**63),
    2**64 - 1,
    1.5,
    True,
    None,
    [],
    {},
    [1, {'a': [None, 'b']}],
    {'': 0, 'ä': {'b': [1]}},
    'x' * 100_000,
    b'zgev1.encrypted',
]


def marker_of(store: Store, queue: str, **more: Any) -> Any:
    """The marker of the next page."""
    results = store.messages.list(queue, echo=True, **more)
    list(next(results))
    return next(results)


@pytest.mark.parametrize('body', BODIES, ids=lambda body: f'{type(body).__name__}-{str(body)[:5]}')
def test_bodies_are_given_back_as_they_were(store: Store, body: Any) -> None:
    queue = store.queue()
    [message_id] = store.post(queue, body)
    found = store.messages.get(queue, message_id)
    assert (found['body'], type(found['body'])) == (body, type(body))
    assert store.list(queue) == [body]


def test_a_page_becomes_an_answer_as_its_messages_would(store: Store) -> None:
    queue = store.queue()
    messages, claims = store.data.message_controller, store.data.claim_controller
    store.post(queue, {'a': [1, 'ä']}, None, 'text')
    page = next(messages.list(queue, project=store.project, echo=True))
    is_own = store.name != 'upstream'
    assert isinstance(page, StoredPage) is is_own
    if not is_own:
        return
    assert answered(page) == seen(page)
    assert [one['body'] for one in answered(page)] == [{'a': [1, 'ä']}, None, 'text']
    lease = {'ttl': 60, 'grace': 60}
    claim_id, held = claims.create(queue, lease, project=store.project)
    assert answered(held) == seen(held)
    assert {one['claim_id'] for one in answered(held)} == {claim_id}
    claims.delete(queue, claim_id, project=store.project)
    _, held = claims.create(queue, lease, project=store.project)
    assert [one['claim_count'] for one in answered(held, counted=True)] == [1, 1, 1]
    store.post(queue, b'zgev1.encrypted')
    page = next(messages.list(queue, project=store.project, echo=True, include_claimed=True))
    assert len(page) == 4
    assert page.in_answer(Encoding.JSON) is None


def answered(page: Any, **more: Any) -> Any:
    """The messages of a page as a client reads them in an answer."""
    return msgspec.json.decode(encode_json(page.in_answer(Encoding.JSON, **more)))


def seen(page: Any) -> list[dict[str, Any]]:
    """The same, of each message by itself."""
    members = ('id', 'claim_id', 'ttl', 'age')
    return [{name: one[name] for name in members} | {'body': one['body'].value} for one in page]


def test_messages_are_listed_in_order_a_page_at_a_time(store: Store) -> None:
    queue = store.queue()
    for first in range(0, 25, 5):
        store.post(queue, *range(first, first + 5))
    listed, marker = [], None
    for _ in range(3):
        listed.append(store.list(queue, marker=marker))
        marker = marker_of(store, queue, marker=marker)
    assert listed == [list(range(10)), list(range(10, 20)), list(range(20, 25))]
    assert store.list(queue, marker=marker) == []


def test_a_message_tells_its_times(store: Store) -> None:
    queue = store.queue()
    [message_id] = store.post(queue, 'x')
    with store.later(10):
        found = store.messages.get(queue, message_id)
    assert (found['ttl'], found['age']) == (300, 10)
    assert found['claim_id'] is None


def test_a_list_goes_on_after_a_deleted_marker(store: Store) -> None:
    queue = store.queue()
    ids = store.post(queue, *range(5))
    marker = marker_of(store, queue, limit=2)
    store.messages.delete(queue, ids[1])
    assert store.list(queue, marker=marker) == [2, 3, 4]
    for one in ids:
        store.messages.delete(queue, one)
    assert store.list(queue, marker=marker) == []
    store.post(queue, 'new')
    assert store.list(queue, marker=marker) == ['new']


def test_a_marker_of_another_store_is_refused(store: Store) -> None:
    queue = store.queue()
    [message_id] = store.post(queue, 'x')
    # It has the form of the ids of this store, and is ahead of all of them.
    marker = message_id[:-12] + 'f' * 12
    with pytest.raises(MarkerNotGiven):
        store.list(queue, marker=marker)


def test_what_is_no_marker_has_nothing_behind_it(store: Store) -> None:
    queue = store.queue()
    store.post(queue, 'x')
    assert store.list(queue, marker='not-a-marker') == []


def test_own_messages_are_left_out_on_demand(store: Store) -> None:
    queue = store.queue()
    store.post(queue, 'own')
    store.messages.post(queue, [{'ttl': 300, 'body': 'other'}], OTHER)
    assert store.list(queue, echo=False, client_uuid=CLIENT) == ['other']
    assert store.list(queue, echo=False, client_uuid=OTHER) == ['own']


def test_a_page_is_full_where_messages_are_left_out(store: Store) -> None:
    queue = store.queue()
    store.post(queue, *range(20))
    store.messages.post(queue, [{'ttl': 300, 'body': n} for n in range(20, 1300)], OTHER)
    store.post(queue, *range(1300, 1310))
    listed = store.list(queue, echo=False, client_uuid=OTHER, limit=25)
    assert listed == [*range(20), *range(1300, 1305)]


def test_delayed_messages_come_when_they_are_due(store: Store) -> None:
    queue = store.queue(_default_message_delay=30)
    store.post(queue, 'later', delay=30)
    store.post(queue, 'now', delay=0)
    assert store.list(queue) == ['now']
    assert sorted(store.list(queue, include_delayed=True)) == ['later', 'now']
    with store.later(31):
        assert sorted(store.list(queue)) == ['later', 'now']


def test_messages_that_are_due_at_one_time_come_as_they_were_posted(store: Store) -> None:
    queue = store.queue()
    with store.at(10_000):
        for first in range(0, 20, 2):
            store.post(queue, first, first + 1, delay=10)
        store.post(queue, *range(20, 150), delay=10)
        store.post(queue, 'earlier', delay=9)
    with store.at(10_011):
        # A list makes some of them visible, and need not have all at once.
        store.list(queue, limit=200)
        assert store.list(queue, limit=200) == ['earlier', *range(150)]


def test_delayed_messages_are_listed_in_their_places_on_demand(store: Store) -> None:
    queue = store.queue(_default_message_delay=30)
    expected = []
    for number in range(4):
        store.post(queue, number, delay=0)
        store.post(queue, f'later {number}', f'last {number}', delay=30)
        expected += [number, f'later {number}', f'last {number}']
    assert store.list(queue, include_delayed=True, limit=20) == expected
    marker, listed = None, []
    while len(listed) < len(expected):
        page, following = store.messages.list(
            queue, marker=marker, limit=5, echo=True, include_delayed=True
        )
        listed += [one['body'] for one in page]
        marker = following
    assert listed == expected
    [deleted] = [
        one['id']
        for one in next(store.messages.list(queue, echo=True, include_delayed=True))
        if one['body'] == 'later 0'
    ]
    store.messages.delete(queue, deleted)
    expected.remove('later 0')
    assert store.list(queue, include_delayed=True, limit=20) == expected


def test_ids_count_within_their_queue_and_project(store: Store) -> None:
    queue, other = store.queue(), store.queue()
    [message_id] = store.post(queue, 'x')
    store.queues.create(queue, project='p')
    for place in ((other, 'shop'), (queue, 'p')):
        with pytest.raises(errors.DoesNotExist):
            store.messages.get(place[0], message_id, project=place[1])
        assert list(store.messages.bulk_get(place[0], [message_id], project=place[1])) == []
        store.messages.delete(place[0], message_id, project=place[1])
        store.messages.bulk_delete(place[0], [message_id], project=place[1])
    assert store.list(queue) == ['x']


def test_several_messages_are_got_at_once(store: Store) -> None:
    queue = store.queue()
    ids = store.post(queue, *range(3))
    store.messages.delete(queue, ids[1])
    found = store.messages.bulk_get(queue, [*ids, 'nonsense', str(uuid.uuid4())])
    assert [one['body'] for one in found] == [0, 2]


def test_a_queue_must_exist(store: Store) -> None:
    with pytest.raises(errors.QueueDoesNotExist):
        store.post('nowhere', 'x')


def test_a_post_with_an_id_is_made_once(store: Store) -> None:
    queue, other = store.queue(), store.queue()
    ids = store.post(queue, 'x', post_id='p1')
    assert store.post(queue, 'x', post_id='p1') == ids
    assert store.list(queue) == ['x']
    # It is known in its queue only, and is not mistaken for another.
    assert store.post(other, 'x', post_id='p1') != ids
    assert store.post(queue, 'x', post_id='p2') != ids


def test_a_post_with_an_id_is_found(store: Store) -> None:
    queue, other = store.queue(), store.queue()
    ids = store.post(queue, 'x', 'y', post_id='p1')
    store.post(queue, 'z')
    assert store.messages.find_post(queue, 'p1', 2) == ids
    # Its messages may be gone.
    store.messages.bulk_delete(queue, ids)
    assert store.messages.find_post(queue, 'p1', 2) == ids
    for name, post_id in ((queue, 'p2'), (other, 'p1'), ('nowhere', 'p1')):
        assert store.messages.find_post(name, post_id, 2) is None
    assert store.messages.find_post(queue, 'p1', 2, project='another') is None
    # It is forgotten with the queue.
    store.queues.delete(queue)
    assert store.messages.find_post(queue, 'p1', 2) is None
    store.queues.create(queue)
    assert store.messages.find_post(queue, 'p1', 2) is None


def test_a_post_id_is_forgotten_with_the_queue(store: Store) -> None:
    queue = store.queue()
    ids = store.post(queue, 'x', post_id='p1')
    store.queues.delete(queue)
    store.queues.create(queue)
    assert store.post(queue, 'x', post_id='p1') != ids
    assert store.list(queue) == ['x']


def test_a_claimed_message_is_deleted_by_its_claim_only(store: Store) -> None:
    queue = store.queue()
    ids = store.post(queue, *range(3))
    claim, _ = store.claim(queue, limit=1)
    another, _ = store.claim(queue, limit=1)
    with pytest.raises(errors.MessageIsClaimed):
        store.messages.delete(queue, ids[0])
    with pytest.raises(errors.MessageNotClaimedBy):
        store.messages.delete(queue, ids[0], claim=another)
    with pytest.raises(errors.MessageNotClaimed):
        store.messages.delete(queue, ids[2], claim=claim)
    with pytest.raises(errors.ClaimDoesNotExist):
        store.messages.delete(queue, ids[0], claim='nonsense')
    store.messages.delete(queue, ids[0], claim=claim)
    # It is gone, which is no error.
    store.messages.delete(queue, ids[0], claim=claim)
    assert store.list(queue, include_claimed=True) == [1, 2]


def test_messages_are_deleted_together_or_not_at_all(store: Store) -> None:
    queue = store.queue()
    ids = store.post(queue, *range(3))
    claim, _ = store.claim(queue, limit=2)
    with pytest.raises(errors.ExceptionBase):
        store.messages.bulk_delete(queue, ids, claim_ids=[claim])
    assert store.list(queue, include_claimed=True) == [0, 1, 2]
    store.messages.bulk_delete(queue, ids[:2], claim_ids=[claim])
    assert store.list(queue, include_claimed=True) == [2]
    store.messages.bulk_delete(queue, [*ids, 'nonsense'])
    assert store.list(queue, include_claimed=True) == []


def test_messages_are_taken_from_the_front(store: Store) -> None:
    queue = store.queue()
    store.post(queue, *range(4))
    store.claim(queue, limit=1)
    assert [one['body'] for one in store.messages.pop(queue, 2)] == [1, 2]
    assert store.list(queue, include_claimed=True) == [0, 3]
    assert store.counts(queue) == (1, 1)


def test_popped_messages_go_back_to_their_places(store: Store) -> None:
    queue = store.queue()
    ids = store.post(queue, *range(4))
    popped = store.messages.pop(queue, 2)
    store.post(queue, 4)
    store.messages.restore(queue, popped)
    assert store.list(queue) == [0, 1, 2, 3, 4]
    assert store.list(queue, marker=ids[0]) == [1, 2, 3, 4]


def damage(store: Store, message_id: str, request: pytest.FixtureRequest) -> None:
    """Make the stored body of a message unreadable."""
    driver = store.data._storage
    if store.name == 'sqlite':
        statement = 'UPDATE messages SET body = ? WHERE id = ?'
        driver.database.write(
            lambda cursor: cursor.execute(statement, ('{bad', int(message_id, 16)))
        )
    elif store.name == 'postgresql':
        with request.getfixturevalue('postgres').connect() as connection:
            schema = driver.server.address.schema
            # The number of a message is of its queue; the newest queue has the highest number.
            statement = (
                f'UPDATE {schema}.messages SET body = %s WHERE position = %s '
                f'AND spool = (SELECT max(spool) FROM {schema}.messages)'
            )
            connection.execute(statement, (b'{bad', int(message_id, 16)))
    else:
        store.redis.client.hset(message_id, 'b', b'\xa2\xff\xfe')


@pytest.mark.parametrize('metadata', [{}, {'_ordered_groups': True}], ids=['', 'groups'])
def test_an_unreadable_body_costs_no_other_message(
    store: Store, metadata: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    if store.name == 'upstream' or (metadata and not store.features.offered):
        pytest.skip('is not for this store')
    queue = store.queue(**metadata)
    ids = store.post(queue, *range(5))
    damage(store, ids[1], request)
    for _ in range(2):
        with pytest.raises(UndecodableValue, match=queue):
            store.messages.pop(queue, 3)
        with pytest.raises(UndecodableValue, match=queue):
            store.claim(queue, limit=3)
        assert store.counts(queue) == (0, 5)
    assert [one['body'] for one in store.messages.pop(queue, 1)] == [0]
    store.messages.delete(queue, ids[1])
    claim_id, found = store.claim(queue, limit=3)
    assert claim_id
    assert [one['body'] for one in found] == [2, 3, 4]


def test_a_body_with_an_unreadable_spelling_is_given_back(store: Store) -> None:
    if store.name not in ('native', 'unshared', 'valkey'):
        pytest.skip('has no spellings')
    queue = store.queue()
    ids = store.post(queue, *range(3))
    for spelling in (b'\x00{bad', b'\xff', b'\x02\xc1'):
        store.redis.client.hset(ids[1], 's', spelling)
        with pytest.raises(UndecodableValue):
            store.messages.pop(queue, 3)
        with pytest.raises(UndecodableValue):
            store.claim(queue, limit=3)
        assert store.counts(queue) == (0, 3)
        assert store.redis.client.hget(ids[1], 's') == spelling
    store.redis.client.hdel(ids[1], 's')
    assert [one['body'] for one in store.messages.pop(queue, 3)] == [0, 1, 2]


def test_a_purge_leaves_what_is_claimed(store: Store) -> None:
    queue = store.queue()
    store.post(queue, *range(700))
    store.claim(queue, limit=3)
    store.purge(queue)
    assert store.list(queue, include_claimed=True) == [0, 1, 2]
    store.purge('nowhere')


def test_the_first_and_the_last_message_are_found(store: Store) -> None:
    queue = store.queue()
    with pytest.raises(errors.QueueIsEmpty):
        store.messages.first(queue)
    store.post(queue, *range(3))
    assert store.messages.first(queue, sort=1)['body'] == 0
    assert store.messages.first(queue, sort=-1)['body'] == 2


def test_expired_messages_are_gone(store: Store) -> None:
    queue = store.queue()
    ids = store.post(queue, 'short', ttl=60)
    store.post(queue, 'long')
    with store.later(60):
        assert store.list(queue) == ['long']
        with pytest.raises(errors.MessageDoesNotExist):
            store.messages.get(queue, ids[0])
        assert list(store.messages.bulk_get(queue, ids)) == []


def test_expired_messages_are_not_counted(store: Store) -> None:
    queue = store.queue()
    store.post(queue, 'short', ttl=60)
    store.post(queue, 'long', ttl=120)
    with store.later(59):
        assert store.counts(queue) == (0, 2)
    with store.later(60):
        assert store.counts(queue) == (0, 1)
        assert store.queues.stats(queue)['messages']['oldest']['age'] == 60
    with store.later(120):
        assert store.counts(queue) == (0, 0)
        assert 'oldest' not in store.queues.stats(queue)['messages']


def test_a_deleted_queue_leaves_nothing(store: Store) -> None:
    queue = store.queue()
    ids = store.post(queue, *range(3))
    claim, _ = store.claim(queue)
    store.queues.delete(queue)
    assert not store.queues.exists(queue)
    with pytest.raises(errors.QueueDoesNotExist):
        store.queues.stats(queue)
    store.queues.create(queue)
    assert store.counts(queue) == (0, 0)
    assert store.list(queue, include_claimed=True) == []
    assert list(store.messages.bulk_get(queue, ids)) == []
    with pytest.raises(errors.ClaimDoesNotExist):
        store.claims.get(queue, claim)
