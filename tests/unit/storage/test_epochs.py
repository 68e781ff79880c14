"""Markers that a store cannot have given: it was made anew, or restored from a backup."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from tests.unit.storage.conftest import Store, file_of_format
from zaqar_gevent.markers import MarkerNotGiven, of_positions
from zaqar_gevent.storage.sqlite import epochs


@pytest.fixture
def reopen(tmp_path):
    """Opens the store again and again, each time as another start of the server does."""
    opened = []

    def open_again():
        if opened:
            opened[-1].close()
        opened.append(Store(tmp_path))
        return opened[-1]

    yield open_again
    opened[-1].close()


def read(store, marker=None, limit=100):
    """The ids of what follows a marker, and the marker of the page."""
    page, following = store.messages.list('q', marker=marker, limit=limit, echo=True)
    return [message['id'] for message in page], following


def back_up(store, place):
    """A copy of the store as it is, which is in use."""
    source, target = sqlite3.connect(store.database.path), sqlite3.connect(place)
    with closing(source), closing(target):
        source.backup(target)


def restore(store, place):
    store.close()
    for end in ('-wal', '-shm'):
        (place.parent / f'store.db{end}').unlink(missing_ok=True)
    shutil.copy(place, place.parent / 'store.db')


def test_a_marker_goes_on_behind_its_message(store):
    ids = store.post(*range(5))
    _, marker = read(store, limit=2)
    assert marker.startswith(ids[1])
    assert read(store, marker)[0] == ids[2:]
    assert read(store, ids[1])[0] == ids[2:]
    assert read(store, '')[0] == ids
    assert read(store, '0' * 16)[0] == ids


def test_the_marker_of_an_empty_page_is_the_given_one_in_full(store):
    ids = store.post(*range(3))
    _, last = read(store)
    assert read(store, ids[-1]) == ([], last)
    assert read(store, last) == ([], last)
    assert read(store, '') == (ids, last)


def test_markers_outlive_restarts(reopen):
    store = reopen()
    markers = []
    for number in range(4):
        store.post(number)
        markers.append(read(store)[1])
        store = reopen()
    everything = read(store)[0]
    for position, marker in enumerate(markers, 1):
        assert read(store, marker)[0] == everything[position:]
    assert len({marker[17:] for marker in markers}) == 4


def test_each_marker_of_a_page_is_valid_whatever_restarts_lie_between(reopen):
    for number in range(4):
        store = reopen()
        store.post(number, number)
    for limit in range(1, 9):
        ids, following = read(store, limit=limit)
        markers = of_positions(ids, following)
        assert [read(store, marker)[0] for marker in markers] == [
            read(store)[0][position:] for position in range(1, limit + 1)
        ]


def test_a_start_without_posts_leaves_no_trace(reopen):
    for _ in range(5):
        store = reopen()
    store.post(1)
    with closing(sqlite3.connect(store.database.path)) as connection:
        assert connection.execute('SELECT first FROM epochs').fetchall() == [(1,)]


@pytest.mark.parametrize('posted', [0, 1, 3, 10])
def test_a_store_made_anew_knows_no_marker_of_the_old_one(tmp_path, reopen, posted):
    store = reopen()
    store.post(*range(3))
    markers = [read(store, limit=limit)[1] for limit in (1, 2, 3)]
    store.close()
    for file in tmp_path.glob('store.db*'):
        file.unlink()
    new = Store(tmp_path)
    if posted:
        new.post(*range(posted))
    for marker in markers:
        with pytest.raises(MarkerNotGiven, match=marker):
            read(new, marker)
    new.close()


@pytest.mark.parametrize('since', [0, 1, 4, 5, 50])
@pytest.mark.parametrize('starts', [0, 1, 2])
def test_a_restored_backup_knows_the_markers_of_before_it_and_no_later_ones(
    tmp_path, reopen, since, starts
):
    store = reopen()
    store.post(*range(3))
    store = reopen()
    ids = store.post(*range(3))
    before = [read(store, limit=limit)[1] for limit in range(1, 7)]
    backup = tmp_path / 'backup'
    back_up(store, backup)
    lost = []
    for _ in range(starts):
        store = reopen()
        store.post('lost')
        lost.append(read(store)[1])
    store.post(*['lost'] * 4)
    lost += [read(store, before[-1], limit)[1] for limit in range(1, 5)]
    restore(store, backup)
    restored = Store(tmp_path)
    new = restored.post(*range(since)) if since else []
    for marker in lost:
        with pytest.raises(MarkerNotGiven):
            read(restored, marker)
    everything = read(restored)[0]
    assert everything[3:6] == ids
    for position, marker in enumerate(before, 1):
        assert read(restored, marker)[0] == everything[position:]
    assert everything[6:] == new
    restored.close()


def test_a_bare_id_is_told_while_no_message_has_got_it(store):
    ids = store.post(1, 2)
    later = f'{int(ids[-1], 16) + 1:016x}'
    with pytest.raises(MarkerNotGiven):
        read(store, later)
    assert store.post(3) == [later]
    assert read(store, later)[0] == []


@pytest.mark.parametrize(
    'bad', ['x', '0' * 17, f'{1:016x}-', f'{1:016x}-0123456', f'{1:016x}-0123456g', '-01234567']
)
def test_nothing_comes_after_what_has_not_the_form_of_a_marker(store, bad):
    """As upstream's own tests want it; a client that got its marker from a server never has one."""
    store.post(1)
    assert read(store, bad) == ([], None)


def test_another_process_begins_an_epoch_of_its_own(tmp_path, store):
    first = store.post(1)
    with closing(sqlite3.connect(store.database.path, isolation_level=None)) as other:
        epochs.begin(other)
    second = store.post(2)
    ids, marker = read(store)
    assert ids == first + second
    assert read(store, read(store, limit=1)[1])[0] == second
    assert read(store, marker)[0] == []


def test_a_file_of_the_version_before_gets_an_epoch_for_what_it_holds(tmp_path):
    path = tmp_path / 'store.db'
    with file_of_format(path, 3) as old:
        old.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('messages', 7)")
    store = Store(tmp_path)
    assert read(store, f'{7:016x}')[0] == []
    [new] = store.post(1)
    assert int(new, 16) == 8
    assert read(store, f'{7:016x}')[0] == [new]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute('SELECT first FROM epochs').fetchall() == [(1,), (8,)]
    store.close()
