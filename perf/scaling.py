"""What servers and shards can do together, predicted from what each operation costs.

    python -m perf.scaling [--rounds N] [--seconds S] [--stores redis ...] [--quick]
        [--out DIR --docs FILE]

The model is a sum: an operation costs processor time of a server, processor time of its store, and
bytes on the wire. Whatever is used up first is the limit. It is checked against one and two
servers, on one and two shards: their throughput is predicted from what operations cost on one
server and one shard, with as many requests in flight as each pair of a server and a shard has, and
measured. Both servers have one core together, and the client and the stores have the other, so what
is checked is what the model rests on: that an operation does not become dearer with more servers
and shards, but by sharing its commits and round trips with fewer others.

Writes `results/scaling.json` and, between its two marks, the figures of `docs/scaling.md`.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from perf import results
from perf.load import Driver, Exchange, Sample
from perf.machine import end_orderly
from perf.servers import ROOT, Fleet, Server, postgres_pids
from perf.tables import table
from perf.wire import HEADERS, Compact, Conversation, connect
from perf.workloads import CLAIM, POST, Cell, exchange_of, expect, fill
from tests.postgres_process import PostgresProcess
from zaqar_gevent.client import Client

BEGIN, END = '<!-- figures: begin -->', '<!-- figures: end -->'
DOCS = ROOT / 'docs' / 'scaling.md'

LOAD = 0.6
"""How much of a core is to be used in production: the rest is for peaks, and for what fails."""

CONNECTIONS, IN_FLIGHT = 16, 4
LAYOUTS = ((1, 1), (2, 1), (1, 2), (2, 2))
STORES = ('embedded', 'redis', 'postgresql')
MILLION = 1_000_000

# By the variants and operations of `compare`, as the tables are made.
VARIANTS = {
    'embedded': 'ours zaqar.v2 MsgPack, 16 in flight',
    'Redis': 'ours zaqar.v2 MsgPack on Redis, native',
    'PostgreSQL': 'ours zaqar.v2 MsgPack on PostgreSQL, 16 in flight',
}
OPERATIONS = ('post 1, 100 B', 'post 10, 100 B', 'list 10, 100 B', 'claim 10 + delete 10, 100 B')
MESSAGES = {'post 10, 100 B': 10, 'claim 10 + delete 10, 100 B': 10, 'list 10, 100 B': 10}


class Cost(NamedTuple):
    """What an operation costs: microseconds of a server's processor and of its store's, bytes."""

    server_us: float
    store_us: float
    size: float = 0.0


class Deployment(NamedTuple):
    """Servers, and the shards of their store.

    servers: processes, each of which uses one core at most. shards: of the store. store_cores: that
    each shard can use; 1 for Redis. bits: of the network of each server, a second.
    """

    servers: int
    shards: int
    store_cores: float = 1.0
    bits: float = 10e9


class Prediction(NamedTuple):
    """The highest rate, in operations a second, and what is used up then."""

    rate: float
    limit: str


def predict(cost: Cost, deployment: Deployment) -> Prediction:
    """What a deployment can do, if operations cost what they cost alone."""
    limits = {
        'servers': deployment.servers * MILLION / cost.server_us,
        'network': deployment.servers * deployment.bits / 8 / cost.size if cost.size else math.inf,
        'shards': math.inf,
    }
    if cost.store_us:
        limits['shards'] = deployment.shards * deployment.store_cores * MILLION / cost.store_us
    limit = min(limits, key=lambda name: limits[name])
    return Prediction(limits[limit], limit)


def count_for(rate: float, cost: Cost, store_cores: float = 1.0) -> tuple[int, int]:
    """The servers and the shards for a rate, each loaded by `LOAD` at most."""
    servers = math.ceil(rate * cost.server_us / MILLION / LOAD)
    shards = math.ceil(rate * cost.store_us / MILLION / LOAD / store_cores)
    return servers, max(1, shards)


def costs_of(found: dict[str, Any]) -> dict[str, dict[str, Cost]]:
    """What `compare` has measured, by store and operation."""
    costs: dict[str, dict[str, Cost]] = {}
    for store, variant in VARIANTS.items():
        for cell in found['cells']:
            if cell['variant'] == variant and cell['cell'] in OPERATIONS:
                measured = (cell[name]['median'] for name in ('server_us', 'store_us', 'bytes'))
                costs.setdefault(store, {})[cell['cell']] = Cost(*measured)
    return costs


class _Shards:
    """Servers on shards of one kind, with a queue on each shard.

    Shards are pools: files, or Redis servers, or schemas of a PostgreSQL.
    """

    def __init__(self, fleet: Fleet, kind: str, servers: int, shards: int) -> None:
        directory = fleet.directory()
        config = f"""
[DEFAULT]
pooling = True
admin_mode = True
[drivers]
management_store = sqlite
redis_driver = native
[drivers:management_store:sqlite]
uri = sqlite:///{directory}/names.sqlite
[drivers:message_store:redis]
shared_with_upstream = False
"""
        self.store_pids: list[int] = []
        self._postgres: PostgresProcess | None = None
        places = self._make(fleet, kind, shards, directory)
        self.servers: list[Server] = [fleet.own(config=config) for _ in range(servers)]
        self.queues = [f'q{number}' for number in range(shards)]
        headers = {'X-Roles': 'admin'}
        url = f'http://127.0.0.1:{self.servers[0].port}'
        with Client(url, project=HEADERS['X-Project-ID'], headers=headers) as client:
            for number, place in enumerate(places):
                client.pools.create(f'p{number}', weight=100, flavor=f'f{number}', **place)
                client.flavors.create(f'f{number}', pool_list=[f'p{number}'])
        with Conversation(self.servers[0].port, Compact(binary=True)) as conversation:
            for number, queue in enumerate(self.queues):
                metadata = {'_flavor': f'f{number}'}
                expect(conversation.ask('queue_create', queue_name=queue, metadata=metadata))

    def _make(
        self, fleet: Fleet, kind: str, count: int, directory: pathlib.Path
    ) -> list[dict[str, Any]]:
        """The places of the shards, as members of pools."""
        if kind == 'redis':
            found = [fleet.redis() for _ in range(count)]
            self.store_pids = [one.client.info('server')['process_id'] for one in found]
            # Upstream's default of 0.1 s is too short for a core that others use.
            return [{'uri': f'{one.uri}?socket_timeout=5'} for one in found]
        if kind == 'postgresql':
            postgres = self._postgres = fleet.postgres()
            return [
                {
                    'uri': f'{postgres.uri}?application_name=shard{number}',
                    'options': {'schema': f'shard{number}'},
                }
                for number in range(count)
            ]
        return [{'uri': f'sqlite:///{directory}/shard{number}.sqlite'} for number in range(count)]

    def run(self, operation: str, seconds: float, in_flight: int = IN_FLIGHT) -> Sample:
        """Ask all servers for all queues, by connections with so many requests in flight each."""
        dialect = Compact(binary=True)
        exchanges = [exchange_of(Cell(operation, '100 B'), dialect, queue) for queue in self.queues]
        shards = len(exchanges)

        def first(ident: int) -> bytes:
            return exchanges[ident % shards].first(ident)

        def then(answer: bytes, ident: int) -> list[bytes]:
            following = exchanges[ident % shards].then
            return [] if following is None else following(answer, ident)

        ports = [server.port for server in self.servers]
        driver = Driver(
            ports[0],
            dialect,
            Exchange(first, then if exchanges[0].then else None),
            [pid for server in self.servers for pid in server.pids],
            self._find_store_pids(),
            connections=CONNECTIONS,
            in_flight=in_flight,
            open_one=lambda number: connect(ports[number % len(ports)], dialect),
        )
        return driver.run(seconds)

    def fill(self, count: int) -> None:
        """Post messages, to be claimed."""
        with Conversation(self.servers[0].port, Compact(binary=True)) as conversation:
            for queue in self.queues:
                fill(conversation, queue, '100 B', count)

    def _find_store_pids(self) -> list[int]:
        return self.store_pids if self._postgres is None else postgres_pids(self._postgres)


def measure(
    kind: str,
    operations: Iterable[str],
    seconds: float,
    rounds: int,
    chosen: Sequence[tuple[int, int]] = LAYOUTS,
) -> list[dict[str, Any]]:
    """What one and two servers on one and two shards do, and what they cost."""
    rows = []
    with Fleet() as fleet:
        layouts = {layout: _Shards(fleet, kind, *layout) for layout in chosen}
        for operation in operations:
            samples: dict[tuple[int, int], list[Sample]] = {layout: [] for layout in chosen}
            alone: dict[int, list[Sample]] = {_share(layout): [] for layout in chosen}
            # In turn: what disturbs the machine disturbs all alike.
            for _ in range(rounds):
                for layout, shards in layouts.items():
                    if operation == CLAIM:
                        shards.fill(int(40_000 * seconds))
                    samples[layout].append(shards.run(operation, seconds))
                for in_flight, found in alone.items():
                    if operation == CLAIM:
                        layouts[1, 1].fill(int(40_000 * seconds))
                    found.append(layouts[1, 1].run(operation, seconds, in_flight))
            rows += [
                _row(kind, operation, layout, found, samples[1, 1], alone[_share(layout)])
                for layout, found in samples.items()
            ]
    return rows


def _share(layout: tuple[int, int]) -> int:
    """The requests of a connection that one server has in flight for one shard, on average.

    They share commits and round trips, so what each costs depends on their number.
    """
    servers, shards = layout
    return max(1, IN_FLIGHT // (servers * shards))


def _row(
    kind: str,
    operation: str,
    layout: tuple[int, int],
    samples: Sequence[Sample],
    first: Sequence[Sample],
    alone: Sequence[Sample],
) -> dict[str, Any]:
    """What was measured of a layout, and what is predicted from one server and one shard.

    first: of these with all the load. alone: of these with the load that each pair has there.
    """
    servers, shards = layout
    base, expected = _cost(first), _cost(alone)
    beside = statistics.median(_us(one, one.client + one.store) for one in alone)
    # Both servers share a core, and the client and the store the other one. A core that others take
    # a part of is counted by what was left: so much could be done with all of it.
    predicted = min(MILLION / expected.server_us, MILLION / beside)
    measured = statistics.median(
        one.exchanges / max(one.server, one.client + one.store) for one in samples
    )
    cost = _cost(samples)
    return {
        'store': kind,
        'operation': operation,
        'servers': servers,
        'shards': shards,
        'predicted': results.significant(predicted),
        'measured': results.significant(measured),
        'server_us': results.significant(cost.server_us),
        'store_us': results.significant(cost.store_us),
        'dearer': results.significant(
            (cost.server_us + cost.store_us) / (base.server_us + base.store_us), 3
        ),
    }


def _cost(samples: Sequence[Sample]) -> Cost:
    return Cost(
        statistics.median(_us(one, one.server) for one in samples),
        statistics.median(_us(one, one.store) for one in samples),
    )


def _us(sample: Sample, seconds: float) -> float:
    return seconds / max(1, sample.exchanges) * MILLION


def describe(costs: dict[str, dict[str, Cost]], found: Sequence[dict[str, Any]]) -> str:
    """The figures of the page."""
    return '\n\n'.join(
        (
            '### What operations cost\n\n' + _table_of_costs(costs),
            '### A million messages a second\n\n' + _table_of_million(costs),
            '### The model and the measurement\n\n' + _table_of_check(found),
        )
    )


def _table_of_costs(costs: dict[str, dict[str, Cost]]) -> str:
    head = ('store', 'operation', 'server', 'store', 'bytes', 'one server, one shard', 'limit')
    rows = []
    for store, operations in costs.items():
        for operation, cost in operations.items():
            prediction = predict(cost, Deployment(1, 1))
            rows.append(
                (
                    *(store, operation, f'{cost.server_us:.0f} µs', f'{cost.store_us:.0f} µs'),
                    *(f'{cost.size:,.0f}', f'{prediction.rate:,.0f}/s', prediction.limit),
                )
            )
    return table(head, rows)


def _table_of_million(costs: dict[str, dict[str, Cost]]) -> str:
    """Servers and shards for a million messages a second of each kind of work."""
    head = ('store', 'work', 'cores of servers', 'cores of shards', 'network')
    rows = []
    for store, operations in costs.items():
        for operation, cost in operations.items():
            rate = MILLION / MESSAGES.get(operation, 1)
            servers, shards = count_for(rate, cost)
            shown = str(shards) if cost.store_us else 'those of the servers'
            network = f'{rate * cost.size * 8 / 1e9:.1f} Gbit/s'
            rows.append((store, operation, str(servers), shown, network))
    return table(head, rows)


def _table_of_check(found: Sequence[dict[str, Any]]) -> str:
    head = ('store', 'operation', 'servers', 'shards', 'predicted', 'measured', 'ratio', 'cost')
    rows = [
        (
            *(one['store'], one['operation'], str(one['servers']), str(one['shards'])),
            *(f'{one["predicted"]:,.0f}/s', f'{one["measured"]:,.0f}/s'),
            f'{one["measured"] / one["predicted"]:.2f}',
            f'x {one["dearer"]:.2f}',
        )
        for one in found
    ]
    return table(head, rows)


def write(docs: pathlib.Path, figures: str) -> None:
    """Put the figures between the marks of the page."""
    text = docs.read_text(encoding='utf-8')
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    docs.write_text(f'{before}{BEGIN}\n\n{figures}\n\n{END}{after}', encoding='utf-8')


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, predict, and write both down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seconds', type=float, default=0.6)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--stores', nargs='+', choices=STORES, default=STORES)
    parser.add_argument(
        '--quick', action='store_true', help='one operation, on one and on two of both'
    )
    parser.add_argument('--out', type=pathlib.Path, default=results.DIRECTORY, help='directory')
    parser.add_argument('--docs', type=pathlib.Path, help='the page to write the figures into')
    options = parser.parse_args(argv)
    end_orderly()
    found: list[dict[str, Any]] = []
    operations = (POST,) if options.quick else (POST, CLAIM)
    chosen = (LAYOUTS[0], LAYOUTS[-1]) if options.quick else LAYOUTS
    for kind in options.stores:
        found += measure(kind, operations, options.seconds, options.rounds, chosen)
    print(_table_of_check(found))
    results.save('scaling', found, options.out)
    if options.docs is not None:
        compared = results.load('compare')
        if compared is None:
            parser.error('there are no results of perf.compare')
        write(options.docs, describe(costs_of(compared['found']), found))


if __name__ == '__main__':
    main()
