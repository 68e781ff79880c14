"""What only the embedded store has to see to where queues have groups."""

from tests.unit.storage.conftest import Store, file_of_format
from zaqar_gevent.storage.sqlite import collector

ORDERED = {'_ordered_groups': True}


def claim(store, limit):
    claim_id, found = store.claim(limit=limit)
    return claim_id, [one['body'] for one in found]


def test_a_file_of_version_9_keeps_what_is_held(tmp_path, clock):
    """Its groups were told by the names alone."""
    now, path = clock.now, tmp_path / 'store.db'
    rows = [(1, 1, 'a'), (2, None, 'a'), (3, None, 'b'), (4, None, ''), (5, None, None)]
    with file_of_format(path, 9) as old:
        old.execute("""INSERT INTO queues VALUES ('', 'queue', 'q', '{"_ordered_groups":true}')""")
        old.execute('INSERT INTO groupings (spool, mode) VALUES (1, 1)')
        old.execute(
            "INSERT INTO spools (id, project, name, grouping, grouped_to) VALUES (1, '', 'q', 1, 4)"
        )
        token = 'a' * 32
        old.execute('INSERT INTO claims VALUES (1, 1, ?, 60, ?, NULL)', (token, now + 60))
        for number, held_by, group in rows:
            old.execute(
                """INSERT INTO messages (id, spool, claim, ttl, created, expires, delayed_until,
                body, message_group) VALUES (?, 1, ?, 300, ?, ?, 0, ?, ?)""",
                (number, held_by, now, now + 300, str(number), group),
            )
        old.executemany(
            'INSERT INTO message_groups VALUES (1, ?, 1, 0, ?)',
            [('a', None), ('b', 3), ('', 4)],
        )
    store = Store(tmp_path)
    other, found = claim(store, 10)
    assert found == [3, 4, 5]
    assert claim(store, 10) == (None, [])
    store.claims.delete('q', token)
    assert claim(store, 1)[1] == [1]
    store.claims.delete('q', other)
    assert claim(store, 10)[1] == [3, 4, 5]
    store.close()


def test_what_has_expired_and_is_not_collected_yet_does_not_change_the_order(
    store, clock, monkeypatch
):
    monkeypatch.setattr(collector.CollectionSchedule, 'run', lambda *_: 1.0)
    store.queues.set_metadata('q', ORDERED)
    store.post('held', group='a')
    holder, _ = claim(store, 1)
    # The claim passes over those of the group that is held, which are registered then.
    store.post(*range(300), ttl=60, group='a')
    store.post('second', group='b')
    store.post('third', group='a')
    other, found = claim(store, 10)
    assert found == ['second']
    store.claims.delete('q', other)
    store.claims.delete('q', holder)
    clock.advance(61)
    assert claim(store, 1)[1] == ['held']
    assert claim(store, 10)[1] == ['second']


def test_a_group_comes_in_its_place_behind_many_messages_that_have_expired(
    store, clock, monkeypatch
):
    monkeypatch.setattr(collector.CollectionSchedule, 'run', lambda *_: 1.0)
    store.queues.set_metadata('q', ORDERED)
    store.post('a0', group='a')
    store.post('b0', group='b')
    first, _ = claim(store, 1)
    second, _ = claim(store, 1)
    store.post(*range(600), ttl=60, group='a')
    store.post('b1', group='b')
    store.post('a1', group='a')
    assert claim(store, 10) == (None, [])
    for claim_id, name in ((first, 'a0'), (second, 'b0')):
        [held] = store.claims.get('q', claim_id)[1]
        assert held['body'] == name
        store.messages.delete('q', held['id'], claim=claim_id)
    clock.advance(61)
    assert claim(store, 1)[1] == ['b1']
    assert claim(store, 1)[1] == ['a1']
