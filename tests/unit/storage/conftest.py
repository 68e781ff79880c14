"""Stores in new files, with real threads."""

import contextlib
import itertools
import sqlite3

import pytest
from oslo_config import cfg
from zaqar.conf import default, drivers

from zaqar_gevent.storage.sqlite import ControlDriver, DataDriver, options, schema


class Store:
    """Both drivers on files of a directory; `q` is a queue that exists."""

    def __init__(self, directory, *, messages='store.db', names='store.db', **values):
        self.conf = make_conf(directory, messages, names, **values)
        self.control = ControlDriver(self.conf, None)
        self.data = DataDriver(self.conf, None, self.control)
        self.database = self.data.database
        self.queues = self.data.queue_controller
        self.messages = self.data.message_controller
        self.claims = self.data.claim_controller
        self.queues.create('q')

    def post(self, *bodies, queue='q', ttl=300, client=None, **more):
        messages = [{'ttl': ttl, 'body': body, **more} for body in bodies]
        return self.messages.post(queue, messages, client)

    def list(self, queue='q', **options):
        options.setdefault('echo', True)
        return list(next(self.messages.list(queue, **options)))

    def bodies(self, queue='q', **options):
        return [message['body'] for message in self.list(queue, **options)]

    def claim(self, queue='q', ttl=60, grace=60, **options):
        claim_id, found = self.claims.create(queue, {'ttl': ttl, 'grace': grace}, **options)
        return claim_id, list(found)

    def close(self):
        self.data.close()
        self.control.close()


def make_conf(directory, messages='store.db', names='store.db', **values):
    conf = cfg.ConfigOpts()
    conf(args=[], default_config_files=[])
    conf.register_opts(default.ALL_OPTS)
    conf.register_opts(drivers.ALL_OPTS, group=drivers.GROUP_NAME)
    for (group, opts), name in zip(options.list_opts(), (messages, names), strict=True):
        conf.register_opts(opts, group=group)
        conf.set_override('uri', f'sqlite:///{directory}/{name}', group)
        for option, value in values.items():
            conf.set_override(option, value, group)
    return conf


@contextlib.contextmanager
def file_of_format(path, number):
    """A connection to a new file of an older format, which has nothing in it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in itertools.chain(*schema.MIGRATIONS[:number]):
            connection.execute(statement)
        connection.execute(f'PRAGMA application_id = {schema.APPLICATION_ID}')
        connection.execute(f'PRAGMA user_version = {number}')
        yield connection


@pytest.fixture
def open_store(tmp_path):
    with contextlib.ExitStack() as stores:

        def open_one(**values):
            store = Store(tmp_path, **values)
            stores.callback(store.close)
            return store

        yield open_one


@pytest.fixture
def store(open_store):
    return open_store()


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    return Clock(monkeypatch)


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1_000_000.0
        monkeypatch.setattr(
            'oslo_utils.timeutils.utcnow_ts',
            lambda microsecond=False: self.now if microsecond else int(self.now),
        )

    def advance(self, seconds):
        self.now += seconds
