"""Long bodies have rows of their own, and everything is as it is with short ones.

So it is with bodies in pieces, which are written before their messages.
"""

import itertools
import sqlite3
import time
from contextlib import closing

import pytest
from zaqar.storage import errors

from tests.unit.storage.conftest import Store, file_of_format
from zaqar_gevent.check.finding import Verdict
from zaqar_gevent.check.store import check_file
from zaqar_gevent.markers import MarkerNotGiven
from zaqar_gevent.storage.core.completions import Call
from zaqar_gevent.storage.core.group_commit import GroupCommit, apart
from zaqar_gevent.storage.errors import StoreUnavailable, UndecodableValue
from zaqar_gevent.storage.sqlite import apart as reading_apart
from zaqar_gevent.storage.sqlite import (
    checkpoints,
    collector,
    copying,
    messages,
    removal,
    schema,
    staging,
)
from zaqar_gevent.storage.sqlite.long_bodies import LEAST_BYTES
from zaqar_gevent.storage.sqlite.usage import UsageController

# With its quotes, a text is two bytes longer.
SIZES = (1, LEAST_BYTES - 3, LEAST_BYTES - 2, 5 * LEAST_BYTES, 250_000)
BODIES = [f'{number}' + 'ä' * ((size - 1) // 2) for number, size in enumerate(SIZES)]
LONG = 'x' * LEAST_BYTES


def select(store, query):
    with closing(sqlite3.connect(store.database.path)) as connection:
        return connection.execute(query).fetchall()


def stage_all(monkeypatch):
    """Have all long bodies written in pieces, the longest of BODIES in three."""
    monkeypatch.setattr(staging, 'STAGED_BYTES', LEAST_BYTES - 1)
    monkeypatch.setattr(staging, 'PIECE_BYTES', 100_000)


@pytest.fixture(params=['whole', 'in pieces'])
def store(open_store, request, monkeypatch):
    if request.param == 'in pieces':
        stage_all(monkeypatch)
    store = open_store()
    store.queues.create('other')
    return store


@pytest.fixture
def staging_store(open_store, monkeypatch):
    """It removes nothing by itself."""
    stage_all(monkeypatch)
    monkeypatch.setattr(collector, 'INTERVAL', 3600.0)
    store = open_store()
    store.queues.create('other')
    return store


def count_long(store):
    """How many long bodies messages have."""
    query = """SELECT (SELECT count(*) FROM long_bodies)
        + (SELECT count(*) FROM bodies_in_pieces WHERE keep_until IS NULL)"""
    return select(store, query)[0][0]


def count_rows(store):
    """How many rows there are of long bodies, with those that are still to be removed."""
    query = """SELECT (SELECT count(*) FROM long_bodies)
        + (SELECT count(*) FROM bodies_in_pieces) + (SELECT count(*) FROM body_pieces)"""
    return select(store, query)[0][0]


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
    deadline = time.monotonic() + 60
    while count_rows(store):
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


def test_a_claim_does_not_write_them_again(store, tmp_path, monkeypatch):
    # So that the log does not begin anew.
    monkeypatch.setattr(checkpoints, 'PIECES_A_PASS', 1000)
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
    drop(store.database.path, 'DELETE FROM body_pieces')
    with pytest.raises(UndecodableValue):
        store.list()
    assert store.bodies('other') == ['sound']
    found = [*check_file(store.database.path)]
    assert [one.verdict for one in found] == [Verdict.DAMAGED]
    store.messages.bulk_delete('q', [f'{number:016x}' for number in range(2, 10)])
    assert store.bodies() == []


def test_a_file_of_the_version_before_is_migrated(tmp_path):
    now = time.time()
    with file_of_format(tmp_path / 'store.db', 7) as old:
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
    ids = store.post('x' * 600_000)
    store.post('y' * 600_000)
    assert len(store.bodies()) == 2
    drop(store.database.path, 'DELETE FROM long_bodies WHERE id = 1')
    drop(store.database.path, f'DELETE FROM body_pieces WHERE id = {schema.MAX_PIECES + 1}')
    with pytest.raises(UndecodableValue):
        store.bodies()
    store.messages.bulk_delete('q', ids)
    assert len(store.bodies()) == 1


def test_a_long_queue_knows_its_markers(store):
    store.post('x' * 600_000)
    _, marker = listed(store)
    assert listed(store, marker=marker) == ([], marker)
    with pytest.raises(MarkerNotGiven):
        listed(store, marker=marker[:-8] + '0' * 8)


def collect(store, now=0.0):
    """Have a step of what is not needed at a time removed; the rows that are left."""
    store.database.write(collect_once, now)
    return count_rows(store)


def collect_once(cursor, now):
    collector.collect(cursor, now)


def collect_all(store, now=0.0):
    left = count_rows(store)
    while (rest := collect(store, now)) != left:
        left = rest
    return left


def get_pieces(store):
    return select(store, 'SELECT id, pieces, bytes, keep_until FROM bodies_in_pieces ORDER BY id')


def test_a_body_is_written_in_pieces_of_which_each_has_a_transaction(staging_store, monkeypatch):
    store = staging_store
    written = []
    write = store.database.write

    def record(work, *arguments):
        written.append(work.__name__)
        return write(work, *arguments)

    monkeypatch.setattr(store.database, 'write', record)
    ids = store.post('y' * 249_998)
    assert written == ['add', 'add', 'add', 'post']
    assert get_pieces(store) == [(1, 3, 250_000, None)]
    del written[:]
    store.post('a' * 40_000, 'short', 'b' * 40_000, 'c' * 40_000)
    # The first three fit into one step.
    assert written == ['add', 'add', 'post']
    assert store.bodies()[1:] == ['a' * 40_000, 'short', 'b' * 40_000, 'c' * 40_000]
    store.messages.bulk_delete('q', ids)
    assert get_pieces(store)[0] == (1, 3, 250_000, 0.0)


def test_only_long_posts_are_written_in_pieces(open_store):
    store = open_store()
    store.post('x' * 250_000)
    assert get_pieces(store) == []
    store.post('x' * 120_000, 'y' * 150_000)
    assert [row[1:3] for row in get_pieces(store)] == [(1, 120_002), (2, 150_002)]
    assert store.bodies() == ['x' * 250_000, 'x' * 120_000, 'y' * 150_000]


def test_a_message_is_seen_when_its_body_is_whole(staging_store, monkeypatch):
    store = staging_store
    seen = []
    write = store.database.write

    def look(work, *arguments):
        result = write(work, *arguments)
        if work is staging.add:
            seen.append(store.bodies())
            store.post('meanwhile')
        return result

    monkeypatch.setattr(store.database, 'write', look)
    store.post('y' * 249_998)
    assert seen == [[], ['meanwhile'], ['meanwhile'] * 2]
    # Its place is that of its post.
    assert store.bodies() == ['meanwhile'] * 3 + ['y' * 249_998]


class Interrupted(BaseException):
    """What nobody catches, as when a greenlet is killed."""


def break_off(store, monkeypatch, error, calls):
    """Have the post after so many transactions fail."""
    write = store.database.write
    made = itertools.count(1)

    def fail(work, *arguments):
        if work is staging.add and next(made) > calls:
            raise error
        return write(work, *arguments)

    monkeypatch.setattr(store.database, 'write', fail)


def test_pieces_of_a_post_that_fails_are_removed(staging_store, monkeypatch):
    store = staging_store
    break_off(store, monkeypatch, StoreUnavailable('It', 'is full'), 2)
    with pytest.raises(StoreUnavailable):
        store.post('y' * 250_000)
    assert [row[1:] for row in get_pieces(store)] == [(2, 200_000, 0.0)]
    assert collect_all(store) == 0
    assert store.bodies() == []


def test_pieces_of_a_post_that_was_broken_off_are_removed_later(staging_store, monkeypatch, clock):
    store = staging_store
    break_off(store, monkeypatch, Interrupted(), 2)
    with pytest.raises(Interrupted):
        store.post('y' * 250_000)
    clock.advance(staging.KEEP_SECONDS - 1)
    assert [row[1:] for row in get_pieces(store)] == [(2, 200_000, clock.now + 1)]
    assert collect_all(store, clock.now) == 3
    clock.advance(2)
    assert collect_all(store, clock.now) == 0


@pytest.mark.parametrize('stopped', ['add', 'post'])
def test_who_comes_too_late_is_told(staging_store, clock, monkeypatch, stopped):
    store = staging_store
    write = store.database.write

    def wait(work, *arguments):
        if work.__name__ == stopped and count_rows(store):
            clock.advance(staging.KEEP_SECONDS + 1)
            write(collect_once, clock.now)
        return write(work, *arguments)

    monkeypatch.setattr(store.database, 'write', wait)
    with pytest.raises(StoreUnavailable, match='not written within'):
        store.post('y' * 250_000)
    monkeypatch.undo()
    assert collect_all(store) == 0
    assert store.bodies() == []


def test_a_post_that_is_made_after_all_keeps_its_body(staging_store, monkeypatch):
    """As when its caller waits no longer, and is told that the outcome is not known."""
    store = staging_store
    write = store.database.write

    def give_up(work, *arguments):
        result = write(work, *arguments)
        if work.__name__ == 'post':
            raise StoreUnavailable('It', 'does not answer')
        return result

    monkeypatch.setattr(store.database, 'write', give_up)
    with pytest.raises(StoreUnavailable):
        store.post('y' * 250_000)
    assert collect_all(store) == 4
    assert store.bodies() == ['y' * 250_000]


def test_posts_that_are_not_made_leave_no_pieces(staging_store):
    store = staging_store
    body = 'y' * 250_000
    ids = store.post(body, post_id='once')
    assert store.post(body, post_id='once') == ids
    with pytest.raises(errors.QueueDoesNotExist):
        store.messages.post('missing', [{'ttl': 300, 'body': body}], None)
    assert [row[3] for row in get_pieces(store)] == [None, 0.0, 0.0]
    assert collect_all(store) == 4
    assert store.bodies() == [body]


def test_a_step_removes_no_more_than_a_step_may_have(staging_store, monkeypatch):
    store = staging_store
    monkeypatch.setattr(staging, 'PIECE_BYTES', 600_000)
    store.post('y' * 3_599_998)
    store.messages.pop('q', 1)
    assert [collect(store) for _ in range(3)] == [5, 3, 0]


def get_bytes(store):
    return UsageController(store.data).get().bytes


def test_their_bytes_are_counted(staging_store):
    store = staging_store
    store.post('y' * 249_998, 'z' * 49_998)
    assert get_bytes(store) == 300_000
    first, _ = store.list()
    store.messages.delete('q', first['id'])
    assert get_bytes(store) == 50_000
    store.messages.restore('q', [first])
    assert get_bytes(store) == 300_000
    store.messages.pop('q', 2)
    assert get_bytes(store) == 0


def test_they_are_copied(staging_store, tmp_path):
    store = staging_store
    store.post(*BODIES)
    reader = copying.Reader(f'sqlite:///{store.database.path}')
    [queue] = [one for one in reader.read_queues() if one.name == 'q']
    assert [one.body.value for one in reader.read_messages(queue)] == BODIES
    reader.close()


def test_pieces_wait_for_short_calls_and_take_turns_among_projects():
    class Recorder(GroupCommit):
        def commit(self, calls):
            done.append([call.arguments for call in calls])

    def short(cursor, project, number): ...

    @apart
    def piece(cursor, project, number): ...

    done = []
    writer = Recorder()
    calls = [Call(piece, ('a', number)) for number in range(3)] + [Call(piece, ('b', 0))]
    calls = writer.execute([*calls, Call(short, ('c', 0)), Call(short, ('c', 1))])
    while calls:
        if len(done) == 2:
            calls.append(Call(short, ('c', 2)))
        calls = writer.execute(calls)
    assert done == [
        [('c', 0), ('c', 1)],
        [('a', 0)],
        [('c', 2)],
        [('b', 0)],
        [('a', 1)],
        [('a', 2)],
    ]


def test_a_file_without_bodies_in_pieces_is_migrated(tmp_path):
    now = time.time()
    path = tmp_path / 'store.db'
    body = f'"{LONG}"'.encode()
    with file_of_format(path, 10) as old:
        old.execute("INSERT INTO queues VALUES ('', 'queue', 'q', '{}')")
        old.execute("INSERT INTO spools (id, project, name) VALUES (1, '', 'q')")
        old.execute('INSERT INTO long_bodies VALUES (1, ?)', (body,))
        for long_body, short in ((1, b''), (None, b'"short"')):
            old.execute(
                """INSERT INTO messages
                (spool, ttl, created, expires, delayed_until, body, long_body)
                VALUES (1, 300, ?, ?, 0, ?, ?)""",
                (now, now + 300, short, long_body),
            )
    assert [one.verdict for one in check_file(str(path))] == [Verdict.SOUND]
    store = Store(tmp_path)
    try:
        assert store.bodies() == [LONG, 'short']
        assert get_bytes(store) == len(body) + len('"short"')
        store.messages.pop('q', 2)
        assert count_rows(store) == 0
        assert get_bytes(store) == 0
    finally:
        store.close()


@pytest.fixture
def before_reads(monkeypatch):
    """Jobs to do, one before each of the next reads of bodies that were taken."""
    jobs = []
    read = reading_apart._read

    def run(connection, project, queue, numbers):
        if jobs:
            jobs.pop(0)()
        return read(connection, project, queue, numbers)

    monkeypatch.setattr(reading_apart, '_read', run)
    return jobs


def claim_bodies(store):
    claim, held = store.claim()
    store.messages.bulk_delete('q', [one['id'] for one in held], claim_ids=[claim])
    return [one['body'] for one in held]


def pop_bodies(store):
    return [one['body'] for one in store.messages.pop('q', 10)]


TAKERS = pytest.mark.parametrize('take', [claim_bodies, pop_bodies])


@TAKERS
def test_others_write_while_bodies_that_were_taken_are_read(store, before_reads, take):
    store.post(*BODIES)
    seen = []

    def go_between():
        store.post('meanwhile')
        seen.append(store.bodies())

    before_reads.append(go_between)
    assert take(store) == BODIES
    assert seen == [['meanwhile']] == [store.bodies()]
    assert store.queues.stats('q')['messages']['total'] == 1


@TAKERS
def test_what_is_deleted_while_it_is_read_is_left_out(store, before_reads, take):
    *_, last = store.post(*BODIES)
    before_reads.append(lambda: store.messages.bulk_delete('q', [last]))
    assert take(store) == BODIES[:-1]
    [last] = store.post(BODIES[-1])
    before_reads.append(lambda: store.messages.bulk_delete('q', [last]))
    assert take(store) == []
    assert (store.bodies(), count_long(store)) == ([], 0)


@TAKERS
@pytest.mark.parametrize('error', [StoreUnavailable('It', 'fails'), Interrupted()])
def test_what_cannot_be_read_is_free_again(store, before_reads, take, error):
    store.post(*BODIES)

    def fail():
        raise error

    before_reads.append(fail)
    with pytest.raises((StoreUnavailable, Interrupted)):
        take(store)
    assert store.queues.stats('q')['messages']['free'] == len(BODIES)
    assert take(store) == BODIES


def test_a_pop_takes_nothing_that_its_lease_has_lost(store, before_reads, clock):
    store.post(*BODIES)
    taken = []

    def be_late():
        clock.advance(removal.HOLD_SECONDS + 1)
        taken.extend(claim_bodies(store))

    before_reads.append(be_late)
    assert pop_bodies(store) == []
    assert taken == BODIES
