"""Ids and markers that came with a queue from another store."""

from __future__ import annotations

import pytest

from zaqar_gevent.storage.core.pages import encode_id
from zaqar_gevent.storage.moves import (
    Arrival,
    Mark,
    MarkState,
    Range,
    RankedIds,
    decode_arrival,
    decode_mark,
)

EPOCH = 'abcdef01'
PREFIX = '0badcafe-1234-8abc-a123-'
NUMBERED = Arrival(Range(100, 5000), Range(10, 70), EPOCH)
RANKED = Arrival(
    Range(100, 5000),
    Range(10, 70),
    EPOCH,
    ranked=RankedIds('0badcafe', 50),
    subscription_ids={3: 's'},
)
NAMED = Arrival(Range(100, 0), Range(10, 0), None, PREFIX, '0badcafe-9999-8abc-a123-')


@pytest.mark.parametrize('arrival', [NUMBERED, NAMED])
@pytest.mark.parametrize('number', [1, 99, 100])
def test_what_came_with_the_queue_keeps_its_id(arrival: Arrival, number: int) -> None:
    public = encode_id(number)
    own = arrival.message_in(public)
    assert own != public
    assert arrival.message_out(own) == public
    assert arrival.subscription_out(arrival.subscription_in(encode_id(7))) == encode_id(7)
    # In Redis, they share their names.
    assert arrival.subscription_in(encode_id(7)) != arrival.message_in(encode_id(7))


def ranked(rank: int, *, is_delayed: bool = False, start: str = '0badcafe') -> str:
    if is_delayed:
        digits = f'{rank:010x}'
        return f'{start}-{digits[:4]}-8{digits[4:7]}-b{digits[7:]}-ffffabc12300'
    return f'{start}-ffff-8abc-a123-{rank:012x}'


@pytest.mark.parametrize('is_delayed', [False, True])
@pytest.mark.parametrize(('rank', 'number'), [(0, 1), (49, 50), (50, 50), (100, 100)])
def test_the_id_of_what_was_posted_to_a_redis_tells_its_number(
    rank: int, number: int, is_delayed: bool
) -> None:
    public = ranked(rank, is_delayed=is_delayed)
    own = RANKED.message_in(public)
    assert own == encode_id(5000 + number)
    assert RANKED.message_out(own, public) == public
    assert RANKED.message_out(own) == encode_id(number)
    assert RANKED.marker_in(public) == own


def test_other_ids_of_a_redis_are_not_known_here() -> None:
    for public in (ranked(101), ranked(1, start='deadbeef'), ranked(1).replace('-8', '-4')):
        assert RANKED.message_in(public) == public
        # Redis begins anew, too, where the place of a marker is not known.
        assert RANKED.marker_in(public) is None
    # What was posted since has nothing else that it is known as.
    new = encode_id(5101)
    assert RANKED.message_out(new, 'another queue knew it as this') == new


def test_subscriptions_of_a_redis_keep_their_ids() -> None:
    assert RANKED.subscription_in('s') == encode_id(73)
    assert RANKED.subscription_out(encode_id(73)) == 's'
    assert RANKED.subscription_out(encode_id(74)) == encode_id(4)


def test_what_was_posted_since_has_the_same_id_inside_and_outside() -> None:
    new = encode_id(5101)
    assert NUMBERED.message_in(new) == NUMBERED.message_out(new) == new
    name = '0badcafe-ffff-8abc-a123-000000000065'
    assert NAMED.message_in(name) == NAMED.message_out(name) == name


def test_what_came_stays_before_what_was_posted_since() -> None:
    shown = [NUMBERED.message_out(encode_id(own)) for own in (5001, 5099, 5100, 5101, 5102)]
    assert shown == sorted(shown)
    assert shown == [encode_id(number) for number in (1, 99, 100, 5101, 5102)]


@pytest.mark.parametrize('epoch', ['11111111', EPOCH])
def test_markers_of_the_old_store_are_those_of_the_new_one(epoch: str) -> None:
    marker = f'{encode_id(42)}-{epoch}'
    assert NUMBERED.marker_in(marker) == f'{encode_id(5042)}-{EPOCH}'
    assert NUMBERED.marker_in(encode_id(42)) == encode_id(5042)
    assert NAMED.marker_in(marker) == f'{PREFIX}{42:012x}'


@pytest.mark.parametrize('arrival', [NUMBERED, NAMED])
@pytest.mark.parametrize(
    'marker', [None, '', '0' * 16, 'no marker', encode_id(6000), f'{encode_id(6000)}-{EPOCH}']
)
def test_other_markers_are_left_alone(arrival: Arrival, marker: str | None) -> None:
    assert arrival.marker_in(marker) == marker
    assert arrival.marker_out(marker) == marker


def test_markers_that_are_given_out_come_back() -> None:
    own = f'{encode_id(5042)}-{EPOCH}'
    public = NUMBERED.marker_out(own)
    assert public == f'{encode_id(42)}-{EPOCH}'
    assert NUMBERED.marker_in(public) == own


def test_what_is_stored_is_read() -> None:
    for arrival in (NUMBERED, NAMED, RANKED):
        assert decode_arrival(arrival.encode()) == arrival
    mark = Mark(MarkState.CLOSING, 'm', until=50.0, since=40.0)
    assert decode_mark(mark.encode()) == mark


@pytest.mark.parametrize('state', MarkState)
def test_only_what_closes_a_queue_ends_by_itself(state: MarkState) -> None:
    mark = Mark(state, 'm', until=50.0)
    assert mark.is_in_effect(49.9)
    assert mark.is_in_effect(50.0) is (state is not MarkState.CLOSING)
