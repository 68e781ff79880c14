"""Random sequences of what clients do with queues, on a real store and on the model at once."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import uuid
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any
from unittest import mock

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from zaqar.storage import errors

from tests.model.reference import Message, Model, Settings
from tests.storage.conftest import Store
from zaqar_gevent.retry_delays import RetryDelay
from zaqar_gevent.settlements import Settle, Settlement
from zaqar_gevent.storage.features import Feature

CLIENTS = tuple(str(uuid.UUID(int=number + 1)) for number in range(3))
ALL = 1000
"""More messages than one sequence posts."""

RETRY = RetryDelay(initial=200, factor=2, max=500)
SETTINGS = {
    'plain': Settings(),
    'retried': Settings(retry=RETRY),
    'work': Settings('dead', max_claim_count=2, dead_letter_ttl=4000),
    'fragile': Settings('dead', max_claim_count=1, retry=RETRY),
    'dead': Settings(),
    'ordered': Settings('dead', max_claim_count=3, retry=RETRY, ordered_groups=True),
}
queues = st.sampled_from([*sorted(SETTINGS), 'ordered', 'ordered'])
NO_REASONS: Mapping[str, str | None] = MappingProxyType({})

clients = st.sampled_from(CLIENTS)
limits = st.integers(1, 4)
groups = st.sampled_from((None, 'a', 'a', 'b'))
picks = st.integers(0, 7)
"""Which of some messages, claims or queues, the first after the last."""
ttls = st.sampled_from((300, 1000, 6000, 30_000))
"""In seconds. Redis removes messages by its own clock, which must not get to the shortest."""
graces = st.sampled_from((0, 500, 6000))
delays = st.sampled_from((0, 0, 100, 400, 2000))


class Clock:
    """The time of a store, which stands between steps and never goes back.

    It begins ahead of the real one, so that no store removes by itself what is still there.

    now: in whole seconds since the epoch.
    """

    def __init__(self, start: int) -> None:
        self.now = start

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        def read(microsecond: bool = False) -> float:
            return float(self.now) if microsecond else self.now

        with mock.patch('oslo_utils.timeutils.utcnow_ts', read):
            yield


def has_messages(machine: StoreMachine) -> bool:
    return any(queue.messages for queue in machine.model.queues.values())


def has_leases(machine: StoreMachine) -> bool:
    return any(machine.model.claims(name) for name in machine.model.queues)


class StoreMachine(RuleBasedStateMachine):
    """The rules; each does one thing to both and compares what comes of it.

    store, clock: given by a subclass, shared by all its sequences.
    """

    store: Store
    clock: Clock
    names = itertools.count()
    steps = 0
    """How many there have been, for all sequences."""

    whole_seconds = False
    """Whether a scheduled message counts as posted at the next whole second."""

    pops_dead_letters = False
    """Whether a pop counts as a claim, and moves what has been claimed too often."""

    def __init__(self) -> None:
        super().__init__()
        # What one sequence leaves behind is in other queues than those of the next.
        self._prefix = f's{next(self.names)}-'
        self.model = Model(self.clock.now, self.whole_seconds)
        self._bodies = itertools.count()
        self._posts = itertools.count(1)
        self._touched: set[str] = set()
        self._followers: dict[str, tuple[str | None, int]] = {}

    # Helpers

    def _real(self, name: str) -> str:
        return self._prefix + name

    def _pick(self, things: list[Any], pick: int) -> Any:
        return things[pick % len(things)]

    def _filled(self) -> list[str]:
        return [name for name, queue in self.model.queues.items() if queue.messages]

    def _leased(self) -> list[str]:
        return [name for name in self.model.queues if self.model.claims(name)]

    def _touch(self, name: str) -> None:
        type(self).steps += 1
        self._touched.add(name)

    def _list(self, name: str, **more: Any) -> tuple[list[dict[str, Any]], str | None]:
        asked = {'echo': True, 'limit': ALL, **more}
        results = self.store.messages.list(self._real(name), **asked)
        return list(next(results)), next(results, None)

    def _show_due(self, name: str) -> None:
        """Have due messages placed, as something else is about to take a place behind them."""
        if self.model.queues[name].has_unseen_due:
            self._list(name)
            self.model.queues[name].has_unseen_due = False

    def _show_due_dead_letters(self, name: str) -> None:
        target = self.model.queues[name].settings.dead_letter_queue
        if target is not None:
            self._touched.add(target)
            self._show_due(target)

    def _move_dead_letters(
        self, name: str, moved: list[Message], reasons: Mapping[str, str | None] = NO_REASONS
    ) -> None:
        """Look for new dead letters, which must be `moved`, and let the model have their ids."""
        if not moved:
            return
        target = self.model.queues[name].settings.dead_letter_queue
        assert target is not None
        known = self.model.queues[target].messages
        new = [one for one in self._list(target, include_claimed=True)[0] if one['id'] not in known]
        bodies, wanted = [one['body'] for one in new], [one.body for one in moved]
        assert bodies == wanted, f'dead letters {bodies} instead of {wanted}'
        for message, found in zip(moved, new, strict=True):
            self.model.dead_letter(name, message, found['id'], reasons.get(message.id))

    def _compare(self, found: list[dict[str, Any]], expected: list[Message]) -> None:
        seen, wanted = [self._tell(one) for one in found], [self._expect(one) for one in expected]
        assert seen == wanted, f'{seen}\ninstead of\n{wanted}'

    def _tell(self, found: dict[str, Any]) -> dict[str, Any]:
        facts = found.get('dead_letter')
        if facts is not None:
            assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ', facts['at'])
            facts = {name: facts.get(name) for name in facts.keys() - {'at'} | {'reason'}}
            facts['queue'] = facts['queue'].removeprefix(self._prefix)
        return {
            'body': found['body'],
            'id': found['id'],
            'ttl': found['ttl'],
            'claim_count': found['claim_count'],
            'attributes': found.get('attributes'),
            'dead_letter': facts,
            'group': found.get('group'),
        }

    def _expect(self, message: Message) -> dict[str, Any]:
        return {
            'body': message.body,
            'id': message.id,
            'ttl': message.ttl,
            'claim_count': message.claim_count,
            'attributes': message.attributes,
            'dead_letter': message.dead_letter,
            'group': message.group,
        }

    # Rules

    @initialize()
    def create_queues(self) -> None:
        for name, settings in SETTINGS.items():
            self._create(name, settings)

    def _create(self, name: str, settings: Settings) -> None:
        metadata = settings.metadata()
        if settings.dead_letter_queue:
            metadata['_dead_letter_queue'] = self._real(settings.dead_letter_queue)
        assert self.store.queues.create(self._real(name), metadata=metadata)
        if Feature.GROUPS not in self.store.features.offered:
            settings = dataclasses.replace(settings, ordered_groups=False)
        self.model.create(name, settings)

    @rule(seconds=st.sampled_from((100, 200, 500, 3000, 10_000)))
    def pass_time(self, seconds: int) -> None:
        self.clock.now += seconds
        self.model.pass_time(seconds)
        type(self).steps += 1

    @rule(seconds=st.sampled_from((100, 200, 500, 3000)), name=queues)
    def pass_time_and_look(self, seconds: int, name: str) -> None:
        self.pass_time(seconds)
        self._touch(name)

    @rule(
        name=queues,
        client=clients,
        count=st.integers(1, 3),
        ttl=ttls,
        delay=delays,
        is_scheduled=st.booleans(),
        has_attributes=st.booleans(),
        group=groups,
    )
    def post(
        self,
        name: str,
        client: str,
        count: int,
        ttl: int,
        delay: int,
        is_scheduled: bool,
        has_attributes: bool,
        group: str | None,
    ) -> None:
        self._touch(name)
        self._show_due(name)
        bodies = [f'm{next(self._bodies)}' for _ in range(count)]
        attributes = {'kind': name} if has_attributes else None
        # No two posts are due at the same moment, and none when the clock stands.
        exact = delay - 0.5 + next(self._posts) / 10_000 if delay else 0
        new: dict[str, Any] = {'ttl': ttl, 'delay': exact}
        if is_scheduled and delay:
            new['scheduled'] = True
        if attributes:
            new['attributes'] = attributes
        if group and Feature.GROUPS not in self.store.features.offered:
            group = None
        if group:
            new['group'] = group
        ids = self.store.messages.post(
            self._real(name), [{**new, 'body': body} for body in bodies], client
        )
        for message_id, body in zip(ids, bodies, strict=True):
            self.model.post(
                name,
                message_id,
                body,
                client,
                ttl=ttl,
                delay=exact,
                is_scheduled=is_scheduled,
                attributes=attributes,
                group=group,
            )

    @rule(name=queues, count=st.integers(1, 5), group=groups)
    def post_plainly(self, name: str, count: int, group: str | None) -> None:
        """What most posts are, so that there is something to work with."""
        client, ttl, delay = CLIENTS[0], 30_000, 0
        self.post(name, client, count, ttl, delay, False, False, group)

    @precondition(has_messages)
    @rule(queue=picks, client=clients, limit=limits)
    def list_others(self, queue: int, client: str, limit: int) -> None:
        name = self._pick(self._filled(), queue)
        found, _ = self._list(name, client_uuid=client, echo=False, limit=limit)
        expected = [one for one in self.model.free(name) if one.client != client]
        self._compare(found, expected[:limit])

    @precondition(has_messages)
    @rule(queue=picks, limit=limits)
    def follow(self, queue: int, limit: int) -> None:
        """Read the next page after the last marker."""
        name = self._pick(self._filled(), queue)
        marker, position = self._followers.get(name, (None, 0))
        if marker is not None and self._has_lost(name, marker):
            marker, position = None, 0
        found, following = self._list(name, marker=marker, limit=limit)
        expected = [one for one in self.model.free(name) if one.position > position][:limit]
        self._compare(found, expected)
        if expected:
            self._followers[name] = following, expected[-1].position

    def _has_lost(self, name: str, marker: str) -> bool:
        """Whether the place of a marker is not known any more, as the store says."""
        features, messages = self.store.features, self.store.messages
        return features.keeps_places and not messages.keeps_place(self._real(name), marker)

    @precondition(has_messages)
    @rule(queue=picks, pick=picks)
    def get(self, queue: int, pick: int) -> None:
        name = self._pick(self._filled(), queue)
        known = self.model.in_order(name)
        message = self._pick(known, pick)
        found = self.store.messages.get(self._real(name), message.id)
        self._compare([found], [message])
        assert found['claim_id'] == (message.lease and message.lease.claim)

    @precondition(has_messages)
    @rule(queue=picks, limit=limits, ttl=ttls, grace=graces)
    def claim(self, queue: int, limit: int, ttl: int, grace: int) -> None:
        name = self._pick(self._filled(), queue)
        self._touch(name)
        self._show_due_dead_letters(name)
        expected, exhausted = self.model.find_claimable(name, limit)
        if expected and self.store.features.finds_claimable:
            place = 'shop', self._real(name)
            assert self.store.data.claim_controller.find_claimable([place]) == [0]
        lease: dict[str, Any] = {'ttl': ttl, 'grace': grace}
        retry = self.model.queues[name].settings.retry
        if retry is not None:
            lease['retry'] = retry
        claim, found = self.store.claims.create(self._real(name), lease, limit=limit)
        messages = list(found)
        self._move_dead_letters(name, exhausted)
        for message in expected:
            self.model.take(name, message, str(claim), ttl, grace)
        self._compare(messages, expected)
        assert {one['claim_id'] for one in messages} <= {claim}

    def _any_claim(self, name: str, pick: int) -> str:
        claim: str = self._pick(self.model.claims(name), pick)
        return claim

    @precondition(has_leases)
    @rule(queue=picks, pick=picks)
    def get_claim(self, queue: int, pick: int) -> None:
        name = self._pick(self._leased(), queue)
        claim = self._any_claim(name, pick)
        _, found = self.store.claims.get(self._real(name), claim)
        self._compare(list(found), self.model.held(name, claim))

    @precondition(has_leases)
    @rule(queue=picks, pick=picks, ttl=ttls, grace=graces)
    def renew(self, queue: int, pick: int, ttl: int, grace: int) -> None:
        name = self._pick(self._leased(), queue)
        claim = self._any_claim(name, pick)
        self._touch(name)
        self.store.claims.update(self._real(name), claim, {'ttl': ttl, 'grace': grace})
        for message in self.model.held(name, claim):
            self.model.extend(message, ttl, grace)

    @precondition(has_leases)
    @rule(queue=picks, pick=picks, delay=st.none() | delays)
    def release(self, queue: int, pick: int, delay: int | None) -> None:
        name = self._pick(self._leased(), queue)
        claim = self._any_claim(name, pick)
        self._touch(name)
        more = {} if delay is None else {'delay': delay}
        self.store.claims.delete(self._real(name), claim, **more)
        for message in self.model.held(name, claim):
            self.model.release(message, delay)

    @precondition(has_messages)
    @rule(
        queue=picks,
        asked=st.lists(
            st.tuples(st.sampled_from(Settle), picks, st.none() | delays, ttls, graces),
            min_size=1,
            max_size=4,
        ),
    )
    def settle(self, queue: int, asked: list[tuple[Settle, int, int | None, int, int]]) -> None:
        """Settle any messages, by the claims that hold them or by one that does not."""
        name = self._pick(self._filled(), queue)
        known = self.model.in_order(name)
        has_target = self.model.queues[name].settings.dead_letter_queue is not None
        asked = [one for one in asked if one[0] is not Settle.REJECT or has_target]
        if not asked:
            return
        self._touch(name)
        self._show_due_dead_letters(name)
        settlements, outcomes, rejected = [], [], []
        for kind, pick, delay, ttl, grace in asked:
            message = self._pick(known, pick)
            claim = message.lease.claim if message.lease else uuid.UUID(int=pick).hex
            settlements.append(
                Settlement(kind, message.id, claim, delay, 'why' if delay else None, ttl, grace)
            )
        done: dict[str, Settlement] = {}
        for one in settlements:
            message = self.model.queues[name].messages.get(one.message_id)
            if message is None or message in rejected:
                # To delete what is gone is no error.
                outcomes.append(one.kind is Settle.DELETE)
                continue
            if message.lease is None or message.lease.claim != one.claim_id:
                outcomes.append(False)
                continue
            outcomes.append(True)
            self._settle(name, message, one, rejected)
            done[one.message_id] = one
        real = self.store.claims.settle(self._real(name), settlements)
        self._move_dead_letters(name, rejected, {key: one.reason for key, one in done.items()})
        assert [one is None for one in real] == outcomes, f'{real} instead of {outcomes}'

    def _settle(
        self, name: str, message: Message, one: Settlement, rejected: list[Message]
    ) -> None:
        match one.kind:
            case Settle.DELETE:
                self.model.delete(name, message)
            case Settle.RELEASE:
                self.model.release(message, None if one.delay is None else int(one.delay))
            case Settle.EXTEND:
                self.model.extend(message, one.ttl, one.grace)
            case Settle.REJECT:
                rejected.append(message)

    @precondition(has_messages)
    @rule(queue=picks, pick=picks, knows_claim=st.booleans())
    def delete(self, queue: int, pick: int, knows_claim: bool) -> None:
        name = self._pick(self._filled(), queue)
        known = self.model.in_order(name)
        self._touch(name)
        message = self._pick(known, pick)
        if message.lease is not None and not knows_claim:
            with pytest.raises(errors.MessageIsClaimed):
                self.store.messages.delete(self._real(name), message.id)
            return
        claim = message.lease.claim if message.lease else None
        self.store.messages.delete(self._real(name), message.id, claim=claim)
        self.model.delete(name, message)

    @precondition(has_messages)
    @rule(queue=picks, chosen=st.lists(picks, min_size=1, max_size=3))
    def delete_many(self, queue: int, chosen: list[int]) -> None:
        name = self._pick(self._filled(), queue)
        known = self.model.in_order(name)
        self._touch(name)
        messages = {one.id: one for one in (self._pick(known, pick) for pick in chosen)}
        self.store.messages.bulk_delete(self._real(name), list(messages))
        for message in messages.values():
            self.model.delete(name, message)

    @precondition(has_messages)
    @rule(queue=picks, limit=limits)
    def pop(self, queue: int, limit: int) -> None:
        name = self._pick(self._filled(), queue)
        self._touch(name)
        expected = self.model.claimable(name)[:limit]
        if self.pops_dead_letters:
            self._show_due_dead_letters(name)
            expected, exhausted = self.model.find_claimable(name, limit)
        popped = list(self.store.messages.pop(self._real(name), limit) or ())
        if self.pops_dead_letters:
            self._move_dead_letters(name, exhausted)
        bodies, wanted = [one['body'] for one in popped], [one.body for one in expected]
        assert bodies == wanted, f'popped {bodies} instead of {wanted}'
        for message in expected:
            self.model.delete(name, message)

    @precondition(has_messages)
    @rule(queue=picks)
    def purge(self, queue: int) -> None:
        name = self._pick(self._filled(), queue)
        self._touch(name)
        self.store.purge(self._real(name))
        for message in self.model.in_order(name):
            if message.lease is None:
                self.model.delete(name, message)

    @precondition(has_messages)
    @rule(queue=picks)
    def delete_queue(self, queue: int) -> None:
        name = self._pick(self._filled(), queue)
        self._touch(name)
        self.store.queues.delete(self._real(name))
        self._followers.pop(name, None)
        self._create(name, SETTINGS[name])

    @invariant()
    def queues_are_equal(self) -> None:
        """Of each queue that was touched: its messages in order, and their numbers."""
        for name in sorted(self._touched):
            self._compare_queue(name)
        self._touched.clear()

    def _compare_queue(self, name: str) -> None:
        self.model.queues[name].has_unseen_due = False
        self._compare(self._list(name)[0], self.model.free(name))
        self._compare(self._list(name, include_claimed=True)[0], self.model.visible(name))
        everything = self._list(name, include_claimed=True, include_delayed=True)[0]
        self._compare(everything, self.model.in_order(name))
        claimed = sum(one.lease is not None for one in self.model.in_order(name))
        total = len(self.model.in_order(name))
        counts = self.store.counts(self._real(name))
        assert counts == (claimed, total - claimed), f'{name}: {counts}, not {claimed, total}'

    def teardown(self) -> None:
        for name in self.model.queues:
            self._compare_queue(name)
        for name in self.model.queues:
            self.store.queues.delete(self._real(name))


def machine_of(store: Store, clock: Clock) -> type[StoreMachine]:
    """The machine of one store."""
    on_redis = store.redis is not None
    members = {'store': store, 'clock': clock, 'pops_dead_letters': on_redis}
    return type('StoreMachine', (StoreMachine,), {**members, 'whole_seconds': on_redis, 'steps': 0})
