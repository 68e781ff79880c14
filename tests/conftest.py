"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.callers import TRANSPORTS, connect
from tests.postgres_process import PostgresProcess
from tests.redis_process import RedisProcess
from tests.server_process import ServerProcess

ALL_TESTS_AT_ONCE = 4

# Of what is collected, twelve thousand tests, all is kept: it is not searched for garbage.
gc.disable()

# Whoever is started in the background of a script ignores interrupts, and so do its children.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """All tests are run by some processes, for half of the time they wait; some by this one alone.

    Long files come first (`testpaths`), so that no process is left with one in the end.
    """
    is_chosen = config.option.keyword or config.option.markexpr != 'not slow'
    is_all = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not is_chosen
    return ALL_TESTS_AT_ONCE if is_all else 0


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope='session')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on the embedded store, shared by the tests that do not stop it."""
    config = '[DEFAULT]\nadmin_mode = True\n'
    with ServerProcess(tmp_path_factory.mktemp('server'), config=config) as process:
        yield process


@pytest.fixture(scope='module')
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp('redis')) as process:
        yield process


@pytest.fixture(scope='session')
def postgres() -> Iterator[PostgresProcess]:
    """A PostgreSQL server for tests that use a schema or a database of their own.

    It does not sync to disk.
    """
    with PostgresProcess() as process:
        yield process


@pytest.fixture(params=TRANSPORTS)
def api(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Any]:
    """A caller over each transport in turn, as a client of a project of its own."""
    caller = connect(request.param, server.url, server.websocket_url)
    yield caller
    caller.close()
