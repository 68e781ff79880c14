"""Files that cannot be opened, and files that fail: told, recovered from, nothing lost."""

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile

import gevent
import pytest
from zaqar.storage import errors

from tests.stopwatch import Stopwatch
from tests.unit.storage.conftest import make_conf
from zaqar_gevent.storage.sqlite import (
    ControlDriver,
    DataDriver,
    NotConfigured,
    StoreUnavailable,
    options,
    schema,
)
from zaqar_gevent.storage.sqlite import connecting as files


def test_the_files_are_for_their_owner_only(store, tmp_path):
    store.post('x')
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ['store.db', 'store.db-shm', 'store.db-wal']
    for name in names:
        assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o600


@pytest.mark.parametrize(
    'uri',
    [
        None,
        '',
        'sqlite://',
        'sqlite:///',
        'sqlite:///:memory:',
        '/tmp/x',
        'redis://localhost',
    ],
)
def test_an_unusable_uri_is_named_with_its_group(tmp_path, uri):
    conf = make_conf(tmp_path)
    conf.set_override('uri', uri, options.MANAGEMENT_GROUP)
    with pytest.raises(NotConfigured, match='drivers:management_store:sqlite'):
        ControlDriver(conf, None)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(StoreUnavailable, match='missing does not exist'):
        ControlDriver(make_conf(tmp_path / 'missing'), None)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / 'store.db').write_text('a diary, ' * 1000)
    with pytest.raises(StoreUnavailable, match='not a database'):
        ControlDriver(make_conf(tmp_path), None)


def test_a_database_of_another_application_is_refused_and_left_alone(tmp_path):
    other = sqlite3.connect(tmp_path / 'store.db')
    other.execute('CREATE TABLE diary (day)')
    other.close()
    with pytest.raises(StoreUnavailable, match='another application'):
        ControlDriver(make_conf(tmp_path), None)


def test_a_file_of_a_later_version_is_refused(open_store, tmp_path):
    open_store().close()
    later = sqlite3.connect(tmp_path / 'store.db')
    later.execute('PRAGMA user_version = 99')
    later.close()
    with pytest.raises(StoreUnavailable, match='version 99'):
        ControlDriver(make_conf(tmp_path), None)


def test_a_file_of_an_earlier_version_is_migrated_with_what_it_holds(
    open_store, tmp_path, monkeypatch
):
    old = open_store()
    old.post('kept')
    old.close()
    monkeypatch.setattr(
        schema, 'MIGRATIONS', (*schema.MIGRATIONS, ('ALTER TABLE queues ADD COLUMN colour TEXT',))
    )
    store = open_store()
    assert store.bodies() == ['kept']
    assert store.database.scan(
        lambda connection: connection.execute('SELECT colour FROM queues').fetchall()
    ) == [(None,)]


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    first = schema.MIGRATIONS[0]
    monkeypatch.setattr(schema, 'MIGRATIONS', ((*first, 'CREATE TABLE queues (again)'),))
    with pytest.raises(StoreUnavailable, match='already exists'):
        ControlDriver(make_conf(tmp_path), None)
    file = sqlite3.connect(tmp_path / 'store.db')
    assert file.execute('SELECT count(*) FROM sqlite_master').fetchone() == (0,)
    file.close()


def test_processes_may_create_a_file_together(tmp_path):
    script = """
import sys
from tests.unit.storage.conftest import Store
store = Store(sys.argv[1])
store.post('x')
store.close()
"""
    children = [subprocess.Popen([sys.executable, '-c', script, str(tmp_path)]) for _ in range(4)]
    assert [child.wait(90) for child in children] == [0] * 4


class Locker:
    """Another process's hold on the file."""

    def __init__(self, path):
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def __enter__(self):
        self._connection.execute('BEGIN EXCLUSIVE')

    def __exit__(self, *unused):
        self._connection.execute('ROLLBACK')
        self._connection.close()


def test_a_locked_file_is_told_and_recovered_from(open_store, monkeypatch, caplog):
    monkeypatch.setattr(files, 'BUSY_TIMEOUT', 0.3)
    store = open_store()
    watch = Stopwatch()
    with Locker(store.database.path):
        workers = [gevent.spawn(store.post, number) for number in range(5)]
        assert store.bodies() == []
        gevent.joinall(workers)
        assert {type(worker.exception) for worker in workers} == {StoreUnavailable}
        assert isinstance(workers[0].exception, errors.ConnectionError)
    assert watch.seconds() < files.BUSY_TIMEOUT + 4
    assert 1 <= len([r for r in caplog.records if 'locked' in r.getMessage()]) <= 2
    store.post('after')
    assert store.bodies() == ['after']


def test_a_lock_of_short_duration_is_only_waited_for(store):
    locker = Locker(store.database.path)
    locker.__enter__()
    poster = gevent.spawn(store.post, 'waits')
    gevent.sleep(0.2)
    assert not poster.ready()
    locker.__exit__()
    poster.get()
    assert store.bodies() == ['waits']


def test_a_full_disk_is_told_and_loses_nothing_acknowledged(open_store, monkeypatch):
    store = open_store()
    limit = {'pages': 200}
    connect = files.connect

    def limited(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.execute(f'PRAGMA max_page_count = {limit["pages"]}')
        return connection

    monkeypatch.setattr(files, 'connect', limited)
    store.close()
    store = open_store()
    acknowledged = []
    with pytest.raises(StoreUnavailable, match='full'):
        for number in range(1000):
            store.post([number, 'x' * 5000])
            acknowledged.append(number)
    assert [body[0] for body in store.bodies(limit=0)] == acknowledged
    limit['pages'] = 100_000
    store.post(['after'])
    assert [body[0] for body in store.bodies(limit=0)] == [*acknowledged, 'after']


def test_a_read_only_file_is_refused_at_opening():
    """As another user, since root may write to anything."""
    script = """
import os, sys, pathlib
from tests.unit.storage.conftest import Store
from zaqar_gevent.storage.sqlite import StoreUnavailable
directory = pathlib.Path(sys.argv[1])
store = Store(directory)
store.post('kept')
for file in directory.iterdir():
    file.chmod(0o444)
if os.getuid() == 0:
    directory.chmod(0o755)
    os.setuid(65534)
store.close()
try:
    Store(directory)
except StoreUnavailable as error:
    assert 'Permission denied' in str(error), error
else:
    raise AssertionError('opened')
"""
    # Not in one of pytest's, which makes those private to their user whenever it starts.
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([sys.executable, '-c', script, directory], check=True, timeout=60)


def test_a_file_that_turns_read_only_is_told_and_recovered_from(store, monkeypatch):
    connect = files.connect
    store.post('before')
    monkeypatch.setattr(files, 'connect', lambda *a, **k: connect(*a, **{**k, 'readonly': True}))
    store.database.synchronous = 'normal'  # has the writer connect anew
    with pytest.raises(StoreUnavailable, match='readonly'):
        store.post('refused')
    monkeypatch.setattr(files, 'connect', connect)
    store.post('after')
    assert store.bodies() == ['before', 'after']


def test_the_store_says_whether_it_is_alive(store, tmp_path):
    assert store.data.is_alive() is True
    (tmp_path / 'store.db').rename(tmp_path / 'moved.db')
    assert store.data.is_alive() is False


def test_health_counts_the_messages_of_the_file(store):
    store.post(*range(5))
    store.claim(limit=2)
    health = store.data.health()
    assert health['storage_reachable'] is True
    assert health['message_volume'] == {'free': 3, 'claimed': 2, 'total': 5}
    assert all(status['succeeded'] for status in health['operation_status'].values())


def test_the_strictest_user_decides_what_a_write_survives(tmp_path):
    conf = make_conf(tmp_path)
    conf.set_override('synchronous', 'normal', options.MANAGEMENT_GROUP)
    control = ControlDriver(conf, None)
    assert control.database.write(get_synchronous) == 1
    data = DataDriver(conf, None, control)
    assert control.database.write(get_synchronous) == 2
    data.close()
    control.close()


def get_synchronous(cursor):
    return cursor.execute('PRAGMA synchronous').fetchone()[0]
