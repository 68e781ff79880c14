"""Side by side: upstream's servers and ours, asked the same things by the same client.

    python -m perf.compare [--quick] [--only NAME ...] [--operations NAME ...]

Every server runs on the same core, one asked at a time, in turn and in several rounds; the client
is on the other core. Writes `results/compare.json`; `python -m perf.report` makes tables and charts
of it. `ZAQAR_PERF_DIR` says where the embedded store's file is.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from perf import results, tables
from perf.load import Driver, Failed, Sample
from perf.machine import CLIENT_CORE, end_orderly, on_core
from perf.servers import Fleet, Server
from perf.usual_client import request_bytes
from perf.wire import Compact, Conversation, Default, Dialect, Rest
from perf.workloads import (
    CELLS,
    CLAIM,
    CLAIMS,
    GET,
    LIST,
    PAGE,
    PING,
    POST,
    SIZES,
    Cell,
    body_of,
    exchange_of,
    fill,
    prepare,
)

UPSTREAM_WEBSOCKET = 'upstream-websocket'
NOT_PINNED = 'ours-not-pinned'


class Variant(NamedTuple):
    """A server, and a way to speak to it.

    server: a key of `SERVERS`. store: how its store keeps what it acknowledged.
    """

    name: str
    server: str
    store: str
    dialect: Dialect
    in_flight: int = 1


# How each server is started, in a fleet.
SERVERS: dict[str, Callable[[Fleet], Server]] = {
    'upstream-rest-sync': lambda fleet: fleet.upstream_rest('sync', fleet.redis()),
    'upstream-rest-gevent': lambda fleet: fleet.upstream_rest('gevent', fleet.redis()),
    UPSTREAM_WEBSOCKET: lambda fleet: fleet.upstream_websocket(fleet.redis()),
    'upstream-websocket-durable': lambda fleet: fleet.upstream_websocket(fleet.redis(durable=True)),
    'ours': lambda fleet: fleet.own(),
    NOT_PINNED: lambda fleet: fleet.own(is_pinned=False),
    'ours-gunicorn': lambda fleet: fleet.own_under_gunicorn(),
    'ours-redis': lambda fleet: fleet.own(redis=fleet.redis(), redis_driver='upstream'),
    'ours-native-redis': lambda fleet: fleet.own(redis=fleet.redis(), redis_driver='native'),
    'ours-postgresql': lambda fleet: fleet.own(postgres=fleet.postgres()),
}
EMBEDDED, REDIS, DURABLE_REDIS = 'embedded, fsync', 'Redis, memory', 'Redis, fsync'
POSTGRESQL = 'PostgreSQL, fsync'
JSON, MSGPACK = {'binary': False}, {'binary': True}
VARIANTS = [
    Variant('upstream REST, gunicorn sync', 'upstream-rest-sync', REDIS, Rest()),
    Variant('upstream REST, gunicorn gevent', 'upstream-rest-gevent', REDIS, Rest()),
    Variant('upstream WebSocket JSON', UPSTREAM_WEBSOCKET, REDIS, Default(**JSON)),
    Variant('upstream WebSocket MsgPack', UPSTREAM_WEBSOCKET, REDIS, Default(**MSGPACK)),
    Variant(
        *('upstream WebSocket JSON, durable', 'upstream-websocket-durable'),
        *(DURABLE_REDIS, Default(**JSON)),
    ),
    Variant('ours REST', 'ours', EMBEDDED, Rest()),
    Variant('ours REST, gunicorn', 'ours-gunicorn', EMBEDDED, Rest()),
    Variant('ours WebSocket JSON', 'ours', EMBEDDED, Default(**JSON)),
    Variant('ours WebSocket MsgPack', 'ours', EMBEDDED, Default(**MSGPACK)),
    Variant('ours zaqar.v2 JSON', 'ours', EMBEDDED, Compact(**JSON)),
    Variant('ours zaqar.v2 MsgPack', 'ours', EMBEDDED, Compact(**MSGPACK)),
    Variant('ours zaqar.v2 JSON, 16 in flight', 'ours', EMBEDDED, Compact(**JSON), 16),
    Variant('ours zaqar.v2 MsgPack, 16 in flight', 'ours', EMBEDDED, Compact(**MSGPACK), 16),
    Variant('ours WebSocket JSON, not pinned', NOT_PINNED, EMBEDDED, Default(**JSON)),
    Variant(
        'ours zaqar.v2 JSON, 16 in flight, not pinned', NOT_PINNED, EMBEDDED, Compact(**JSON), 16
    ),
    Variant('ours REST on Redis', 'ours-redis', REDIS, Rest()),
    Variant('ours WebSocket JSON on Redis', 'ours-redis', REDIS, Default(**JSON)),
    Variant('ours zaqar.v2 MsgPack on Redis', 'ours-redis', REDIS, Compact(**MSGPACK)),
    Variant('ours REST on Redis, native', 'ours-native-redis', REDIS, Rest()),
    Variant('ours WebSocket JSON on Redis, native', 'ours-native-redis', REDIS, Default(**JSON)),
    Variant(
        *('ours zaqar.v2 MsgPack on Redis, native', 'ours-native-redis'),
        *(REDIS, Compact(**MSGPACK)),
    ),
    Variant('ours REST on PostgreSQL', 'ours-postgresql', POSTGRESQL, Rest()),
    Variant('ours WebSocket JSON on PostgreSQL', 'ours-postgresql', POSTGRESQL, Default(**JSON)),
    Variant(
        *('ours zaqar.v2 MsgPack on PostgreSQL', 'ours-postgresql'),
        *(POSTGRESQL, Compact(**MSGPACK)),
    ),
    Variant(
        *('ours zaqar.v2 MsgPack on PostgreSQL, 16 in flight', 'ours-postgresql'),
        *(POSTGRESQL, Compact(**MSGPACK), 16),
    ),
]
QUICK = [Cell(POST, '100 B'), Cell(LIST, '100 B'), Cell(CLAIM, '100 B'), Cell(GET)]
# Claims a second that a server is at first thought to be capable of.
EMBEDDED_CLAIMS, REDIS_CLAIMS = 3000.0, 250.0
SPARE_MESSAGES = 400
# As long as the names of the queues that are measured.
USUAL_QUEUE = 'perf-00000000'
WARM_SECONDS = 0.2


class Plan(NamedTuple):
    """What is measured, and for how long."""

    variants: Sequence[Variant]
    cells: Sequence[Cell]
    rounds: int
    seconds: float
    watch: results.Stopwatch


def can(variant: Variant, cell: Cell) -> bool:
    """Whether it is worth asking: upstream's WebSocket has no ping; the durable Redis, and the
    server that may use both cores, are there for the writing alone."""
    if variant.store == DURABLE_REDIS or variant.server == NOT_PINNED:
        return cell.operation in (POST, *CLAIMS)
    return not (variant.server == UPSTREAM_WEBSOCKET and cell.operation == PING)


class Stand:
    """One variant before one cell: what is asked of it, and the samples so far."""

    def __init__(self, variant: Variant, server: Server, cell: Cell) -> None:
        self.variant = variant
        self.samples: list[Sample] = []
        self._server, self._cell = server, cell
        # A queue of its own, with a name as short as one may be.
        self._queue = f'perf-{zlib.crc32(f"{cell} {variant.name}".encode()):08x}'
        self._rate = EMBEDDED_CLAIMS if variant.store == EMBEDDED else REDIS_CLAIMS
        with Conversation(server.port, variant.dialect) as conversation:
            prepare(conversation, cell, self._queue)

    def measure(self, seconds: float) -> None:
        """Take one sample. Where its claims have emptied the queue too soon, take it again."""
        sample = self._attempt(seconds)
        while sample.exhausted and sample.seconds < seconds / 2:
            self._rate *= 2
            sample = self._attempt(seconds)
        if sample.exchanges == 0:
            raise Failed(f'{self.variant.name}: nothing was answered in {seconds} s')
        self.samples.append(sample)
        self._rate = 1.2 * sample.exchanges / sample.seconds

    def _attempt(self, seconds: float) -> Sample:
        if self._cell.operation in CLAIMS:
            self._fill(int(self._rate * (seconds + WARM_SECONDS) * PAGE) + SPARE_MESSAGES)
        driver = Driver(
            self._server.port,
            self.variant.dialect,
            exchange_of(self._cell, self.variant.dialect, self._queue),
            self._server.pids,
            self._server.store_pids,
            connections=self._cell.connections,
            in_flight=self.variant.in_flight,
        )
        return driver.run(seconds, WARM_SECONDS)

    def _fill(self, count: int) -> None:
        with Conversation(self._server.port, self.variant.dialect) as conversation:
            fill(conversation, self._queue, self._cell.size, count)


def summary(variant: Variant, cell: Cell, samples: Sequence[Sample]) -> dict[str, Any]:
    """What the rounds say together. Times are in microseconds, latencies in milliseconds."""

    def each(value: Callable[[Sample], float]) -> dict[str, float]:
        return results.middle([value(sample) for sample in samples])

    return {
        'variant': variant.name,
        'store': variant.store,
        'in_flight': variant.in_flight,
        'cell': cell.name,
        'operation': cell.operation,
        'size': cell.size,
        'connections': cell.connections,
        'rounds': len(samples),
        'rate': each(lambda one: one.exchanges / one.seconds),
        'server_us': each(lambda one: one.server / one.exchanges * 1e6),
        'store_us': each(lambda one: one.store / one.exchanges * 1e6),
        'bytes': each(lambda one: (one.sent + one.received) / one.exchanges),
        'server_share': each(lambda one: one.server / one.seconds),
        'client_share': each(lambda one: (one.client + one.store) / one.seconds),
        'opened': each(lambda one: one.opened),
        'latency': results.percentiles([late for one in samples for late in one.latencies]),
        'exchanges': sum(one.exchanges for one in samples),
    }


def compare(plan: Plan) -> dict[str, Any]:
    """Measure every cell with every variant, round by round."""
    found: list[dict[str, Any]] = []
    left_out: list[str] = []
    with Fleet() as fleet, on_core(CLIENT_CORE):
        wanted = dict.fromkeys(variant.server for variant in plan.variants)
        servers = {name: SERVERS[name](fleet) for name in wanted}
        print(f'{len(servers)} servers started after {plan.watch.passed:.0f} s', flush=True)
        for cell in plan.cells:
            if plan.watch.is_over:
                left_out.append(f'{cell.name}: the time was over')
                continue
            try:
                found += _one_cell(cell, plan, servers)
            except (Failed, OSError) as error:
                # What else there is to measure is not lost with it; the program fails at its end.
                left_out.append(f'{cell.name}: {error!r}')
    for name in left_out:
        print(f'left out, {name}')
    took = results.significant(plan.watch.passed)
    return {
        'cells': found,
        'left_out': left_out,
        'usual_extra_bytes': _usual_extra_bytes(),
        'took_seconds': took,
    }


def _usual_extra_bytes() -> int:
    """By how much a post over REST is longer than here, from the client that people have."""
    here = exchange_of(Cell(POST, '100 B'), Rest(), USUAL_QUEUE).first(1)
    return request_bytes(USUAL_QUEUE, body_of(SIZES['100 B'])) - len(here)


def _one_cell(cell: Cell, plan: Plan, servers: dict[str, Server]) -> list[dict[str, Any]]:
    began = plan.watch.passed
    stands = [
        Stand(variant, servers[variant.server], cell)
        for variant in plan.variants
        if can(variant, cell)
    ]
    for number in range(plan.rounds):
        # Nobody is always the first.
        for at in range(len(stands)):
            stands[(at + number * 5) % len(stands)].measure(plan.seconds)
    rows = [summary(stand.variant, cell, stand.samples) for stand in stands]
    print(f'\n{cell.name} ({plan.watch.passed - began:.0f} s)')
    print(tables.comparison(rows), flush=True)
    return rows


def _chosen(names: Sequence[str], all_of: Sequence[Any]) -> list[Any]:
    """Those whose name has one of the `names` in it."""
    if not names:
        return list(all_of)
    return [one for one in all_of if any(name in one.name for name in names)]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--quick', action='store_true', help='four operations, within 3 minutes')
    parser.add_argument('--only', nargs='+', default=[], help='variants with this in their name')
    parser.add_argument('--operations', nargs='+', default=[], help='operations likewise')
    parser.add_argument('--rounds', type=int, help='default: 3, or 2 with --quick')
    parser.add_argument('--seconds', type=float, help='of each sample; default: 0.8, or 0.4')
    parser.add_argument('--minutes', type=float, help='begin no operation later; default: 24, or 3')
    parser.add_argument('--out', type=pathlib.Path, default=results.DIRECTORY, help='directory')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    end_orderly()
    options = _parse(argv)
    quick = options.quick
    plan = Plan(
        _chosen(options.only, VARIANTS),
        _chosen(options.operations, QUICK if quick else CELLS),
        options.rounds or (2 if quick else 3),
        options.seconds or (0.4 if quick else 0.8),
        results.Stopwatch(60 * (options.minutes or (3 if quick else 24))),
    )
    samples = sum(can(variant, cell) for variant in plan.variants for cell in plan.cells)
    least = samples * plan.rounds * (plan.seconds + 0.3)
    print(f'{samples} figures in {plan.rounds} rounds: at least {least / 60:.1f} minutes')
    found = compare(plan)
    file = results.save('compare', found, options.out)
    print(f'\n{plan.watch.passed / 60:.1f} minutes; {file}')
    return 1 if found['left_out'] else 0


if __name__ == '__main__':
    sys.exit(main())
