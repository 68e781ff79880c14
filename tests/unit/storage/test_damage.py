"""A damaged page fails the queue that it belongs to, and nothing else."""

import shutil

import gevent
import pytest
from zaqar.storage import errors

from tests.damage import destroy, leaves, page_of
from tests.stopwatch import Stopwatch
from tests.unit.storage.conftest import Store
from zaqar_gevent.storage.sqlite import StoreDamaged, StoreUnavailable, collector, salvage

COUNT = 300
"""Messages of the damaged queue; a page holds some forty."""

HURT = 100
"""The number of one in the damaged page."""


@pytest.fixture
def make_damaged(tmp_path):
    """A store with the queues `q`, which is sound, and `hurt`, with a damaged page in the middle.

    ttl, delay: of all messages that are in both from the beginning.
    """
    stores = []

    def make(ttl=300, before=None, page=None, others=COUNT, delay=0):
        more = {'ttl': ttl, 'delay': delay}
        store = Store(tmp_path)
        store.queues.create('hurt')
        store.post(*(f'before-{number:04}' + 'x' * 50 for number in range(others)), **more)
        store.post(
            *(f'hurt-{number:04}' + 'x' * 50 for number in range(COUNT)), queue='hurt', **more
        )
        store.post(*(f'after-{number:04}' + 'x' * 50 for number in range(others)), **more)
        if before is not None:
            before(store)
        store.close()
        path = tmp_path / 'store.db'
        destroy(path, page(path) if page else page_of(path, 'messages', f'hurt-{HURT:04}'))
        stores.append(Store(tmp_path))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def damages(caplog):
    return [r.getMessage() for r in caplog.records if ' is damaged: ' in r.getMessage()]


def walk(store, queue):
    """Claim `queue` from its front until that fails; how many messages it gave."""
    given = 0
    while True:
        _, messages = store.claim(queue, limit=10)
        if not messages:
            return given
        given += len(messages)


def test_others_are_not_disturbed_by_who_claims_the_damaged_queue(make_damaged, caplog):
    store = make_damaged()
    with pytest.raises(StoreDamaged):
        walk(store, 'hurt')
    refused = []

    def claim():
        for _ in range(100):
            with pytest.raises(StoreDamaged) as caught:
                store.claim('hurt')
            refused.append(str(caught.value))
            gevent.sleep(0)

    claimers = [gevent.spawn(claim) for _ in range(2)]
    posters = [gevent.spawn(store.post, number) for number in range(900)]
    gevent.joinall([*claimers, *posters], raise_error=True)
    assert len(posters) == 900
    assert len(refused) == 200
    assert set(store.bodies(limit=0)) >= set(range(900))
    [told] = damages(caplog)
    assert "'hurt'" in told
    assert 'zaqar-gevent check' in told
    assert store.data.is_alive() is True


def test_reading_the_damaged_queue_fails_alone_too(make_damaged, caplog):
    store = make_damaged()
    for _ in range(5):
        with pytest.raises(StoreDamaged):
            store.bodies('hurt', limit=0)
        assert len(store.bodies(limit=0)) == 2 * COUNT
    # What comes before the damage can still be had.
    assert len(store.bodies('hurt', limit=50)) == 50
    assert len(damages(caplog)) == 1


def test_the_damaged_queue_is_told_apart_in_a_shared_transaction(make_damaged):
    store = make_damaged()
    with pytest.raises(StoreDamaged):
        store.claim('hurt', limit=COUNT)
    ids = [message['id'] for message in store.list(limit=0)]
    posting = [gevent.spawn(store.post, number, queue='hurt') for number in range(50)]
    deleting = [gevent.spawn(store.messages.delete, 'q', each) for each in ids]
    claiming = gevent.spawn(store.claim, 'hurt', limit=COUNT)
    gevent.joinall([*posting, *deleting, claiming])
    assert isinstance(claiming.exception, StoreDamaged)
    assert all(each.successful() for each in (*posting, *deleting))
    assert store.bodies() == []


def collected(store):
    """How many messages are in the file, once nothing changes any more."""

    def count(connection):
        return connection.execute(
            'SELECT spool, count(*) FROM messages INDEXED BY messages_free '
            'WHERE claim IS NULL AND delayed_until = 0 GROUP BY spool'
        ).fetchall()

    last, watch = None, Stopwatch()
    while watch.seconds() < 1:
        counts = store.database.scan(count)
        if counts != last:
            last, watch = counts, Stopwatch()
        gevent.sleep(0.05)
    return dict(counts)


@pytest.fixture
def _often(monkeypatch):
    monkeypatch.setattr(collector, 'INTERVAL', 0.1)


@pytest.mark.usefixtures('_often')
def test_expired_messages_beyond_the_damage_are_removed(make_damaged, clock, caplog):
    store = make_damaged(ttl=60)
    clock.advance(100)
    store.post('wakes the collector', ttl=3600)
    left = collected(store)
    hurt = left.pop(max(left, key=left.get))
    # Of the damaged queue the page and its neighbours are left, of the other nothing.
    assert 0 < hurt < 130
    assert list(left.values()) == [1]
    assert store.bodies() == ['wakes the collector']
    [told] = damages(caplog)
    assert "'hurt'" in told


def test_delayed_messages_of_other_queues_are_due_in_time(make_damaged, caplog):
    store = make_damaged(delay=1)
    store.data.listen(lambda *_: None)

    def visible():
        return store.database.get_row(
            """SELECT count(*) FROM messages INDEXED BY messages_free
            WHERE spool = (SELECT id FROM spools WHERE name = 'q')
            AND claim IS NULL AND delayed_until = 0""",
            (),
        )[0]

    with gevent.Timeout(60):
        while visible() < 2 * COUNT or not damages(caplog):
            gevent.sleep(0.02)
    [told] = damages(caplog)
    assert "'hurt'" in told
    assert len(store.bodies(limit=0)) == 2 * COUNT


@pytest.mark.usefixtures('_often')
def test_what_is_damaged_is_not_tried_again_and_again(make_damaged, clock, monkeypatch):
    store = make_damaged(ttl=60)
    clock.advance(100)
    store.post('wakes the collector')
    collected(store)
    steps = []
    step = salvage.Salvage.step
    monkeypatch.setattr(salvage.Salvage, 'step', lambda *a: steps.append(1) or step(*a))
    with gevent.Timeout(60):
        while not steps:
            gevent.sleep(0.02)
    gevent.sleep(1)
    assert len(steps) < 15


@pytest.mark.usefixtures('_often')
def test_a_damaged_page_of_the_index_by_expiry_is_passed_over(make_damaged, clock, caplog):
    def middle_page(path):
        pages = leaves(path, 'messages_expiry')
        assert len(pages) > 10
        return pages[len(pages) // 2]

    store = make_damaged(ttl=60, page=middle_page, others=2000)
    clock.advance(100)
    store.post('wakes the collector', ttl=3600)
    left = collected(store)
    # The page and its neighbours, of which each holds some 330.
    assert 0 < sum(left.values()) - 1 < 1300
    assert store.bodies() == ['wakes the collector']
    assert damages(caplog)


@pytest.mark.usefixtures('_often')
def test_expired_claims_beyond_the_damage_are_released(make_damaged, clock):
    def claim_all(store):
        for queue in ('hurt', 'q'):
            while store.claim(queue, limit=50, ttl=60, grace=1000)[1]:
                pass

    store = make_damaged(ttl=1000, before=claim_all)
    clock.advance(100)
    store.post('wakes the collector')
    collected(store)
    held = store.database.scan(
        lambda connection: connection.execute('SELECT count(*) FROM claims').fetchone()
    )
    assert 0 < held[0] < 4
    assert len(store.bodies(limit=0)) == 2 * COUNT + 1


@pytest.mark.usefixtures('_often')
def test_other_deleted_queues_are_removed(make_damaged, clock):
    store = make_damaged()
    store.queues.delete('hurt')
    store.queues.delete('q')

    def count_doomed():
        return store.database.scan(
            lambda connection: connection.execute('SELECT count(*) FROM doomed_spools').fetchone()
        )

    watch = Stopwatch()
    while count_doomed() != (1,) and watch.seconds() < 60:
        gevent.sleep(0.05)
    collected(store)
    assert count_doomed() == (1,)


@pytest.mark.parametrize('byte', [0x00, 0xFF])
def test_a_garbled_body_fails_its_own_queue(tmp_path, byte):
    store = Store(tmp_path)
    store.queues.create('hurt')
    store.post('sound')
    store.post('garbled', queue='hurt')
    store.close()
    file = tmp_path / 'store.db'
    content = file.read_bytes()
    at = content.index(b'"garbled')
    file.write_bytes(content[:at] + bytes([byte]) + content[at + 1 :])
    store = Store(tmp_path)
    assert store.bodies() == ['sound']
    for call in (store.bodies, store.messages.first):
        with pytest.raises(errors.ConnectionError, match='garbled'):
            call('hurt')
    store.close()


def test_a_changed_byte_in_the_journal_ends_it_there(tmp_path):
    """So the documentation says: at the next start what follows is gone, and nothing is said."""
    store = Store(tmp_path)
    store.post('first', ttl=300)
    store.post('second', ttl=300)
    journal = tmp_path / 'store.db-wal'
    copy = tmp_path / 'copy'
    copy.mkdir()
    content = journal.read_bytes()
    at = content.rindex(b'"second"')
    shutil.copy(tmp_path / 'store.db', copy)
    (copy / 'store.db-wal').write_bytes(content[:at] + b'?' + content[at + 1 :])
    store.close()
    left = Store(copy)
    assert left.bodies() == ['first']
    left.close()


def test_a_file_that_is_damaged_at_its_root_fails_as_a_whole(tmp_path):
    store = Store(tmp_path)
    store.post(*range(10))
    store.close()
    [root] = leaves(tmp_path / 'store.db', 'queues')
    destroy(tmp_path / 'store.db', root)
    store = None
    with pytest.raises(StoreUnavailable, match='malformed'):
        store = Store(tmp_path)
