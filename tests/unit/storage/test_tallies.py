"""The counts that `stats` gives, against a plain count of the messages."""

from __future__ import annotations

import contextlib
import pathlib
import random

import gevent
import pytest
from zaqar.storage import errors

from tests.unit.storage.conftest import Store, file_of_format
from tests.unit.storage.test_cost import count_steps
from zaqar_gevent.storage import sqlite
from zaqar_gevent.storage.sqlite import schema, spools, tallies

PLAIN = """SELECT
    count(*) FILTER (WHERE m.expires > :now),
    count(*) FILTER (WHERE m.expires > :now AND c.expires > :now)
    FROM messages m LEFT JOIN claims c ON c.id = m.claim
    WHERE m.spool = (SELECT id FROM spools WHERE name = :queue)"""


BYTES = f"""SELECT s.bytes + (SELECT ifnull(sum(bytes), 0) FROM changes WHERE spool = s.id), (
        SELECT ifnull(sum({schema.MESSAGE_BYTES}), 0) FROM messages m
        WHERE m.spool = s.id AND m.id <= (SELECT last FROM tallied))
    FROM spools s"""


def check_bytes(store):
    """Those of the messages that are counted."""
    for noted, plainly in store.database.scan(lambda db: db.execute(BYTES).fetchall()):
        assert noted == plainly


def count_plainly(store, clock, queue):
    """What is there; and the oldest and newest that are due, in the order of the queue."""

    def count(connection):
        parameters = {'queue': queue, 'now': clock.now}
        return connection.execute(PLAIN, parameters).fetchone()

    total, claimed = store.database.scan(count)
    listed = store.list(queue, limit=0, include_claimed=True)
    ends = [listed[0]['id'], listed[-1]['id']] if listed else [None, None]
    return total, claimed, *ends


def counted(store, queue):
    stats = store.queues.stats(queue)['messages']
    assert stats['free'] + stats['claimed'] == stats['total']
    ends = [stats.get(name, {}).get('id') for name in ('oldest', 'newest')]
    return stats['total'], stats['claimed'], *ends


ACTIONS = (
    *('post', 'post', 'delay', 'claim', 'claim', 'renew', 'release', 'delete'),
    *('pop', 'restore', 'advance', 'collect', 'purge', 'forget', 'finish', 'crowd'),
)


@pytest.fixture(scope='module')
def shared_store(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp('tallies'))
    yield store
    store.close()


@pytest.mark.parametrize('seed', range(30))
def test_stats_are_what_a_plain_count_gives(shared_store, clock, monkeypatch, seed):
    chosen = random.Random(seed)
    monkeypatch.setattr(tallies, 'STEP', chosen.choice([2, 16, 256]))
    actions = [
        (chosen.choice(ACTIONS), chosen.randrange(7), chosen.choice(['q', 'r']))
        for _ in range(chosen.randrange(70))
    ]
    run = Run(shared_store, clock)
    for action in actions:
        run.do(*action)
        run.check(*action)
    clock.advance(1000)
    run.check('the end')
    shared_store.data.gc()
    run.check('collection')
    # Nothing is left of what has ended and was counted.
    shared_store.post(*range(300), queue='r', ttl=9)
    clock.advance(10)
    shared_store.data.gc()
    run.check('more')


class Run:
    """Everything that changes counts, in two queues of which one takes the other's dead letters."""

    def __init__(self, store, clock):
        self._store = store
        self._clock = clock
        self._claims = []
        self._popped = []
        for queue in ('q', 'r'):
            self.forget(6, queue)
        clock.now += 0.25

    def do(self, action, number, queue):
        getattr(self, action)(number, queue)

    def check(self, *action):
        for queue in ('q', 'r'):
            # First, since listing gives their places to messages that are due.
            plainly = count_plainly(self._store, self._clock, queue)
            assert counted(self._store, queue) == plainly, (action, queue)
        check_bytes(self._store)

    def post(self, number, queue):
        self._store.post(*range(number * 3), queue=queue, ttl=3 + 2 * number)

    def delay(self, number, queue):
        self._store.post(*range(number), queue=queue, ttl=20, delay=number)

    def claim(self, number, queue):
        claim_id, _ = self._store.claim(queue, ttl=2 + number, grace=1, limit=number + 1)
        self._claims += [(queue, claim_id)] if claim_id else []

    def renew(self, number, _):
        for queue, claim_id in self._claims[-1:]:
            with contextlib.suppress(errors.ClaimDoesNotExist):
                self._store.claims.update(queue, claim_id, {'ttl': 1 + number, 'grace': 1})

    def release(self, _, queue):
        for held_in, claim_id in self._claims[:1]:
            self._store.claims.delete(held_in, claim_id)
        self._claims = self._claims[1:]

    def delete(self, number, queue):
        listed = self._store.list(queue, limit=number + 1, include_claimed=True)
        self._store.messages.bulk_delete(queue, [one['id'] for one in listed])

    def finish(self, number, _):
        for queue, claim_id in self._claims[-1:]:
            with contextlib.suppress(errors.ClaimDoesNotExist):
                _, found = self._store.claims.get(queue, claim_id)
                ids = [one['id'] for one in found][: number + 1]
                self._store.messages.bulk_delete(queue, ids, claim_ids=[claim_id])

    def crowd(self, number, queue):
        """Claims and deletions at once, of which some are about the same messages."""
        ids = [one['id'] for one in self._store.list(queue, limit=4, include_claimed=True)]
        delete = self._store.messages.bulk_delete
        gevent.joinall(
            [
                gevent.spawn(self.claim, number, queue),
                gevent.spawn(delete, queue, ids[:3] * 2),
                gevent.spawn(self.claim, 2, queue),
                gevent.spawn(delete, queue, ids[2:]),
                gevent.spawn(self.claim, 1, queue),
            ],
            raise_error=True,
        )

    def pop(self, number, queue):
        self._popped.append((queue, self._store.messages.pop(queue, number + 1)))

    def restore(self, _number, _queue):
        if self._popped:
            queue, messages = self._popped.pop()
            self._store.messages.restore(queue, messages)

    def advance(self, number, _):
        self._clock.advance(number * 0.55)

    def collect(self, _number, _queue):
        self._store.data.gc()

    def purge(self, number, queue):
        if number > 4:
            self._store.messages.purge(queue)

    def forget(self, number, queue):
        if number > 5:
            self._store.queues.delete(queue)
            metadata = {'_dead_letter_queue': 'r', '_max_claim_count': 2}
            self._store.queues.create(queue, metadata if queue == 'q' else {})


def test_messages_are_deleted_where_it_is_counted():
    """No trigger does it."""
    modules = pathlib.Path(sqlite.__file__).parent.glob('*.py')
    found = [one.name for one in modules if 'DELETE FROM messages' in one.read_text()]
    assert found == ['deleting.py']


def test_what_a_file_of_the_format_before_has_counted_goes_on(tmp_path, clock):
    with file_of_format(tmp_path / 'store.db', 11) as old:
        old.execute("INSERT INTO queues VALUES ('', 'queue', 'q', '{}')")
        old.execute("INSERT INTO spools (id, project, name) VALUES (1, '', 'q')")
        old.execute('INSERT INTO claims VALUES (1, 1, ?, 60, ?, NULL)', ('a' * 32, clock.now + 60))
        old.execute('INSERT INTO long_bodies VALUES (1, \'"long"\')')
        for number in range(1, 21):
            old.execute(
                """INSERT INTO messages (id, spool, claim, ttl, created, expires, delayed_until,
                    body, long_body, attributes) VALUES (?, 1, ?, 300, ?, ?, 0, ?, ?, ?)""",
                (
                    *(number, 1 if number <= 5 else None, clock.now, clock.now + 300),
                    *(b'"short"', 1 if number == 10 else None, '{"a":"b"}'),
                ),
            )
        for statement in tallies._COUNT_NEW:
            old.execute(statement)
        old.execute(
            'INSERT INTO changes (spool, expiring, freed, frees_at) VALUES (1, 0, 5, ?)',
            (int(clock.now) + 60,),
        )
        # By its triggers.
        old.execute('DELETE FROM messages WHERE id IN (1, 20)')
    store = Store(tmp_path)
    for deleted in ([], [2, 3, 9], [10, 11]):
        store.messages.bulk_delete('q', [f'{number:016x}' for number in deleted])
        assert counted(store, 'q') == count_plainly(store, clock, 'q')
        check_bytes(store)
    assert counted(store, 'q')[:2] == (13, 2)
    store.close()


FILL = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :count)
    INSERT INTO messages (spool, ttl, created, expires, delayed_until, body)
    SELECT :spool, 3600, :now, :now + 3600 + i % 100, 0, '1' FROM n"""


def test_cost_does_not_grow_with_the_queue(open_store, clock):
    costs = []
    for count in (1000, 100_000):
        store = open_store(messages=f'{count}.db', names=f'{count}.db')
        store.post('spool')

        def fill(cursor, count=count):
            spool = spools.get(cursor, '', 'q')
            cursor.execute(FILL, {'count': count, 'spool': spool, 'now': clock.now})
            tallies.update(cursor, count + 1, count)

        store.database.write(fill)
        store.claim(limit=10)
        costs.append(count_steps(store, lambda s=store: s.queues.stats('q')))
        assert store.queues.stats('q')['messages']['total'] == count + 1
    few, many = costs
    assert many <= few * 1.2


def test_a_claim_lives_as_long_as_was_asked_for(store, clock):
    store.post('work', ttl=3600)
    clock.advance(0.9)
    claim_id, _ = store.claim(ttl=60)
    clock.advance(59.9)
    claim, _ = store.claims.get('q', claim_id)
    assert claim == {'id': claim_id, 'ttl': 60, 'age': 59}
    assert store.claim() == (None, [])
    clock.advance(0.2)
    assert store.claim()[0] is not None
