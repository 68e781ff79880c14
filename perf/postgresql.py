"""What calls cost on PostgreSQL: with few and many messages, and while a transaction is held open.

    python -m perf.postgresql [--messages N] [--held SECONDS]

The driver is called in this process, by 16 greenlets, without a server. The figures are processor
time, of this process and of PostgreSQL's, in microseconds a call.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import psutil

from perf.machine import CLIENT_CORE, SERVER_CORE, on_core, processor_time
from tests.postgres_process import PostgresProcess
from tests.storage.conftest import CLIENT, load_postgresql, open_drivers

GREENLETS = 16
SECONDS = 2.0
PAGE = 10
BODY = {'event': 'BackupStarted', 'volume': 'c378813c-3f0b-11e2', 'pad': 'x' * 40}
CLAIM_SECONDS = 20
PROJECT = 'perf'


class Stand:
    """A driver and its PostgreSQL."""

    def __init__(self, directory: pathlib.Path, postgres: PostgresProcess) -> None:
        conf = load_postgresql(postgres.uri, directory, 'zaqar')
        self.data, self.control = open_drivers('postgresql', conf)
        self.postgres = postgres
        self.messages: Any = self.data.message_controller
        self.claims: Any = self.data.claim_controller
        self.queues: Any = self.data.queue_controller

    def fill(self, queue: str, count: int) -> None:
        """Make a queue of so many messages."""
        self.queues.create(queue, project=PROJECT)
        new = [{'ttl': 3600, 'body': BODY}] * 500
        posts = [gevent.spawn(self._fill, queue, new, count // 8) for _ in range(8)]
        gevent.joinall(posts, raise_error=True)

    def _fill(self, queue: str, new: list[Any], count: int) -> None:
        for first in range(0, count, len(new)):
            self.messages.post(queue, new[: count - first], CLIENT, project=PROJECT)

    def measure(self, name: str, call: Callable[[], Any], seconds: float = SECONDS) -> float:
        """Print what a call costs; PostgreSQL's part."""
        self._work(call, 0.3)
        began = time.monotonic()
        own, theirs = time.process_time(), self._spent()
        count = self._work(call, seconds)
        took = time.monotonic() - began
        own, theirs = time.process_time() - own, self._spent() - theirs
        print(
            f'{name:44} {count / took:8,.0f}/s {own / count * 1e6:7.0f} us here '
            f'{theirs / count * 1e6:7.0f} us PostgreSQL',
            flush=True,
        )
        return theirs / count * 1e6

    def _spent(self) -> float:
        """Seconds of processor time of PostgreSQL's processes, those that have ended included."""
        main = psutil.Process(self.postgres.pid)
        ended = main.cpu_times()
        spent = ended.children_user + ended.children_system
        for one in main.children():
            # One of autovacuum's may end meanwhile.
            with contextlib.suppress(OSError):
                spent += processor_time([one.pid])
        return float(spent)

    def _work(self, call: Callable[[], Any], seconds: float) -> int:
        ends_at = time.monotonic() + seconds
        counts = [0] * GREENLETS

        def work(number: int) -> None:
            while time.monotonic() < ends_at:
                call()
                counts[number] += 1

        gevent.joinall([gevent.spawn(work, one) for one in range(GREENLETS)], raise_error=True)
        return sum(counts)

    def measure_all(self, title: str, queue: str) -> dict[str, float]:
        """Print what each call costs on a queue."""

        def post() -> None:
            new = [{'ttl': 3600, 'body': BODY}]
            self.messages.post(queue, new, CLIENT, project=PROJECT)

        def listed() -> None:
            list(next(self.messages.list(queue, PROJECT, limit=PAGE, echo=True)))

        def claim() -> None:
            claim_id, found = self.claims.create(
                queue, {'ttl': CLAIM_SECONDS, 'grace': 60}, project=PROJECT, limit=PAGE
            )
            ids = [one['id'] for one in found]
            if ids:
                self.messages.bulk_delete(queue, ids, project=PROJECT, claim_ids=[claim_id])

        def post_and_claim() -> None:
            for _ in range(PAGE):
                post()
            claim()

        return {
            name: self.measure(f'{title}: {name}', call)
            for name, call in (
                ('post', post),
                ('list 10', listed),
                ('post 10, claim 10, delete 10', post_and_claim),
                ('stats', lambda: self.queues.stats(queue, project=PROJECT)),
            )
        }


@contextlib.contextmanager
def stand() -> Iterator[Stand]:
    """A driver on one core, and a durable PostgreSQL on the other."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        with on_core(CLIENT_CORE):
            postgres = stack.enter_context(PostgresProcess(is_durable=True, shared_buffers='512MB'))
        with on_core(SERVER_CORE):
            yield Stand(pathlib.Path(directory), postgres)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--messages', type=int, default=1_000_000, help='of the long queue')
    parser.add_argument('--held', type=float, default=30.0, help='seconds of the transaction')
    options = parser.parse_args(argv)
    with stand() as one:
        one.fill('few', 1000)
        found = {'few': one.measure_all('1,000 messages', 'few')}
        one.fill('many', options.messages)
        found['many'] = one.measure_all(f'{options.messages:,} messages', 'many')
        with one.postgres.connect() as other:
            other.execute('BEGIN ISOLATION LEVEL REPEATABLE READ')
            other.execute('SELECT count(*) FROM pg_class')
            one.fill('held', 1000)
            ends_at = time.monotonic() + options.held
            while time.monotonic() < ends_at:
                found['held'] = one.measure_all('a transaction is open', 'held')
            rows = one.postgres.run(
                "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'messages'"
            )
            print(f'dead rows at the end: {rows[0][0]:,}')
            other.execute('ROLLBACK')
    print(json.dumps(found))
    return 0


if __name__ == '__main__':
    sys.exit(main())
