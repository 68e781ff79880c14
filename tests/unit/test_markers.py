"""Which texts have the form of a store's markers."""

from __future__ import annotations

import uuid

import pytest

from zaqar_gevent.markers import MarkerNotGiven, check_form

GIVEN = {
    'sqlite': ['00000000000000a7', '00000000000000a7-1234abcd'],
    'redis': [str(uuid.UUID(int=7, version=4))],
    'mongodb': ['1', '4711'],
}
START = '0' * 16


@pytest.mark.parametrize('store', [*GIVEN, None])
@pytest.mark.parametrize('marker', ['nonsense', '-1', ' 1', '1\n', 'f' * 15, '\0', 'f' * 1000])
def test_what_is_no_marker_is_refused(store: str | None, marker: str) -> None:
    with pytest.raises(MarkerNotGiven):
        check_form(marker, store)


@pytest.mark.parametrize('store', GIVEN)
def test_the_markers_of_a_store_are_taken(store: str) -> None:
    for marker in (START, *GIVEN[store]):
        check_form(marker, store)
        check_form(marker, None)
    others = [one for name, given in GIVEN.items() if name != store for one in given]
    for marker in others:
        with pytest.raises(MarkerNotGiven):
            check_form(marker, store)


def test_of_a_store_whose_markers_are_not_known_nothing_is_refused() -> None:
    check_form('anything\n', 'swift')
