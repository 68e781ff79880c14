"""Several processes that write to one file: each in its turn, whatever becomes of the others."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import monkey

from tests.stopwatch import Stopwatch
from tests.unit.storage.conftest import Store
from zaqar_gevent.storage.sqlite import StoreUnavailable, checkpoints, connecting, write_lock
from zaqar_gevent.storage.sqlite.wal import Wal

SECONDS = 60.0
GREENLETS = 16

# Values of `PRAGMA synchronous`.
NORMAL, FULL = 1, 2

_allocate_lock = monkey.get_original('_thread', 'allocate_lock')

POSTER = """
import json, os, sys, time
from gevent import monkey
monkey.patch_all()
import gevent
from tests.unit.storage.conftest import Store
directory, name, greenlets, seconds = sys.argv[1:]
store = Store(directory)
latencies = []
# A file: a pipe that nobody reads from meanwhile would hold it up.
told = os.open(f'{directory}/../{name}.told', os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def work(worker):
    number = 0
    while time.perf_counter() < until:
        body = f'{name}-{worker}-{number}'
        began = time.perf_counter()
        [message_id] = store.post(body)
        latencies.append(time.perf_counter() - began)
        os.write(told, f'{message_id} {body}\\n'.encode())
        number += 1

store.post('warm')
os.write(1, b'ready\\n')
sys.stdin.readline()
until = time.perf_counter() + float(seconds)
gevent.joinall([gevent.spawn(work, n) for n in range(int(greenlets))], raise_error=True)
store.close()
print(json.dumps(latencies))
"""

HOLDER = """
import sqlite3, sys
from zaqar_gevent.storage.sqlite.wal import Wal
path, what = sys.argv[1:]
connection = sqlite3.connect(path, isolation_level=None)
connection.execute('SELECT count(*) FROM queues').fetchone()
wal = Wal(path)
wal.write_lock.announce()
with wal.write_lock:
    if what == 'transaction':
        connection.execute('BEGIN IMMEDIATE')
    print('held', flush=True)
    sys.stdin.readline()
"""

STRANGER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
for number in range(200):
    connection.execute('BEGIN IMMEDIATE')
    connection.execute("INSERT INTO flavors VALUES ('', ?, '[]')", (str(number),))
    connection.execute('COMMIT')
"""


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        gevent.sleep(0.02)


def get_synchronous(cursor: sqlite3.Cursor) -> Any:
    return cursor.execute('PRAGMA synchronous').fetchone()[0]


def seconds_of(call: Any, *arguments: Any) -> float:
    began = time.monotonic()
    call(*arguments)
    return time.monotonic() - began


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / 'state'
    path.mkdir()
    return path


@pytest.fixture
def store(directory: pathlib.Path) -> Iterator[Any]:
    store = Store(directory)
    yield store
    store.close()


@contextlib.contextmanager
def running(program: str, *arguments: object) -> Iterator[Any]:
    process = subprocess.Popen(
        [sys.executable, '-c', program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def posters(directory: pathlib.Path, count: int, seconds: float) -> Iterator[list[Any]]:
    """Processes that post, which begin together."""
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                running(POSTER, directory, f'p{number}', GREENLETS // count, seconds)
            )
            for number in range(count)
        ]
        for each in started:
            assert each.stdout.readline() == 'ready\n', each.stderr.read()
        for each in started:
            each.stdin.write('go\n')
            each.stdin.flush()
        yield started


def measured(process: Any) -> list[float]:
    """How long the posts of a process took, from the shortest to the longest."""
    output, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    return sorted(json.loads(output))


def check(store: Any, directory: pathlib.Path) -> int:
    """What was acknowledged is there, and the file is sound; how many posts that are."""
    stored = {message['id']: message['body'] for message in store.list(limit=0)}
    lines = [
        line
        for file in directory.parent.glob('*.told')
        for line in file.read_text().splitlines(keepends=True)
        if line.endswith('\n')
    ]
    assert dict(line.split() for line in lines).items() <= stored.items()
    integrity = store.database.scan(
        lambda connection: connection.execute('PRAGMA integrity_check').fetchall()
    )
    assert integrity == [('ok',)]
    return len(lines)


@pytest.mark.parametrize('count', [2, 4])
def test_all_processes_have_their_share(directory: pathlib.Path, store: Any, count: int) -> None:
    with posters(directory, count, 2.0) as started:
        latencies = [measured(each) for each in started]
    shares = [len(each) for each in latencies]
    every = sorted(latency for each in latencies for latency in each)
    print(shares, [round(every[int(len(every) * part)] * 1e3, 2) for part in (0.5, 0.99)])
    print('longest', [round(each[-1] * 1e3, 2) for each in latencies])
    assert min(shares) > sum(shares) / count / 4
    slow = [each[int(len(each) * 0.99)] for each in latencies]
    assert max(slow) < max(4 * min(slow), write_lock.PATIENCE / 2)
    assert check(store, directory) == sum(shares)


def test_a_process_that_is_killed_is_not_waited_for(directory: pathlib.Path, store: Any) -> None:
    with posters(directory, 4, 2.0) as started:
        for each in started[:2]:
            time.sleep(0.3)
            os.kill(each.pid, signal.SIGKILL)
        for latencies in map(measured, started[2:]):
            assert latencies[len(latencies) // 2] < write_lock.PATIENCE / 4
    assert check(store, directory) > 0


@pytest.fixture
def holder(store: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A process that has been stopped, inside of its turn or of its transaction."""
    with running(HOLDER, store.database.path, request.param) as process:
        assert process.stdout.readline() == 'held\n', process.stderr.read()
        os.kill(process.pid, signal.SIGSTOP)
        yield process


@pytest.mark.parametrize('holder', ['turn'], indirect=True)
def test_a_stopped_process_is_passed_over(store: Any, holder: Any) -> None:
    # Until the writer has seen that there is another process, and then waited for it once.
    wait_for(lambda: seconds_of(store.post, 'x') >= write_lock.PATIENCE)
    count = len(store.bodies(limit=0))
    assert min(seconds_of(store.post, 'soon') for _ in range(3)) < write_lock.PATIENCE
    os.kill(holder.pid, signal.SIGCONT)
    holder.communicate('end\n')
    store.post('after')
    assert store.bodies(limit=0)[count:] == [*['soon'] * 3, 'after']


@pytest.mark.parametrize('holder', ['transaction'], indirect=True)
def test_a_process_stopped_in_a_transaction_is_told(
    store: Any, holder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, 'BUSY_TIMEOUT', 0.3)
    store.database.synchronous = 'normal'  # has the writer connect anew
    watch = Stopwatch()
    waiting = [gevent.spawn(store.post, number) for number in range(5)]
    gevent.joinall(waiting, timeout=SECONDS)
    assert watch.seconds() < write_lock.PATIENCE + 5
    assert {type(each.exception) for each in waiting} == {StoreUnavailable}
    assert store.bodies() == []
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    store.post('after')
    assert store.bodies() == ['after']


def test_a_program_that_knows_nothing_of_turns_gets_along(
    directory: pathlib.Path, store: Any
) -> None:
    with posters(directory, 2, 1.5) as started, running(STRANGER, store.database.path) as stranger:
        for each in started:
            measured(each)
        assert stranger.wait(60) == 0
    assert check(store, directory) > 0
    found = store.database.get_row('SELECT count(*) FROM flavors', ())
    assert found == (200,)


@pytest.fixture
def shrinking(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A store whose log is short, and emptied soon."""
    monkeypatch.setattr(connecting, 'CHECKPOINT_PAGES', 50)
    monkeypatch.setattr(connecting, 'MAX_WAL_BYTES', 400_000)
    monkeypatch.setattr(checkpoints, 'IDLE_SECONDS', 1.0)
    store = Store(tmp_path)
    yield store
    store.close()


def test_the_log_shrinks_when_a_foreign_reader_has_gone(
    tmp_path: pathlib.Path, shrinking: Any
) -> None:
    log = tmp_path / 'store.db-wal'
    shrinking.post('before')
    reader = sqlite3.connect(tmp_path / 'store.db', isolation_level=None)
    reader.execute('BEGIN')
    assert reader.execute('SELECT count(*) FROM messages').fetchone() == (1,)
    for _ in range(200):
        shrinking.post('x' * 10_000)
    assert log.stat().st_size > 2_000_000
    assert reader.execute('SELECT count(*) FROM messages').fetchone() == (1,)
    reader.close()

    def has_shrunk() -> bool:
        shrinking.post('y')
        return log.stat().st_size <= 500_000

    wait_for(has_shrunk)
    count = len(shrinking.list(limit=0))
    wait_for(lambda: log.stat().st_size == 0)
    shrinking.post('after')
    assert 0 < log.stat().st_size < 100_000
    assert len(shrinking.list(limit=0)) == count + 1


def test_no_commit_waits_for_a_checkpoint_that_cannot_end(
    tmp_path: pathlib.Path, shrinking: Any
) -> None:
    shrinking.post('before')
    reader = sqlite3.connect(tmp_path / 'store.db', isolation_level=None)
    reader.execute('BEGIN')
    reader.execute('SELECT count(*) FROM messages').fetchone()
    for _ in range(30):
        shrinking.post('x' * 10_000)
    gevent.sleep(checkpoints.IDLE_SECONDS + 0.5)
    watch = Stopwatch()
    shrinking.post('meanwhile')
    assert watch.seconds() < 3.0
    reader.close()
    wait_for(lambda: (tmp_path / 'store.db-wal').stat().st_size == 0)


@pytest.fixture
def other(store: Any) -> Iterator[Wal]:
    """The log as another process has it that writes, too; SQLite's connections do not matter."""
    store.post('before')
    other = Wal(store.database.path)
    other.write_lock.announce()
    yield other
    other.close()


class Sync:
    """Syncs of logs, which wait until they may `go_on`. count: how many have begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._gate = _allocate_lock()
        self._gate.acquire()
        self._sync = Wal.sync

        def sync(wal: Wal) -> None:
            self._wait(wal)

        monkeypatch.setattr(Wal, 'sync', sync)

    def go_on(self) -> None:
        self._gate.release()

    def _wait(self, wal: Wal) -> None:
        self.count += 1
        if self._gate.acquire(True, SECONDS):
            self._gate.release()
        self._sync(wal)


def test_others_commit_while_the_disk_is_waited_for(
    store: Any, other: Wal, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for(lambda: store.database.write(get_synchronous) == NORMAL)
    sync = Sync(monkeypatch)
    waiting = gevent.spawn(store.post, 'waiting')
    wait_for(lambda: sync.count == 1)
    other.write_lock.look_for_others()
    with other.write_lock:
        assert other.write_lock.is_held
        connection = sqlite3.connect(store.database.path, isolation_level=None, timeout=0)
        connection.execute('BEGIN IMMEDIATE')
        connection.execute('ROLLBACK')
        connection.close()
    assert not waiting.ready()
    sync.go_on()
    waiting.get(timeout=SECONDS)
    other.close()
    wait_for(lambda: store.database.write(get_synchronous) == FULL)


def salt_of(store: Any) -> bytes:
    """What the log of a store has in its head, and another value once it begins anew."""
    return pathlib.Path(f'{store.database.path}-wal').read_bytes()[16:24]


@contextlib.contextmanager
def failing_syncs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(wal: Wal) -> None:
        raise OSError(errno.EIO, 'Input/output error')

    with monkeypatch.context() as patch:
        patch.setattr(Wal, 'sync', fail)
        yield


def test_the_log_begins_anew_after_a_failure_to_sync_a_piece(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.post('before')
    salt = salt_of(store)
    with failing_syncs(monkeypatch):
        with pytest.raises(StoreUnavailable, match='Input/output error'):
            store.post('x' * 300_000)
        store.post('meanwhile')
        # What follows in it would be lost with the piece.
        assert salt_of(store) != salt
    store.post('y' * 300_000)
    assert store.bodies() == ['before', 'meanwhile', 'y' * 300_000]


def test_a_piece_waits_for_its_sync_and_others_do_not(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.post('before')
    assert store.database.write(get_synchronous) == FULL
    sync = Sync(monkeypatch)
    waiting = gevent.spawn(store.post, 'x' * 300_000)
    wait_for(lambda: sync.count == 1)
    store.post('meanwhile')
    assert not waiting.ready()
    assert store.database.write(get_synchronous) == FULL
    sync.go_on()
    waiting.get(timeout=SECONDS)
    assert sync.count == 3
    assert store.bodies() == ['before', 'meanwhile', 'x' * 300_000]


def test_others_wait_for_a_few_pages_of_a_checkpoint_only(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, 'CHECKPOINT_PAGES', 50)
    passes: list[int] = []
    made = checkpoints.Checkpointer._pass

    def count(self: checkpoints.Checkpointer, connection: sqlite3.Connection) -> int:
        length = made(self, connection)
        passes.append(length)
        if len(passes) == 1:
            # Others have gone on meanwhile.
            for _ in range(2):
                store.post('y' * 250_000)
        return length

    monkeypatch.setattr(checkpoints.Checkpointer, '_pass', count)
    store = Store(tmp_path)
    store.post('x' * 250_000)
    wait_for(lambda: len(passes) >= 2)
    store.close()
    assert passes[1] - passes[0] > checkpoints.LAST_PAGES


def test_the_log_begins_anew_after_a_failure_to_sync_it(
    store: Any, other: Wal, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for(lambda: store.database.write(get_synchronous) == NORMAL)
    salt = salt_of(store)
    with failing_syncs(monkeypatch):
        with pytest.raises(StoreUnavailable, match='Input/output error'):
            store.post('in doubt')
        assert salt_of(store) == salt
        # What has been committed is not committed again.
        assert store.bodies() == ['before', 'in doubt']
    store.post('after')
    assert salt_of(store) != salt
    assert store.bodies() == ['before', 'in doubt', 'after']
