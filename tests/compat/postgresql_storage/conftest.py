"""Upstream's storage suites on PostgreSQL."""

from __future__ import annotations

import pathlib
import uuid

import pytest

from tests.compat import impossible
from tests.postgres_process import PostgresProcess


@pytest.fixture(autouse=True, scope='session')
def _pools(postgres: PostgresProcess) -> None:
    """The databases that upstream's suite has as pools."""
    for number in range(4):
        postgres.run(f'CREATE DATABASE zaqar_test_pools_{number}')


@pytest.fixture(autouse=True)
def _new(request: pytest.FixtureRequest, postgres: PostgresProcess) -> None:
    """Give the test the server, and the beginning of the names of its schemas."""
    if request.cls is not None:
        request.cls.postgres = postgres
        request.cls.schema = f'zaqar_{uuid.uuid4().hex}'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    impossible.expect_failures(items, pathlib.Path(__file__).parent)
