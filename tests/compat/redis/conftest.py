"""Upstream's REST tests on a real Redis, through the native driver.

`ZAQAR_COMPAT_REDIS_DRIVER=upstream` runs them through upstream's driver, and
`ZAQAR_COMPAT_TRANSPORT=wsgi` on upstream's own transport as well: what fails there too is the
driver's doing, and only that may be listed in `impossible_upstream.txt`.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from tests.compat import impossible
from tests.compat.conftest import choose_store
from tests.redis_process import RedisProcess
from zaqar_gevent.storage import drivers


@pytest.fixture(scope='session')
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp('redis')) as process:
        yield process


TRANSPORT = os.environ.get('ZAQAR_COMPAT_TRANSPORT', 'ours')
DRIVER = os.environ.get(
    'ZAQAR_COMPAT_REDIS_DRIVER', 'native' if TRANSPORT == 'ours' else 'upstream'
)
LISTS = {'native': 'impossible.txt', 'upstream': 'impossible_upstream.txt'}


@pytest.fixture
def store(redis_process: RedisProcess) -> dict[str, dict[str, str]]:
    redis_process.client.flushall()
    drivers.load_redis_by_choice()
    options = choose_store('redis', redis_process.patient_uri)
    options['drivers']['redis_driver'] = DRIVER
    return options


@pytest.fixture
def transport() -> str:
    return TRANSPORT


@pytest.fixture
def pool_uri(redis_process: RedisProcess) -> str:
    return redis_process.patient_uri


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    impossible.expect_failures(items, pathlib.Path(__file__).parent, LISTS[DRIVER])
