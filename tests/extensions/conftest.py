"""Servers on each store that can do more than upstream's, and on those that cannot."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.callers import TRANSPORTS, Answer, connect
from tests.postgres_process import ON_POSTGRESQL, PostgresProcess
from tests.redis_process import RedisProcess
from tests.server_process import ServerProcess
from tests.stores import serve_on

VERSION = {'OpenStack-API-Version': 'messaging 2.1'}

CAPABLE = ('embedded', 'unshared', 'on_postgresql')
INCAPABLE = ('redis', 'upstream')


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if 'extended' in metafunc.fixturenames:
        chosen = [f'{store}-{one}' for store in CAPABLE for one in TRANSPORTS]
        metafunc.parametrize('extended', chosen, indirect=True)
    if 'incapable' in metafunc.fixturenames:
        metafunc.parametrize('incapable', INCAPABLE, indirect=True, scope='module')


class Extended:
    """A caller that asks for what upstream's API does not have.

    plain: the caller itself, which does not. url: of its server, where that is told.
    """

    def __init__(self, plain: Any, url: str = '') -> None:
        self.plain = plain
        self.url = url

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    def call(self, action: str, headers: dict[str, str] | None = None, **arguments: Any) -> Answer:
        own = self.plain.identity.headers() if headers is None else headers
        answer: Answer = self.plain.call(action, headers={**own, **VERSION}, **arguments)
        return answer


@pytest.fixture(scope='session')
def unshared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on a Redis that upstream's servers do not use."""
    directory = tmp_path_factory.mktemp('unshared')
    with RedisProcess(directory) as redis, serve_on('unshared', redis, directory) as process:
        yield process


@pytest.fixture(scope='session')
def on_postgresql(
    postgres: PostgresProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server on PostgreSQL."""
    config = ON_POSTGRESQL.format(uri=postgres.uri, schema='extended')
    config += '[storage]\nmessage_pipeline = zaqar.notification.notifier\n'
    with ServerProcess(tmp_path_factory.mktemp('postgresql'), config=config) as process:
        yield process


@pytest.fixture
def extended(request: pytest.FixtureRequest) -> Iterator[Extended]:
    """A caller that asks for everything, over each transport and on each store in turn."""
    store, _, transport = request.param.partition('-')
    server = request.getfixturevalue('server' if store == 'embedded' else store)
    caller = Extended(connect(transport, server.url, server.websocket_url), server.url)
    yield caller
    caller.close()


@pytest.fixture(scope='module')
def incapable(
    request: pytest.FixtureRequest, redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """What gives a caller, over each transport in turn, of a server whose store cannot."""
    transports = itertools.cycle(TRANSPORTS)
    with serve_on(request.param, redis, tmp_path_factory.mktemp(request.param)) as server:
        yield lambda: Extended(connect(next(transports), server.url, server.websocket_url))
