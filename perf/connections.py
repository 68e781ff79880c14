"""What idle WebSocket connections cost: memory for each, and the time to open them.

    python -m perf.connections [--counts 1000 5000 10000 18000]

One server of each kind in turn, its connections opened from several processes and addresses, and
left alone until its memory does not change any more. Writes `results/connections.json`.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from perf import results, tables
from perf.crowd import Crowd, allow_files
from perf.machine import CLIENT_CORE, end_orderly, on_core, processor_time, resident_bytes
from perf.servers import Fleet, Server

COUNTS = (1000, 5000, 10_000, 18_000)
WARM = 50
_ROOMY = """
[drivers:transport:gevent]
max_connections = 40000
ping_interval = 0
websocket_engine = {engine}
"""


class Kind(NamedTuple):
    """A server, and what its connections are like.

    most: how many connections are tried. use: whether each has asked something before.
    """

    name: str
    start: Callable[[Fleet], Server]
    compact: bool
    use: bool
    most: int = 100_000


def _own(engine: str) -> Callable[[Fleet], Server]:
    return lambda fleet: fleet.own(config=_ROOMY.format(engine=engine))


KINDS = [
    Kind('ours, just opened', _own('websockets'), compact=True, use=False),
    Kind('ours, after a request', _own('websockets'), compact=True, use=True),
    Kind('ours, engine ws4py, just opened', _own('ws4py'), compact=True, use=False, most=5000),
    Kind(
        'upstream, just opened',
        lambda fleet: fleet.upstream_websocket(fleet.redis()),
        *(False, False, 5000),
    ),
    Kind(
        'upstream, after a request',
        lambda fleet: fleet.upstream_websocket(fleet.redis()),
        *(False, True, 5000),
    ),
]


def measure(kind: Kind, counts: Sequence[int]) -> list[dict[str, Any]]:
    """The server's memory and processor time at each number of connections."""
    found = []
    with Fleet() as fleet:
        server = kind.start(fleet)
        with Crowd(server.port, compact=kind.compact, use=kind.use) as crowd:
            crowd.grow(WARM)
            before = resident_bytes(server.pids)
            for count in counts:
                held, used = crowd.count, processor_time(server.pids)
                took = crowd.grow(WARM + count)
                used = processor_time(server.pids) - used
                opened = crowd.count - held
                grown = resident_bytes(server.pids) - before
                found.append(
                    {
                        'kind': kind.name,
                        'connections': count,
                        'each_kb': results.significant(grown / count / 1000, 3),
                        'opened_per_second': results.significant(opened / took, 3),
                        'server_us': results.significant(used / opened * 1e6, 3),
                    }
                )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--counts', type=int, nargs='+', default=COUNTS)
    parser.add_argument('--out', type=pathlib.Path, default=results.DIRECTORY, help='directory')
    options = parser.parse_args(argv)
    end_orderly()
    allow_files()
    found = []
    with on_core(CLIENT_CORE):
        for kind in KINDS:
            counts = [count for count in options.counts if count <= kind.most]
            if counts:
                found += measure(kind, counts)
    print(tables.connections(found))
    print(results.save('connections', found, options.out))


if __name__ == '__main__':
    main()
