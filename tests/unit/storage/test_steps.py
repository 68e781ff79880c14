"""No transaction moves, rewrites or removes many large messages: others wait for each."""

import itertools

import gevent
import pytest

from zaqar_gevent.storage.sqlite import claiming, collector, removal, steps

BODY = 'x' * 250_000
COUNT = 30
AT_MOST = steps.BYTES // len(BODY) + 1


@pytest.fixture
def changes(store, monkeypatch):
    """The messages that each write changes, copies or removes: pairs of (work, number)."""
    # What is collected is collected by the tests.
    monkeypatch.setattr(collector.CollectionSchedule, 'run', lambda *_: 1.0)
    seen = []
    write = store.database.write

    def counted(work, *arguments):
        def count(cursor, *arguments):
            before = snapshot(cursor)
            result = work(cursor, *arguments)
            seen.append((work, len(before ^ snapshot(cursor))))
            return result

        if hasattr(work, 'is_coalesced_in_order'):
            # It is known by its name to the writing thread.
            before = store.database.read(snapshot)
            result = write(work, *arguments)
            seen.append((work, len(before ^ store.database.read(snapshot))))
            return result
        return write(count, *arguments)

    monkeypatch.setattr(store.database, 'write', counted)
    return seen


def snapshot(connection):
    rows = connection.execute('SELECT id, spool, claim, delayed_until, placed FROM messages')
    return set(rows.fetchall())


def count_messages(store, queue='q'):
    return store.queues.stats(queue)['messages']


def fill(store, **options):
    for _ in range(COUNT // 10):
        store.post(*[BODY] * 10, **options)


def get_steps(changes, work):
    """What calls of `work` changed: a changed or moved message counts twice."""
    return [number for each, number in changes if each is work and number]


def check(changes, work, each=1):
    found = get_steps(changes, work)
    assert sum(found) == COUNT * each, found
    assert max(found) <= AT_MOST * each, found


def test_purges_go_by_bytes(store, changes):
    fill(store)
    changes.clear()
    store.messages.purge('q')
    check(changes, removal.purge)
    assert count_messages(store)['total'] == 0


@pytest.mark.parametrize('is_deleted', [False, True], ids=['expired', 'of a deleted queue'])
def test_collection_goes_by_bytes(store, changes, clock, is_deleted):
    fill(store, ttl=60)
    if is_deleted:
        store.queues.delete('q')
    else:
        clock.advance(60)
    changes.clear()
    store.data.gc()
    check(changes, collector.collect)


def test_claims_that_have_expired_are_released_by_bytes(store, changes, clock):
    fill(store)
    for _ in range(3):
        store.claim(limit=10)
    clock.advance(61)
    changes.clear()
    for _ in range(COUNT):
        numbers = count_messages(store)
        assert (numbers['claimed'], numbers['free']) == (0, COUNT)
        if not store.database.write(collector.collect, clock.now):
            break
    check(changes, collector.collect, each=2)
    assert store.claim(limit=COUNT)[1] != []


def test_a_pop_gives_all_that_expired_claims_have_held(store, changes, clock):
    fill(store)
    store.claim(limit=COUNT)
    clock.advance(61)
    changes.clear()
    assert len(store.messages.pop('q', 20)) == 20
    *releases, _ = get_steps(changes, removal.pop)
    assert releases and max(releases) <= 2 * AT_MOST
    assert count_messages(store)['free'] == COUNT - 20


def test_delayed_messages_are_placed_by_bytes(store, changes, clock):
    fill(store, delay=5)
    clock.advance(5)
    changes.clear()
    assert len(store.list(limit=COUNT)) == COUNT
    check(changes, claiming.show_due, each=2)


def test_restored_messages_go_back_by_bytes(store, changes):
    fill(store)
    popped = store.messages.pop('q', COUNT)
    changes.clear()
    store.messages.restore('q', popped)
    check(changes, removal.restore)
    assert [one['id'] for one in store.list(limit=COUNT)] == [one['id'] for one in popped]


def wear_out(store):
    settings = {'_max_claim_count': 1, '_dead_letter_queue': 'dead'}
    store.queues.set_metadata('q', settings)
    store.queues.create('dead')
    claim, _ = store.claim(limit=COUNT)
    store.claims.delete('q', claim)


def test_dead_letters_are_moved_by_bytes(store, changes):
    fill(store)
    wear_out(store)
    last = store.post('fresh')
    changes.clear()
    _, messages = store.claim(limit=20)
    assert [one['id'] for one in messages] == last
    *moves, taken = get_steps(changes, claiming.create)
    # Each is removed from one queue and put into the other.
    assert sum(moves) == 2 * COUNT and max(moves) <= 2 * AT_MOST
    assert taken == 2
    assert count_messages(store, 'dead')['free'] == COUNT


def test_a_claim_moves_a_bounded_number_of_dead_letters(store, monkeypatch):
    monkeypatch.setattr(claiming, 'ROUNDS', 2)
    store.post(*range(COUNT))
    wear_out(store)
    assert store.claim(limit=5) == (None, [])
    assert count_messages(store, 'dead')['free'] == 10


def test_others_post_while_a_claim_moves_dead_letters(store):
    fill(store)
    wear_out(store)
    store.queues.create('other')
    claim = gevent.spawn(store.claim, limit=20)
    moved = []
    for number in itertools.count():
        store.post(number, queue='other')
        moved.append(count_messages(store, 'dead')['free'])
        if claim.ready():
            break
    assert claim.get() == (None, [])
    between = {number for number in moved if 0 < number < COUNT}
    assert between, moved
