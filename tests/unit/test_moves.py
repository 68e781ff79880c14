"""Ids and markers that came with a queue from another store."""

from __future__ import annotations

import pytest

from zaqar_gevent.storage.core.pages import encode_id
from zaqar_gevent.storage.moves import (
    Arrival,
    Mark,
    MarkState,
    Range,
    decode_arrival,
    decode_mark,
)

EPOCH = 'abcdef01'
PREFIX = '0badcafe-1234-8abc-a123-'
NUMBERED = Arrival(Range(100, 5000), Range(10, 70), EPOCH)
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
    for arrival in (NUMBERED, NAMED):
        assert decode_arrival(arrival.encode()) == arrival
    mark = Mark(MarkState.CLOSING, 'm', until=50.0, since=40.0)
    assert decode_mark(mark.encode()) == mark


@pytest.mark.parametrize('state', MarkState)
def test_only_what_closes_a_queue_ends_by_itself(state: MarkState) -> None:
    mark = Mark(state, 'm', until=50.0)
    assert mark.is_in_effect(49.9)
    assert mark.is_in_effect(50.0) is (state is not MarkState.CLOSING)
