"""Native threads that cannot be started, fail, end or hang: calls fail in time, and all goes on."""

import sqlite3

import gevent
import pytest
from gevent import monkey

from tests.stopwatch import Stopwatch
from zaqar_gevent.storage.core import completions, thread_pool
from zaqar_gevent.storage.errors import ScanTooLong
from zaqar_gevent.storage.sqlite import StoreUnavailable
from zaqar_gevent.storage.sqlite.reader import Reader
from zaqar_gevent.storage.sqlite.writer import Writer

native_sleep = monkey.get_original('time', 'sleep')

FATAL = [MemoryError, SystemExit, KeyboardInterrupt, gevent.GreenletExit]


def raising(error):
    def fail(*unused):
        raise error

    return fail


def fail_to_start(function, arguments):
    raise RuntimeError("can't start new thread")


def lines_with(caplog, text):
    return [record for record in caplog.records if text in record.getMessage()]


@pytest.mark.parametrize('call', ['write', 'scan'])
def test_threads_that_cannot_be_started_fail_calls_until_they_can(
    open_store, monkeypatch, caplog, call
):
    store = open_store()
    store.database.after_fork()  # anew, without threads
    with monkeypatch.context() as patch:
        patch.setattr(thread_pool, '_start_new_thread', fail_to_start)
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="can't start new thread"):
                getattr(store.database, call)(lambda cursor: 1)
        assert store.data.is_alive() is False
    assert len(lines_with(caplog, "can't start new thread")) <= 2
    assert getattr(store.database, call)(lambda cursor: 1) == 1
    assert store.data.is_alive() is True


def test_some_reading_threads_are_enough(open_store, monkeypatch):
    store = open_store()
    store.database.after_fork()
    started = []

    def start_one(function, arguments):
        if started:
            fail_to_start(function, arguments)
        started.append(monkey.get_original('_thread', 'start_new_thread')(function, arguments))

    monkeypatch.setattr(thread_pool, '_start_new_thread', start_one)
    assert [store.database.scan(lambda connection: 1) for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize('error', FATAL)
def test_a_call_that_raises_what_should_end_a_thread_fails_alone(store, error):
    workers = [gevent.spawn(store.post, number) for number in range(5)]
    workers.insert(2, gevent.spawn(store.database.write, raising(error)))
    gevent.joinall(workers, timeout=60)
    assert sorted(store.bodies()) == list(range(5))
    assert isinstance(workers[2].exception, StoreUnavailable)
    assert error.__name__ in str(workers[2].exception)
    with pytest.raises(StoreUnavailable, match=error.__name__):
        store.database.scan(raising(error))
    store.post('after')
    assert store.data.is_alive() is True


@pytest.mark.parametrize('error', FATAL)
@pytest.mark.parametrize('method', ['execute', 'on_idle', '__init__'])
@pytest.mark.parametrize('executor', [Writer, Reader])
def test_a_server_that_fails_is_replaced(open_store, monkeypatch, executor, method, error):
    store = open_store()
    store.database.scan(lambda connection: 1)
    failures = []
    sound = getattr(executor, method)

    def fail_twice(*arguments):
        if len(failures) < 2:
            failures.append(error)
            raise error
        return sound(*arguments)

    def use():
        if executor is Writer:
            return store.database.write(lambda cursor: 1)
        return store.database.scan(lambda connection: 1)

    store.database.after_fork()
    # By itself it does not try again before the next call.
    monkeypatch.setattr(thread_pool, '_PAUSE_SECONDS', 600.0)
    monkeypatch.setattr(executor, method, fail_twice)
    outcomes = [gevent.spawn(use) for _ in range(8)]
    gevent.joinall(outcomes, timeout=60)
    assert {type(each.exception) for each in outcomes} <= {StoreUnavailable, type(None)}
    assert all(each.ready() for each in outcomes)
    if len(failures) < 2 and method != 'on_idle':
        with pytest.raises(StoreUnavailable, match=error.__name__):
            use()
    assert use() == 1


@pytest.mark.parametrize('executor', [Writer, Reader])
def test_a_server_that_cannot_even_be_closed_is_replaced(store, monkeypatch, executor):
    store.database.after_fork()
    use = store.database.write if executor is Writer else store.database.scan
    with monkeypatch.context() as patch:
        patch.setattr(executor, 'execute', raising(MemoryError))
        patch.setattr(executor, 'close', raising(SystemExit))
        with pytest.raises(StoreUnavailable, match='MemoryError'):
            use(lambda cursor: 1)
    assert use(lambda cursor: 1) == 1


@pytest.mark.parametrize('call', ['write', 'scan'])
def test_a_thread_that_ends_is_replaced(store, monkeypatch, call):
    monkeypatch.setattr(completions, 'WAIT_SECONDS', 1.0)
    store.database.after_fork()
    use = getattr(store.database, call)
    assert use(lambda cursor: 1) == 1
    with monkeypatch.context() as patch:
        # It cannot even tell that it failed.
        patch.setattr(thread_pool._ThreadLoop, '_fail', raising(MemoryError))
        patch.setattr(Writer, 'execute', raising(MemoryError))
        patch.setattr(Reader, 'execute', raising(MemoryError))
        patch.setattr('sys.unraisablehook', lambda unraisable: None)
        watch = Stopwatch()
        with pytest.raises(StoreUnavailable, match='does not answer'):
            use(lambda cursor: 1)
        assert watch.seconds() < 5
    assert use(lambda cursor: 2) == 2


def test_no_call_waits_for_ever_for_a_thread_that_hangs(store, monkeypatch, caplog):
    monkeypatch.setattr(completions, 'WAIT_SECONDS', 1.0)
    hang = thread_pool._allocate_lock()
    hang.acquire()
    try:
        hung = gevent.spawn(store.database.write, lambda cursor: hang.acquire(True, 20))
        gevent.sleep(0.05)
        waiting = [gevent.spawn(store.post, number) for number in range(10)]
        gevent.joinall([hung, *waiting], timeout=60)
        assert {type(each.exception) for each in (hung, *waiting)} == {StoreUnavailable}
        assert store.data.is_alive() is False
        assert len(lines_with(caplog, 'does not answer')) == 1
    finally:
        hang.release()
    store.post('after')
    # Who was told that it failed is not served behind its back.
    assert store.bodies() == ['after']


def test_a_read_that_nobody_waits_for_any_more_is_broken_off(store, monkeypatch):
    store.database.scan_seconds = 0.5
    endless = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n'
    reads = [
        gevent.spawn(store.database.scan, lambda connection: connection.execute(endless).fetchone())
        for _ in range(2)
    ]
    gevent.joinall(reads, timeout=60)
    assert {type(each.exception) for each in reads} == {ScanTooLong}
    assert '0.5 s' in reads[0].exception.explanation
    watch = Stopwatch()
    assert store.database.scan(lambda connection: 1) == 1
    assert watch.seconds() < 5


def count_up_to(connection, project, most):
    numbers = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?)'
    return connection.execute(f'{numbers} SELECT max(i) FROM n', (most,)).fetchone()[0]


def test_long_reads_of_one_project_do_not_hold_up_those_of_another(store):
    """However many there are: those of others are read beside them."""
    store.database.scan_seconds = 60.0
    endless = [gevent.spawn(store.database.scan, count_up_to, 'greedy', 10**12) for _ in range(20)]
    gevent.sleep(0.5)
    watch = Stopwatch()
    assert store.database.scan(count_up_to, 'modest', 10) == 10
    assert watch.seconds() < 5
    # Also those that are long themselves.
    assert store.database.scan(count_up_to, 'modest', 3_000_000) == 3_000_000
    assert not any(each.ready() for each in endless)
    gevent.killall(endless)


def test_a_read_whose_caller_is_interrupted_is_broken_off(store):
    store.database.scan_seconds = 60.0
    endless = [gevent.spawn(store.database.scan, count_up_to, 'greedy', 10**12) for _ in range(9)]
    gevent.sleep(0.2)
    gevent.killall(endless)
    watch = Stopwatch()
    assert store.database.scan(count_up_to, 'greedy', 3_000_000) == 3_000_000
    assert watch.seconds() < store.database.scan_seconds


def test_a_write_whose_caller_is_interrupted_does_not_hold_up_others(store):
    waiting = [gevent.spawn(store.post, number) for number in range(10)]
    gevent.sleep(0)
    gevent.killall(waiting[:5])
    gevent.joinall(waiting, timeout=60)
    watch = Stopwatch()
    gevent.joinall([gevent.spawn(store.post, 'after') for _ in range(3)], timeout=60)
    assert watch.seconds() < 5
    assert set(range(5, 10)) <= set(store.bodies(limit=100)) <= {*range(10), 'after'}


def test_a_native_thread_without_a_hub_does_not_wait_for_ever_either(store, monkeypatch):
    from tests.unit.storage.test_group_commit import in_native_thread

    monkeypatch.setattr(completions, 'WAIT_SECONDS', 0.5)
    hang = thread_pool._allocate_lock()
    hang.acquire()

    def attempt():
        try:
            store.database.write(lambda cursor: hang.acquire(True, 20))
        except StoreUnavailable as error:
            return str(error)

    assert 'does not answer' in in_native_thread(attempt)
    hang.release()
    store.post('after')


def test_closing_does_not_wait_for_ever_for_a_thread_that_hangs(open_store, monkeypatch):
    monkeypatch.setattr(thread_pool, 'CLOSE_SECONDS', 0.5)
    store = open_store()
    hang = thread_pool._allocate_lock()
    hang.acquire()
    gevent.spawn(store.database.write, lambda cursor: hang.acquire(True, 20))
    gevent.sleep(0.05)
    watch = Stopwatch()
    store.close()
    assert watch.seconds() < 5
    hang.release()


def test_a_connection_that_was_broken_off_is_not_used_again(store):
    """With Python 3.11 it would prepare the statement anew for each of the reads that follow."""
    used = []

    def work(connection):
        used.append(connection)
        if len(used) == 1:
            raise sqlite3.OperationalError('interrupted')
        return len(used)

    assert store.database.read(work) == 2
    assert store.database.read(work) == 3
    assert store.database.read(work) == 4
    broken, _, new, again = used
    assert new is again and new is not broken
    with pytest.raises(sqlite3.ProgrammingError, match='closed'):
        broken.execute('SELECT 1')
