"""What is in the way of the targets that are missed: what an operation costs, part by part.

    python -m perf.profiles [--seconds 1] [--rounds 3]

A server is asked as in `perf.compare`, and the kernel tells what its threads have used in user and
in system mode. What an operation does is counted in a process of its own: Python calls, calls into
C, statements, commits and pages written, which hardly depend on the machine. Writes
`results/profiles.json`; `python -m perf.report` puts it into `results/targets.md`.
"""

from __future__ import annotations

import collections
import functools
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from perf import results, tables
from perf.compare import EMBEDDED_CLAIMS, SPARE_MESSAGES
from perf.load import Driver
from perf.machine import CLIENT_CORE, SERVER_CORE, end_orderly, on_core
from perf.servers import ROOT, Fleet, Server
from perf.wire import Compact, Conversation, Default, Dialect
from perf.workloads import (
    CLAIM,
    CLAIM_EACH,
    CLAIMS,
    LIST,
    PAGE,
    POST,
    SIZES,
    Cell,
    exchange_of,
    fill,
    messages,
    prepare,
)
from zaqar_gevent import documents

EMBEDDED, REDIS = 'embedded', 'Redis, native'
JSON, MSGPACK = Default(binary=False), Default(binary=True)
COMPACT = Compact(binary=False)
OPERATIONS, CLIENTS = 320, 16
SYNCS = 300
CHECKS = 500
_PAGE_BYTES, _FRAME_HEAD_BYTES, _LOG_HEAD_BYTES = 4096, 24, 32
_COUNT = """from gevent import monkey
monkey.patch_all()
from perf import profiles
profiles.print_counts({number})
"""
_TICK = 1 / os.sysconf('SC_CLK_TCK')


class Case(NamedTuple):
    """An operation that is asked of a store.

    asked: microseconds of processor time at most; None where a ratio is asked for.
    """

    name: str
    store: str
    dialect: Dialect
    cell: Cell
    in_flight: int = 1
    asked: float | None = None


CASES = [
    Case('post 100 B', EMBEDDED, JSON, Cell(POST, '100 B'), asked=45),
    Case('post 100 B, 16 in flight', EMBEDDED, COMPACT, Cell(POST, '100 B'), 16, 24),
    Case('post 100 B, one connection', EMBEDDED, JSON, Cell(POST, '100 B', 1), asked=180),
    Case('post 4 KB', EMBEDDED, JSON, Cell(POST, '4 KB'), asked=70),
    Case('post 4 KB, MsgPack', EMBEDDED, MSGPACK, Cell(POST, '4 KB')),
    Case('post 4 KB, 16 in flight', EMBEDDED, COMPACT, Cell(POST, '4 KB'), 16, 55),
    Case('list 10 of 4 KB', EMBEDDED, JSON, Cell(LIST, '4 KB'), asked=130),
    Case('claim 10 + delete 10', EMBEDDED, JSON, Cell(CLAIM, '100 B')),
    Case('claim 10 + delete each', EMBEDDED, JSON, Cell(CLAIM_EACH, '100 B')),
    Case('list 10', REDIS, JSON, Cell(LIST, '100 B')),
    Case('claim 10 + delete 10', REDIS, JSON, Cell(CLAIM, '100 B')),
]


class Threads(NamedTuple):
    """Seconds that threads have used: the one that serves, and the others."""

    serving_user: float
    serving_system: float
    other_user: float
    other_system: float


def threads_of(pid: int) -> Threads:
    """What the threads of a process have used so far, to a hundredth of a second."""
    serving, others = [0.0, 0.0], [0.0, 0.0]
    for task in pathlib.Path(f'/proc/{pid}/task').iterdir():
        fields = (task / 'stat').read_text().rpartition(')')[2].split()
        used = serving if int(task.name) == pid else others
        for place, field in enumerate(fields[11:13]):
            used[place] += int(field) * _TICK
    return Threads(*serving, *others)


def measure(case: Case, server: Server, seconds: float) -> dict[str, float]:
    """Microseconds of processor time for each operation, by thread and mode."""
    queue = f'profile-{CASES.index(case)}'
    with Conversation(server.port, case.dialect) as conversation:
        prepare(conversation, case.cell, queue)
        if case.cell.operation in CLAIMS:
            count = int(EMBEDDED_CLAIMS * (seconds + 1) * PAGE) + SPARE_MESSAGES
            fill(conversation, queue, case.cell.size, count)
    exchange = exchange_of(case.cell, case.dialect, queue)
    driver = Driver(
        *(server.port, case.dialect, exchange, server.pids, server.store_pids),
        connections=case.cell.connections,
        in_flight=case.in_flight,
    )
    before = threads_of(server.pids[0])
    sample = driver.run(seconds)
    used = Threads(
        *(end - begin for begin, end in zip(before, threads_of(server.pids[0]), strict=True))
    )
    each = sample.server / sample.exchanges * 1e6
    parts = {name: each * spent / sum(used) for name, spent in used._asdict().items()}
    return {'server_us': each, **parts, 'store_us': sample.store / sample.exchanges * 1e6}


def sync_cost(directory: pathlib.Path, pages: int, *, appends: bool) -> float:
    """Microseconds of processor time of one fdatasync of so many pages of a log.

    appends: whether the file grows, rather than being written over.
    """
    used = 0.0
    page = b'x' * (_PAGE_BYTES + _FRAME_HEAD_BYTES)
    with tempfile.TemporaryFile(dir=directory) as file:
        descriptor = file.fileno()
        if not appends:
            os.pwrite(descriptor, page * (pages * SYNCS), 0)
            os.fdatasync(descriptor)
        for number in range(SYNCS):
            os.pwrite(descriptor, page * pages, number * pages * len(page))
            before = time.thread_time()
            os.fdatasync(descriptor)
            used += time.thread_time() - before
    return used / SYNCS * 1e6


def check_cost(size: str, *, binary: bool) -> float:
    """Microseconds of processor time that it takes to check a post of a body of this size."""
    post = {'queue_name': 'q', 'messages': messages(size, 1)}
    request = {'id': 1, 'action': 'message_post', 'body': post}
    data = documents.encode(request, binary=binary)
    check = documents.check_msgpack if binary else documents.check_json
    least = math.inf
    for _ in range(CHECKS):
        before = time.thread_time()
        check(data)
        least = min(least, time.thread_time() - before)
    return results.significant(least * 1e6, 3)


class _Counter:
    """Counts the calls of one thread."""

    def __init__(self) -> None:
        self.calls: collections.Counter[str] = collections.Counter()

    def __call__(self, frame: object, event: str, argument: object) -> None:
        self.calls[event] += 1


def print_counts(number: int) -> None:
    """Print what one operation of a case on the embedded store does, in JSON.

    In a process of its own, with all modules patched.
    """
    from perf import budget
    from zaqar_gevent.storage.sqlite import checkpoints, connecting

    # The log grows all the time, so that its length tells how much has been written.
    checkpoints.IDLE_SECONDS, connecting.CHECKPOINT_PAGES = math.inf, 10**6
    with tempfile.TemporaryDirectory() as directory:
        bench = budget.Bench(pathlib.Path(directory))
        try:
            print(msgspec.json.encode(_count(CASES[number], bench)).decode())
        finally:
            bench.close()


def _count(case: Case, bench: Any) -> dict[str, float]:
    from perf import budget

    operation, size = case.cell.operation, case.cell.size
    clients = case.cell.connections * case.in_flight
    turns = max(1, OPERATIONS // clients)
    exchange = exchange_of(case.cell, case.dialect, 'q')
    talks = [bench.talker(case.dialect.subprotocol or None) for _ in range(clients)]
    if operation in CLAIMS or operation == LIST:
        number = PAGE if operation == LIST else PAGE * clients * (2 * turns + 1)
        budget.fill(bench, COMPACT, 'q', number, size)

    def perform(talk: Callable[[bytes], bytes]) -> None:
        answer = talk(exchange.first(1))
        for following in exchange.then(answer, 1) if exchange.then else ():
            talk(following)

    def ask(turns: int) -> None:
        budget.together([functools.partial(perform, talk) for talk in talks], turns)

    ask(1)
    write = bench.database.write
    serving, writing, statements = _Counter(), _Counter(), _Counter()
    write(_count_calls, writing)
    sys.setprofile(serving)
    ask(turns)
    sys.setprofile(None)
    write(_count_calls, None)
    # By themselves, since it takes a call to count a statement.
    write(_count_statements, statements)
    before = write(_count_pages)
    ask(turns)
    after = write(_count_pages)
    write(_count_statements, None)
    found = {
        'serving_calls': serving.calls['call'],
        'serving_c_calls': serving.calls['c_call'],
        'writing_calls': writing.calls['call'],
        'writing_c_calls': writing.calls['c_call'],
        'statements': statements.calls['statement'],
        'commits': statements.calls['commit'],
        'pages': after - before,
    }
    done = turns * clients
    return {name: results.significant(number / done, 3) for name, number in found.items()}


def _count_calls(cursor: Any, counter: _Counter | None) -> None:
    """In the writing thread: count its calls from now on, or no more."""
    sys.setprofile(counter)


def _count_statements(cursor: Any, counter: _Counter | None) -> None:
    """In the writing thread: count its statements, each run of a trigger among them."""

    def note(statement: str) -> None:
        if counter is not None:
            counter.calls['commit' if statement == 'COMMIT' else 'statement'] += 1

    cursor.connection.set_trace_callback(None if counter is None else note)


def _count_pages(cursor: Any) -> int:
    """In the writing thread: how many pages committed transactions have added to the log."""
    [name] = [row[2] for row in cursor.execute('PRAGMA database_list') if row[1] == 'main']
    return (os.stat(f'{name}-wal').st_size - _LOG_HEAD_BYTES) // (_PAGE_BYTES + _FRAME_HEAD_BYTES)


def profile(seconds: float, rounds: int) -> dict[str, Any]:
    """All cases, and what a sync costs where the store is."""
    rows = []
    with Fleet() as fleet, on_core(CLIENT_CORE):
        servers = {EMBEDDED: fleet.own(), REDIS: fleet.own(redis=fleet.redis())}
        for case in CASES:
            several = [measure(case, servers[case.store], seconds) for _ in range(rounds)]
            # What disturbs adds.
            least = min(several, key=lambda one: one['server_us'])
            row = {name: results.significant(each, 3) for name, each in least.items()}
            counts = count_apart(case) if case.store == EMBEDDED else {}
            asked = case.asked
            rows.append(
                {'case': case.name, 'store': case.store, 'asked_us': asked, **row, **counts}
            )
            print(rows[-1], flush=True)
        with on_core(SERVER_CORE):
            syncs = [
                {
                    'pages': pages,
                    'appended_us': results.significant(
                        sync_cost(fleet.directory(), pages, appends=True), 3
                    ),
                    'overwritten_us': results.significant(
                        sync_cost(fleet.directory(), pages, appends=False), 3
                    ),
                }
                for pages in (4, 8)
            ]
            checks = [
                {
                    'size': size,
                    'json_us': check_cost(size, binary=False),
                    'msgpack_us': check_cost(size, binary=True),
                }
                for size in SIZES
            ]
    return {'cases': rows, 'syncs': syncs, 'checks': checks}


def count_apart(case: Case) -> dict[str, float]:
    """What one operation of a case on the embedded store does."""
    program = _COUNT.format(number=CASES.index(case))
    command = [sys.executable, '-c', program]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    counts: dict[str, float] = msgspec.json.decode(done.stdout.splitlines()[-1])
    return counts


def main(argv: Sequence[str] | None = None) -> None:
    options = results.options(__doc__, argv, seconds=1.0)
    end_orderly()
    found = profile(options.seconds, options.rounds)
    print(tables.profiles(found))
    print(results.save('profiles', found, options.out))


if __name__ == '__main__':
    main()
