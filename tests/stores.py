"""Servers on the stores there are, each by the configuration that an operator would write."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import sqlalchemy
from zaqar.storage.sqlalchemy import tables

from tests.callers import RestCaller
from tests.redis_process import ON_REDIS, ON_UPSTREAMS_REDIS, RedisProcess
from tests.server_process import ServerProcess

MANAGED_BY_SQLALCHEMY = """
    [drivers]
    message_store = redis
    management_store = sqlalchemy
    [drivers:message_store:redis]
    uri = {redis}
    [drivers:management_store:sqlalchemy]
    uri = sqlite:///{directory}/management.db
    """
UNSHARED = ON_REDIS.replace('uri = {redis}', 'uri = {redis}\nshared_with_upstream = false', 1)
UNSHARED += '[storage]\nmessage_pipeline = zaqar.notification.notifier\n'
POOLED = """
    [DEFAULT]
    pooling = True
    admin_mode = True
    [drivers]
    message_store = redis
    management_store = sqlite
    [drivers:message_store:redis]
    uri = {redis}
    [drivers:management_store:sqlite]
    uri = sqlite:///{directory}/management.sqlite
    """
CONFIGURATIONS = {
    'embedded': '',
    'redis': ON_REDIS,
    'unshared': UNSHARED,
    'upstream': ON_UPSTREAMS_REDIS,
    'sqlalchemy': MANAGED_BY_SQLALCHEMY,
    'pooled': POOLED,
}


@contextlib.contextmanager
def serve_on(store: str, redis: RedisProcess, directory: pathlib.Path) -> Iterator[ServerProcess]:
    """A server on one of `CONFIGURATIONS`, in which there is nothing yet.

    redis: is emptied. directory: where the rest of the store is kept.
    """
    redis.client.flushall()
    if store == 'sqlalchemy':
        _create_tables(directory)
    config = CONFIGURATIONS[store].format(redis=redis.patient_uri, directory=directory)
    with ServerProcess(directory, config=config) as process:
        if store == 'pooled':
            _register_pool(process, redis)
        yield process


def _create_tables(directory: pathlib.Path) -> None:
    """Make upstream's tables, whose migrations are written for MySQL."""
    engine = sqlalchemy.create_engine(f'sqlite:///{directory}/management.db')
    tables.metadata.create_all(engine)
    engine.dispose()


def _register_pool(server: ServerProcess, redis: RedisProcess) -> None:
    administrator = RestCaller(server.url)
    headers = {**administrator.identity.headers(), 'X-Roles': 'admin'}
    pool = {'uri': redis.patient_uri, 'weight': 100}
    assert administrator.call('pool_create', headers=headers, pool_name='p', **pool).status == 201
