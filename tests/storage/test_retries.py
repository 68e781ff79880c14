"""Retries after a delay, and single messages of a claim settled by themselves."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.storage.conftest import Store
from zaqar_gevent.retry_delays import RetryDelay
from zaqar_gevent.settlements import Settle, Settlement
from zaqar_gevent.storage.features import Feature


@pytest.fixture(autouse=True)
def capable(store: Store) -> None:
    if Feature.RETRIES not in store.features.offered:
        pytest.skip('the store cannot delay retries, as it declares')


def claim(store: Store, queue: str, limit: int = 10, **more: Any) -> tuple[str, list[Any]]:
    lease = {'ttl': 60, 'grace': 60, **more}
    claim_id, found = store.claims.create(queue, lease, limit=limit)
    return claim_id, list(found)


def bodies(found: list[Any]) -> list[Any]:
    return [one['body'] for one in found]


def settle(store: Store, queue: str, *settlements: Settlement) -> list[bool]:
    """Whether each was settled."""
    return [one is None for one in store.claims.settle(queue, settlements)]


def test_a_claim_given_back_with_a_delay_is_hidden_until_it_is_over(store: Store) -> None:
    queue = store.queue()
    store.post(queue, 1, 2)
    claim_id, _ = claim(store, queue)
    store.post(queue, 3)
    store.claims.delete(queue, claim_id, delay=30)
    assert store.list(queue) == [3]
    assert store.list(queue, include_delayed=True) == [1, 2, 3]
    assert store.counts(queue) == (0, 3)
    with store.later(28):
        assert bodies(claim(store, queue, ttl=1)[1]) == [3]
    with store.later(32):
        # Each keeps its position.
        assert store.list(queue) == [1, 2, 3]
        assert bodies(claim(store, queue)[1]) == [1, 2, 3]


def test_without_a_delay_it_is_free_at_once(store: Store) -> None:
    queue = store.queue()
    store.post(queue, 1)
    for delay in ({}, {'delay': 0}):
        claim_id, found = claim(store, queue)
        assert bodies(found) == [1]
        store.claims.delete(queue, claim_id, **delay)
    assert store.list(queue) == [1]


def test_the_delay_of_a_queue_grows_with_each_claim(store: Store) -> None:
    queue = store.queue()
    store.post(queue, 1)
    retry = RetryDelay(initial=10, factor=3, max=60)
    passed = 0
    for delay in (10, 30, 60, 60):
        with store.later(passed):
            claim_id, found = claim(store, queue, retry=retry)
            assert bodies(found) == [1]
            store.claims.delete(queue, claim_id)
        with store.later(passed + delay - 2):
            assert not claim(store, queue)[1]
            assert store.list(queue) == []
        passed += delay + 1
    with store.later(passed):
        claim_id, _ = claim(store, queue, retry=retry)
        # What is asked for counts instead.
        store.claims.delete(queue, claim_id, delay=0)
        assert store.list(queue) == [1]


def test_it_counts_from_when_a_lease_has_expired(store: Store) -> None:
    queue = store.queue()
    store.post(queue, 1, 2)
    retry = RetryDelay(initial=30, factor=1, max=30)
    claim(store, queue, limit=1, retry=retry)
    claim(store, queue, limit=1)
    with store.later(62):
        assert store.list(queue) == [2]
        assert bodies(claim(store, queue, limit=1, ttl=1)[1]) == [2]
        assert not claim(store, queue)[1]
    with store.later(93):
        assert bodies(claim(store, queue)[1]) == [1, 2]


def test_a_renewed_lease_is_delayed_from_its_new_end(store: Store) -> None:
    queue = store.queue()
    store.post(queue, 1)
    claim_id, _ = claim(store, queue, retry=RetryDelay(initial=30, factor=1, max=30))
    with store.later(40):
        store.claims.update(queue, claim_id, {'ttl': 60, 'grace': 60})
    with store.later(95):
        assert bodies(list(store.claims.get(queue, claim_id)[1])) == [1]
        assert store.list(queue, include_claimed=True) == [1]
    with store.later(125):
        assert not claim(store, queue)[1]
    with store.later(133):
        assert bodies(claim(store, queue)[1]) == [1]


def test_single_messages_are_released_deleted_and_kept(store: Store) -> None:
    queue = store.queue()
    ids = store.post(queue, *range(5))
    claim_id, _ = claim(store, queue)
    done = settle(
        store,
        queue,
        Settlement(Settle.DELETE, ids[0], claim_id),
        Settlement(Settle.RELEASE, ids[1], claim_id),
        Settlement(Settle.RELEASE, ids[2], claim_id, delay=30),
        Settlement(Settle.RELEASE, ids[2], claim_id),
        Settlement(Settle.DELETE, ids[3], 'f' * 32),
        Settlement(Settle.RELEASE, 'none', claim_id),
        Settlement(Settle.DELETE, ids[3], None),
        Settlement(Settle.EXTEND, ids[1], claim_id, ttl=60, grace=60),
    )
    assert done == [True, True, True, False, False, False, False, False]
    assert store.list(queue) == [1]
    assert bodies(list(store.claims.get(queue, claim_id)[1])) == [3, 4]
    assert store.counts(queue) == (2, 2)
    with store.later(33):
        assert store.list(queue) == [1, 2]


def test_a_message_may_have_a_longer_lease_than_its_claim(store: Store) -> None:
    queue = store.queue()
    ids = store.post(queue, 1, 2, 3)
    claim_id, _ = claim(store, queue)
    extended = [
        Settlement(Settle.EXTEND, one, claim_id, ttl=300, grace=60) for one in (ids[0], ids[2])
    ]
    assert settle(store, queue, *extended) == [True, True]
    assert store.counts(queue) == (3, 0)
    with store.later(62):
        assert store.list(queue) == [2]
        assert store.counts(queue) == (2, 1)
        assert bodies(list(store.claims.get(queue, claim_id)[1])) == [1, 3]
        assert settle(store, queue, Settlement(Settle.DELETE, ids[0], claim_id)) == [True]
        store.messages.delete(queue, ids[2], claim=claim_id)
        assert store.list(queue, include_claimed=True) == [2]


def test_a_claim_tells_the_time_that_its_messages_have_been_given(store: Store) -> None:
    queue = store.queue()
    ids = store.post(queue, 'x', 'y')
    claim_id, _ = store.claim(queue)
    more = [Settlement(Settle.EXTEND, one, claim_id, ttl=600, grace=60) for one in ids]
    assert store.claims.settle(queue, more) == [None, None]
    described, _ = store.claims.get(queue, claim_id)
    assert described['ttl'] == 600
    assert described['age'] in (0, 1)


def test_a_renewed_or_released_claim_has_all_its_leases(store: Store) -> None:
    queue = store.queue()
    ids = store.post(queue, 1, 2)
    claim_id, _ = claim(store, queue)
    extend = Settlement(Settle.EXTEND, ids[0], claim_id, ttl=120, grace=60)
    assert settle(store, queue, extend) == [True]
    store.claims.update(queue, claim_id, {'ttl': 200, 'grace': 60})
    with store.later(190):
        assert store.list(queue) == []
        assert bodies(list(store.claims.get(queue, claim_id)[1])) == [1, 2]
        store.claims.delete(queue, claim_id)
        assert store.list(queue) == [1, 2]
        assert store.counts(queue) == (0, 2)


def test_a_rejected_message_is_a_dead_letter_at_once(store: Store) -> None:
    dead = store.queue()
    queue = store.queue(_dead_letter_queue=dead)
    ids = store.post(queue, 1, 2, attributes={'a': 'b'})
    claim_id, _ = claim(store, queue)
    rejections = (
        Settlement(Settle.REJECT, ids[1], claim_id, reason='it has no "sku" ä'),
        Settlement(Settle.REJECT, ids[1], claim_id),
    )
    assert settle(store, queue, *rejections) == [True, False]
    [found] = next(store.messages.list(dead, echo=True))
    facts = found['dead_letter']
    assert facts.pop('at').endswith('Z')
    assert facts == {
        'queue': queue,
        'message_id': ids[1],
        'claim_count': 1,
        'reason': 'it has no "sku" ä',
        'ttl': 300,
    }
    assert (found['body'], found['attributes']) == (2, {'a': 'b'})
    assert store.list(queue, include_claimed=True) == [1]
    assert store.counts(queue) == (1, 0)
    assert store.counts(dead) == (0, 1)


def test_what_was_claimed_too_often_says_where_it_is_from(store: Store) -> None:
    dead = store.queue()
    queue = store.queue(_dead_letter_queue=dead, _max_claim_count=2)
    [message_id] = store.post(queue, 1)
    for _ in range(2):
        claim_id, found = claim(store, queue)
        assert bodies(found) == [1]
        store.claims.delete(queue, claim_id)
    assert not claim(store, queue)[1]
    [found_dead] = next(store.messages.list(dead, echo=True))
    facts = found_dead['dead_letter']
    assert (facts['queue'], facts['message_id']) == (queue, message_id)
    assert (facts['claim_count'], facts.get('reason')) == (2, None)


def test_a_dead_letter_queue_is_made_with_the_first_rejected_message(store: Store) -> None:
    dead = f'dead-{uuid.uuid4().hex}'
    queue = store.queue(_dead_letter_queue=dead)
    ids = store.post(queue, 1, 2)
    claim_id, _ = claim(store, queue, limit=1)
    assert settle(store, queue, Settlement(Settle.REJECT, ids[1], claim_id)) == [False]
    assert not store.queues.exists(dead)
    assert settle(store, queue, Settlement(Settle.REJECT, ids[0], claim_id)) == [True]
    assert store.counts(dead) == (0, 1)
    assert store.queues.get_metadata(dead) == {}


def test_no_dead_letter_queue_is_made_where_a_topic_has_its_name(store: Store) -> None:
    dead = f'dead-{uuid.uuid4().hex}'
    queue = store.queue(_dead_letter_queue=dead)
    store.topics.create(dead)
    [message_id] = store.post(queue, 1)
    claim_id, _ = claim(store, queue)
    assert settle(store, queue, Settlement(Settle.REJECT, message_id, claim_id)) == [True]
    assert not store.queues.exists(dead)
    assert store.list(dead) == [1]


def test_a_rejection_says_why_dead_letters_cannot_be_moved(store: Store) -> None:
    from zaqar_gevent.dead_letters import NoDeadLetterQueue

    queue, other = store.queue(), store.queue()
    store.queues.set_metadata(queue, {'_dead_letter_queue': other})
    store.queues.set_metadata(other, {'_dead_letter_queue': queue})
    [message_id] = store.post(queue, 1)
    claim_id, _ = claim(store, queue)
    with pytest.raises(NoDeadLetterQueue, match=f'{queue} -> {other} -> {queue}'):
        settle(store, queue, Settlement(Settle.REJECT, message_id, claim_id))


def test_nothing_can_be_rejected_without_a_dead_letter_queue(store: Store) -> None:
    from zaqar_gevent.dead_letters import NoDeadLetterQueue

    queue = store.queue()
    [message_id] = store.post(queue, 1)
    claim_id, _ = claim(store, queue)
    with pytest.raises(NoDeadLetterQueue):
        settle(store, queue, Settlement(Settle.REJECT, message_id, claim_id))
    assert store.counts(queue) == (1, 0)


@pytest.mark.parametrize('claim_id', ['', ' ', '\t', '-', '\0'])
@pytest.mark.parametrize('kind', Settle)
def test_a_free_message_is_not_held_by_an_empty_claim(
    store: Store, kind: Settle, claim_id: str
) -> None:
    queue = store.queue(_dead_letter_queue=store.queue())
    ids = store.post(queue, 1, 2)
    claimed, _ = claim(store, queue, limit=1)
    more = {'ttl': 60, 'grace': 60} if kind is Settle.EXTEND else {}
    refused = [Settlement(kind, one, claim_id, **more) for one in ids]
    own = Settlement(kind, ids[0], claimed, **more)
    # The others do not hold up the one that can be settled.
    assert settle(store, queue, *refused, own) == [False, False, True]
    assert store.list(queue)[-1] == 2


@pytest.mark.parametrize('singly', [False, True])
def test_a_retry_is_due_to_the_fraction_of_a_second(store: Store, singly: bool) -> None:
    queue = store.queue()
    ids = store.post(queue, 1)
    # A second of the store's clock begins and ends with one of the clock.
    for fraction in (0.25, 0.75):
        with store.at(fraction):
            claim_id, _ = claim(store, queue)
            if singly:
                assert settle(
                    store, queue, Settlement(Settle.RELEASE, ids[0], claim_id, delay=0.5)
                ) == [True]
            else:
                store.claims.delete(queue, claim_id, delay=0.5)
        with store.at(fraction + 0.45):
            assert store.list(queue) == []
            assert not claim(store, queue)[1]
        with store.at(fraction + 0.55):
            assert store.list(queue) == [1]
            claim_id, found = claim(store, queue)
            assert bodies(found) == [1]
            store.claims.delete(queue, claim_id, delay=0)


def test_what_waits_for_its_retry_is_not_claimed_but_there(store: Store) -> None:
    queue = store.queue()
    ids = store.post(queue, *range(5))
    claim_id, _ = claim(store, queue, limit=4)
    store.claims.delete(queue, claim_id, delay=30)
    assert store.list(queue, include_claimed=True) == [4]
    assert store.list(queue, include_claimed=True, include_delayed=True) == [*range(5)]
    assert store.messages.get(queue, ids[0])['claim_id'] is None
    store.messages.delete(queue, ids[0])
    store.messages.bulk_delete(queue, [ids[1]])
    assert store.counts(queue) == (0, 3)
    # What has not been claimed goes on meanwhile.
    second, found = claim(store, queue, ttl=60)
    assert bodies(found) == [4]
    assert store.counts(queue) == (1, 2)
    store.purge(queue)
    assert store.counts(queue) == (1, 0)
    with store.later(35):
        assert store.list(queue, include_claimed=True) == [4]
        store.messages.delete(queue, ids[4], claim=second)
        assert store.counts(queue) == (0, 0)


def test_what_expires_while_it_waits_is_gone(store: Store) -> None:
    queue = store.queue()
    store.post(queue, 1, ttl=60)
    claim_id, _ = claim(store, queue, ttl=10, grace=0)
    store.claims.delete(queue, claim_id, delay=300)
    store.post(queue, 2)
    with store.later(90):
        assert store.counts(queue) == (0, 1)
        assert store.list(queue, include_delayed=True) == [2]
        store.data.gc()
        assert store.counts(queue) == (0, 1)


def test_a_single_message_is_delayed_by_what_the_queue_says(store: Store) -> None:
    # Later than the clock of what runs by itself.
    start = 10_000
    with store.at(start):
        queue = store.queue()
        ids = store.post(queue, 1, 2, ttl=900)
        claim_id, _ = claim(store, queue, retry=RetryDelay(initial=20, factor=1, max=20))
        extend = Settlement(Settle.EXTEND, ids[1], claim_id, ttl=300, grace=60)
        release = Settlement(Settle.RELEASE, ids[0], claim_id)
        assert settle(store, queue, extend, release) == [True, True]
        assert store.counts(queue) == (1, 1)
    with store.at(start + 19):
        assert not claim(store, queue)[1]
    with store.at(start + 21):
        assert bodies(claim(store, queue, ttl=1)[1]) == [1]
    with store.at(start + 310):
        # Its own lease has ended, from which on its retry is delayed.
        assert store.list(queue) == [1]
    with store.at(start + 321):
        assert bodies(claim(store, queue)[1]) == [1, 2]


def test_many_are_settled_by_their_own_leases(store: Store) -> None:
    queue = store.queue()
    ids = store.post(queue, *range(3))
    claim_id, _ = claim(store, queue)
    extend = Settlement(Settle.EXTEND, ids[0], claim_id, ttl=300, grace=60)
    assert settle(store, queue, extend) == [True]
    store.messages.bulk_delete(queue, ids[:2], claim_ids=[claim_id])
    assert store.list(queue, include_claimed=True) == [2]
    assert store.messages.get(queue, ids[2])['claim_id'] in (
        claim_id,
        str(uuid.UUID(claim_id)),
    )


def test_a_reason_may_be_any_text(store: Store) -> None:
    dead = store.queue()
    queue = store.queue(_dead_letter_queue=dead)
    reasons = ['a"b\\c\n', 'a\0b', '\U0001f600', '{}', "'; --", '', '=']
    ids = store.post(queue, *reasons)
    claim_id, _ = claim(store, queue)
    rejections = [
        Settlement(Settle.REJECT, one, claim_id, reason=reason)
        for one, reason in zip(ids, reasons, strict=True)
    ]
    assert settle(store, queue, *rejections) == [True] * len(reasons)
    found = list(next(store.messages.list(dead, echo=True)))
    assert bodies(found) == reasons
    assert [one['dead_letter']['reason'] for one in found] == reasons


@pytest.mark.parametrize(
    ('ttl', 'lease', 'grace', 'lives'), [(600, 60, 600, 660), (600, 599, 900, 1499)]
)
def test_an_extended_message_outlives_its_lease_by_the_grace(
    store: Store, ttl: int, lease: int, grace: int, lives: int
) -> None:
    queue = store.queue()
    with store.at(0):
        [message_id] = store.post(queue, 1, ttl=ttl)
        # With the lease that it has, and with a longer one.
        claim_id, _ = claim(store, queue, ttl=60, grace=0)
        extend = Settlement(Settle.EXTEND, message_id, claim_id, ttl=lease, grace=grace)
        assert settle(store, queue, extend) == [True]
        if store.redis is not None:
            assert store.redis.client.ttl(message_id) > ttl
    with store.at(lives - 1):
        assert store.list(queue) == [1]
    with store.at(lives):
        assert store.list(queue) == []


def test_a_claim_has_the_ttl_of_the_lease_that_ends_first(store: Store) -> None:
    queue = store.queue()

    def look() -> tuple[int, int]:
        found, _ = store.claims.get(queue, claim_id)
        return found['ttl'], found['age']

    with store.at(0):
        ids = store.post(queue, *range(3), ttl=9000)
        claim_id, _ = claim(store, queue, ttl=100)
    with store.at(10):
        settle(store, queue, Settlement(Settle.EXTEND, ids[0], claim_id, ttl=600, grace=60))
        assert look() == (100, 10)
        settle(store, queue, Settlement(Settle.EXTEND, ids[1], claim_id, ttl=60, grace=60))
        assert look() == (60, 0)
    with store.at(80):
        # The shortest lease has ended.
        assert look() == (100, 80)
    with store.at(110):
        assert look() == (600, 100)
        store.claims.update(queue, claim_id, {'ttl': 90, 'grace': 60})
        assert look() == (90, 0)
        assert store.counts(queue) == (1, 2)


@pytest.mark.parametrize('is_scheduled', [False, True])
def test_what_is_not_due_is_neither_the_oldest_nor_the_newest(
    store: Store, is_scheduled: bool
) -> None:
    queue = store.queue()
    later = {'delay': 500, 'scheduled': is_scheduled}
    with store.at(0):
        store.post(queue, 'later', ttl=900, **later)
        stats = store.queues.stats(queue)['messages']
        assert stats['total'] == 1
        assert 'oldest' not in stats
        assert 'newest' not in stats
        ids = store.post(queue, 'first', 'last', ttl=900)
        store.post(queue, 'later', ttl=900, **later)
        claim_id, _ = claim(store, queue)
        store.claims.delete(queue, claim_id, delay=300)
        # What waits for its retry has been there before.
        stats = store.queues.stats(queue)['messages']
        assert [stats[edge]['id'] for edge in ('oldest', 'newest')] == ids
        assert stats['total'] == 4
