"""One writing thread, many callers of every kind."""

import functools
import gc
import subprocess
import sys
import weakref

import gevent
import gevent.socket
import pytest
from gevent import monkey
from oslo_utils import timeutils
from zaqar.storage import errors

from tests.stopwatch import Stopwatch
from zaqar_gevent.greenlets import MOMENT
from zaqar_gevent.storage.core import completions, group_commit, pages
from zaqar_gevent.storage.core.completions import Call, CallBatcher
from zaqar_gevent.storage.sqlite import StoreUnavailable, claiming, database, removal
from zaqar_gevent.storage.sqlite import connecting as files

# Native threads and sleep, whether the tests run patched or not.
start_new_thread = monkey.get_original('_thread', 'start_new_thread')
allocate_lock = monkey.get_original('_thread', 'allocate_lock')
native_sleep = monkey.get_original('time', 'sleep')


def count_commits(store, monkeypatch):
    """A list that grows with each commit of the store's writer."""
    commits = []
    connect = files.connect

    def traced(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(
            lambda statement: commits.append(statement) if statement == 'COMMIT' else None
        )
        return connection

    monkeypatch.setattr(files, 'connect', traced)
    return commits


def in_native_thread(function):
    done = allocate_lock()
    done.acquire()
    outcome = []

    def run():
        try:
            outcome.append(function())
        finally:
            done.release()

    start_new_thread(run, ())
    while not done.acquire(False):
        gevent.sleep(0.001)
    return outcome[0]


def test_posts_of_many_greenlets_share_commits(open_store, monkeypatch):
    commits = count_commits(None, monkeypatch)
    store = open_store()
    commits.clear()
    workers = [gevent.spawn(store.post, number) for number in range(200)]
    gevent.joinall(workers, raise_error=True)
    assert len(store.list(limit=0)) == 200
    assert len(commits) < 40


def commits_of_a_crowd(open_store, monkeypatch, *, rounds, busy=0.0):
    """How many commits it takes when eight ask again and again, one after the other.

    busy: for how long each keeps the others waiting before it asks, in seconds.
    """
    commits = count_commits(None, monkeypatch)
    store = open_store()
    turns = [gevent.socket.socketpair() for _ in range(8)]

    def ask(number):
        for _ in range(rounds):
            if number:
                gevent.socket.wait_read(turns[number][0].fileno())
                turns[number][0].recv(1)
            native_sleep(busy)
            if number + 1 < len(turns):
                turns[number + 1][1].send(b'.')
            store.post(number)

    commits.clear()
    gevent.joinall([gevent.spawn(ask, number) for number in range(len(turns))], raise_error=True)
    for pair in turns:
        for end in pair:
            end.close()
    return len(commits)


def test_who_is_answered_together_is_waited_for(open_store, monkeypatch):
    # However busy the machine is.
    monkeypatch.setattr(completions, '_PATIENCE_SECONDS', 60.0)
    assert commits_of_a_crowd(open_store, monkeypatch, rounds=40) < 60


def test_nobody_is_waited_for_long(open_store, monkeypatch):
    assert commits_of_a_crowd(open_store, monkeypatch, rounds=10, busy=0.01) > 20


class Sink:
    """Takes calls, and answers them when it is told to."""

    is_greedy = True

    def __init__(self):
        self.batchers = {}
        self.taken = []
        self.batcher = CallBatcher(self, gevent.get_hub().loop)

    def put(self, calls):
        self.taken.append(len(calls))

    def ask(self, count):
        """So many callers ask one after the other, with turns of the loop in between."""
        for _ in range(count):
            self.batcher.send(Call(None, ()))
            for _ in range(6):
                gevent.sleep(MOMENT)

    def answer(self):
        """Answer the batches that were taken; their sizes."""
        sizes, self.taken = self.taken, []
        self.batcher.answered(sum(sizes))
        return sizes


def crowd_that_comes_back(monkeypatch):
    """A sink whose eight callers come back whenever they are answered, and the sizes of batches."""
    # However busy the machine is.
    monkeypatch.setattr(completions, '_PATIENCE_SECONDS', 60.0)
    monkeypatch.setattr(completions, '_RETURN_SECONDS', 60.0)
    sink, sizes = Sink(), []
    sink.ask(8)
    for _ in range(20):
        sizes.append(sink.answer())
        sink.ask(sum(sizes[-1]))
    return sink, sizes


def test_callers_that_come_back_together_again_and_again_are_waited_for(monkeypatch):
    _, sizes = crowd_that_comes_back(monkeypatch)
    assert sizes[0] != [8]
    assert sizes[-1] == sizes[-2] == [8]


def test_callers_that_do_not_come_back_are_not_waited_for_any_more(monkeypatch):
    seconds = completions._RETURN_SECONDS
    sink, _ = crowd_that_comes_back(monkeypatch)
    loop, batcher = gevent.get_hub().loop, sink.batcher
    batcher._pause = loop.timer(seconds)
    assert sink.answer() == [8]
    sink.ask(4)
    answered = 0
    with gevent.Timeout(60):
        while answered < 4:
            gevent.sleep(seconds)
            answered += sum(sink.answer()) if sink.taken else 0
    batcher._pause = loop.timer(60.0)
    sink.ask(1)
    assert sink.taken == [1]


def test_calls_are_coalesced_without_changing_places_with_others():
    done = []

    def alone(cursor, name):
        done.append(name)

    @group_commit.coalesced(in_order=True)
    def together(cursor, calls):
        done.append([name for (name,) in calls])
        return [None] * len(calls)

    @group_commit.coalesced()
    def at_last(cursor, calls):
        done.append({name for (name,) in calls})
        return [None] * len(calls)

    asked = [
        *((together, 1), (together, 2), (at_last, 3), (alone, 4)),
        *((together, 5), (at_last, 6), (together, 7)),
    ]
    group_commit.perform(None, [Call(work, (name,)) for work, name in asked])
    assert done == [[1, 2], 4, [5, 7], {3, 6}]


def test_each_of_several_deletions_has_its_own_outcome(store):
    """Those of one transaction are one statement, whatever queues and claims they are about."""
    store.queues.create('other')
    [elsewhere] = store.post('elsewhere', queue='other')
    *_, free, given = store.post('held', 'kept', 'free', 'given')
    claim, [held] = store.claim(limit=1)
    _, [kept] = store.claim(limit=1)
    asked = [
        (held['id'], claim, None),
        (kept['id'], None, errors.MessageIsClaimed),
        (kept['id'], claim, errors.MessageNotClaimedBy),
        (kept['id'], 'no claim', errors.ClaimDoesNotExist),
        (kept['id'], 'f' * 32, errors.ClaimDoesNotExist),
        (free, None, None),
        (given, claim, errors.MessageNotClaimed),
        # Gone, and never there.
        (free, None, None),
        (f'{1 << 40:016x}', claim, None),
        # In another queue.
        (elsewhere, None, None),
    ]
    now = timeutils.utcnow_ts(microsecond=True)
    deletions = [
        (removal.Deletion('', 'q', int(number, 16), holder, now),) for number, holder, _ in asked
    ]
    deletions.append((removal.Deletion('', 'missing', 1, None, now),))
    outcomes = store.database.write(lambda cursor: removal.delete(cursor, deletions))
    assert [outcome and type(outcome) for outcome in outcomes] == [
        *(one[-1] for one in asked),
        None,
    ]
    assert [one['id'] for one in store.list(include_claimed=True)] == [kept['id'], given]
    assert store.bodies('other') == ['elsewhere']
    assert store.queues.stats('q')['messages']['claimed'] == 1


def test_each_of_several_deletions_of_many_has_its_own_outcome(store):
    posted = store.post(*range(12))
    claim, held = store.claim(limit=4)
    other, others = store.claim(limit=2)
    held, others = [one['id'] for one in held], [one['id'] for one in others]
    asked = [
        (held[:2], [claim], None),
        # Again, and one twice.
        (held[:2], [claim], None),
        ([posted[11], posted[11]], None, None),
        ([held[2], others[0]], [claim], errors.ClaimDoesNotExist),
        ([held[2], posted[10]], [claim], errors.MessageNotClaimed),
        ([held[2], others[0]], [claim, other], None),
        ([posted[9]], ['no claim'], errors.ClaimDoesNotExist),
        ([others[1]], None, None),
    ]
    now = timeutils.utcnow_ts(microsecond=True)
    deletions = [
        (removal.Deletions('', 'q', [int(one, 16) for one in ids], claims or (), now),)
        for ids, claims, _ in asked
    ]
    outcomes = store.database.write(lambda cursor: removal.delete_many(cursor, deletions))
    assert [outcome and type(outcome) for outcome in outcomes] == [one[-1] for one in asked]
    left = [one['id'] for one in store.list(include_claimed=True)]
    assert left == [held[3], *posted[6:11]]
    counts = store.queues.stats('q')['messages']
    assert [counts[name] for name in ('total', 'claimed', 'free')] == [6, 1, 5]


ORDERED, FAIR = {'_ordered_groups': True}, {'_fair_groups': True}
SETTINGS = {'plain': {}, 'ordered': ORDERED, 'fair': FAIR, 'both': ORDERED | FAIR}


@pytest.mark.parametrize('groups', [0, 3, 50])
@pytest.mark.parametrize('settings', SETTINGS.values(), ids=SETTINGS)
def test_claims_made_together_take_what_they_would_one_after_the_other(
    open_store, clock, settings, groups
):
    limits = [3, 1, 10, 5, 2, 20, 4]
    found = []
    for name in ('apart.db', 'together.db'):
        store = open_store(messages=name, names=name)
        store.queues.set_metadata('q', settings)
        for number in range(60):
            group = {'group': f'g{number % groups}'} if groups else {}
            store.post(number, ttl=70 if number % 4 else 300, **group)
        # Some groups are held.
        store.claim(limit=4)
        claim = functools.partial(store.claim, ttl=100, grace=50)
        if name == 'apart.db':
            claims = [claim(limit=limit) for limit in limits]
        else:
            made = [gevent.spawn(claim, limit=limit) for limit in limits]
            gevent.joinall(made, raise_error=True)
            claims = [each.get() for each in made]
        for claim_id, messages in claims:
            assert {one['claim_id'] for one in messages} <= {claim_id}
            shown = [{**one, 'age': 0} for one in messages]
            if claim_id is not None:
                _, held = store.claims.get('q', claim_id)
                assert [{**one, 'age': 0} for one in held] == shown
        found.append([[{**one, 'claim_id': ''} for one in messages] for _, messages in claims])
    apart, together = found
    assert together == apart


@pytest.mark.parametrize('settings', SETTINGS.values(), ids=SETTINGS)
def test_claims_made_together_share_statements(store, settings):
    store.queues.set_metadata('q', settings)
    for number in range(100):
        store.post(number, group=f'g{number}')
    # All groups are registered by this, where claims need that.
    store.claim(limit=1)
    now = timeutils.utcnow_ts(microsecond=True)
    manner = claiming.Manner(None, True)

    def count_statements(claims):
        calls = [
            (claiming.NewClaim('', 'q', claiming.Lease(f'{n:032x}', 60, 60, now), 5, manner),)
            for n in range(claims)
        ]
        seen = []

        def create(cursor):
            cursor.connection.set_trace_callback(seen.append)
            outcomes = claiming.create(cursor, calls)
            cursor.connection.set_trace_callback(None)
            return outcomes

        outcomes = store.database.write(create)
        assert [len(pages.decode_page(one.page)) for one in outcomes] == [5] * claims
        return len(seen)

    assert count_statements(8) < 4 * count_statements(1)


def test_a_claim_does_not_take_what_is_released_after_it(store):
    """A consumer that is stopped releases its messages while it still claims."""
    store.post('x')
    token, _ = store.claim()
    now = timeutils.utcnow_ts(microsecond=True)
    lease, manner = claiming.Lease('f' * 32, 60, 60, now), claiming.Manner(None, True)
    claim = Call(claiming.create, (claiming.NewClaim('', 'q', lease, 1, manner),))
    release = Call(claiming.release, ('', 'q', token, now))
    store.database.write(lambda cursor: group_commit.perform(cursor, [claim, release]))
    assert claim.result == claiming.Attempt(None)
    assert store.queues.stats('q')['messages']['free'] == 1


def test_transactions_leave_nothing_behind(store):
    """A connection could keep a reference to the cursor of each, gone or not."""

    def count_dead_references():
        gc.collect()
        references = [one for one in gc.get_objects() if type(one) is weakref.ref]
        return sum(one() is None for one in references)

    before = count_dead_references()
    for _ in range(2000):
        store.database.write(lambda cursor: None)
    assert count_dead_references() < before + 1000


def test_a_refused_call_fails_alone(store):
    workers = [
        gevent.spawn(store.post, number, queue='missing' if number % 3 == 0 else 'q')
        for number in range(60)
    ]
    gevent.joinall(workers)
    assert len(store.list(limit=0)) == 40
    refused = [worker for worker in workers if worker.exception]
    assert {type(worker.exception) for worker in refused} == {errors.QueueDoesNotExist}
    assert len(refused) == 20


def test_a_defective_call_fails_alone_and_leaves_nothing(store):
    def defective(cursor):
        cursor.execute("INSERT INTO spools (project, name) VALUES ('', 'half done')")
        raise RuntimeError('defect')

    workers = [gevent.spawn(store.post, number) for number in range(5)]
    workers.insert(2, gevent.spawn(store.database.write, defective))
    gevent.joinall(workers)
    assert sorted(store.bodies()) == list(range(5))
    assert isinstance(workers[2].exception, RuntimeError)
    rows = store.database.scan(
        lambda connection: connection.execute(
            "SELECT count(*) FROM spools WHERE name = 'half done'"
        ).fetchone()
    )
    assert rows == (0,)


def test_a_killed_caller_does_not_disturb_the_others(store):
    workers = [gevent.spawn(store.post, number) for number in range(20)]
    gevent.sleep(0)
    workers[3].kill()
    gevent.joinall(workers)
    assert set(store.bodies(limit=0)) >= set(range(20)) - {3}


def test_a_caller_that_gives_up_waiting_can_call_again(store):
    blocker = block_writer(store, 0.3)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        store.post('given up')
    store.post('again')
    assert 'again' in store.bodies()
    blocker.join()


def block_writer(store, seconds):
    """A greenlet whose call keeps the writing thread busy."""
    blocker = gevent.spawn(store.database.write, lambda cursor: native_sleep(seconds))
    gevent.sleep(0.02)
    return blocker


def test_the_hub_goes_on_while_the_writer_waits(store):
    blocker = block_writer(store, 0.5)
    poster = gevent.spawn(store.post, 'waits')
    worst = 0.0
    while not blocker.ready():
        watch = Stopwatch()
        gevent.sleep(0.005)
        worst = max(worst, watch.seconds())
        assert store.bodies() in ([], ['waits'])
    poster.join()
    assert store.bodies() == ['waits']
    assert worst < 0.1


def test_a_long_read_does_not_hold_the_hub(store, monkeypatch):
    store.database.scan_seconds = 60.0
    counting = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000000)
        SELECT count(*) FROM n"""
    reader = gevent.spawn(
        store.database.read, lambda connection: connection.execute(counting).fetchone()
    )
    worst = 0.0
    while not reader.ready():
        watch = Stopwatch()
        gevent.sleep(0.002)
        worst = max(worst, watch.seconds())
    assert reader.get() == (3000000,)
    assert worst < 0.1


@pytest.mark.parametrize('short', [0, database.SHORT])
def test_reads_are_the_same_wherever_they_are_done(store, monkeypatch, short):
    monkeypatch.setattr(database, 'SHORT', short)
    store.post('x')
    assert store.bodies() == ['x']
    assert store.queues.get_metadata('q') == {}


def test_native_threads_may_call_with_and_without_a_hub(store):
    def with_hub():
        hub = gevent.get_hub()
        try:
            gevent.joinall([gevent.spawn(store.post, n) for n in range(10)], raise_error=True)
            return len(store.bodies(limit=0))
        finally:
            hub.destroy(destroy_loop=True)

    assert in_native_thread(lambda: store.post('plain')) == ['0000000000000001']
    assert in_native_thread(with_hub) == 11
    assert in_native_thread(with_hub) == 21


def test_an_answer_for_a_destroyed_hub_is_dropped(store):
    def abandon():
        hub = gevent.get_hub()
        gevent.spawn(store.database.write, lambda cursor: native_sleep(0.1))
        gevent.sleep(0.02)
        hub.destroy(destroy_loop=True)

    in_native_thread(abandon)
    gevent.sleep(0.15)
    store.post('still there')
    assert store.bodies() == ['still there']


def test_closing_ends_the_threads_and_is_idempotent(open_store):
    store = open_store()
    store.post('x')
    watch = Stopwatch()
    store.close()
    store.close()
    assert watch.seconds() < 5
    for call in (store.bodies, lambda: store.post('late'), lambda: store.queues.get('q')):
        with pytest.raises(StoreUnavailable, match='closed'):
            call()
    assert store.data.is_alive() is False


def test_drivers_of_one_file_share_it_until_the_last_closes(open_store):
    one, two = open_store(), open_store()
    assert one.database is two.database
    one.close()
    two.post('x')
    assert two.bodies() == ['x']


def test_what_was_posted_before_closing_is_committed(open_store):
    store = open_store()
    posting = [gevent.spawn(store.post, number) for number in range(50)]
    gevent.sleep(0)
    store.close()
    gevent.joinall(posting)
    posted = sum(worker.successful() for worker in posting)
    assert len(open_store().list(limit=0)) == posted


def test_deleting_a_queue_races_with_posting_to_it(store):
    """What is acknowledged is either there or was deleted, and nothing is left over."""

    def toggle():
        for _ in range(30):
            store.queues.delete('q')
            gevent.sleep(0)
            store.queues.create('q')
            gevent.sleep(0)

    def post():
        posted = 0
        for number in range(100):
            try:
                store.post(number)
                posted += 1
            except errors.QueueDoesNotExist:
                pass
        return posted

    workers = [gevent.spawn(post) for _ in range(8)]
    gevent.joinall([gevent.spawn(toggle), *workers], raise_error=True)
    store.queues.delete('q')
    store.data.gc()
    for table in ('messages', 'spools', 'doomed_spools'):
        assert store.database.scan(
            lambda connection, table=table: connection.execute(
                f'SELECT count(*) FROM {table}'
            ).fetchone()
        ) == (0,)


def test_a_post_into_another_file_than_the_names_sees_the_deletion(open_store):
    store = open_store(messages='messages.db')
    blocker = block_writer(store, 0.2)
    poster = gevent.spawn(store.post, 'too late')
    gevent.sleep(0.02)
    store.control.queue_controller.delete('q')
    gevent.joinall([poster, blocker])
    assert isinstance(poster.exception, errors.QueueDoesNotExist)
    store.queues.create('q')
    assert store.bodies() == []


def test_a_huge_queue_is_deleted_at_once_and_removed_little_by_little(open_store, monkeypatch):
    commits = count_commits(None, monkeypatch)
    store = open_store()
    store.post(*range(5000))
    commits.clear()
    store.queues.delete('q')
    assert len(commits) == 1
    store.data.gc()
    assert len(commits) > 10


@pytest.mark.parametrize('patched', ['patched', 'unpatched'])
def test_a_process_works_patched_and_unpatched(tmp_path, patched):
    script = """
import sys
if sys.argv[1] == 'patched':
    from gevent import monkey
    monkey.patch_all()
import threading
from tests.unit.storage.conftest import Store
store = Store(sys.argv[2])
threads = [threading.Thread(target=store.post, args=(n,)) for n in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert sorted(store.bodies(limit=0)) == list(range(20))
store.close()
"""
    subprocess.run([sys.executable, '-c', script, patched, str(tmp_path)], check=True, timeout=60)


def test_a_forked_child_starts_anew(tmp_path):
    script = """
import os, sys, gevent.os
from tests.unit.storage.conftest import Store
store = Store(sys.argv[1])
store.post('parent')
child = os.fork()
if not child:
    gevent.reinit()
    store.post('child')
    os._exit(0 if store.bodies() == ['parent', 'child'] else 1)
assert os.waitpid(child, 0)[1] == 0
store.post('parent again')
assert store.bodies() == ['parent', 'child', 'parent again']
store.close()
"""
    subprocess.run([sys.executable, '-c', script, str(tmp_path)], check=True, timeout=60)
