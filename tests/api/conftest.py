"""The tests of this directory run on the embedded store, on PostgreSQL, and on Redis by the native
driver.

On the latter two all transports but one are left to the slow tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres_process import ON_POSTGRESQL, PostgresProcess
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import ServerProcess

STORES = ('embedded', 'postgresql', 'redis')
USUAL_TRANSPORTS = {'postgresql': {'rest'}, 'redis': {'rest', 'v2-msgpack'}}
"""By store, the transports of the callers of a test that is not slow; one that a test does not have
counts as REST."""
SERVERS, CALLERS = ('server', 'servers', 'pooled_server'), ('api', 'admin', 'reader')
"""Fixtures whose parameters are stores, and transports."""
ADMINISTERED = """
[DEFAULT]
admin_mode = True
"""
NOTIFYING = """
[storage]
message_pipeline = zaqar.notification.notifier
"""


@pytest.fixture(scope='session', params=STORES)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server on each store in turn, shared by the tests that do not stop it."""
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == 'embedded':
        with ServerProcess(directory, config=ADMINISTERED) as process:
            yield process
        return
    if request.param == 'postgresql':
        postgres: PostgresProcess = request.getfixturevalue('postgres')
        config = ADMINISTERED + NOTIFYING
        config += ON_POSTGRESQL.format(uri=postgres.uri, schema='served')
        with ServerProcess(directory, config=config) as process:
            yield process
        return
    with RedisProcess(tmp_path_factory.mktemp('redis')) as redis:
        config = ADMINISTERED + ON_REDIS.format(redis=redis.patient_uri)
        with ServerProcess(directory, config=config) as process:
            yield process


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        chosen = item.callspec.params if hasattr(item, 'callspec') else {}
        stores = {chosen.get(fixture) for fixture in SERVERS}
        transports = {chosen.get(fixture, 'rest') for fixture in CALLERS}
        if any(transports != USUAL_TRANSPORTS.get(store, transports) for store in stores):
            item.add_marker(pytest.mark.slow)
