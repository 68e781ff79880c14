"""Queues whose claims take from groups of messages: in order, in turn, or both."""

from __future__ import annotations

import collections
import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from tests.storage.conftest import Store
from zaqar_gevent.retry_delays import RetryDelay
from zaqar_gevent.settlements import Settle, Settlement
from zaqar_gevent.storage.features import Feature

ORDERED = {'_ordered_groups': True}
FAIR = {'_fair_groups': True}
BOTH = {**ORDERED, **FAIR}

START = 10_000
"""When tests begin that have a clock of their own: later than that of what runs by itself."""


@pytest.fixture(autouse=True)
def capable(store: Store) -> None:
    if Feature.GROUPS not in store.features.offered:
        pytest.skip('the store keeps no groups, as it declares')


def post(store: Store, queue: str, *groups: str | None, ttl: int = 300) -> list[str]:
    """Post a message to each group, with its number among them as its body."""
    new = [
        {'ttl': ttl, 'body': number, **({'group': group} if group else {})}
        for number, group in enumerate(groups)
    ]
    return [*store.messages.post(queue, new, None)]


def claim(store: Store, queue: str, limit: int = 10, **more: Any) -> tuple[str, list[Any]]:
    lease = {'ttl': 60, 'grace': 60, **more}
    claim_id, found = store.claims.create(queue, lease, limit=limit)
    return claim_id, list(found)


def bodies(found: Iterable[Any]) -> list[Any]:
    return [one['body'] for one in found]


def groups(found: Iterable[Any]) -> list[str | None]:
    return [one.get('group') for one in found]


def test_a_message_keeps_its_group(store: Store) -> None:
    queue = store.queue()
    ids = post(store, queue, 'ä/%"', None)
    expected = ['ä/%"', None]
    assert groups(next(store.messages.list(queue, echo=True))) == expected
    assert groups(store.messages.bulk_get(queue, ids)) == expected
    assert store.messages.get(queue, ids[0])['group'] == expected[0]
    claim_id, held = claim(store, queue)
    assert groups(held) == expected
    assert groups(store.claims.get(queue, claim_id)[1]) == expected
    store.claims.delete(queue, claim_id)
    popped = list(store.messages.pop(queue, 2))
    assert groups(popped) == expected
    store.messages.restore(queue, popped)
    assert groups(next(store.messages.list(queue, echo=True))) == expected
    assert store.counts(queue) == (0, 2)


def test_without_a_setting_groups_mean_nothing(store: Store) -> None:
    queue = store.queue()
    post(store, queue, 'a', 'a', 'b')
    assert bodies(claim(store, queue, 1)[1]) == [0]
    assert bodies(claim(store, queue)[1]) == [1, 2]


def test_one_claim_has_a_group_at_a_time(store: Store) -> None:
    queue = store.queue(**ORDERED)
    post(store, queue, 'a', 'a', None, 'b', 'a', None)
    first, found = claim(store, queue, 2)
    assert (bodies(found), groups(found)) == ([0, 1], ['a', 'a'])
    second, found = claim(store, queue)
    assert (bodies(found), groups(found)) == ([2, 3, 5], [None, 'b', None])
    assert not claim(store, queue)[1]
    store.messages.delete(queue, _id(store, queue, first, 0), claim=first)
    assert not claim(store, queue)[1]
    store.messages.delete(queue, _id(store, queue, first, 1), claim=first)
    assert bodies(claim(store, queue)[1]) == [4]
    store.claims.delete(queue, second)
    assert bodies(claim(store, queue, 1)[1]) == [2]
    assert store.counts(queue) == (2, 2)


def _id(store: Store, queue: str, claim_id: str, body: Any) -> str:
    [found] = [one['id'] for one in store.claims.get(queue, claim_id)[1] if one['body'] == body]
    return str(found)


def test_what_a_lease_has_lost_comes_first_again(store: Store) -> None:
    with store.at(START):
        queue = store.queue(**ORDERED)
        post(store, queue, 'a', 'b', 'a', 'a')
        assert bodies(claim(store, queue, 1, ttl=60)[1]) == [0]
    with store.at(START + 30):
        assert bodies(claim(store, queue)[1]) == [1]
    with store.at(START + 62):
        assert bodies(claim(store, queue, 2)[1]) == [0, 2]
        assert store.counts(queue) == (3, 1)


def test_a_retry_holds_up_its_group_alone(store: Store) -> None:
    with store.at(START):
        queue = store.queue(**ORDERED)
        post(store, queue, 'a', 'a', 'b')
        claim_id, _ = claim(store, queue, 1, retry=RetryDelay(initial=20))
        store.claims.delete(queue, claim_id)
        found_id, found = claim(store, queue)
        assert bodies(found) == [2]
        store.claims.delete(queue, found_id)
    with store.at(START + 19):
        assert bodies(claim(store, queue, ttl=1)[1]) == [2]
    with store.at(START + 21):
        assert bodies(claim(store, queue)[1]) == [0, 1, 2]


def test_a_message_that_waits_is_held_up_no_longer_than_it_lives(store: Store) -> None:
    with store.at(START):
        queue = store.queue(**ORDERED)
        post(store, queue, 'a', ttl=80)
        post(store, queue, 'a')
        claim_id, found = claim(store, queue, 1, ttl=60, grace=10)
        assert bodies(found) == [0]
        store.claims.delete(queue, claim_id, delay=200)
    with store.at(START + 60):
        assert not claim(store, queue)[1]
    with store.at(START + 85):
        assert bodies(claim(store, queue)[1]) == [0]
        assert store.counts(queue) == (1, 0)


def test_single_messages_of_a_claim_are_settled_in_order(store: Store) -> None:
    with store.at(START):
        queue = store.queue(
            **ORDERED, _dead_letter_queue=store.queue(**ORDERED), _max_claim_count=9
        )
        ids = post(store, queue, 'a', 'a', 'a', 'a')
        claim_id, _ = claim(store, queue, 3)

        def settle(kind: Settle, number: int, **more: Any) -> None:
            settlement = Settlement(kind, ids[number], claim_id, **more)
            assert store.claims.settle(queue, [settlement]) == [None]

        settle(Settle.EXTEND, 2, ttl=300, grace=60)
        settle(Settle.RELEASE, 1)
        settle(Settle.DELETE, 0)
        assert not claim(store, queue)[1]
    with store.at(START + 65):
        # The one with a lease of its own.
        assert not claim(store, queue)[1]
        settle(Settle.REJECT, 2, reason='no')
        assert bodies(claim(store, queue, 1)[1]) == [1]
        assert not claim(store, queue)[1]


def test_dead_letters_free_their_group_and_keep_their_order(store: Store) -> None:
    dead = store.queue(**ORDERED)
    queue = store.queue(**ORDERED, _dead_letter_queue=dead, _max_claim_count=1)
    post(store, queue, 'a', 'a', 'a')
    claim_id, _ = claim(store, queue, 2)
    store.claims.delete(queue, claim_id)
    assert bodies(claim(store, queue)[1]) == [2]
    found = claim(store, dead, 1)[1]
    assert (bodies(found), groups(found)) == ([0], ['a'])
    assert not claim(store, dead)[1]


def test_pops_take_in_order_as_well(store: Store) -> None:
    queue = store.queue(**ORDERED)
    post(store, queue, 'a', 'b', 'a', 'b', None)
    claim_id, found = claim(store, queue, 1)
    assert bodies(found) == [0]
    assert bodies(store.messages.pop(queue, 10)) == [1, 3, 4]
    assert not list(store.messages.pop(queue, 10))
    store.claims.delete(queue, claim_id)
    popped = list(store.messages.pop(queue, 1))
    assert bodies(popped) == [0]
    store.messages.restore(queue, popped)
    assert bodies(store.messages.pop(queue, 10)) == [0, 2]


def test_restored_messages_come_first_of_a_queue_that_was_empty(store: Store) -> None:
    queue = store.queue(**BOTH)
    post(store, queue, 'a', None)
    popped = list(store.messages.pop(queue, 10))
    assert bodies(popped) == [0, 1]
    post(store, queue, 'a')
    assert groups(claim(store, queue)[1]) == ['a']
    store.messages.restore(queue, popped)
    # The other one of the group is held.
    assert groups(claim(store, queue)[1]) == [None]


def test_a_setting_counts_at_once_for_messages_that_are_there(store: Store) -> None:
    queue = store.queue()
    post(store, queue, *('a', None) * 30)
    claim_id, found = claim(store, queue, 2)
    assert bodies(found) == [0, 1]
    store.queues.set_metadata(queue, ORDERED)
    other, found = claim(store, queue)
    assert groups(found) == [None] * 10
    store.claims.delete(queue, other)
    store.claims.delete(queue, claim_id)
    assert bodies(claim(store, queue, 3)[1]) == [0, 1, 2]
    store.queues.set_metadata(queue, {})
    assert bodies(claim(store, queue, 3)[1]) == [3, 4, 5]
    store.queues.set_metadata(queue, BOTH)
    assert groups(claim(store, queue, 3)[1]) == [None] * 3


def test_messages_that_expire_or_are_deleted_are_in_nobodys_way(store: Store) -> None:
    with store.at(START):
        queue = store.queue(**ORDERED)
        post(store, queue, 'a', 'a', 'b', ttl=60)
        ids = post(store, queue, 'a', 'b', 'a', 'c')
        store.messages.delete(queue, ids[2])
    with store.at(START + 61):
        assert bodies(claim(store, queue)[1]) == [0, 1, 3]
        assert store.counts(queue) == (3, 0)


def test_a_purge_leaves_what_is_held(store: Store) -> None:
    queue = store.queue(**ORDERED)
    post(store, queue, 'a', 'a', 'b', None)
    claim_id, _ = claim(store, queue, 1)
    store.purge(queue)
    post(store, queue, 'a', 'b')
    assert groups(claim(store, queue)[1]) == ['b']
    store.claims.delete(queue, claim_id)
    assert bodies(claim(store, queue)[1]) == [0, 0]


def test_a_queue_that_is_made_again_knows_no_groups_of_before(store: Store) -> None:
    queue = store.queue(**BOTH)
    post(store, queue, 'a', 'a')
    claim(store, queue, 1)
    store.queues.delete(queue)
    store.queues.create(queue, metadata=BOTH)
    post(store, queue, 'a', 'b')
    assert bodies(claim(store, queue)[1]) == [0, 1]
    assert store.counts(queue) == (2, 0)


def test_a_delayed_message_follows_those_that_were_visible(store: Store) -> None:
    with store.at(START):
        queue = store.queue(**ORDERED)
        new = [
            {'ttl': 300, 'body': number, 'group': 'a', 'delay': 10 - 10 * number}
            for number in range(2)
        ]
        store.messages.post(queue, new, None)
        assert bodies(claim(store, queue, ttl=1)[1]) == [1]
    with store.at(START + 12):
        assert bodies(claim(store, queue)[1]) == [1, 0]


@pytest.mark.parametrize('setting', [FAIR, BOTH], ids=['fair', 'both'])
def test_groups_have_their_turns(store: Store, setting: dict[str, Any]) -> None:
    queue = store.queue(**setting)
    post(store, queue, *['big'] * 50, *['small'] * 3, None, None)
    taken: list[str | None] = []
    for _ in range(5):
        claim_id, found = claim(store, queue, 3)
        taken += groups(found)
        for one in found:
            store.messages.delete(queue, one['id'], claim=claim_id)
    counts = collections.Counter(taken)
    assert (counts['small'], counts[None]) == (3, 2)
    assert bodies(claim(store, queue, 2)[1]) == [counts['big'], counts['big'] + 1]


@pytest.mark.parametrize('limit', [3, 5])
def test_no_group_has_more_turns_where_a_claim_does_not_come_out_even(
    store: Store, limit: int
) -> None:
    queue = store.queue(**FAIR)
    post(store, queue, *['a', 'b'] * 30)
    taken: collections.Counter[str | None] = collections.Counter()
    for _ in range(6):
        claim_id, found = claim(store, queue, limit)
        taken.update(groups(found))
        for one in found:
            store.messages.delete(queue, one['id'], claim=claim_id)
    assert taken == {'a': 3 * limit, 'b': 3 * limit}
    assert len(list(store.messages.pop(queue, 60))) == 60 - 6 * limit


def test_a_fair_queue_gives_a_group_to_several(store: Store) -> None:
    queue = store.queue(**FAIR)
    post(store, queue, 'a', 'a', 'b', 'a')
    assert bodies(claim(store, queue, 1)[1]) == [0]
    assert bodies(claim(store, queue, 1)[1]) == [2]
    assert bodies(claim(store, queue, 5)[1]) == [1, 3]


class Model:
    """A queue with ordered groups, and what it should hold, message by message in its order."""

    def __init__(self, store: Store, chance: random.Random, setting: dict[str, Any]) -> None:
        self._store = store
        self._chance = chance
        self._queue = store.queue(**setting)
        self._in_turn = '_fair_groups' in setting
        self._posted = 0
        self._messages: dict[int, dict[str, Any]] = {}
        self.now: float = START

    def step(self) -> None:
        """Do something, after a while."""
        self.now += self._chance.choice((0, 0, 1, 5, 30))
        kinds = (self.post, self.post, self.claim, self.claim, self.pop)
        with self._store.at(self.now):
            self._pass()
            self._chance.choice((*kinds, self.delete, self.acknowledge, self.release))()
            held = len(self._held())
            assert self._store.counts(self._queue) == (held, len(self._messages) - held)

    def post(self) -> None:
        names = [self._chance.choice((None, 'a', 'b', 'c')) for _ in range(self._limit())]
        ttl = self._chance.choice((60, 300))
        new = [
            {'ttl': ttl, 'body': body, **({'group': name} if name else {})}
            for body, name in enumerate(names, self._posted)
        ]
        for one, message_id in zip(
            new, self._store.messages.post(self._queue, new, None), strict=True
        ):
            self._messages[one['body']] = {
                'id': message_id,
                'group': one.get('group'),
                'expires': self.now + ttl,
                'claim': None,
                'until': 0.0,
            }
        self._posted += len(new)

    def claim(self) -> None:
        limit = self._limit()
        claim_id, found = claim(self._store, self._queue, limit)
        for body in self._check(limit, found):
            one = self._messages[body]
            one.update(claim=claim_id, until=self.now + 60)
            one['expires'] = max(one['expires'], self.now + 120)

    def pop(self) -> None:
        limit = self._limit()
        popped = list(self._store.messages.pop(self._queue, limit))
        taken = self._check(limit, popped)
        if self._chance.random() < 0.5:
            for body in taken:
                del self._messages[body]
            return
        self._store.messages.restore(self._queue, popped)
        for one in popped:
            self._messages[one['body']]['expires'] = self.now - one['age'] + one['ttl']
        self._pass()

    def delete(self) -> None:
        if free := [*self._available()]:
            body = self._chance.choice(free)
            self._store.messages.delete(self._queue, self._messages.pop(body)['id'])

    def acknowledge(self) -> None:
        held = self._held()
        if not held:
            return
        claim_id = self._messages[self._chance.choice(held)]['claim']
        of_claim = [body for body in held if self._messages[body]['claim'] == claim_id]
        some = self._chance.sample(of_claim, self._chance.randint(1, len(of_claim)))
        ids = [self._messages.pop(body)['id'] for body in some]
        if len(ids) == 1:
            self._store.messages.delete(self._queue, ids[0], claim=claim_id)
        else:
            self._store.messages.bulk_delete(self._queue, ids, claim_ids=[claim_id])

    def release(self) -> None:
        held = self._held()
        if not held:
            return
        body, delay = self._chance.choice(held), self._chance.choice((0, 0, 10))
        one = self._messages[body]
        claim_id = one['claim']
        ended = [other for other in held if self._messages[other]['claim'] == claim_id]
        if self._chance.random() < 0.5:
            self._store.claims.delete(self._queue, claim_id, delay=delay)
        else:
            ended = [body]
            settlement = Settlement(Settle.RELEASE, one['id'], claim_id, delay=delay)
            assert self._store.claims.settle(self._queue, [settlement]) == [None]
        for other in ended:
            self._messages[other].update(claim=None, until=self.now + delay if delay else 0.0)

    def _limit(self) -> int:
        return self._chance.randint(1, 4)

    def _pass(self) -> None:
        for body, one in [*self._messages.items()]:
            if one['until'] <= self.now:
                one.update(claim=None, until=0.0)
            if one['expires'] <= self.now:
                del self._messages[body]

    def _available(self) -> Iterator[int]:
        blocked = {one['group'] for one in self._messages.values() if one['until']} - {None}
        for body, one in self._messages.items():
            if not one['until'] and one['group'] not in blocked:
                yield body

    def _held(self) -> list[int]:
        return [body for body, one in self._messages.items() if one['claim']]

    def _check(self, limit: int, found: list[Any]) -> list[int]:
        """What was taken, which must be what could be taken, of each group in its order."""
        available, taken = [*self._available()], bodies(found)
        assert len(taken) == min(limit, len(available))
        for group in {self._messages[body]['group'] for body in taken}:
            of_group = [body for body in available if self._messages[body]['group'] == group]
            mine = [body for body in taken if self._messages[body]['group'] == group]
            assert mine == of_group[: len(mine)]
        if not self._in_turn:
            assert taken == available[:limit]
        return taken


@pytest.mark.parametrize(('seed', 'setting'), [(1, ORDERED), (2, ORDERED), (3, BOTH)])
def test_whatever_happens_groups_keep_their_order(
    store: Store, seed: int, setting: dict[str, Any]
) -> None:
    model = Model(store, random.Random(seed), setting)
    for _ in range(200):
        model.step()


def test_most_groups_are_never_looked_at(store: Store) -> None:
    """A claim's work does not grow with what is held back."""
    queue = store.queue(**ORDERED)
    post(store, queue, *['first'] * 1500, 'second')
    assert bodies(claim(store, queue, 1)[1]) == [0]
    assert bodies(claim(store, queue)[1]) == [1500]
    assert not claim(store, queue)[1]


@pytest.mark.parametrize(('setting', 'most'), [(ORDERED, 67), (FAIR, 76), (BOTH, 80)])
def test_claims_of_many_groups_take_few_commands_of_redis(
    store: Store, setting: dict[str, Any], most: int
) -> None:
    if store.name != 'unshared':
        pytest.skip('counts commands of Redis')
    queue = store.queue(**setting)
    post(store, queue, *map(str, range(40)), *map(str, range(40)))
    claim(store, queue)
    store.redis.client.config_resetstat()
    claim_id, found = claim(store, queue)
    store.messages.bulk_delete(queue, [one['id'] for one in found], claim_ids=[claim_id])
    commands = store.redis.client.info('commandstats')
    assert len(found) == 10
    assert sum(one['calls'] for one in commands.values()) <= most
