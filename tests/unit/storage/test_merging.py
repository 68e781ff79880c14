"""Calls to PostgreSQL that are sent as one."""

from __future__ import annotations

from typing import Any

import pytest

from zaqar_gevent.storage.postgresql import merging
from zaqar_gevent.storage.postgresql.calls import PendingCall
from zaqar_gevent.storage.postgresql.wire import Merge, Statement

# Of a queue, the time, ids, a place, whose they are, and whether it is done again.
IDS, PLACE, OWNERS, AGAIN = 2, 3, 4, 5
STATEMENT = Statement(
    'take', '', again=AGAIN, merge=Merge((IDS, OWNERS), latest=1, least=PLACE, distinct=OWNERS)
)
ALONE = Statement('renew', '')


def call(
    ids: str | None = '{1}',
    *,
    queue: str = 'q',
    now: float = 1.0,
    place: int = 7,
    owners: str | None = '{a}',
    again: bool = False,
    statement: Statement = STATEMENT,
) -> PendingCall:
    return PendingCall(statement, (queue, now, ids, place, owners, again), 0.0)


def ids_of(calls: list[PendingCall]) -> list[Any]:
    """The ids of each call that is sent."""
    return [one.values[IDS] for one in merging.merge(calls)]


def test_calls_of_one_queue_are_sent_as_one() -> None:
    calls = [
        call('{3,1}', owners='{a,a}', now=1.5, place=30),
        call('{2}', owners='{b}', now=2.5, place=4),
        call('{4}', owners='{c}', now=3.5, place=100),
    ]
    [merged] = merging.merge(calls)
    assert merged.values == [b'q', b'3.5', b'{3,1,2,4}', b'4', b'{a,a,b,c}', b'f']
    assert merged.statement is STATEMENT


def test_a_call_alone_is_sent_as_it_is() -> None:
    calls = [call(again=True)]
    assert merging.merge(calls) == calls


@pytest.mark.parametrize(
    'other',
    [
        call('{2}', owners='{b}', queue='other'),
        call('{2}', owners='{b}', again=True),
        call('{2}', owners='{a}'),
        call('{2}', owners=None),
        call('{2}', owners='{b}', statement=ALONE),
    ],
    ids=['queue', 'again', 'not distinct', 'null', 'statement'],
)
def test_what_differs_is_sent_apart(other: PendingCall) -> None:
    assert len(merging.merge([call(), other])) == 2


def test_calls_with_others_between_them_are_sent_as_one() -> None:
    calls = [
        call('{1}'),
        call('{10}', queue='other'),
        call('{2}', owners='{b}'),
        call('{11}', queue='other', owners='{b}'),
    ]
    assert ids_of(calls) == [b'{1,2}', b'{10,11}']


def test_what_is_sent_as_one_is_bounded() -> None:
    many = [call(f'{{{number}}}', owners=f'{{{number}}}') for number in range(40)]
    assert [one.count(b',') + 1 for one in ids_of(many)] == [16, 16, 8]
    long = [call(_array(3000), owners=f'{{{number}}}') for number in range(4)]
    assert ids_of(long) == [one.values[IDS] for one in long]
    assert len(merging.merge([call(_array(9000)), call(owners='{b}')])) == 2


def _array(count: int) -> str:
    return '{' + ','.join(['1'] * count) + '}'


def test_each_call_has_its_answer() -> None:
    calls = [call(owners=f'{{{number}}}') for number in range(4)]
    [merged] = merging.merge(calls)
    merged.rows = [(b'1', b'x'), (b'2', b'y'), (b'3', b'z'), (b'4', None)]
    merged.distribute()
    assert [one.rows for one in calls] == [[row] for row in merged.rows]


def test_the_last_answer_is_that_of_all_further_calls() -> None:
    calls = [call(owners=f'{{{number}}}') for number in range(4)]
    [merged] = merging.merge(calls)
    merged.rows = [(b'1', b'x'), (b'0', None)]
    merged.distribute()
    assert [one.rows for one in calls] == [[(b'1', b'x')], *[[(b'0', None)]] * 3]
