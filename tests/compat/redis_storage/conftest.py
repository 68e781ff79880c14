"""Upstream's storage suites on Redis, on the native driver."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from tests.compat import impossible
from tests.redis_process import RedisProcess


@pytest.fixture(autouse=True, scope='session')
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp('redis')) as process:
        yield process


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest, redis_process: RedisProcess) -> None:
    """Give the test its server, with nothing in it."""
    redis_process.client.flushall()
    if request.cls is not None:
        request.cls.redis = redis_process


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    impossible.expect_failures(items, pathlib.Path(__file__).parent)
