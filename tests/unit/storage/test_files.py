"""Files that are moved, replaced or deleted under a store that is in use."""

import contextlib
import pathlib
import shutil
import subprocess
import sys
import time

import gevent
import pytest

from tests.unit.storage.conftest import Store
from tests.unit.storage.test_processes import acknowledged
from zaqar_gevent.storage.sqlite import StoreUnavailable, files

SECONDS = 60


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    """There is no other process to be waited for."""
    monkeypatch.setattr(files, 'RETURN_SECONDS', 0.8)


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / 'state'
    path.mkdir()
    return path


@pytest.fixture
def store(directory):
    store = Store(directory)
    yield store
    store.close()


def eventually(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        gevent.sleep(0.02)


def refuses(call):
    try:
        call()
    except StoreUnavailable:
        return True
    return False


def is_open(store):
    return not refuses(store.bodies) and not refuses(lambda: store.post('back'))


def move(file):
    file.rename(file.with_name('elsewhere'))


def move_to_another_directory(file):
    file.rename(file.parent.parent / file.name)


def delete(file):
    file.unlink()


def replace_by_a_copy(file):
    copy = file.with_name('copy')
    shutil.copy(file, copy)
    copy.rename(file)


def replace_by_an_empty_file(file):
    file.with_name('empty').touch()
    file.with_name('empty').rename(file)


DEEDS = [
    move,
    move_to_another_directory,
    delete,
    replace_by_a_copy,
    replace_by_an_empty_file,
]


def move_the_directory(directory):
    directory.rename(directory.with_name('elsewhere'))


@pytest.mark.parametrize('name', ['store.db', 'store.db-wal', 'store.db-shm'])
@pytest.mark.parametrize('deed', DEEDS, ids=lambda deed: deed.__name__)
def test_nothing_is_acknowledged_or_read_any_more(
    store, directory, name, deed, caplog, monkeypatch
):
    monkeypatch.setattr(files, 'RETURN_SECONDS', 600.0)
    store.post('before')
    assert store.bodies() == ['before']
    deed(directory / name)
    if not name.endswith('-shm'):
        # Not one more, however soon.
        with pytest.raises(StoreUnavailable, match=f'{name} (has been|is not)'):
            store.post('after')
    eventually(lambda: refuses(store.bodies))
    for call in (store.bodies, lambda: store.post('x'), lambda: store.queues.get('q')):
        with pytest.raises(StoreUnavailable, match=name):
            call()
    assert store.data.is_alive() is False
    assert len([r for r in caplog.records if name in r.getMessage()]) == 1


def test_a_directory_that_is_moved_is_noticed_too(store, directory):
    store.post('before')
    move_the_directory(directory)
    with pytest.raises(StoreUnavailable, match='has been moved'):
        store.post('in doubt')
    directory.with_name('elsewhere').rename(directory)
    eventually(lambda: is_open(store))
    assert [body for body in store.bodies() if body != 'in doubt'] == ['before', 'back']


def test_it_is_noticed_while_nothing_is_written(store, directory, caplog):
    store.post('before')
    move(directory / 'store.db')
    eventually(lambda: refuses(store.bodies))


def test_a_link_that_leads_elsewhere_is_noticed(tmp_path, directory):
    (tmp_path / 'link').symlink_to(directory)
    store = Store(tmp_path / 'link')
    store.post('before')
    (tmp_path / 'other').mkdir()
    (tmp_path / 'new').symlink_to(tmp_path / 'other')
    (tmp_path / 'new').rename(tmp_path / 'link')
    eventually(lambda: refuses(store.bodies))
    with pytest.raises(StoreUnavailable, match='link'):
        store.post('after')
    store.close()


@pytest.mark.parametrize('name', ['store.db-wal', 'store.db-shm'])
@pytest.mark.parametrize('deed', DEEDS, ids=lambda deed: deed.__name__)
def test_without_its_companions_the_file_is_opened_again_with_everything(
    store, directory, name, deed
):
    store.post(*range(100))
    deed(directory / name)
    eventually(lambda: refuses(store.bodies))
    eventually(lambda: is_open(store))
    assert store.bodies(limit=0)[:100] == list(range(100))
    store.close()
    reopened = Store(directory)
    bodies = reopened.bodies(limit=0)
    # A post that was refused meanwhile may have been stored, before it was tried again.
    assert bodies[:100] == list(range(100))
    assert set(bodies[100:]) == {'back'}
    reopened.close()


def test_a_file_that_comes_back_is_used_again(store, directory):
    store.post('before')
    (directory / 'store.db').rename(directory / 'elsewhere')
    eventually(lambda: refuses(store.bodies))
    (directory / 'elsewhere').rename(directory / 'store.db')
    eventually(lambda: is_open(store))
    assert store.bodies() == ['before', 'back']


def has_open(file):
    """Whether this process has a file open."""
    for descriptor in pathlib.Path('/proc/self/fd').iterdir():
        # The one by which they are listed is closed meanwhile.
        with contextlib.suppress(OSError):
            if descriptor.readlink() == file:
                return True
    return False


def test_a_file_that_is_moved_away_holds_everything(store, directory):
    store.post(*range(100))
    (directory / 'store.db').rename(directory / 'moved.db')
    eventually(lambda: refuses(store.bodies))
    eventually(lambda: (directory / 'store.db-wal').stat().st_size == 0)
    # As long as a process has a file open, SQLite uses the other files by the old name.
    eventually(lambda: not has_open(directory / 'moved.db'))
    moved = Store(directory, messages='moved.db', names='moved.db')
    assert moved.bodies(limit=0) == list(range(100))
    moved.close()


def test_a_file_that_was_changed_elsewhere_comes_back_with_the_change(store, directory):
    store.post('before')
    (directory / 'store.db').rename(directory / 'moved.db')
    eventually(lambda: (directory / 'store.db-wal').stat().st_size == 0)
    gevent.sleep(0.5)
    script = """
import sys
from tests.unit.storage.conftest import Store
store = Store(sys.argv[1], messages='moved.db', names='moved.db')
store.post('meanwhile')
store.close()
"""
    subprocess.run([sys.executable, '-c', script, str(directory)], check=True, timeout=60)
    (directory / 'moved.db').rename(directory / 'store.db')
    eventually(lambda: is_open(store))
    assert store.bodies() == ['before', 'meanwhile', 'back']


def test_another_file_is_used_after_a_restart_only(store, directory):
    store.post('before')
    other = Store(directory, messages='other.db', names='other.db')
    other.post('other')
    other.close()
    (directory / 'other.db').rename(directory / 'store.db')
    eventually(lambda: refuses(store.bodies))
    gevent.sleep(files.RETURN_SECONDS + 1)
    assert refuses(store.bodies)
    store.close()
    restarted = Store(directory)
    assert restarted.bodies() == ['other']
    restarted.close()


def test_a_file_that_is_gone_is_not_made_anew(store, directory):
    store.post('before')
    (directory / 'store.db').unlink()
    for _ in range(20):
        assert refuses(lambda: store.post('after'))
        gevent.sleep(0.2)
    assert not (directory / 'store.db').exists()


def test_what_is_acknowledged_while_the_file_is_moved_is_in_it(tmp_path):
    """Whenever it happens: nothing acknowledged is missing in the file that was moved away."""
    for number in range(10):
        directory = tmp_path / str(number)
        directory.mkdir()
        store = Store(directory)
        told = []

        def post(store=store, told=told):
            while True:
                body = len(told)
                store.post(body)
                told.append(body)

        poster = gevent.spawn(post)
        gevent.sleep(0.01 + 0.003 * number)
        mover = subprocess.Popen(['mv', directory / 'store.db', directory / 'moved.db'])
        poster.join(SECONDS)
        assert isinstance(poster.exception, StoreUnavailable)
        mover.wait()
        eventually(lambda d=directory: (d / 'store.db-wal').stat().st_size == 0)
        store.close()
        moved = Store(directory, messages='moved.db', names='moved.db')
        assert moved.bodies(limit=0)[: len(told)] == told
        moved.close()


TWO_PROCESSES = """
import os, sys, time
from gevent import monkey
monkey.patch_all()
from tests.unit.storage.conftest import Store
from zaqar_gevent.storage.sqlite import StoreUnavailable
store = Store(sys.argv[1])
name, seconds = sys.argv[2], float(sys.argv[3])
number, until = 0, time.monotonic() + seconds
while time.monotonic() < until:
    body = f'{name}-{number}'
    number += 1
    try:
        [message_id] = store.post(body)
    except StoreUnavailable:
        time.sleep(0.05)
        continue
    os.write(1, f'{message_id} {body}\\n'.encode())
store.close()
"""


@pytest.mark.parametrize('name', ['store.db-wal', 'store.db-shm', 'store.db'])
def test_two_processes_lose_nothing_acknowledged(directory, name):
    Store(directory).close()
    posters = [
        subprocess.Popen(
            [sys.executable, '-c', TWO_PROCESSES, str(directory), poster, '5'],
            stdout=subprocess.PIPE,
        )
        for poster in ('one', 'two')
    ]
    for poster in posters:
        poster.stdout.readline()
    time.sleep(0.5)
    kept = directory.parent / 'kept'
    (directory / name).rename(kept)
    time.sleep(0.6)
    if name == 'store.db':
        kept.rename(directory / name)
    told = {}
    for poster in posters:
        output, _ = poster.communicate()
        assert poster.returncode == 0
        told |= acknowledged(output)
    store = Store(directory)
    stored = {message['id']: message['body'] for message in store.list(limit=0)}
    assert told.items() <= stored.items()
    # Both went on afterwards.
    integrity = store.database.scan(
        lambda connection: connection.execute('PRAGMA integrity_check').fetchall()
    )
    assert integrity == [('ok',)]
    store.close()


FAILING = """
import resource, sys
from tests.unit.storage.conftest import Store
from zaqar_gevent.storage.sqlite import StoreUnavailable

def limit(size):
    # Beyond it, writing fails.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

store = Store(sys.argv[1])
store.post('before')
limit(1024)
for _ in range(2):
    try:
        store.post('refused')
    except StoreUnavailable as error:
        assert 'disk' in str(error), error
    else:
        raise AssertionError('written')
assert store.bodies() == ['before']
assert not store.data.is_alive()
limit(resource.RLIM_INFINITY)
assert store.data.is_alive()
store.post('after')
assert store.bodies() == ['before', 'after']
store.close()
"""


def test_a_disk_that_cannot_be_written_is_told_and_recovered_from(directory):
    subprocess.run([sys.executable, '-c', FAILING, str(directory)], check=True, timeout=60)


READ_ONLY = """
import subprocess, sys
from tests.unit.storage.conftest import Store
from zaqar_gevent.storage.sqlite import StoreUnavailable

def mount(*arguments):
    subprocess.run(['mount', *arguments, sys.argv[1]], check=True)

mount('-t', 'tmpfs', 'none')
store = Store(sys.argv[1])
store.post('before')
store.close()
mount('-o', 'remount,ro')
try:
    Store(sys.argv[1])
except StoreUnavailable as error:
    assert 'Read-only file system' in str(error), error
else:
    raise AssertionError('opened')
mount('-o', 'remount,rw')
store = Store(sys.argv[1])
assert store.bodies() == ['before']
store.close()
"""


def run_mounting(program, directory):
    """Run a program that mounts file systems, which nobody else sees."""
    alone = ['unshare', '--mount', '--map-root-user']
    if shutil.which('unshare') is None or subprocess.run([*alone, 'true']).returncode:
        pytest.skip('no file system of its own can be mounted here')
    command = [*alone, sys.executable, '-c', program, str(directory)]
    subprocess.run(command, check=True, timeout=60)


def test_a_read_only_file_system_is_refused_at_opening(directory):
    run_mounting(READ_ONLY, directory)


FULL = """
import subprocess, sys
from tests.unit.storage.conftest import Store
from zaqar_gevent.storage.sqlite import StoreUnavailable

def mount(*arguments):
    subprocess.run(['mount', *arguments, sys.argv[1]], check=True)

mount('-t', 'tmpfs', '-o', 'size=600k', 'none')
store = Store(sys.argv[1])
posted = 0
try:
    while posted < 3000:
        store.post('x' * 200)
        posted += 1
except StoreUnavailable as error:
    assert 'full' in str(error), error
else:
    raise AssertionError('never full')
for _ in range(3):
    assert not store.data.is_alive()
mount('-o', 'remount,size=8m')
assert store.data.is_alive()
store.post('after')
assert len(store.bodies(limit=5000)) == posted + 1
store.close()
"""


def test_a_store_on_a_full_disk_is_not_alive_until_there_is_room(directory):
    run_mounting(FULL, directory)
