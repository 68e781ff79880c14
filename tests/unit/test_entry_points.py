"""What the package offers to be found by, and whether it can be."""

from __future__ import annotations

from importlib.metadata import EntryPoint, distribution, entry_points

import pytest
from zaqar.conf import drivers

OURS = tuple(distribution('zaqar_gevent').entry_points)


@pytest.mark.parametrize('entry_point', OURS, ids=lambda one: f'{one.group}:{one.name}')
def test_every_entry_point_can_be_loaded(entry_point: EntryPoint) -> None:
    assert callable(entry_point.load())


def test_no_transport_is_offered_that_upstream_cannot_be_told_to_use() -> None:
    """Its option lists the names it takes, and is read before anything of ours is loaded."""
    offered = {one.name for one in entry_points(group='zaqar.transport')}
    assert offered
    assert offered <= set(drivers.transport.type.choices)
