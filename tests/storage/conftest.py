"""Each test of this directory runs on every store, by the drivers that a server would load.

What a store cannot do is listed in `EXCEPTIONS`, with the reason. It is run all the same: a test
that starts to pass fails the run, so that the list can only shrink.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any
from unittest import mock

import gevent
import pytest
from oslo_config import cfg
from oslo_utils import timeutils
from zaqar.common import cache
from zaqar.storage import base, pipeline

from tests.postgres_process import ON_POSTGRESQL, PostgresProcess
from tests.redis_process import VALKEY_SERVER_PATH, RedisProcess
from zaqar_gevent import conf as configuration
from zaqar_gevent.bodies import Body
from zaqar_gevent.storage import drivers, purging
from zaqar_gevent.storage import sqlite as embedded
from zaqar_gevent.storage.interface import StoredPage
from zaqar_gevent.storage.postgresql import driver as postgresql
from zaqar_gevent.storage.stores import features_of

ON_SQLITE = """
[drivers]
message_store = sqlite
management_store = sqlite
[drivers:message_store:sqlite]
uri = sqlite:///{directory}/store.sqlite
[drivers:management_store:sqlite]
uri = sqlite:///{directory}/store.sqlite
"""
ON_REDIS = """
[drivers]
message_store = redis
management_store = redis
redis_driver = {driver}
[drivers:message_store:redis]
uri = {redis}
shared_with_upstream = {is_shared}
durability = {durability}
reconnect_sleep = 0.1
[drivers:management_store:redis]
uri = {redis}
durability = {durability}
reconnect_sleep = 0.1
"""

STORES = ('sqlite', 'native', 'unshared', 'valkey', 'postgresql', 'upstream')

CLOCK = 'delays go by a clock that the test does not set'
EXCEPTIONS: dict[str, dict[str, str]] = {
    'sqlite': {},
    'native': {},
    'unshared': {},
    'valkey': {},
    'postgresql': {},
    'upstream': {
        'test_a_list_goes_on_after_a_deleted_marker': 'begins anew at the head',
        'test_a_marker_of_another_store_is_refused': 'lists from the head after any marker',
        'test_what_is_no_marker_has_nothing_behind_it': 'lists from the head after any marker',
        'test_a_page_is_full_where_messages_are_left_out': 'leaves them out of its page',
        'test_a_queue_must_exist': 'leaves that to the API',
        'test_a_post_with_an_id_is_made_once': 'knows no post_id',
        'test_a_post_with_an_id_is_found': 'knows no post_id',
        'test_popped_messages_go_back_to_their_places': 'knows no places',
        'test_a_delayed_message_is_not_claimed_behind_a_free_one': CLOCK,
        'test_delayed_messages_are_listed_in_their_places_on_demand': 'lists them last',
        'test_delayed_messages_come_when_they_are_due': CLOCK,
        'test_messages_that_are_due_at_one_time_come_as_they_were_posted': CLOCK,
        'test_expired_messages_are_not_counted': 'counts what has not been collected',
        'test_what_is_due_before_others_is_claimed_first': CLOCK,
        'test_a_dead_letter_queue_is_made_with_its_first_message': 'never creates it',
        'test_a_dead_letter_queue_is_made_in_the_pool_of_its_source': 'never creates it',
        'test_each_claim_is_counted': 'counts claims in queues with a dead letter queue only',
        'test_queues_are_found_by_name_and_metadata': 'knows no filters',
        'test_filters_are_met_by_few_of_many_queues': 'knows no filters',
        'test_topics_are_apart_from_queues': 'has no topics',
        'test_subscriptions_go_on_after_a_deleted_marker': 'begins anew at the head',
        'test_pools_are_kept': 'cannot read what it has written',
        'test_flavors_are_kept': 'cannot read what it has written',
        'test_the_catalogue_is_kept': 'cannot read what it has written',
    },
}


class _Scoped:
    """A controller, for a project where none is given: upstream cannot do some things without."""

    def __init__(self, controller: Any, project: str) -> None:
        self._controller = controller
        self._project = project

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._controller, name)
        return lambda *args, **more: method(*args, **{'project': self._project, **more})


class _Valued(_Scoped):
    """A controller that carries bodies, for tests that look at their values."""

    def __getattr__(self, name: str) -> Any:
        method = super().__getattr__(name)
        return lambda *args, **more: _values(method(*map(_bodies, args), **more))


def _bodies(argument: Any) -> Any:
    """An argument, whose messages, if it is a list of some, have bodies."""
    if not isinstance(argument, list) or not all(isinstance(one, dict) for one in argument):
        return argument
    return [{**one, 'body': Body.of(one['body'])} if 'body' in one else one for one in argument]


def _values(found: Any) -> Any:
    """A result, whose messages have values instead of bodies."""
    if isinstance(found, Iterator):
        return map(_values, found)
    if isinstance(found, StoredPage):
        return list(map(_values, found))
    if isinstance(found, list | tuple):
        return type(found)(map(_values, found))
    if isinstance(found, dict) and isinstance(found.get('body'), Body):
        return {**found, 'body': found['body'].value}
    return found


class Store:
    """The drivers of one store, for one project unless another one is given, and its clock."""

    def __init__(
        self,
        name: str,
        data: base.DataDriverBase,
        control: Any,
        redis: Any,
        project: str = 'shop',
    ) -> None:
        self.name = name
        self.project = project
        self.data: Any = data
        self.control = control
        self.messages = _Valued(data.message_controller, project)
        self.claims = _Valued(data.claim_controller, project)
        self.queues = _Scoped(data.queue_controller, project)
        self.topics = _Scoped(data.topic_controller, project)
        self.subscriptions = _Scoped(data.subscription_controller, project)
        self.redis = redis
        self.features = features_of(data)
        self._names = itertools.count()

    def of(self, project: str) -> Store:
        """The same store for another project."""
        return Store(self.name, self.data, self.control, self.redis, project)

    def queue(self, **metadata: Any) -> str:
        """A new queue."""
        name = f'q{next(self._names)}'
        assert self.queues.create(name, metadata=metadata)
        return name

    def post(self, queue: str, *bodies: Any, **more: Any) -> list[str]:
        new = [{'ttl': 300, 'body': body, **more} for body in bodies]
        return [str(one) for one in self.messages.post(queue, new, CLIENT)]

    def list(self, queue: str, **more: Any) -> list[Any]:
        """The bodies of a page."""
        return [one['body'] for one in next(self.messages.list(queue, **{'echo': True, **more}))]

    def claim(self, queue: str, limit: int = 10, ttl: int = 60, grace: int = 60) -> Any:
        claim_id, found = self.claims.create(queue, {'ttl': ttl, 'grace': grace}, limit=limit)
        return claim_id, list(found)

    def counts(self, queue: str) -> tuple[int, int]:
        """How many messages are claimed and free."""
        counts = self.queues.stats(queue)['messages']
        assert counts['total'] == counts['claimed'] + counts['free']
        return counts['claimed'], counts['free']

    def purge(self, queue: str) -> None:
        purging.purge(self.data, queue, self.project)

    @contextlib.contextmanager
    def later(self, seconds: int) -> Iterator[None]:
        """Meanwhile the driver's clock is ahead."""
        read = timeutils.utcnow_ts

        def ahead(microsecond: bool = False) -> float:
            return read(microsecond) + seconds

        with mock.patch('oslo_utils.timeutils.utcnow_ts', ahead):
            yield

    @contextlib.contextmanager
    def at(self, seconds: float) -> Iterator[None]:
        """Meanwhile the driver's clock stands, so many seconds after the first call's next one."""
        exact = self._second + seconds

        def stand(microsecond: bool = False) -> float:
            return exact if microsecond else int(exact)

        with mock.patch('oslo_utils.timeutils.utcnow_ts', stand):
            yield

    @functools.cached_property
    def _second(self) -> int:
        return int(timeutils.utcnow_ts()) + 1


PROJECT = 'shop'
CLIENT = '3381af92-2b9e-11e3-b191-71861300734c'


def load(name: str, redis: RedisProcess | None, directory: pathlib.Path) -> cfg.ConfigOpts:
    """The configuration of a store that is in a directory or in Redis."""
    template = ON_SQLITE if name == 'sqlite' else ON_REDIS
    path = directory / f'{name}.conf'
    driver = 'upstream' if name == 'upstream' else 'native'
    uri = redis and redis.patient_uri
    values = {'driver': driver, 'redis': uri, 'is_shared': name != 'unshared'}
    values['durability'] = 'memory'
    path.write_text(template.format(directory=directory, **values))
    return configuration.load(cfg.ConfigOpts(), [str(path)])


def load_postgresql(uri: str, directory: pathlib.Path, schema: str | None = None) -> cfg.ConfigOpts:
    """The configuration of a store in PostgreSQL, in a schema of its own unless one is named."""
    schema = schema or f'zaqar_{uuid.uuid4().hex}'
    path = directory / f'{schema}.conf'
    path.write_text(ON_POSTGRESQL.format(uri=uri, schema=schema))
    return configuration.load(cfg.ConfigOpts(), [str(path)])


def open_drivers(name: str, conf: cfg.ConfigOpts) -> tuple[base.DataDriverBase, Any]:
    """The drivers of a store."""
    region = cache.get_cache(conf)
    if name == 'postgresql':
        control: Any = postgresql.ControlDriver(conf, region)
        return postgresql.DataDriver(conf, region, control), control
    if name == 'sqlite':
        control = embedded.ControlDriver(conf, region)
        return embedded.DataDriver(conf, region, control), control
    native = drivers.native_redis(conf)
    if native is not None:
        control = native.ControlDriver(conf, region)
        return native.DataDriver(conf, region, control), control
    from zaqar.storage import redis as upstream

    drivers.bound_clients()
    control = upstream.ControlDriver(conf, region)
    return upstream.DataDriver(conf, region, control), control


@pytest.fixture(scope='module')
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    directory = tmp_path_factory.mktemp('valkey')
    with RedisProcess(directory, program=VALKEY_SERVER_PATH) as process:
        yield process


@pytest.fixture(scope='module', params=STORES)
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    # As in a server, whose greenlets share a connection.
    gevent.get_hub()
    directory, redis = tmp_path_factory.mktemp(request.param), None
    if request.param == 'postgresql':
        postgres: PostgresProcess = request.getfixturevalue('postgres')
        conf = load_postgresql(postgres.uri, directory)
    else:
        if request.param != 'sqlite':
            redis = request.getfixturevalue('valkey' if request.param == 'valkey' else 'redis')
            redis.client.flushall()
        conf = load(request.param, redis, directory)
    driver, control = open_drivers(request.param, conf)
    # As a server does.
    data = pipeline.DataDriver(conf, driver, control)
    drivers.protect(data)
    drivers.protect_control(control)
    yield Store(request.param, data, control, redis)
    data.close()
    control.close()


@pytest.fixture
def store(request: pytest.FixtureRequest, opened: Store) -> Store:
    name = request.node.originalname
    reason = EXCEPTIONS[opened.name].get(name)
    if reason is not None:
        request.node.add_marker(pytest.mark.xfail(strict=True, reason=reason))
    return opened
