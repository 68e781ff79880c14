"""Whose turn it is, with the time passed in."""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from zaqar_gevent.api import retries
from zaqar_gevent.api.delivery import Notification
from zaqar_gevent.api.push import Source
from zaqar_gevent.webhooks import scheduler as scheduling
from zaqar_gevent.webhooks.backlog import DELIVERED, Backlog, Outcome
from zaqar_gevent.webhooks.scheduler import Limits, Scheduler

FAILED = Outcome('failed', 'it answered 500')
REFUSED = Outcome('refused', 'it answered 404')
ROOMY = Limits(running=1000, of_project=1000, backlog_length=1000, backlog_bytes=10**9)
FOREVER = 10**9
QUEUE = Source('p', 'q')


class Alarm:
    """A timer of the clock."""

    def __init__(self, clock: Clock, at: float, job: Callable[[], None]) -> None:
        self.clock, self.at, self.job = clock, at, job

    def close(self) -> None:
        if self in self.clock.alarms:
            self.clock.alarms.remove(self)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.alarms: list[Alarm] = []

    def __call__(self) -> float:
        return self.now

    def later(self, seconds: float, job: Callable[[], None]) -> Alarm:
        alarm = Alarm(self, self.now + seconds, job)
        self.alarms.append(alarm)
        return alarm

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while due := [alarm for alarm in self.alarms if alarm.at <= until]:
            alarm = min(due, key=lambda each: each.at)
            self.now = max(self.now, alarm.at)
            self.alarms.remove(alarm)
            alarm.job()
        self.now = until


class Office:
    """A scheduler, what it has started, and what it has said of drops."""

    def __init__(self, limits: Limits = ROOMY) -> None:
        self.clock = Clock()
        self.started: list[Backlog] = []
        self.drops: collections.Counter[str] = collections.Counter()
        self.sent: list[tuple[str, Any]] = []
        self.scheduler = Scheduler(limits, self._start, self.clock.later, self.clock, self)

    def _start(self, backlog: Backlog) -> None:
        self.started.append(backlog)

    def tried(self, backlog: Backlog, outcome: Outcome, seconds: float) -> None:
        if outcome is DELIVERED:
            self.sent.append((backlog.ident, backlog.waiting[0].document))

    def dropped(self, backlog: Backlog, reason: str, count: int) -> None:
        self.drops[reason] += count

    def deliver(
        self,
        ident: str,
        *documents: Any,
        project: str = 'p',
        ttl: float = FOREVER,
        options: dict[str, Any] | None = None,
    ) -> None:
        row = {'id': ident, 'source': 'q', 'subscriber': 'http://a', 'options': options or {}}
        found = [Notification(document, '', None) for document in documents]
        for notification in found:
            notification.expires_at = self.clock.now + ttl
        self.scheduler.deliver(Source(project, 'q'), row, found, {})

    def change(self, ident: str, project: str) -> None:
        row = {'id': ident, 'subscriber': 'http://b', 'options': {}}
        self.scheduler.changed(Source(project, 'q'), row)

    def end(self, ident: str, project: str) -> None:
        self.scheduler.ended(Source(project, 'q'), ident)

    def names(self) -> list[str]:
        return [backlog.ident for backlog in self.started]

    def finish(self, outcome: Outcome = DELIVERED, ident: str | None = None) -> None:
        """What was started first, or a certain one, has ended."""
        [backlog, *_] = [backlog for backlog in self.started if ident in (None, backlog.ident)]
        self.started.remove(backlog)
        self.scheduler.finish(backlog, outcome)

    def finish_all(self, outcome: Outcome = DELIVERED) -> None:
        while self.started:
            self.finish(outcome)

    def prove(self, *idents: str, project: str = 'p') -> None:
        """Let subscriptions have answered promptly."""
        for ident in idents:
            self.deliver(ident, 'proof', project=project)
        self.finish_all()
        self.sent.clear()


def test_one_at_a_time_and_in_order() -> None:
    office = Office()
    office.deliver('s', 1, 2)
    office.deliver('s', 3)
    for number in (1, 2, 3):
        assert office.names() == ['s']
        office.finish()
        assert office.sent[-1] == ('s', number)
    assert office.names() == []
    assert (office.scheduler.waiting, office.scheduler.bytes, office.scheduler.running) == (0, 0, 0)


def test_a_failure_is_tried_again_before_what_follows() -> None:
    office = Office()
    office.deliver('s', 1, 2)
    office.finish(FAILED)
    assert office.names() == []
    office.clock.advance(0.99)
    assert office.names() == []
    office.clock.advance(0.21)
    assert office.names() == ['s']
    office.finish_all()
    assert office.sent == [('s', 1), ('s', 2)]


def test_the_delays_are_the_policys_and_a_little_longer() -> None:
    office = Office()
    policy = {
        'retries_with_no_delay': 1,
        'minimum_delay_retries': 1,
        'minimum_delay': 10,
        'maximum_delay': 20,
        'maximum_delay_retries': 1,
    }
    office.deliver('s', 1, options={'_retry_policy': policy})
    waited = []
    for _ in range(5):
        began = office.clock.now
        office.finish(FAILED)
        while not office.started:
            office.clock.advance(0.1)
        waited.append(office.clock.now - began)
    for delay, seconds in zip((0, 10, 10, 15, 20), waited, strict=True):
        assert delay <= seconds <= delay * (1 + retries.JITTER) + 0.2
    assert len({seconds / delay for delay, seconds in zip((10, 10), waited[1:], strict=False)}) > 1


def test_what_failed_often_enough_is_given_up_and_the_next_is_tried_less_often() -> None:
    office = Office()
    office.deliver('s', 1, 2)
    tries = 0
    while office.scheduler.waiting:
        office.clock.advance(0 if office.started else 1)
        if office.started:
            tries += 1
            office.finish(FAILED)
    first = 1 + len(retries.WITHOUT_POLICY)
    assert office.drops == {'given_up': 2}
    assert first + 1 < tries < 2 * first


def test_after_giving_up_the_next_one_waits_as_long_as_the_last_did() -> None:
    office = Office()
    office.deliver('s', 1)
    while office.scheduler.waiting:
        office.clock.advance(0 if office.started else 1)
        if office.started:
            office.finish(FAILED)
    office.deliver('s', 2)
    assert office.names() == []
    office.clock.advance(59)
    assert office.names() == []
    office.clock.advance(14)
    assert office.names() == ['s']
    office.finish()
    office.deliver('s', 3)
    assert office.names() == ['s']


def test_what_can_never_work_is_dropped_and_the_next_is_sent() -> None:
    office = Office()
    office.deliver('s', 1, 2)
    office.finish(REFUSED)
    assert office.drops == {'refused': 1}
    office.finish()
    assert office.sent == [('s', 2)]


def test_a_subscriber_can_ask_for_more_time_but_not_for_ever() -> None:
    office = Office()
    office.deliver('s', 1)
    office.finish(Outcome('failed', '', retry_after=100))
    office.clock.advance(99)
    assert office.names() == []
    office.clock.advance(2)
    assert office.names() == ['s']
    office.finish(Outcome('failed', '', retry_after=10**6))
    office.clock.advance(retries.MAX_DELAY + 1)
    assert office.names() == ['s']


def test_the_oldest_is_dropped_where_too_much_waits_for_one() -> None:
    office = Office(ROOMY._replace(backlog_length=3))
    office.deliver('s', *range(10))
    assert office.drops == {'backlog': 7}
    office.finish_all()
    assert office.sent == [('s', 7), ('s', 8), ('s', 9)]


def test_what_is_on_its_way_is_not_dropped() -> None:
    office = Office(ROOMY._replace(backlog_length=2))
    office.deliver('s', 0)
    office.deliver('s', *range(1, 10))
    office.finish_all()
    assert office.sent == [('s', 0), ('s', 9)]


def test_an_expired_message_is_not_sent() -> None:
    office = Office(ROOMY._replace(running=2))
    office.deliver('busy', 1)
    office.deliver('s', 1, 2, ttl=60)
    office.deliver('s', 3)
    office.clock.advance(61)
    office.finish()
    office.finish_all()
    assert office.drops == {'expired': 2}
    assert office.sent == [('busy', 1), ('s', 3)]


def test_an_expired_message_is_not_tried_again() -> None:
    office = Office()
    office.deliver('s', 1, ttl=2)
    office.finish(FAILED)
    office.clock.advance(1.3)
    office.finish(FAILED)
    office.clock.advance(5)
    assert office.names() == []
    assert office.drops == {'expired': 1}


def test_projects_take_turns() -> None:
    office = Office(ROOMY._replace(running=2))
    for number in range(5):
        office.deliver(f'many{number}', 1, project='many')
    office.deliver('few', 1, project='few')
    assert office.names() == ['many0']
    office.finish()
    assert office.names() == ['many1']
    office.finish()
    assert office.names() == ['few']


def test_subscriptions_of_a_project_take_turns() -> None:
    office = Office(ROOMY._replace(running=2))
    office.prove('long', 'short')
    office.deliver('long', *range(5))
    office.deliver('short', 'x')
    assert office.names() == ['long']
    office.finish()
    assert office.names() == ['short']


def test_a_project_gets_only_so_many_at_a_time() -> None:
    office = Office(ROOMY._replace(running=20, of_project=4))
    for number in range(10):
        office.deliver(f'greedy{number}', 1, project='greedy')
    office.deliver('other', 1, project='other')
    assert office.names() == ['greedy0', 'greedy1', 'other']


def test_those_that_fail_never_take_the_place_of_those_that_answer() -> None:
    office = Office(ROOMY._replace(running=4, of_project=4))
    office.prove('good')
    for number in range(100):
        office.deliver(f'silent{number}', 1)
    office.deliver('good', 1)
    assert office.names() == ['silent0', 'silent1', 'good']
    office.finish(ident='good')
    office.deliver('good', 2)
    assert 'good' in office.names()


def test_one_that_was_never_tried_need_not_wait_for_those_that_failed() -> None:
    office = Office(ROOMY._replace(running=2))
    for number in range(10):
        office.deliver(f'failing{number}', 1)
    office.finish_all(FAILED)
    office.clock.advance(2)
    assert len(office.names()) == 1
    office.deliver('new', 1)
    office.finish(FAILED)
    assert office.names() == ['new']


@pytest.mark.parametrize(
    ('outcome', 'seconds'), [(FAILED, 0.1), (DELIVERED, scheduling.PROMPT_SECONDS)]
)
def test_one_that_failed_or_was_slow_is_no_longer_among_those_that_answer(
    outcome: Outcome, seconds: float
) -> None:
    office = Office(ROOMY._replace(running=4))
    office.prove('once')
    office.deliver('once', 1, 2)
    office.clock.advance(seconds)
    office.finish(outcome)
    office.finish_all()
    for number in range(2):
        office.deliver(f'silent{number}', 1)
    office.clock.advance(2)
    office.deliver('once', 3)
    assert ('once' in office.names()) == (outcome is DELIVERED)


def test_one_that_takes_long_makes_room_meanwhile() -> None:
    office = Office(ROOMY._replace(running=4, of_project=4))
    office.prove('a', 'b', 'c')
    for ident in ('a', 'b', 'c'):
        office.deliver(ident, 1)
    assert office.names() == ['a', 'b']
    office.scheduler.set_lingering_apart()
    assert office.names() == ['a', 'b']
    office.clock.advance(scheduling.PROMPT_SECONDS + 0.1)
    office.scheduler.set_lingering_apart()
    assert office.names() == ['a', 'b', 'c']
    office.finish_all()
    assert office.scheduler.running == 0


def test_where_too_much_waits_in_all_the_project_that_has_most_loses() -> None:
    office = Office(ROOMY._replace(backlog_bytes=400_000))
    office.deliver('modest', *['x' * 1000] * 3, project='modest')
    for number in range(100):
        office.deliver('greedy', f'{number}' + 'x' * 10_000, project='greedy')
        assert office.scheduler.bytes <= 400_000
    assert set(office.drops) == {'memory'}
    office.finish_all()
    assert [ident for ident, _ in office.sent].count('modest') == 3
    numbers = [document for ident, document in office.sent if ident == 'greedy']
    assert numbers[-1].startswith('99')
    assert office.scheduler.bytes == 0


def test_the_longest_backlogs_of_that_project_lose_first() -> None:
    office = Office(ROOMY._replace(backlog_bytes=300_000))
    office.deliver('short', 'y' * 1000, 'y')
    for _ in range(50):
        office.deliver('long', 'x' * 10_000)
    office.finish_all()
    assert [document for ident, document in office.sent if ident == 'short'] == ['y' * 1000, 'y']


def test_a_message_that_waits_for_many_counts_once() -> None:
    office = Office(ROOMY._replace(backlog_bytes=10_000_000))
    shared = Notification('x' * 1_000_000, '', None)
    for number in range(100):
        row = {'id': str(number), 'subscriber': 'http://a', 'options': {}}
        office.scheduler.deliver(QUEUE, row, [shared], {})
    assert 1_000_000 < office.scheduler.bytes < 2_000_000
    office.finish_all()
    assert len(office.sent) == 100
    assert office.scheduler.bytes == 0


def test_long_options_count_too() -> None:
    office = Office()
    office.deliver('s', 1, options={'post_data': 'x' * 100_000})
    assert office.scheduler.bytes > 100_000
    office.finish()
    assert office.scheduler.bytes == 0


def test_a_subscription_that_ended_is_told_no_more() -> None:
    office = Office()
    office.deliver('s', 1, 2)
    office.scheduler.ended(QUEUE, 's')
    office.finish()
    assert office.names() == []
    assert (office.scheduler.waiting, office.scheduler.bytes) == (0, 0)
    assert office.scheduler.find(QUEUE, 's') is None
    office.deliver('t', 1)
    office.finish(FAILED)
    office.scheduler.ended(QUEUE, 't')
    office.clock.advance(100)
    assert office.names() == []
    assert (office.scheduler.waiting, office.scheduler.bytes) == (0, 0)


def test_one_whose_time_is_over_is_told_no_more() -> None:
    office = Office()
    row = {'id': 's', 'subscriber': 'http://a', 'options': {}, 'ttl': 60, 'age': 30}
    found = [Notification(number, '', None) for number in range(2)]
    office.scheduler.deliver(QUEUE, row, found, {})
    office.clock.advance(29)
    office.finish(FAILED)
    office.clock.advance(2)
    assert office.names() == []
    assert office.drops == {'ended': 2}
    assert (office.scheduler.waiting, office.scheduler.bytes) == (0, 0)


def test_one_that_ended_while_it_was_ready_leaves_nothing_behind() -> None:
    office = Office(ROOMY._replace(running=2))
    office.deliver('busy', 1, project='a')
    office.deliver('s', 1, project='b')
    office.scheduler.ended(Source('b', 'q'), 's')
    office.finish()
    assert office.names() == []
    assert not office.scheduler._others._queue
    assert not office.scheduler._others._queue


def test_a_subscription_that_was_changed_is_tried_at_once() -> None:
    office = Office()
    office.deliver('s', 1)
    for _ in range(4):
        office.finish(FAILED)
        office.clock.advance(60)
    office.finish(FAILED)
    changed = {'id': 's', 'subscriber': 'http://b', 'options': {}}
    office.scheduler.changed(QUEUE, changed)
    assert office.names() == ['s']
    assert office.started[0].row is changed
    assert office.clock.alarms == []


def test_how_it_went_is_remembered() -> None:
    office = Office()
    office.deliver('s', 1, 2, 3)
    office.finish()
    office.clock.advance(1)
    office.finish(REFUSED)
    office.clock.advance(1)
    office.finish(FAILED)
    backlog = office.scheduler.find(QUEUE, 's')
    assert backlog is not None
    assert (backlog.succeeded_at, backlog.failed_at, backlog.failure) == (
        1000,
        1002,
        'it answered 500',
    )
    assert backlog.next_try_at == pytest.approx(1003.1, abs=0.11)
    assert (len(backlog.waiting), backlog.dropped) == (1, 1)


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, 'MAX_IDLE', 10)
    office = Office()
    office.deliver('failing', 1)
    office.finish(FAILED)
    for number in range(20):
        office.deliver(str(number), 1)
        office.finish(ident=str(number))
    known = [number for number in range(20) if office.scheduler.find(QUEUE, str(number))]
    assert known == list(range(10, 20))
    assert office.scheduler.find(QUEUE, 'failing') is not None


def test_ids_count_within_their_queue() -> None:
    office = Office()
    for project in ('a', 'b'):
        office.deliver('1', project, project=project)
    assert office.names() == ['1', '1']
    office.scheduler.ended(Source('a', 'q'), '1')
    assert office.scheduler.find(Source('b', 'q'), '1') is not None


@pytest.mark.parametrize('seed', range(30))
def test_whatever_happens_the_order_holds_and_nothing_is_left(seed: int) -> None:
    """In any sequence of posts, results, deletions, changes and time."""
    dice = random.Random(seed)
    limits = Limits(running=6, of_project=4, backlog_length=20, backlog_bytes=60_000)
    office = Office(limits)
    numbers = itertools.count()
    idents = [f's{number}' for number in range(12)]
    for _ in range(2000):
        ident = dice.choice(idents)
        project = f'p{int(ident[1:]) % 3}'
        match dice.randrange(8):
            case 0 | 1 | 2:
                documents = [next(numbers) for _ in range(dice.randrange(1, 4))]
                office.deliver(ident, *documents, project=project, ttl=dice.choice([3, FOREVER]))
            case 3 | 4 | 5:
                if office.started:
                    chosen = dice.choice(office.names())
                    outcome = dice.choice([DELIVERED, DELIVERED, FAILED, REFUSED])
                    office.finish(outcome, chosen)
            case 6:
                office.clock.advance(dice.choice([0.01, 0.5, 5]))
                office.scheduler.set_lingering_apart()
            case 7:
                dice.choice([office.change, office.end])(ident, project)
        assert len(office.started) == office.scheduler.running <= 6
        assert office.scheduler.bytes <= 60_000 + 3 * 3000
    while office.started or office.clock.alarms:
        office.finish_all()
        office.clock.advance(100)
    for ident in idents:
        sent = [document for each, document in office.sent if each == ident]
        assert sent == sorted(set(sent))
    assert office.sent
    assert (office.scheduler.waiting, office.scheduler.bytes, office.scheduler.running) == (0, 0, 0)
    for share in (office.scheduler._prompt, office.scheduler._others):
        assert not share._queue
        assert not share._queue


def test_large_options_are_let_go_with_what_is_dropped() -> None:
    """Otherwise nothing is left to drop, and whoever is told next loses its notifications."""
    office = Office(ROOMY._replace(running=2, backlog_bytes=400_000))
    for number in range(100):
        office.deliver(f'{number}', 'x', options={'post_data': 'y' * 16_000})
        assert office.scheduler.bytes <= 400_000
    assert office.drops['memory'] < 90
    office.finish_all()
    assert office.scheduler.bytes == 0
