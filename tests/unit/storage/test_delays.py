"""Delayed messages take their places when they are due; by a clock that the tests move."""

from __future__ import annotations

import random
import time

import gevent
import pytest

from tests.unit.storage.conftest import Store, file_of_format
from tests.unit.storage.test_cost import count_steps
from zaqar_gevent.markers import of_positions
from zaqar_gevent.storage.sqlite import claiming, delays, spools


def read(store, marker=None, limit=100, **options):
    """The bodies of what follows a marker, and the marker of the page."""
    page, following = store.messages.list('q', marker=marker, limit=limit, echo=True, **options)
    return [message['body'] for message in page], following


def test_a_message_keeps_its_id_and_takes_its_place_when_it_is_due(store, clock):
    [delayed, first] = [*store.post('delayed', delay=5), *store.post('first')]
    _, marker = read(store)
    assert marker.startswith(first)
    clock.advance(4.9)
    assert read(store, marker) == ([], marker)
    clock.advance(0.1)
    store.post('last')
    assert read(store, marker)[0] == ['last', 'delayed']
    found = store.messages.get('q', delayed)
    assert (found['id'], found['body']) == (delayed, 'delayed')
    assert found['position'] > first
    # After its id is after its position, however the marker is written.
    store.post('new')
    assert read(store, delayed)[0] == ['new']


def test_old_and_new_markers_of_each_message_lead_on(store, clock):
    store.post(0)
    store.post(3, 4, delay=1)
    store.post(1, 2)
    clock.advance(1)
    bodies, following = read(store)
    assert bodies == [0, 1, 2, 3, 4]
    page, _ = store.messages.list('q', echo=True)
    positions = [message.get('position') or message['id'] for message in page]
    for place, marker in enumerate(of_positions(positions, following), 1):
        assert read(store, marker)[0] == bodies[place:]


def test_messages_are_visible_in_the_order_in_which_they_are_due(store, clock):
    for delay in (5, 3, 4, 3):
        store.post(f'{delay}', delay=delay)
    clock.advance(5)
    assert read(store)[0] == ['3', '3', '4', '5']
    assert [message['body'] for message in store.claim(limit=4)[1]] == ['3', '3', '4', '5']


def test_delayed_messages_are_listed_at_the_places_of_their_posts(store, clock):
    store.post('a')
    store.post('b', delay=5)
    store.post('c')
    assert read(store, include_delayed=True, limit=2)[0] == ['a', 'b']
    _, marker = read(store, include_delayed=True, limit=2)
    assert read(store, marker, include_delayed=True)[0] == ['c']
    clock.advance(5)
    assert read(store, marker, include_delayed=True)[0] == ['c', 'b']


def test_popped_messages_go_back_to_their_places(store, clock):
    store.post('delayed', delay=5)
    store.post('first')
    clock.advance(5)
    store.post('last')
    before = read(store)
    popped = store.messages.pop('q', 3)
    assert read(store)[0] == []
    store.messages.restore('q', popped)
    assert read(store) == before


def test_a_purge_removes_what_is_delayed_now(store, clock):
    store.post('delayed', delay=5)
    store.post('free')
    store.messages.purge('q')
    clock.advance(5)
    assert read(store)[0] == []
    assert store.queues.stats('q')['messages']['total'] == 0


def test_a_deleted_queue_takes_its_delayed_messages_with_it(store, clock):
    store.post(*range(600), delay=5)
    store.queues.delete('q')
    store.queues.create('q')
    clock.advance(5)
    assert read(store, include_delayed=True)[0] == []
    store.data.gc()
    for table in ('messages', 'delays', 'doomed_spools'):
        assert store.database.get_row(f'SELECT count(*) FROM {table}', ()) == (0,), table


def test_a_message_that_expires_before_it_is_due_is_never_seen(store, clock):
    store.post('short', ttl=3, delay=5)
    clock.advance(5)
    assert read(store)[0] == []
    assert store.claim() == (None, [])


ACTIONS = ('post', 'delay', 'read', 'claim', 'release', 'advance', 'delete')


@pytest.fixture(scope='module')
def shared_store(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp('delays'))
    yield store
    store.close()


@pytest.mark.parametrize('seed', range(30))
def test_a_follower_gets_every_message_once_and_none_before_it_is_due(shared_store, clock, seed):
    chosen = random.Random(seed)
    actions = [(chosen.choice(ACTIONS), chosen.randrange(5)) for _ in range(chosen.randrange(30))]
    shared_store.queues.delete('q')
    shared_store.queues.create('q')
    follower = Follower(shared_store, clock, page=chosen.randint(1, 4))
    for action in actions:
        follower.do(*action)
    clock.advance(10)
    follower.read()
    assert follower.due.keys() - follower.seen <= follower.gone


class Follower:
    """Posts, delays, claims and deletes while it follows the queue by markers."""

    def __init__(self, store, clock, page):
        self.due = {}
        self.seen = set()
        self.gone = set()
        self._store = store
        self._clock = clock
        self._page = page
        self._claims = []
        self._marker = None

    def do(self, action, number):
        getattr(self, action)(number)

    def read(self, _=0):
        found = True
        while found:
            messages, self._marker = self._store.messages.list(
                'q', marker=self._marker, limit=self._page, echo=True, include_claimed=True
            )
            found = [message['id'] for message in messages]
            assert all(self._clock.now >= self.due[one] for one in found), 'given early'
            assert not self.seen.intersection(found), 'given twice'
            self.seen.update(found)

    def post(self, number, delay=0):
        for one in self._store.post(*range(number + 1), ttl=10_000, delay=delay):
            self.due[one] = self._clock.now + delay

    def delay(self, number):
        self.post(number, number + 1)

    def claim(self, number):
        claim_id, messages = self._store.claim(limit=number + 1)
        assert all(self._clock.now >= self.due[one['id']] for one in messages), 'claimed early'
        self._claims += [claim_id] if claim_id else []

    def release(self, _):
        if self._claims:
            self._store.claims.delete('q', self._claims.pop())

    def delete(self, number):
        ids = list(self.due)[:number]
        self._store.messages.bulk_delete('q', ids)
        self.gone.update(ids)

    def advance(self, number):
        self._clock.advance(number * 0.7)


def test_who_listens_is_told_once_and_in_time(store):
    told = []
    store.data.listen(lambda *due: told.append((time.time(), *due)))
    began = time.time()
    store.post('later', delay=0.3)
    with gevent.Timeout(5):
        while not told:
            gevent.sleep(0.005)
    gevent.sleep(0.1)
    [(at, project, queue, messages)] = told
    assert (project, queue, messages) == (None, 'q', [])
    assert at >= began + 0.3
    assert read(store)[0] == ['later']


def test_messages_are_told_where_the_queue_has_subscriptions(store):
    told = []
    store.data.subscription_controller.create('q', 'http://x', 300, {})
    store.data.listen(lambda *due: told.extend(due[2]))
    messages = [
        {'ttl': 300, 'body': 'now'},
        {'ttl': 300, 'body': {'a': 1}, 'delay': 0.2},
        {'ttl': 300, 'body': b'QUFB', 'delay': 0.2},
    ]
    messages[0]['passed'] = 'x,y'
    store.messages.post('q', messages, None)
    with gevent.Timeout(5):
        while len(told) < 2:
            gevent.sleep(0.005)
    assert [(one['body'], one['delay'], one['passed'], one['ttl']) for one in told] == [
        ({'a': 1}, pytest.approx(0.2), 'x,y', 300),
        (b'QUFB', pytest.approx(0.2), 'x,y', 300),
    ]


def test_what_is_told_of_in_one_step_is_bounded(store, clock):
    store.data.subscription_controller.create('q', 'http://x', 300, {})
    store.post(*['x' * 300_000] * 8, delay=5)

    def place(cursor):
        claiming.show_due(cursor, '', 'q', clock.now + 5)
        return [len(due.deliveries) for due in cursor.due]

    assert store.database.write(place) == [4]
    assert store.database.write(place) == [4]


def test_queues_take_turns(store, clock):
    store.queues.create('small')
    store.post(*range(1000), delay=5)
    clock.advance(1)
    store.post('x', queue='small', delay=5)

    def place(cursor):
        delays.place(cursor, clock.now + 10)
        return [due.queue for due in cursor.due]

    assert store.database.write(place) == ['q']
    assert 'small' in store.database.write(place)


def delay_many(store, clock, count, *, delay=900.0):
    """Delayed messages in front of 100 others."""

    def insert(cursor):
        spool = spools.get(cursor, '', 'q')
        cursor.execute(
            """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :count)
            INSERT INTO messages (spool, ttl, created, expires, delayed_until, body)
            SELECT :spool, 3600, :now, :now + 3600, :now + :delay, '1' FROM n""",
            {'count': count, 'spool': spool, 'now': clock.now, 'delay': delay},
        )
        delays.note(cursor, spool, clock.now + delay)

    store.post('spool')
    store.database.write(insert)
    store.post(*range(100))
    store.queues.create('other')


@pytest.mark.parametrize(
    'operation',
    [
        lambda store: store.list(limit=10),
        lambda store: store.list(limit=10, include_claimed=True),
        lambda store: store.list(limit=10, include_delayed=True),
        lambda store: store.claim(limit=10),
        lambda store: store.messages.pop('q', 10),
        lambda store: store.claim(queue='other'),
        lambda store: store.queues.stats('q'),
        lambda store: store.post('new', delay=5),
    ],
    ids=['list', 'claimed', 'delayed', 'claim', 'pop', 'claim of another', 'stats', 'post'],
)
def test_cost_does_not_grow_with_what_is_delayed(open_store, clock, operation):
    costs = []
    for count in (1000, 100_000):
        store = open_store(messages=f'{count}.db', names=f'{count}.db')
        delay_many(store, clock, count)
        costs.append(count_steps(store, lambda s=store: operation(s)))
    few, many = costs
    assert many <= few * 1.2 + 20


def test_a_file_of_the_version_before_is_migrated(tmp_path, clock):
    path = tmp_path / 'store.db'
    now = time.time()
    clock.now = now
    rows = [
        # id, claim, expires, delayed_until, body
        (3, None, now + 300, 0, '"free"'),
        (4, 1, now + 300, 0, '"held"'),
        (5, None, now + 300, now - 10, '"was delayed"'),
        (6, None, now + 300, now + 20, '"is delayed"'),
        (7, None, now - 5, 0, '"expired"'),
        (9, None, now + 300, 0, '"last"'),
    ]
    with file_of_format(path, 4) as old:
        old.execute("INSERT INTO queues VALUES ('', 'queue', 'q', '{}')")
        old.execute("INSERT INTO spools (id, project, name) VALUES (1, '', 'q')")
        token = 'a' * 32
        old.execute('INSERT INTO claims VALUES (1, 1, ?, 60, ?)', (token, now + 60))
        for number, claim, expires, delayed_until, body in rows:
            old.execute(
                """INSERT INTO messages (id, spool, claim, ttl, created, expires, delayed_until,
                body) VALUES (?, 1, ?, 300, ?, ?, ?, ?)""",
                (number, claim, now, expires, delayed_until, body),
            )
        [epoch] = old.execute('SELECT name FROM epochs').fetchone()
    store = Store(tmp_path)
    everything, end = read(store, include_claimed=True)
    assert everything == ['free', 'held', 'was delayed', 'last']
    counts = store.queues.stats('q')['messages']
    assert (counts['free'], counts['claimed'], counts['total']) == (4, 1, 5)
    # A marker of before.
    assert read(store, f'{5:016x}-{epoch}')[0] == ['last']
    assert read(store, f'{9:016x}-{epoch}')[0] == []
    clock.advance(20)
    assert read(store, f'{9:016x}-{epoch}')[0] == ['is delayed']
    assert read(store, end)[0] == ['is delayed']
    store.close()
