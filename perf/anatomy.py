"""Where the processor time of a post goes: each step of it measured, by leaving out what follows.

    python -m perf.anatomy [--seconds 1] [--rounds 3]

An echo through the same connections is what sockets and frames cost; to ask for the capabilities is
the envelope, the encoding and the dispatch beside; and of a post, the kernel tells what the thread
that serves and the one that commits have used. Writes `results/anatomy.json`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from perf import bare, results, tables
from perf.ceiling import DefaultEcho, Echo, commit_rows
from perf.load import Driver, Exchange
from perf.machine import CLIENT_CORE, SERVER_CORE, end_orderly, on_core, thread_times
from perf.servers import Fleet, Server
from perf.wire import Compact, Conversation, Default, Dialect, Rest
from perf.workloads import POST, SIZES, Cell, exchange_of, prepare

SIZE, QUEUE = '100 B', 'anatomy'
_FRAMES = (
    'sockets and frames',
    'envelope, JSON, who asks, what is asked',
    'checking and storing the message, telling who listens',
)
_HTTP = ('sockets and HTTP, and Falcon alone', 'all that is done with a request')
_COMMIT = 'the thread that commits'


class Way(NamedTuple):
    """A way to post. bare: what answers without doing anything, and how it is asked.

    steps: of the thread that serves; where there are three, the second is what a request takes
    that needs no store, beside the first. batch: messages in each commit of SQLite's alone.
    """

    name: str
    bare: Callable[[Fleet], Server]
    bare_dialect: Dialect
    dialect: Dialect
    steps: tuple[str, ...]
    in_flight: int
    batch: int


WAYS = [
    Way(
        *('WebSocket JSON', lambda fleet: fleet.echo('websockets'), DefaultEcho(binary=False)),
        *(Default(binary=False), _FRAMES, 1, 16),
    ),
    Way(
        *('zaqar.v2 JSON, 16 in flight', lambda fleet: fleet.echo('websockets')),
        *(Echo(binary=False), Compact(binary=False), _FRAMES, 16, 256),
    ),
    Way(
        *('REST', lambda fleet: fleet.bare(bare.HTTP), Rest()),
        *(Rest(), _HTTP, 1, 16),
    ),
]


class Spent(NamedTuple):
    """Microseconds of processor time for each request, of the serving thread and of the others."""

    serving: float
    others: float


def spend(
    server: Server, dialect: Dialect, exchange: Exchange, in_flight: int, seconds: float
) -> Spent:
    """Ask the same again and again; the threads' shares are those of the whole run."""
    driver = Driver(server.port, dialect, exchange, server.pids, in_flight=in_flight)
    before = thread_times(server.pids[0])
    sample = driver.run(seconds)
    after = thread_times(server.pids[0])
    used = {thread: spent - before.get(thread, 0.0) for thread, spent in after.items()}
    share = used[server.pids[0]] / sum(used.values())
    each = sample.server / sample.exchanges * 1e6
    return Spent(share * each, (1 - share) * each)


def steps(way: Way, rounds: Sequence[Sequence[Spent]]) -> list[dict[str, Any]]:
    """What each step costs, in microseconds: the least of the rounds, since what disturbs adds.

    rounds: what was spent without doing anything, on a request that needs no store if that is a
    step, and on a post.
    """
    least = [
        Spent(*(min(figures) for figures in zip(*several, strict=True)))
        for several in zip(*rounds, strict=True)
    ]
    ends = [0.0, *(spent.serving for spent in least)]
    costs = [*(end - begin for begin, end in itertools.pairwise(ends)), least[-1].others]
    return [
        {'way': way.name, 'step': name, 'us': results.significant(cost)}
        for name, cost in zip((*way.steps, _COMMIT), costs, strict=True)
    ]


def measure(seconds: float, rounds: int) -> list[dict[str, Any]]:
    """All ways, step by step."""
    found = []
    with Fleet() as fleet, on_core(CLIENT_CORE):
        own = fleet.own()
        for way in WAYS:
            without = way.bare(fleet)
            post = Cell(POST, SIZE)
            with Conversation(own.port, way.dialect) as conversation:
                prepare(conversation, post, QUEUE)
            asked = [
                (without, way.bare_dialect, exchange_of(post, way.bare_dialect, QUEUE)),
                (own, way.dialect, exchange_of(post, way.dialect, QUEUE)),
            ]
            if len(way.steps) > len(asked):
                encode = functools.partial(way.dialect.encode, 'get_capabilities', {})
                asked.insert(1, (own, way.dialect, Exchange(encode)))
            several = [
                [spend(*one, way.in_flight, seconds) for one in asked] for _ in range(rounds)
            ]
            found += steps(way, several)
            with on_core(SERVER_CORE):
                file = fleet.directory() / 'bare.sqlite'
                commit = commit_rows(file, SIZES[SIZE], way.batch, seconds)
            name = f'of that, SQLite alone could do with, in commits of {way.batch}'
            cost = results.significant(commit['server_us'])
            found.append({'way': way.name, 'step': name, 'us': cost, 'is_part': True})
    return found


def main(argv: Sequence[str] | None = None) -> None:
    options = results.options(__doc__, argv, seconds=1.0)
    end_orderly()
    found = measure(options.seconds, options.rounds)
    print(tables.anatomy(found))
    print(results.save('anatomy', found, options.out))


if __name__ == '__main__':
    main()
