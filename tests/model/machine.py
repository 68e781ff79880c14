"""Random sequences of what clients do with queues, on a real store and on the model at once."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any
from unittest import mock

import msgpack
import msgspec
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

from tests.model.reference import Message, Model, Redrive, Settings, meets
from tests.storage.conftest import Store
from zaqar_gevent import filters
from zaqar_gevent.api.filter_index import FilterIndex
from zaqar_gevent.redrives import NewRedrive, RunningRedrive, State
from zaqar_gevent.retry_delays import RetryDelay
from zaqar_gevent.settlements import Settle, Settlement
from zaqar_gevent.storage.features import Feature
from zaqar_gevent.storage.interface import RedriveController
from zaqar_gevent.storage.stores import stores_of

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
    'fair': Settings('dead', fair_groups=True),
    'both': Settings(retry=RETRY, ordered_groups=True, fair_groups=True),
}
queues = st.sampled_from([*sorted(SETTINGS), 'ordered', 'ordered', 'fair'])
NO_REASONS: Mapping[str, str | None] = MappingProxyType({})

clients = st.sampled_from(CLIENTS)
limits = st.integers(1, 4)
groups = st.sampled_from((None, 'a', 'a', 'b', 'c'))
kinds = st.sampled_from(('order', 'refund', 'ordinary'))
attributes = st.none() | st.fixed_dictionaries({'kind': kinds}, optional={'region': kinds})
conditions = st.one_of(
    kinds,
    st.lists(kinds, min_size=1, max_size=2),
    st.sampled_from(('o', 'order', 'x')).map(lambda text: {'prefix': text}),
    st.booleans().map(lambda is_there: {'exists': is_there}),
)
filter_documents = st.dictionaries(
    st.sampled_from(('kind', 'region')), conditions, min_size=1, max_size=2
)
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


def has_redrives(machine: StoreMachine) -> bool:
    return bool(machine.model.redrives)


def can_redrive(machine: StoreMachine) -> bool:
    return machine.redrives is not None and has_messages(machine)


def has_subscribers(machine: StoreMachine) -> bool:
    return bool(machine.subscribers)


@dataclasses.dataclass
class Subscriber:
    """A subscription with a filter: what it was sent, and where it goes on reading.

    marker, position: of the last message it has read. sent: the bodies that it was sent as they
    were posted and has not read yet.
    """

    queue: str
    filter: dict[str, Any]
    marker: str | None
    position: int
    sent: list[str] = dataclasses.field(default_factory=list)


def has_leases(machine: StoreMachine) -> bool:
    return any(machine.model.claims(name) for name in machine.model.queues)


class StoreMachine(RuleBasedStateMachine):
    """The rules; each does one thing to both and compares what comes of it.

    shared, clock: the store and its clock, given by a subclass, for all its sequences.
    """

    shared: Store
    clock: Clock
    names = itertools.count()
    steps = 0
    """How many there have been, for all sequences."""

    whole_seconds = False
    """Whether a scheduled message counts as posted at the next whole second."""

    size_of: Callable[[Message], int]
    """How many bytes a message has in the store."""

    def __init__(self) -> None:
        super().__init__()
        # What one sequence leaves behind is in other queues than those of the next.
        self._prefix = f's{next(self.names)}-'
        self.store = self.shared.of(f'project-{self._prefix}{uuid.uuid4().hex}')
        self.model = Model(self.clock.now, self.whole_seconds)
        stores = stores_of(self.store.data, self.store.control)
        self.redrives: RedriveController | None = next(iter(stores.all_redrives()), None)
        self._usage = stores.usage
        self.subscribers: dict[str, Subscriber] = {}
        self._indices: dict[str, FilterIndex[Subscriber]] = {}
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
            settings = dataclasses.replace(settings, ordered_groups=False, fair_groups=False)
        self.model.create(name, settings)
        self._indices[name] = FilterIndex()

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
        attributes=attributes,
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
        attributes: dict[str, str] | None,
        group: str | None,
    ) -> None:
        self._touch(name)
        self._show_due(name)
        bodies = [f'm{next(self._bodies)}' for _ in range(count)]
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
        if not delay:
            self._send(name, bodies, attributes)

    @rule(name=queues, count=st.integers(1, 5), group=groups, attributes=attributes)
    def post_plainly(
        self, name: str, count: int, group: str | None, attributes: dict[str, str] | None
    ) -> None:
        """What most posts are, so that there is something to work with."""
        client, ttl, delay = CLIENTS[0], 30_000, 0
        self.post(name, client, count, ttl, delay, False, attributes, group)

    def _send(self, name: str, bodies: list[str], attributes: dict[str, str] | None) -> None:
        """Let the subscribers have new messages whose filters are met, as a server does."""
        met = self._indices[name].meeting(attributes)
        served = [one for group in met for one in group.members.values()]
        for subscriber in self.subscribers.values():
            if subscriber.queue == name:
                expected = meets(subscriber.filter, attributes)
                times = sum(one is subscriber for one in served)
                assert times == expected, f'{subscriber.filter} and {attributes}: {times} times'
                subscriber.sent += bodies if expected else []

    @rule(name=queues, document=filter_documents)
    def subscribe(self, name: str, document: dict[str, Any]) -> None:
        """Subscribe with a filter to what comes from now on."""
        url = f'http://127.0.0.1:1/{len(self.model.subscriptions)}'
        made = self.store.subscriptions.create(self._real(name), url, 30_000, {'filter': document})
        self._show_due(name)
        found, marker = self._list(name)
        options = self.store.subscriptions.get(self._real(name), made)['options']
        assert options == {'filter': document}
        position = self.model.free(name)[-1].position if found else 0
        subscriber = Subscriber(name, document, marker, position)
        self.subscribers[made] = subscriber
        self._indices[name].add(made, subscriber, filters.parse(options['filter']))
        self.model.subscriptions.append(self.clock.now + 30_000)
        type(self).steps += 1

    @precondition(has_subscribers)
    @rule(pick=picks, limit=limits)
    def catch_up(self, pick: int, limit: int) -> None:
        """Read what a subscription is for behind its marker, page by page, as one that resumes."""
        subscriber = self._pick(list(self.subscribers.values()), pick)
        name, wanted = subscriber.queue, filters.parse(subscriber.filter)
        if subscriber.marker is not None and self._has_lost(name, subscriber.marker):
            subscriber.marker, subscriber.position = None, 0
        self._list(name)
        behind = [one for one in self.model.free(name) if one.position > subscriber.position]
        read: list[dict[str, Any]] = []
        while True:
            page, following = self._list(name, marker=subscriber.marker, limit=limit)
            if not page:
                break
            read += [one for one in page if wanted.meets(one.get('attributes'))]
            subscriber.marker = following
        self._compare(read, [one for one in behind if meets(subscriber.filter, one.attributes)])
        if behind:
            subscriber.position = behind[-1].position
            # What was sent and is there is found again: nothing lies before the marker.
            there = {one.body for one in self.model.free(name)}
            missed = there & set(subscriber.sent) - {one['body'] for one in read}
            assert not missed, f'{missed} came, but not to who resumed'
        subscriber.sent.clear()

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
        is_fair = self.model.queues[name].settings.fair_groups
        if expected and self.store.features.finds_claimable:
            place = self.store.project, self._real(name)
            assert self.store.data.claim_controller.find_claimable([place]) == [0]
        lease: dict[str, Any] = {'ttl': ttl, 'grace': grace}
        retry = self.model.queues[name].settings.retry
        if retry is not None:
            lease['retry'] = retry
        claim, found = self.store.claims.create(self._real(name), lease, limit=limit)
        messages = list(found)
        if is_fair:
            expected = self._check_turns(name, messages, len(expected))
        self._move_dead_letters(name, exhausted)
        for message in expected:
            self.model.take(name, message, str(claim), ttl, grace)
        self._compare(messages, expected)
        assert {one['claim_id'] for one in messages} <= {claim}

    def _check_turns(self, name: str, found: list[dict[str, Any]], count: int) -> list[Message]:
        """Look whether messages were taken from the groups in turn; the messages.

        count: how many it must be.
        """
        assert len(found) == count, f'{len(found)} messages, not {count}'
        by_body = {one.body: one for one in self.model.claimable(name)}
        unknown = [one['body'] for one in found if one['body'] not in by_body]
        assert not unknown, f'{unknown} cannot be claimed'
        taken = [by_body[one['body']] for one in found]
        problem = self.model.take_turns(name, taken)
        assert problem is None, problem
        return taken

    def _any_claim(self, name: str, pick: int) -> str:
        claim: str = self._pick(self.model.claims(name), pick)
        return claim

    @precondition(has_leases)
    @rule(queue=picks, pick=picks)
    def get_claim(self, queue: int, pick: int) -> None:
        name = self._pick(self._leased(), queue)
        claim = self._any_claim(name, pick)
        _, found = self.store.claims.get(self._real(name), claim)
        messages, expected = list(found), self.model.held(name, claim)
        if self.model.queues[name].settings.fair_groups:
            # In the order in which they were taken, or in that of the queue.
            messages.sort(key=lambda one: str(one['body']))
            expected.sort(key=lambda one: one.body)
        self._compare(messages, expected)

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
        self._show_due_dead_letters(name)
        expected, exhausted = self.model.find_claimable(name, limit)
        popped = list(self.store.messages.pop(self._real(name), limit) or ())
        if self.model.queues[name].settings.fair_groups:
            expected = self._check_turns(name, popped, len(expected))
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
        for redrive in [one for one in self.model.redrives if one.queue == name]:
            self._end(redrive)
        gone = [key for key, one in self.subscribers.items() if one.queue == name]
        for key in gone:
            # The rows stay, for a queue of this name that is made later.
            del self.subscribers[key]
        self._create(name, SETTINGS[name])

    @precondition(can_redrive)
    @rule(
        queue=st.just('dead') | queues,
        where=st.none() | queues,
        limit=st.none() | limits,
        rate=st.sampled_from((None, None, 1.0)),
    )
    def begin_redrive(
        self, queue: str, where: str | None, limit: int | None, rate: float | None
    ) -> None:
        """Ask for messages to be moved, which is done later."""
        assert self.redrives is not None
        if where == queue or any(one.queue == queue for one in self.model.redrives):
            return
        self._touch(queue)
        self._list(queue)
        target = None if where is None else self._real(where)
        made = self.redrives.create(
            self._real(queue), NewRedrive(target, limit, rate, 10, 100), self.store.project
        )
        assert (made['state'], made['moved'], made['limit']) == ('running', 0, limit)
        self.model.begin_redrive(made['id'], queue, where, limit)

    @precondition(has_redrives)
    @rule(pick=picks)
    def finish_redrive(self, pick: int) -> None:
        """Take all steps of a redrive; what is free by now and was there when it began moves."""
        assert self.redrives is not None
        redrive = self._pick(self.model.redrives, pick)
        for name in self.model.queues:
            self._touch(name)
            self._list(name)
            self.model.queues[name].has_unseen_due = False
        moving, left = self.model.plan_redrive(redrive)
        running = RunningRedrive(self.store.project, self._real(redrive.queue), redrive.id)
        targets = [self._real(name) for name in self.model.queues]
        state = 'running'
        while state == 'running':
            assert self.redrives.step(running, targets).target is None
            found = self.redrives.get(running.queue, running.id, running.project)
            state = found['state']
            # The next step of one with a rate is due then.
            self.clock.now += 1
            self.model.pass_time(1)
        assert (state, found['moved'], found['left']) == ('finished', len(moving), left)
        for message, target in moving:
            [new] = [
                one
                for one in self._list(target, include_claimed=True)[0]
                if one['body'] == message.body
            ]
            self.model.redrive(redrive, message, target, new['id'], new['age'])
        self.model.redrives.remove(redrive)

    @precondition(has_redrives)
    @rule(pick=picks)
    def cancel_redrive(self, pick: int) -> None:
        self._end(self._pick(self.model.redrives, pick))

    def _end(self, redrive: Redrive) -> None:
        assert self.redrives is not None
        place = (self._real(redrive.queue), redrive.id, self.store.project)
        self.redrives.end(*place, State.CANCELLED)
        assert self.redrives.get(*place)['state'] == 'cancelled'
        self.model.redrives.remove(redrive)

    @rule()
    def count_usage(self) -> None:
        """Compare what the project has with the counters."""
        if self._usage is None:
            return
        self.store.data._storage.gc()
        found, expected = self._usage.get(self.store.project), self.model.usage(self.size_of)
        assert found == expected, f'{found} instead of {expected}'
        type(self).steps += 1

    @invariant()
    def queues_are_equal(self) -> None:
        """Of each queue that was touched: its messages in order, and their numbers."""
        for name in sorted(self._touched):
            self._compare_queue(name)
        self._touched.clear()
        self.model.forget_turns()

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
        self.count_usage()
        for redrive in list(self.model.redrives):
            self._end(redrive)
        for name in self.model.queues:
            self.store.queues.delete(self._real(name))


def machine_of(store: Store, clock: Clock) -> type[StoreMachine]:
    """The machine of one store."""
    on_redis = store.redis is not None
    members: dict[str, Any] = {'shared': store, 'clock': clock}
    members['size_of'] = staticmethod(_size_on_redis if on_redis else _size)
    usage = stores_of(store.data, store.control).usage
    if usage is not None:
        usage.begin(lambda project: True)
    return type('StoreMachine', (StoreMachine,), {**members, 'whole_seconds': on_redis, 'steps': 0})


def _size(message: Message) -> int:
    """The bytes of a message as SQLite and PostgreSQL store it."""
    size = len(msgspec.json.encode(message.body))
    return size + (len(msgspec.json.encode(message.attributes)) if message.attributes else 0)


def _size_on_redis(message: Message) -> int:
    """The bytes of a message as it was posted to Redis."""
    extras = {'attributes': message.attributes, 'group': message.group}
    given = {name: value for name, value in extras.items() if value}
    size = len(msgpack.packb(message.body))
    return size + (len(msgpack.packb(given)) if given else 0)
