"""Listing and claiming cost the same however long the queue, and however much of it is claimed.

Cost is counted in instructions of SQLite's virtual machine, which is exact.
"""

import functools

import pytest

from zaqar_gevent.settlements import Settle, Settlement
from zaqar_gevent.storage.core import pages
from zaqar_gevent.storage.sqlite import (
    claiming,
    collector,
    delays,
    deleting,
    messages,
    removal,
    spools,
)

FILL = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :count)
    INSERT INTO messages (spool, claim, ttl, created, expires, delayed_until, body)
    SELECT (SELECT id FROM spools WHERE name = 'q'), :claim, 3600, :now, :now + 3600, 0, '1'
    FROM n"""


def fill(store, count, *, claimed=0):
    """`claimed` messages of a claim in front of `count` free ones."""
    store.post('spool')
    now = store.list()[0]['age'] + store.data_now

    def insert(cursor):
        spool = spools.get(cursor, '', 'q')
        cursor.execute(
            "INSERT INTO claims (spool, token, ttl, expires) VALUES (?, 'token', 60, ?)",
            (spool, now + 60),
        )
        cursor.execute(FILL, {'count': claimed, 'claim': cursor.lastrowid, 'now': now})
        cursor.execute(FILL, {'count': count, 'claim': None, 'now': now})

    store.database.write(insert)
    store.data.gc()


def count_steps(store, call):
    """Instructions that `call` takes in the reading and the writing connection."""
    steps = [0]

    def tick():
        steps[0] += 1

    def watch(cursor_or_connection, handler, every):
        connection = getattr(cursor_or_connection, 'connection', cursor_or_connection)
        connection.set_progress_handler(handler, every)

    store.database.write(watch, tick, 1)
    here = store.database._get_thread_connection().connection
    here.set_progress_handler(tick, 1)
    try:
        call()
    finally:
        here.set_progress_handler(None, 0)
        store.database.write(watch, None, 0)
    return steps[0]


@pytest.fixture(params=['list', 'list with claimed', 'claim', 'pop', 'get'])
def operation(request):
    return {
        'list': lambda store: store.list(limit=10),
        'list with claimed': lambda store: store.list(limit=10, include_claimed=True),
        'claim': lambda store: store.claim(limit=10),
        'pop': lambda store: store.messages.pop('q', 10),
        'get': lambda store: store.messages.bulk_get('q', [f'{5:016x}']),
    }[request.param]


@pytest.fixture
def make_queue(tmp_path, open_store, clock):
    def make(name, count, **options):
        store = open_store(messages=f'{name}.db', names=f'{name}.db')
        store.data_now = clock.now
        fill(store, count, **options)
        return store

    return make


def test_cost_does_not_grow_with_the_queue(make_queue, operation):
    short = make_queue('short', 1000)
    long = make_queue('long', 100_000)
    few, many = (count_steps(store, lambda s=store: operation(s)) for store in (short, long))
    assert many <= few * 1.2


def test_cost_does_not_grow_with_what_is_claimed(make_queue, operation):
    free = make_queue('free', 1000)
    claimed = make_queue('claimed', 1000, claimed=100_000)
    few, many = (count_steps(store, lambda s=store: operation(s)) for store in (free, claimed))
    assert many <= few * 1.2 + 100


HOLD = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :count)
    INSERT INTO claims (spool, token, ttl, expires)
    SELECT (SELECT id FROM spools WHERE name = 'q'), format('other-%d', i), 60, :now + 60 FROM n"""
HELD = """INSERT INTO messages (spool, claim, ttl, created, expires, delayed_until, body)
    SELECT spool, id, 3600, :now, :now + 3600, 0, '1' FROM claims"""
OF_A_CLAIM = {
    'get': lambda store, claim, _: store.claims.get('q', claim),
    'renew': lambda store, claim, _: store.claims.update('q', claim, {'ttl': 60, 'grace': 60}),
    'release': lambda store, claim, _: store.claims.delete('q', claim),
    'delete one': lambda store, claim, ids: store.messages.delete('q', ids[0], claim=claim),
    'delete': lambda store, claim, ids: store.messages.bulk_delete('q', ids, claim_ids=[claim]),
    **{
        f'settle: {kind.name.lower()}': lambda store, claim, ids, kind=kind: store.claims.settle(
            'q', [Settlement(kind, ids[0], claim, ttl=60, grace=60)]
        )
        for kind in (Settle.DELETE, Settle.RELEASE, Settle.EXTEND)
    },
}


@pytest.mark.parametrize('operation', OF_A_CLAIM)
def test_cost_of_a_claim_does_not_grow_with_the_number_of_others(make_queue, operation):
    costs = []
    for count in (10, 10_000):
        store = make_queue(f'held{count}', 100)

        def hold(cursor, store=store, count=count):
            cursor.execute(HOLD, {'count': count, 'now': store.data_now})
            cursor.execute(HELD, {'now': store.data_now})

        store.database.write(hold)
        claim, found = store.claims.create('q', {'ttl': 60, 'grace': 60}, limit=10)
        ids = [one['id'] for one in found]
        call = functools.partial(OF_A_CLAIM[operation], store, claim, ids)
        costs.append(count_steps(store, call))
    few, many = costs
    assert many <= few * 1.2


@pytest.mark.parametrize('operation', ['claim', 'pop'])
def test_claims_do_not_walk_through_what_has_expired_again_and_again(
    make_queue, clock, operation, monkeypatch
):
    # The collector is too slow.
    monkeypatch.setattr(collector.CollectionSchedule, 'run', lambda *_: 1.0)
    costs = []
    for count in (100, 10_000):
        store = make_queue(f'{operation}{count}', count)
        clock.advance(4000)
        store.post(*range(1000), ttl=9000)
        take = functools.partial(store.messages.pop, 'q', 10)
        if operation == 'claim':
            take = functools.partial(store.claim, limit=10)
        for _ in range(count // claiming.EXPIRED_STEP + 2):
            take()
        costs.append(count_steps(store, take))
    few, many = costs
    assert many <= few * 1.2


def test_what_has_expired_is_passed_over_by_the_index_alone(store):
    """A list reads the rows of what it gives only; those of long bodies are a page each."""
    store.post('x')
    columns = store.database.scan(
        lambda connection: connection.execute('PRAGMA index_info(messages_free)').fetchall()
    )
    assert [name for _, _, name in columns] == ['spool', 'position', 'expires']


STATEMENTS = [
    *(
        statement
        for echo in (False, True)
        for claimed in (False, True)
        for delayed in (False, True)
        for has_epoch in (None, False, True)
        for statement in messages._list_statements(echo, claimed, delayed, has_epoch)
    ),
    messages._GET_MANY,
    claiming._FIND_FREE,
    claiming._FIND_PAGE,
    claiming._GET_PAGE,
    claiming._TAKE_SPAN,
    claiming.HELD_BY_TOKEN,
    claiming._EXTEND,
    deleting._LOOK_AT_THESE,
    deleting._GROUPS,
    removal._LOOK_AT_ALL,
    removal._LOOK_AT_ALLOWED,
    spools._STATS,
    delays._NEXT.replace('?', ':ids'),
    delays._NEXT_OF_SPOOL,
    *spools._EDGES.values(),
    spools._END,
    collector._DUE,
    collector._MESSAGES,
    collector._SUBSCRIPTIONS,
]
PARAMETERS = dict.fromkeys(
    [
        'project',
        'queue',
        'now',
        'marker',
        'epoch',
        'limit',
        'client',
        'ids',
        'spool',
        'token',
        'claim',
        'ttl',
        'grace',
        'ends',
        'second',
        'after',
        'last',
    ],
    0,
)


@pytest.mark.parametrize('statement', STATEMENTS)
def test_no_statement_scans_a_table(store, statement):
    parameters = PARAMETERS if ':' in statement else (0,) * (1 + statement.count('LIMIT ?'))
    plan = store.database.scan(
        lambda connection: connection.execute(
            f'EXPLAIN QUERY PLAN {statement}', parameters
        ).fetchall()
    )
    details = [row[3] for row in plan]
    tables = {'messages', 'claims', 'subscriptions', 'spools', 'epochs', 'm', 'c'}
    scans = [
        detail for detail in details if detail.startswith('SCAN ') and detail.split()[1] in tables
    ]
    assert not scans, details


def test_ids_sort_like_their_numbers():
    numbers = [1, 9, 10, 255, 256, 1 << 40, (1 << 63) - 1]
    public = [pages.encode_id(number) for number in numbers]
    assert public == sorted(public)
    assert [pages.decode_id(one) for one in public] == numbers


GROUPED = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :count)
    INSERT INTO messages
        (spool, claim, ttl, created, expires, delayed_until, body, message_group)
    SELECT (SELECT id FROM spools WHERE name = 'q'), :claim, 3600, :now, :now + 3600, 0, '1',
        'g' || (i % :groups)
    FROM n"""


@pytest.mark.parametrize('setting', ['_ordered_groups', '_fair_groups'])
def test_claims_cost_the_same_however_many_groups_and_however_much_is_held_up(make_queue, setting):
    costs = []
    for groups in (100, 4000):
        store = make_queue(f'{setting}{groups}', 0)
        store.messages.pop('q', 10)
        store.queues.create('q', {setting: True})
        values = {'claim': None, 'now': store.data_now, 'groups': groups, 'count': 10 * groups}
        store.database.write(lambda cursor, values=values: cursor.execute(GROUPED, values) and None)
        # What is held up by the first claims is given to its groups by them as well.
        for _ in range(groups // 40):
            store.claim(limit=10)
        costs.append(min(count_steps(store, lambda s=store: s.claim(limit=10)) for _ in range(3)))
    few, many = costs
    assert many < few * 1.3
