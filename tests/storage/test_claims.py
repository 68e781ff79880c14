"""Claims: leases, and what becomes of messages when they end."""

from __future__ import annotations

import functools
import pathlib
import uuid
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from zaqar.common import cache
from zaqar.storage import errors

from tests.storage.conftest import Store, load
from zaqar_gevent import dead_letters
from zaqar_gevent.settlements import Settle, Settlement
from zaqar_gevent.storage import drivers
from zaqar_gevent.storage import sqlite as embedded
from zaqar_gevent.storage.features import Feature


def bodies(messages: list[dict[str, Any]]) -> list[Any]:
    return [one['body'] for one in messages]


def test_the_oldest_free_messages_are_claimed(store: Store) -> None:
    queue = store.queue()
    store.post(queue, *range(5))
    first, messages = store.claim(queue, limit=2)
    assert bodies(messages) == [0, 1]
    assert {one['claim_id'] for one in messages} == {first}
    assert bodies(store.claim(queue, limit=2)[1]) == [2, 3]
    assert store.list(queue) == [4]
    assert store.counts(queue) == (4, 1)
    assert bodies(list(store.claims.get(queue, first)[1])) == [0, 1]


def test_there_may_be_nothing_to_claim(store: Store) -> None:
    assert store.claim(store.queue())[1] == []


def test_those_who_claim_at_once_have_different_messages(store: Store) -> None:
    queue = store.queue()
    store.post(queue, *range(25))
    claims = at_once(*[lambda: store.claim(queue, limit=4)] * 9)
    found = [bodies(messages) for _, messages in claims]
    assert sorted(map(len, found)) == [0, 0, 1, 4, 4, 4, 4, 4, 4]
    assert sorted(body for one in found for body in one) == list(range(25))
    for (claim, messages), own in zip(claims, found, strict=True):
        assert {one['claim_id'] for one in messages} <= {claim}
        if own:
            assert own == list(range(own[0], own[0] + len(own)))
            assert bodies(list(store.claims.get(queue, claim)[1])) == own
    assert store.counts(queue) == (25, 0)
    assert store.claim(queue)[1] == []


def test_those_who_claim_at_once_share_what_has_come_back(store: Store) -> None:
    """And what was never claimed, in one order."""
    queue = store.queue()
    store.post(queue, *range(3))
    claim, _ = store.claim(queue, limit=2)
    store.claims.delete(queue, claim)
    store.post(queue, *range(3, 7))
    claims = at_once(*[lambda: store.claim(queue, limit=3)] * 4)
    found = sorted(bodies(messages) for _, messages in claims)
    assert found == [[], [0, 1, 2], [3, 4, 5], [6]]


def test_claims_at_once_keep_their_own_leases(store: Store) -> None:
    queue = store.queue()
    with store.at(0):
        store.post(queue, *range(8))
        ttls = (60, 200, 60, 200)
        claims = at_once(*[functools.partial(store.claim, queue, limit=2, ttl=ttl) for ttl in ttls])
    with store.at(61):
        for (claim, messages), ttl in zip(claims, ttls, strict=True):
            if ttl == 60:
                with pytest.raises(errors.ClaimDoesNotExist):
                    store.claims.get(queue, claim)
            else:
                assert list(store.claims.get(queue, claim)[1])
                assert len(messages) == 2
        assert store.counts(queue) == (4, 4)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What calls return that are made at the same time, or the errors that they raise."""

    def attempt(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except errors.ExceptionBase as error:
            return error

    greenlets = [gevent.spawn(attempt, call) for call in calls]
    gevent.joinall(greenlets, timeout=60, raise_error=True)
    return [greenlet.get(block=False) for greenlet in greenlets]


def test_a_refused_deletion_is_no_harm_to_others_at_once(store: Store) -> None:
    queue = store.queue()
    ids = store.post(queue, *range(14))
    claims = [store.claim(queue, limit=2)[0] for _ in range(6)]
    store.claims.delete(queue, claims[1])
    own = [ids[first : first + 2] for first in range(0, 12, 2)]
    wanted = [
        (own[0], claims[0]),
        # The claim has been released.
        (own[1], claims[1]),
        # One of them was never claimed.
        ([*own[2], ids[12]], claims[2]),
        # Each names the messages of the other.
        (own[3], claims[4]),
        (own[4], claims[3]),
        (own[5], claims[5]),
    ]
    outcomes = at_once(
        *[
            functools.partial(store.messages.bulk_delete, queue, some, claim_ids=[claim])
            for some, claim in wanted
        ]
    )
    assert [isinstance(one, errors.ExceptionBase) for one in outcomes] == [
        *(False, True, True, True, True, False)
    ]
    assert store.list(queue, include_claimed=True) == [2, 3, 4, 5, 6, 7, 8, 9, 12, 13]
    assert store.counts(queue) == (6, 4)


def test_deletions_at_once_are_each_under_a_claim(store: Store) -> None:
    """Of single messages."""
    queue = store.queue()
    ids = store.post(queue, *range(6))
    first, _ = store.claim(queue, limit=2)
    second, _ = store.claim(queue, limit=2)

    def delete(message_id: str, **claim: str) -> Callable[[], Any]:
        return functools.partial(store.messages.delete, queue, message_id, **claim)

    outcomes = at_once(
        delete(ids[0], claim=first),
        delete(ids[1], claim=second),
        delete(ids[2], claim=second),
        delete(ids[3]),
        delete(ids[4], claim=first),
        delete(ids[5]),
        delete(ids[0], claim=first),
        delete('nonsense', claim=first),
    )
    assert [type(one) for one in outcomes] == [
        type(None),
        errors.MessageNotClaimedBy,
        type(None),
        errors.MessageIsClaimed,
        errors.MessageNotClaimed,
        *[type(None)] * 3,
    ]
    assert store.list(queue, include_claimed=True) == [1, 3, 4]
    assert store.counts(queue) == (2, 1)


def test_a_claim_ends_by_itself(store: Store) -> None:
    queue = store.queue()
    with store.at(0):
        store.post(queue, *range(2))
        claim, _ = store.claim(queue, ttl=60)
    with store.at(59):
        assert store.counts(queue) == (2, 0)
        assert store.claims.get(queue, claim)[0] == {'id': claim, 'ttl': 60, 'age': 59}
    with store.at(60):
        assert store.counts(queue) == (0, 2)
        assert store.list(queue) == [0, 1]
        with pytest.raises(errors.ClaimDoesNotExist):
            store.claims.get(queue, claim)
        with pytest.raises(errors.ClaimDoesNotExist):
            store.claims.update(queue, claim, {'ttl': 60, 'grace': 60})
        assert bodies(store.claim(queue)[1]) == [0, 1]


def test_a_claim_is_renewed(store: Store) -> None:
    queue = store.queue()
    store.post(queue, 'x')
    claim, _ = store.claim(queue, ttl=60)
    with store.later(50):
        store.claims.update(queue, claim, {'ttl': 100, 'grace': 60})
        renewed = store.claims.get(queue, claim)[0]
        assert (renewed['id'], renewed['ttl']) == (claim, 100)
        assert renewed['age'] < 50
    with store.later(140):
        assert store.counts(queue) == (1, 0)
        assert store.claim(queue)[1] == []
    with store.later(150):
        assert store.counts(queue) == (0, 1)


def test_a_claim_is_released(store: Store) -> None:
    queue = store.queue()
    store.post(queue, *range(2))
    claim, _ = store.claim(queue)
    store.claims.delete(queue, claim)
    assert store.counts(queue) == (0, 2)
    with pytest.raises(errors.ClaimDoesNotExist):
        store.claims.get(queue, claim)
    # It is gone, which is no error.
    store.claims.delete(queue, claim)
    assert bodies(store.claim(queue)[1]) == [0, 1]


def test_a_claim_counts_within_its_queue_and_project(store: Store) -> None:
    queue, other = store.queue(), store.queue()
    store.post(queue, 'x')
    claim, _ = store.claim(queue)
    with pytest.raises(errors.ClaimDoesNotExist):
        store.claims.get(other, claim)
    with pytest.raises(errors.ClaimDoesNotExist):
        store.claims.update(queue, claim, {'ttl': 60, 'grace': 60}, project='p')
    store.claims.delete(other, claim)
    assert store.counts(queue) == (1, 0)


def test_a_claim_keeps_its_messages_alive(store: Store) -> None:
    queue = store.queue()
    with store.at(0):
        store.post(queue, 'x', ttl=60)
        claim, [message] = store.claim(queue, ttl=100, grace=50)
        assert message['ttl'] == 150
        store.claims.update(queue, claim, {'ttl': 300, 'grace': 50})
    with store.at(299):
        assert bodies(list(store.claims.get(queue, claim)[1])) == ['x']
    with store.at(349):
        assert store.list(queue) == ['x']
    with store.at(350):
        assert store.list(queue) == []


@pytest.mark.parametrize(
    ('ttl', 'lease', 'grace', 'lives'),
    [(600, 60, 600, 660), (600, 600, 600, 1200), (600, 599, 900, 1499), (900, 60, 60, 900)],
)
@pytest.mark.parametrize('is_renewed', [False, True])
def test_a_message_outlives_its_lease_by_the_grace(
    store: Store, ttl: int, lease: int, grace: int, lives: int, is_renewed: bool
) -> None:
    """Also where it would not expire before the end of the lease, but before that of the grace."""
    queue = store.queue()
    with store.at(0):
        [message_id] = store.post(queue, 'x', ttl=ttl)
        if is_renewed:
            claim, _ = store.claim(queue, ttl=60, grace=0)
            store.claims.update(queue, claim, {'ttl': lease, 'grace': grace})
        else:
            store.claim(queue, ttl=lease, grace=grace)
        # The key must live as long, by the clock of Redis.
        if store.redis is not None and lives > ttl + 10:
            assert store.redis.client.ttl(message_id) > ttl
    with store.at(lease):
        assert store.list(queue) == ['x']
    with store.at(lives - 1):
        assert store.list(queue) == ['x']
    with store.at(lives):
        assert store.list(queue) == []


def test_a_message_is_never_held_by_two(store: Store) -> None:
    queue = store.queue()
    store.post(queue, *range(2))
    store.claim(queue, limit=1, ttl=60)
    longer, _ = store.claim(queue, limit=1, ttl=300)
    with store.later(61):
        assert bodies(store.claim(queue)[1]) == [0]
        assert bodies(list(store.claims.get(queue, longer)[1])) == [1]


def test_a_delayed_message_is_not_claimed_behind_a_free_one(store: Store) -> None:
    queue = store.queue(_default_message_delay=60)
    store.post(queue, 'now', delay=0)
    store.post(queue, 'later', delay=60)
    assert bodies(store.claim(queue)[1]) == ['now']
    with store.later(61):
        assert bodies(store.claim(queue)[1])[-1] == 'later'


def test_a_claim_passes_over_many_that_are_held(store: Store) -> None:
    queue = store.queue()
    store.post(queue, *range(300))
    held = []
    for _ in range(29):
        held += bodies(store.claim(queue, limit=10)[1])
    assert held == list(range(290))
    assert bodies(store.claim(queue, limit=20)[1]) == list(range(290, 300))
    assert store.claim(queue)[1] == []
    assert store.counts(queue) == (300, 0)


def test_each_claim_is_counted(store: Store) -> None:
    queue = store.queue()
    [message_id] = store.post(queue, 'x')
    for count in (1, 2):
        claim, [message] = store.claim(queue)
        assert message['claim_count'] == count
        store.claims.delete(queue, claim)
    assert store.messages.get(queue, message_id)['claim_count'] == 2


def bury(store: Store, count: int) -> tuple[str, str]:
    """A queue with messages that have been claimed as often as they may, and where they go."""
    dead = store.queue()
    queue = store.queue(
        _max_claim_count=1, _dead_letter_queue=dead, _dead_letter_queue_messages_ttl=500
    )
    store.post(queue, *range(count))
    claim, messages = store.claim(queue, limit=20)
    assert bodies(messages) == list(range(count))
    store.claims.delete(queue, claim)
    return queue, dead


def test_dead_letters_are_moved(store: Store) -> None:
    queue, dead = bury(store, 3)
    store.post(queue, 'fresh')
    assert bodies(store.claim(queue)[1])[-1:] == ['fresh']
    assert store.list(dead) == [0, 1, 2]
    assert store.counts(dead) == (0, 3)
    assert store.counts(queue) == (1, 0)
    claim, messages = store.claim(dead)
    assert bodies(messages) == [0, 1, 2]
    assert {one['ttl'] for one in messages} == {500}
    for one in messages:
        store.messages.delete(dead, one['id'], claim=claim)
    assert store.counts(dead) == (0, 0)


def test_a_pop_moves_dead_letters(store: Store) -> None:
    queue, dead = bury(store, 2)
    assert list(store.messages.pop(queue, 5)) == []
    assert store.list(dead) == [0, 1]


@pytest.mark.parametrize('way', ['claim', 'pop', 'claim from groups'])
def test_a_dead_letter_queue_is_made_with_its_first_message(store: Store, way: str) -> None:
    dead = f'dead-{uuid.uuid4().hex}'
    queue = store.queue(
        _max_claim_count=1, _dead_letter_queue=dead, _ordered_groups=way == 'claim from groups'
    )
    store.post(queue, 0, 1)
    claim, _ = store.claim(queue)
    store.claims.delete(queue, claim)
    assert not store.queues.exists(dead)
    before = store.queues.calculate_resource_count()
    if way == 'pop':
        assert list(store.messages.pop(queue, 5)) == []
    else:
        assert store.claim(queue)[1] == []
    assert store.counts(dead) == (0, 2)
    assert store.queues.get_metadata(dead) == {}
    assert {'name': dead} in list(next(store.queues.list(limit=0)))
    assert store.queues.calculate_resource_count() == before + 1
    store.queues.delete(dead)
    assert not store.queues.exists(dead)


@pytest.mark.parametrize('dead', ['failed', 'far'])
def test_a_dead_letter_queue_is_made_in_the_pool_of_its_source(
    store: Store, tmp_path: pathlib.Path, dead: str
) -> None:
    """Where the names of queues are in another store than messages, as with pools."""
    conf = load('sqlite', None, tmp_path)
    control = embedded.ControlDriver(conf, cache.get_cache(conf))
    driver = store.data._storage
    data = type(driver)(driver.conf, None, control)
    drivers.protect(data)
    project = uuid.uuid4().hex
    pooled = Store(store.name, data, control, store.redis, project)
    control.catalogue_controller.insert(project, 'orders', 'one')
    control.catalogue_controller.insert(project, 'far', 'two')
    metadata = {'_max_claim_count': 1, '_dead_letter_queue': dead}
    pooled.queues.create('orders', metadata=metadata)
    pooled.post('orders', 0)
    claim, _ = pooled.claim('orders')
    pooled.claims.delete('orders', claim)
    claim, messages = pooled.claim('orders')
    if dead == 'far':
        assert bodies(messages) == [0]
        if Feature.SETTLEMENTS in pooled.features.offered:
            reject = Settlement(Settle.REJECT, messages[0]['id'], claim)
            with pytest.raises(dead_letters.NoDeadLetterQueue, match='in another pool'):
                pooled.claims.settle('orders', [reject])
    else:
        assert messages == []
        assert control.catalogue_controller.get(project, dead)['pool'] == 'one'
        assert pooled.counts(dead) == (0, 1)
        assert pooled.queues.get_metadata(dead) == {}
    data.close()
    control.close()


def test_dead_letters_that_would_come_back_stay(store: Store) -> None:
    queue = store.queue()
    store.queues.set_metadata(queue, {'_max_claim_count': 1, '_dead_letter_queue': queue})
    store.post(queue, 'x')
    for _ in range(3):
        claim, messages = store.claim(queue)
        assert bodies(messages) == ['x']
        store.claims.delete(queue, claim)


def test_what_becomes_free_before_others_is_claimed_first(store: Store) -> None:
    """By each way in which it can."""
    queue = store.queue()
    store.post(queue, *range(8))
    claims = [store.claim(queue, limit=2, ttl=ttl)[0] for ttl in (300, 300, 100, 300)]
    assert store.claim(queue)[1] == []
    assert store.list(queue) == []
    store.claims.delete(queue, claims[1])
    assert store.list(queue) == [2, 3]
    assert bodies(store.claim(queue, limit=1, ttl=300)[1]) == [2]
    store.claims.update(queue, claims[0], {'ttl': 60, 'grace': 60})
    with store.later(61):
        assert store.list(queue) == [0, 1, 3]
        assert bodies(store.claim(queue, limit=1, ttl=300)[1]) == [0]
    with store.later(101):
        assert store.list(queue) == [1, 3, 4, 5]
        assert bodies(store.claim(queue, limit=3, ttl=300)[1]) == [1, 3, 4]


def test_what_is_due_before_others_is_claimed_first(store: Store) -> None:
    queue = store.queue(_default_message_delay=60)
    store.post(queue, 'later', delay=60)
    store.post(queue, 'now', delay=0)
    assert bodies(store.claim(queue, ttl=300)[1]) == ['now']
    assert store.claim(queue)[1] == []
    assert store.list(queue) == []
    assert store.list(queue, include_delayed=True) == ['later']
    with store.later(61):
        assert store.list(queue) == ['later']
        assert bodies(store.claim(queue)[1]) == ['later']


@pytest.mark.parametrize('claim_id', ['', ' ', '\t', '-'])
def test_a_free_message_is_not_held_by_an_empty_claim(store: Store, claim_id: str) -> None:
    queue = store.queue()
    ids = store.post(queue, 1, 2)
    kept, _ = store.claim(queue, limit=1)
    for message_id in ids:
        with pytest.raises(errors.ExceptionBase):
            store.messages.delete(queue, message_id, claim=claim_id)
    with pytest.raises(errors.ClaimDoesNotExist):
        store.claims.get(queue, claim_id)
    with pytest.raises(errors.ClaimDoesNotExist):
        store.claims.update(queue, claim_id, {'ttl': 60, 'grace': 60})
    store.claims.delete(queue, claim_id)
    assert store.list(queue, include_claimed=True) == [1, 2]
    assert store.counts(queue) == (1, 1)
    assert [one['body'] for one in store.claims.get(queue, kept)[1]] == [1]
