"""Which texts have the form of a store's markers."""

from __future__ import annotations

import uuid

import pytest

from zaqar_gevent.markers import MarkerNotGiven, check_form
from zaqar_gevent.storage.features import MarkerKind

GIVEN = {
    MarkerKind.POSITION: ['00000000000000a7', '00000000000000a7-1234abcd'],
    MarkerKind.MESSAGE_ID: [str(uuid.UUID(int=7, version=4))],
    MarkerKind.NUMBER: ['1', '4711'],
}
START = '0' * 16


@pytest.mark.parametrize('kind', [*GIVEN, MarkerKind.MIXED])
@pytest.mark.parametrize('marker', ['nonsense', '-1', ' 1', '1\n', 'f' * 15, '\0', 'f' * 1000])
def test_what_is_no_marker_is_refused(kind: MarkerKind, marker: str) -> None:
    with pytest.raises(MarkerNotGiven):
        check_form(marker, kind)


@pytest.mark.parametrize('kind', GIVEN)
def test_the_markers_of_a_store_are_taken(kind: MarkerKind) -> None:
    for marker in (START, *GIVEN[kind]):
        check_form(marker, kind)
        check_form(marker, MarkerKind.MIXED)
    others = [one for name, given in GIVEN.items() if name != kind for one in given]
    for marker in others:
        with pytest.raises(MarkerNotGiven):
            check_form(marker, kind)


def test_of_a_store_whose_markers_are_not_known_nothing_is_refused() -> None:
    check_form('anything\n', MarkerKind.OPAQUE)
