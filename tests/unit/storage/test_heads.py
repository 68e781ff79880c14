"""Where claims of a queue in PostgreSQL begin to look."""

from __future__ import annotations

import pytest

from zaqar_gevent.storage.postgresql import heads

QUEUE = ('shop', 'orders')


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> heads.Heads:
    """Of a queue from which the first 7 messages were taken, when the front is to be looked at."""
    monkeypatch.setattr(heads, 'LOOK_SECONDS', 0)
    places = heads.Heads()
    places.taken(QUEUE, 0, 7, 0)
    monkeypatch.setattr(heads, 'LOOK_SECONDS', 3600)
    return places


def test_one_claim_looks_at_the_front(places: heads.Heads) -> None:
    assert [places.get(QUEUE) for _ in range(3)] == [0, 7, 7]
    places.taken(QUEUE, 0, 2, 0)
    assert places.get(QUEUE) == 7


def test_the_next_claim_looks_where_one_could_not(places: heads.Heads) -> None:
    assert places.get(QUEUE) == 0
    places.not_looked(QUEUE)
    assert [places.get(QUEUE) for _ in range(2)] == [0, 7]


def test_a_queue_without_a_place_is_looked_at_from_the_front() -> None:
    places = heads.Heads()
    places.not_looked(QUEUE)
    assert [places.get(QUEUE) for _ in range(2)] == [0, 0]
