"""Upstream's REST tests on a real Redis, through upstream's storage driver.

`ZAQAR_COMPAT_TRANSPORT=wsgi` runs them on upstream's own transport instead: what fails there too is
the driver's doing, and only that may be listed in `impossible.txt` for it.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from tests.compat import impossible
from tests.compat.conftest import choose_store
from tests.redis_process import RedisProcess


@pytest.fixture(scope='session')
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp('redis')) as process:
        yield process


@pytest.fixture
def store(redis_process: RedisProcess) -> dict[str, dict[str, str]]:
    redis_process.client.flushall()
    return choose_store('redis', redis_process.uri)


@pytest.fixture
def transport() -> str:
    return os.environ.get('ZAQAR_COMPAT_TRANSPORT', 'ours')


@pytest.fixture
def pool_uri(redis_process: RedisProcess) -> str:
    return redis_process.uri


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    impossible.expect_failures(items, pathlib.Path(__file__).parent)
