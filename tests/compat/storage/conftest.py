"""Upstream's storage suites on the embedded store."""

from __future__ import annotations

import pathlib

import pytest

from tests.compat import impossible


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    impossible.expect_failures(items, pathlib.Path(__file__).parent)
