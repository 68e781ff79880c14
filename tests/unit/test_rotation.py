"""Whose turn it is among those who wait."""

from __future__ import annotations

import pytest

from zaqar_gevent.rotation import Rotation


@pytest.fixture
def waiting() -> Rotation[str, int]:
    rotation: Rotation[str, int] = Rotation()
    for number in range(3):
        rotation.add('busy', number)
    rotation.add('quiet', 10)
    return rotation


def test_keys_take_turns_and_items_keep_their_order(waiting: Rotation[str, int]) -> None:
    taken = [waiting.take() for _ in range(5)]
    assert taken == [('busy', 0), ('quiet', 10), ('busy', 1), ('busy', 2), None]
    assert not waiting


def test_who_may_not_be_served_keeps_the_turn(waiting: Rotation[str, int]) -> None:
    assert waiting.take(lambda key: key == 'quiet') == ('quiet', 10)
    assert waiting.take(lambda key: key == 'quiet') is None
    assert waiting.take() == ('busy', 0)


def test_an_item_may_wait_no_longer(waiting: Rotation[str, int]) -> None:
    waiting.remove('quiet', 10)
    waiting.remove('busy', 0)
    assert 'quiet' not in waiting
    assert waiting.take() == ('busy', 1)
    with pytest.raises(KeyError):
        waiting.remove('quiet', 10)
