"""Upstream's tests that cannot pass here, listed in `impossible.txt` beside the suites.

A line is `Class::test reason`. The tests are run all the same: one that starts to pass fails the
run, so that a list can only shrink.
"""

from __future__ import annotations

import pathlib

import pytest


def read(directory: pathlib.Path, file: str = 'impossible.txt') -> dict[str, str]:
    """Test to reason, as listed in a file of the directory."""
    lines = (directory / file).read_text().splitlines()
    named = [line.split(maxsplit=1) for line in lines if line and not line.startswith('#')]
    return dict(named)


def expect_failures(
    items: list[pytest.Item], directory: pathlib.Path, file: str = 'impossible.txt'
) -> None:
    """Mark the tests listed in the directory, for a hook of its `conftest.py`."""
    listed = read(directory, file)
    for item in items:
        name = '::'.join(item.nodeid.split('::')[1:])
        if item.path.parent == directory and name in listed:
            item.add_marker(pytest.mark.xfail(strict=True, reason=listed[name]))
