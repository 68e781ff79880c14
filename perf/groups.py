"""What groups of messages cost: claims from queues of many groups, and posts with a group.

    python -m perf.groups [--stores sqlite redis postgresql] [--groups N] [--each N] [--rounds N]

Claims: the driver is called in this process, by 16 greenlets, without a server. Each kind of queue
has a million messages, in `--groups` groups of `--each`, which were posted in turn. One operation
is to claim ten messages and to delete them. Posts: of one message, by `zaqar.v2` and REST, to a
server of its own; with a group and two attributes, or without. All kinds are measured in turn, in
several rounds; the figures are processor time in microseconds an operation, medians, and the ratio
is the median of the ratios of the rounds. Writes `results/groups.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gevent

from perf import results
from perf.load import Driver, Exchange
from perf.machine import (
    CLIENT_CORE,
    SERVER_CORE,
    end_orderly,
    on_core,
    processor_time,
    store_directory,
)
from perf.servers import Fleet, Server, postgres_pids
from perf.wire import Compact, Conversation, Dialect, Rest
from perf.workloads import PAGE, SIZES, TTL, body_of, expect
from tests.postgres_process import PostgresProcess
from tests.redis_process import RedisProcess
from tests.storage.conftest import CLIENT, load, load_postgresql, open_drivers

GREENLETS = 16
CLAIMS = 12
"""Operations of each greenlet in one turn."""
FILLED_AT_ONCE = 500
POST_SECONDS = 0.4
PROJECT = 'perf'
BODY = body_of(SIZES['100 B'])
KINDS: dict[str, dict[str, Any]] = {
    'no groups': {},
    'ordered': {'_ordered_groups': True},
    'fair': {'_fair_groups': True},
    'both': {'_ordered_groups': True, '_fair_groups': True},
}
PLAIN = {'body': BODY, 'ttl': TTL}
GROUPED = {**PLAIN, 'group': 'customer-42', 'attributes': {'type': 'order', 'region': 'eu-west'}}
POSTS = {'plain': PLAIN, 'attributes and group': GROUPED}


class Cost(NamedTuple):
    """Processor time of one operation in microseconds: of the server, and of its store."""

    server: float
    store: float

    @property
    def both(self) -> float:
        return self.server + self.store


class Queue:
    """A queue with the driver of its store. A queue in a file has one of its own: no other one's
    pages are in its cache.
    """

    def __init__(
        self, directory: pathlib.Path, process: RedisProcess | PostgresProcess | None, kind: str
    ) -> None:
        directory.mkdir(exist_ok=True)
        self._process = process
        if isinstance(process, PostgresProcess):
            name = 'postgresql'
            conf = load_postgresql(process.uri, directory, 'zaqar')
        else:
            name = 'sqlite' if process is None else 'unshared'
            conf = load(name, process, directory)
        if isinstance(process, RedisProcess):
            # On a busy machine, a script of many messages may wait for long.
            for section in ('message_store', 'management_store'):
                conf.set_override('reconnect_sleep', 10.0, f'drivers:{section}:redis')
        self._data, self._control = open_drivers(name, conf)
        self._name = kind.replace(' ', '-')
        self._messages: Any = self._data.message_controller
        self._claims: Any = self._data.claim_controller
        self._has_groups = bool(KINDS[kind])
        self._control.queue_controller.create(self._name, metadata=KINDS[kind], project=PROJECT)

    def close(self) -> None:
        self._data.close()
        self._control.close()

    def fill(self, groups: int, each: int) -> None:
        """Post to each group in turn."""
        for _ in range(each):
            for first in range(0, groups, FILLED_AT_ONCE):
                numbers = range(first, min(first + FILLED_AT_ONCE, groups))
                new = [
                    {**PLAIN, **({'group': f'customer-{one}'} if self._has_groups else {})}
                    for one in numbers
                ]
                self._messages.post(self._name, new, CLIENT, project=PROJECT)

    def measure(self, claims: int = CLAIMS) -> Cost:
        """Claim and delete, by several greenlets."""
        own, theirs = time.process_time(), self._spent()
        workers = [gevent.spawn(self._work, claims) for _ in range(GREENLETS)]
        gevent.joinall(workers, raise_error=True)
        own, theirs = time.process_time() - own, self._spent() - theirs
        count = GREENLETS * claims
        return Cost(own / count * 1e6, theirs / count * 1e6)

    def _spent(self) -> float:
        if isinstance(self._process, PostgresProcess):
            return processor_time(postgres_pids(self._process))
        return 0.0 if self._process is None else processor_time([self._process.pid])

    def _work(self, claims: int) -> None:
        for _ in range(claims):
            self.claim_and_delete()

    def claim_and_delete(self) -> None:
        lease = {'ttl': 300, 'grace': 60}
        claim_id, found = self._claims.create(self._name, lease, project=PROJECT, limit=PAGE)
        ids = [one['id'] for one in found]
        assert len(ids) == PAGE, f'{self._name} has only {len(ids)} messages left to claim'
        self._messages.bulk_delete(self._name, ids, project=PROJECT, claim_ids=[claim_id])


@contextlib.contextmanager
def queues(store: str, groups: int, each: int) -> Iterator[dict[str, Queue]]:
    """A filled queue of each kind. Redis or PostgreSQL is on the other core."""
    with contextlib.ExitStack() as stack:
        parent = pathlib.Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=store_directory()))
        )
        process: RedisProcess | PostgresProcess | None = None
        with on_core(CLIENT_CORE):
            if store == 'redis':
                process = stack.enter_context(RedisProcess(parent))
            elif store == 'postgresql':
                process = stack.enter_context(
                    PostgresProcess(is_durable=True, shared_buffers='512MB')
                )
        with on_core(SERVER_CORE):
            made = {}
            for number, kind in enumerate(KINDS):
                made[kind] = queue = Queue(parent / str(number), process, kind)
                stack.callback(queue.close)
                queue.fill(groups, each)
                print(f'{store}: {kind}: {groups * each:,} messages', flush=True)
            yield made


def claims(store: str, groups: int, each: int, rounds: int) -> dict[str, Any]:
    """What claims cost on queues of each kind."""
    with queues(store, groups, each) as made:
        for queue in made.values():
            # A fair queue gives all of its messages to their groups first.
            queue.measure()
        return _compare(
            f'{store}: claim {PAGE} + delete {PAGE}',
            {kind: queue.measure for kind, queue in made.items()},
            rounds,
        )


def posts(store: str, rounds: int) -> dict[str, Any]:
    """What posts cost with a group and attributes, and without."""
    found = {}
    with Fleet() as fleet:
        if store == 'redis':
            settings = '[drivers:message_store:redis]\nshared_with_upstream = false\n'
            server = fleet.own(redis=fleet.redis(), config=settings)
        elif store == 'postgresql':
            server = fleet.own(postgres=fleet.postgres())
        else:
            server = fleet.own()
        with on_core(CLIENT_CORE):
            for name, dialect in (('zaqar.v2', Compact(binary=True)), ('REST', Rest())):
                works = {
                    kind: _posting(server, dialect, {**message}) for kind, message in POSTS.items()
                }
                found[name] = _compare(f'{store}: post by {name}', works, rounds)
    return found


def _posting(server: Server, dialect: Dialect, message: Mapping[str, Any]) -> Callable[[], Cost]:
    body = {'queue_name': 'posted', 'messages': [message]}
    with Conversation(server.port, dialect) as conversation:
        expect(conversation.ask('queue_create', queue_name='posted'))
    exchange = Exchange(lambda ident: dialect.encode('message_post', body, ident))

    def measure() -> Cost:
        driver = Driver(server.port, dialect, exchange, server.pids, server.store_pids)
        sample = driver.run(POST_SECONDS, warm=0.1)
        each = 1e6 / sample.exchanges
        return Cost(sample.server * each, sample.store * each)

    return measure


def _compare(title: str, works: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, Any]:
    """Measure each in turn; print medians, and ratios to the first of them."""
    rows: dict[str, list[Cost]] = {kind: [] for kind in works}
    for _ in range(rounds):
        for kind, work in works.items():
            rows[kind].append(work())
    first = next(iter(rows.values()))
    found = {}
    for kind, costs in rows.items():
        row = {
            'server_us': statistics.median(one.server for one in costs),
            'store_us': statistics.median(one.store for one in costs),
        }
        for part in ('server', 'store', 'both'):
            ratios = [
                getattr(one, part) / base
                for one, other in zip(costs, first, strict=True)
                if (base := getattr(other, part))
            ]
            row[f'{part}_ratio'] = statistics.median(ratios) if ratios else 1.0
        found[kind] = {name: round(value, 3) for name, value in row.items()}
        print(
            f'{title}, {kind:22} server {row["server_us"]:7.0f} us (x{row["server_ratio"]:.2f})  '
            f'store {row["store_us"]:7.0f} us (x{row["store_ratio"]:.2f})  '
            f'together x{row["both_ratio"]:.2f}',
            flush=True,
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--stores', nargs='+', default=['sqlite', 'redis'])
    parser.add_argument('--groups', type=int, default=100_000)
    parser.add_argument('--each', type=int, default=10, help='messages of each group')
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--only', choices=['claims', 'posts'])
    parser.add_argument('--out', type=pathlib.Path, default=results.DIRECTORY, help='directory')
    options = parser.parse_args(argv)
    end_orderly()
    found: dict[str, Any] = {'groups': options.groups, 'each': options.each}
    for store in options.stores:
        found[store] = one = {}
        if options.only != 'posts':
            one['claims'] = claims(store, options.groups, options.each, options.rounds)
        if options.only != 'claims':
            one['posts'] = posts(store, options.rounds)
    print(results.save('groups', found, options.out))
    return 0


if __name__ == '__main__':
    sys.exit(main())
