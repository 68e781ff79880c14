"""Long bodies have rows of their own, and everything is as it is with short ones."""

import itertools
import sqlite3
import time
from contextlib import closing

import pytest

from tests.unit.storage.conftest import Store
from zaqar_gevent.check.finding import Verdict
from zaqar_gevent.check.store import check_file
from zaqar_gevent.markers import MarkerNotGiven
from zaqar_gevent.storage.errors import UndecodableValue
from zaqar_gevent.storage.sqlite import collector, messages, schema
from zaqar_gevent.storage.sqlite.long_bodies import LEAST_BYTES

# With its quotes, a text is two bytes longer.
SIZES = (1, LEAST_BYTES - 3, LEAST_BYTES - 2, 5 * LEAST_BYTES, 250_000)
BODIES = [f'{number}' + 'ä' * ((size - 1) // 2) for number, size in enumerate(SIZES)]
LONG = 'x' * LEAST_BYTES


def select(store, query):
    with closing(sqlite3.connect(store.database.path)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def store(open_store):
    store = open_store()
    store.queues.create('other')
    return store


def count_long(store):
    return select(store, 'SELECT count(*) FROM long_bodies')[0][0]


def drop(path, statement):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


def test_bodies_of_every_length_are_given_back(store):
    ids = store.post(*BODIES)
    assert 0 < count_long(store) < len(BODIES)
    assert store.bodies() == BODIES
    assert [store.messages.get('q', one)['body'] for one in ids] == BODIES
    assert [one['body'] for one in store.messages.bulk_get('q', ids)] == BODIES
    claim, held = store.claim()
    assert [one['body'] for one in held] == BODIES
    assert [one['body'] for one in store.claims.get('q', claim)[1]] == BODIES
    store.claims.delete('q', claim)
    assert store.bodies() == BODIES


def test_a_body_that_is_just_as_long_has_a_row_of_its_own(store):
    store.post('x' * (LEAST_BYTES - 3))
    assert count_long(store) == 0
    store.post('x' * (LEAST_BYTES - 2))
    assert count_long(store) == 1


def take(store, ids):
    store.messages.pop('q', 20)


def delete_each(store, ids):
    for one in ids:
        store.messages.delete('q', one)


def delete_held(store, ids):
    claim, _ = store.claim()
    store.messages.bulk_delete('q', ids, claim_ids=[claim])


def purge(store, ids):
    store.messages.purge('q')


@pytest.mark.parametrize('remove', [take, delete_each, delete_held, purge])
def test_they_go_with_their_messages(store, remove):
    store.post('stays')
    stays = store.post(LONG, queue='other')
    remove(store, [one['id'] for one in store.list()] + store.post(*BODIES))
    assert count_long(store) == 1
    assert [one['id'] for one in store.list('other')] == stays


def wait_for_none(store):
    deadline = time.monotonic() + 20
    while count_long(store):
        assert time.monotonic() < deadline
        # What is written has the collector look for something to remove.
        store.post('x', queue='other')


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(collector, 'INTERVAL', 0.01)


def test_they_go_with_their_queue(at_once, store):
    store.post(*BODIES)
    store.queues.delete('q')
    wait_for_none(store)


def test_they_go_when_their_messages_have_expired(at_once, store, clock):
    store.post(*BODIES, ttl=60)
    clock.advance(61)
    wait_for_none(store)


def test_dead_letters_keep_them(store):
    settings = {'_max_claim_count': 1, '_dead_letter_queue': 'dead'}
    store.queues.set_metadata('q', settings)
    store.queues.create('dead')
    store.post(*BODIES)
    count = count_long(store)
    claim, _ = store.claim()
    store.claims.delete('q', claim)
    assert store.claim() == (None, [])
    assert store.bodies('dead') == BODIES
    assert count_long(store) == count
    store.messages.pop('dead', 20)
    assert count_long(store) == 0


def test_popped_ones_go_back(store):
    store.post(*BODIES)
    count = count_long(store)
    popped = store.messages.pop('q', 20)
    store.messages.restore('q', popped)
    # Once more, as when it is not known whether they are back.
    store.messages.restore('q', popped)
    assert store.bodies() == BODIES
    assert count_long(store) == count


def test_a_claim_does_not_write_them_again(store, tmp_path):
    log = tmp_path / 'store.db-wal'
    # Rows that keep their length are not written as a whole: for SQLite, 1 is as long as null.
    store.post(*range(9))
    for _ in range(9):
        store.claim(limit=1)
    store.post(*['x' * 100_000] * 20)
    before = log.stat().st_size
    assert before > 20 * 100_000
    _, held = store.claim(limit=20)
    assert len(held) == 20
    assert log.stat().st_size - before < 10 * 100_000


def test_one_that_is_missing_is_damage(store):
    store.post('sound', queue='other')
    store.post(*BODIES)
    drop(store.database.path, 'DELETE FROM long_bodies')
    with pytest.raises(UndecodableValue):
        store.list()
    assert store.bodies('other') == ['sound']
    found = [*check_file(store.database.path)]
    assert [one.verdict for one in found] == [Verdict.DAMAGED]
    store.messages.bulk_delete('q', [f'{number:016x}' for number in range(2, 10)])
    assert store.bodies() == []


def test_a_file_of_the_version_before_is_migrated(tmp_path):
    now = time.time()
    with closing(sqlite3.connect(tmp_path / 'store.db', isolation_level=None)) as old:
        for statement in itertools.chain(*schema.MIGRATIONS[:7]):
            old.execute(statement)
        old.execute(f'PRAGMA application_id = {schema.APPLICATION_ID}')
        old.execute('PRAGMA user_version = 7')
        old.execute("INSERT INTO queues VALUES ('', 'queue', 'q', '{}')")
        old.execute("INSERT INTO spools (id, project, name) VALUES (1, '', 'q')")
        old.execute('BEGIN')
        for number in range(300):
            old.execute(
                """INSERT INTO messages (spool, ttl, created, expires, delayed_until, body)
                VALUES (1, 300, ?, ?, 0, ?)""",
                (now, now + 300, f'"{number}{LONG}"'.encode()),
            )
        # So that there are changes to the counts.
        old.execute('UPDATE tallied SET last = 300')
        old.execute('UPDATE spools SET total = 300')
        old.execute('INSERT INTO endings VALUES (1, ?, 300, 0)', (int(now + 300) + 1,))
        old.execute('DELETE FROM messages WHERE id > 200')
        old.execute('COMMIT')
        [(left,)] = old.execute('SELECT count(*) FROM changes').fetchall()
        assert left
    assert [one.verdict for one in check_file(str(tmp_path / 'store.db'))] == [Verdict.SOUND]
    store = Store(tmp_path)
    new = store.post('new' + LONG)
    assert count_long(store) == 1
    assert store.queues.stats('q')['messages']['total'] == 201
    seen = 0
    while True:
        claim, held = store.claim(limit=20)
        if not held:
            break
        numbers = range(seen, seen + len(held))
        wanted = ['new' + LONG if number == 200 else f'{number}{LONG}' for number in numbers]
        assert [one['body'] for one in held] == wanted
        seen += len(held)
        store.messages.bulk_delete('q', [one['id'] for one in held], claim_ids=[claim])
        total = store.queues.stats('q')['messages']
        assert (total['total'], total['claimed']) == (201 - seen, 0)
    assert seen == 201 and held == [] and new
    assert count_long(store) == 0
    store.close()


def listed(store, **more):
    """A page of whole messages but for their ages, and the marker of the next."""
    found, marker = pages(store, **more)
    return [{**one, 'age': 0} for one in found], marker


def pages(store, **more):
    results = store.messages.list('q', echo=True, **more)
    return list(next(results)), next(results)


def test_long_pages_are_read_as_short_ones_are(store, monkeypatch):
    for number in range(6):
        store.post(f'{number}' + 'ä' * 10_000, f'{number}' * 600_000, f'short {number}')
    store.claim(limit=4)
    ways = [{}, {'include_claimed': True}, {'limit': 5}, {'limit': 5, 'include_claimed': True}]
    _, marker = listed(store, limit=3)
    ways += [{**way, 'marker': marker} for way in ways]
    monkeypatch.setattr(messages, '_SHORT_PAGE_BYTES', 1 << 30)
    expected = [listed(store, **way) for way in ways]
    monkeypatch.undo()
    assert not store.messages._long
    long = [listed(store, **way) for way in ways]
    # The next one is not begun by the caller.
    assert store.messages._long
    assert [listed(store, **way) for way in ways] == long == expected


def test_a_queue_whose_pages_are_short_again_is_read_at_once(store):
    ids = store.post('x' * 600_000)
    assert len(store.bodies()) == 1
    assert store.messages._long
    store.messages.bulk_delete('q', ids)
    store.post('short')
    assert store.bodies() == ['short']
    assert not store.messages._long


def test_a_long_page_of_damaged_rows_is_refused(store):
    store.post('x' * 600_000, 'y' * 600_000)
    assert len(store.bodies()) == 2
    drop(store.database.path, 'DELETE FROM long_bodies WHERE id = 1')
    with pytest.raises(UndecodableValue):
        store.bodies()


def test_a_long_queue_knows_its_markers(store):
    store.post('x' * 600_000)
    _, marker = listed(store)
    assert listed(store, marker=marker) == ([], marker)
    with pytest.raises(MarkerNotGiven):
        listed(store, marker=marker[:-8] + '0' * 8)
