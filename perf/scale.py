"""How cost grows: with the length of a queue, the number of queues, connections, subscribers.

    python -m perf.scale [--lengths 1000 10000 100000 1000000] [--queues 100 1000 10000 100000]

The server's processor time for each operation, on one server that is filled more and more. The same
client as in `perf.compare`. Writes `results/scale.json`.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perf import results, tables
from perf.crowd import Crowd, allow_files
from perf.load import Driver, Exchange
from perf.machine import CLIENT_CORE, end_orderly, on_core
from perf.servers import Fleet, Server
from perf.wire import Compact, Conversation
from perf.workloads import (
    GET,
    LIST,
    PAGE,
    POST,
    STATS,
    Cell,
    exchange_of,
    expect,
    fill,
    messages,
)

LENGTHS = (1000, 10_000, 100_000, 1_000_000)
QUEUES = (100, 1000, 10_000, 100_000)
CONNECTIONS = (0, 1000, 5000, 10_000)
WITHHELD = (1000, 100_000)
SIZE = '100 B'
# Multiples of both are withheld.
_AT_ONCE, _HELD_AT_ONCE = 100, 20
DIALECT = Compact(binary=True)
_ROOMY = '[drivers:transport:gevent]\nmax_connections = 40000\nping_interval = 0\n'

Row = dict[str, Any]


class Scale:
    """One server, what is asked of it at each size, and what that costs.

    port: where it listens. found: what was measured so far.
    """

    def __init__(self, server: Server, seconds: float, rounds: int) -> None:
        self.port = server.port
        self._pids = server.pids
        self._seconds, self._rounds = seconds, rounds
        self.found: list[Row] = []

    def conversation(self) -> Conversation:
        return Conversation(self.port, DIALECT)

    def measure(self, along: str, at: int, exchanges: Mapping[str, Exchange]) -> None:
        """What each costs now that there are `at` of what is counted `along` the axis."""
        for name, exchange in exchanges.items():
            samples = []
            for _ in range(self._rounds):
                driver = Driver(self.port, DIALECT, exchange, self._pids)
                samples.append(driver.run(self._seconds, warm=0.1))
            costs = [sample.server / sample.exchanges * 1e6 for sample in samples]
            rates = [sample.exchanges / sample.seconds for sample in samples]
            row = {'along': along, 'at': at, 'operation': name}
            row |= {'server_us': results.middle(costs), 'rate': results.middle(rates)}
            self.found.append(row)
            print(f'{along} {at:>9,}  {name:24} {row["server_us"]["median"]:8.0f} µs', flush=True)


def asking(action: str, body: Mapping[str, Any]) -> Exchange:
    return Exchange(lambda ident: DIALECT.encode(action, body, ident))


def lengths(scale: Scale, sizes: Sequence[int]) -> None:
    """Longer and longer queues: listed from the start and the middle, claimed from, posted to.

    What is claimed is released again, so that a queue keeps its length. Posting comes last.
    """
    with scale.conversation() as conversation:
        for size in sizes:
            queue = f'long-{size}'
            fill(conversation, queue, SIZE, size)
            page = {'queue_name': queue, 'limit': PAGE, 'echo': True}
            middle = {**page, 'marker': _marker(conversation, queue, size)}
            several = {
                LIST: exchange_of(Cell(LIST, SIZE), DIALECT, queue),
                'list 10 from the middle': asking('message_list', middle),
                'claim 10 + release': claiming(queue),
                **{name: exchange_of(Cell(name), DIALECT, queue) for name in (STATS, GET)},
                POST: exchange_of(Cell(POST, SIZE), DIALECT, queue),
            }
            scale.measure('messages in the queue', size, several)


def withheld(scale: Scale, sizes: Sequence[int]) -> None:
    """Claims past more and more messages that nobody can claim: delayed, or held by claims."""
    with scale.conversation() as conversation:
        for size in sizes:
            for kind, withhold in (('delayed', _delay), ('held', _hold)):
                queue = f'{kind}-{size}'
                withhold(conversation, queue, size)
                fill(conversation, queue, SIZE, sizes[0])
                claims = {'claim 10 + release': claiming(queue)}
                scale.measure(f'{kind} messages before them', size, claims)


def _delay(conversation: Conversation, queue: str, count: int) -> None:
    """Post messages that are not due before the measurement is over."""
    one = messages(SIZE, 1)[0] | {'delay': 900}
    for _ in range(0, count, _AT_ONCE):
        body = {'queue_name': queue, 'messages': [one] * _AT_ONCE}
        expect(conversation.ask('message_post', **body))


def _hold(conversation: Conversation, queue: str, count: int) -> None:
    """Post messages and claim them all."""
    fill(conversation, queue, SIZE, count)
    claim = {'queue_name': queue, 'limit': _HELD_AT_ONCE, 'ttl': 3600, 'grace': 60}
    for _ in range(0, count, _HELD_AT_ONCE):
        expect(conversation.ask('claim_create', **claim))


def claiming(queue: str) -> Exchange:
    """Claim ten messages, and give them back."""
    name = {'queue_name': queue}

    def release(answer: bytes, ident: int) -> list[bytes]:
        claim = DIALECT.decode(answer).body['claim_id']
        return [DIALECT.encode('claim_delete', {**name, 'claim_id': claim}, ident)]

    claim = {**name, 'limit': PAGE, 'ttl': 300, 'grace': 60}
    return Exchange(lambda ident: DIALECT.encode('claim_create', claim, ident), release)


def _marker(conversation: Conversation, queue: str, size: int) -> str:
    """A marker about the middle: the embedded store's are numbers that count messages."""
    stats = conversation.ask('queue_get_stats', queue_name=queue).body['messages']
    newest = stats['newest']['id']
    return f'{int(newest, 16) - size // 2:0{len(newest)}x}'


def queues(scale: Scale, sizes: Sequence[int]) -> None:
    """More and more queues; one is asked, and they are listed."""
    have = 0
    with scale.conversation() as conversation:
        for size in sizes:
            for number in range(have, size):
                expect(conversation.ask('queue_create', queue_name=f'many-{number:06}'))
            have = size
            name = f'many-{size // 2:06}'
            one = messages(SIZE, 1)
            scale.measure(
                'queues',
                size,
                {
                    'post 1': asking('message_post', {'queue_name': name, 'messages': one}),
                    'queue get': asking('queue_get', {'queue_name': name}),
                    'list 10 queues': asking('queue_list', {'limit': PAGE, 'marker': name}),
                },
            )


def connections(scale: Scale, sizes: Sequence[int]) -> None:
    """More and more connections that say nothing, beside the sixteen that ask."""
    with Crowd(scale.port) as crowd:
        for size in sizes:
            crowd.grow(size)
            post = {'queue_name': 'beside', 'messages': messages(SIZE, 1)}
            several = {'post 1': asking('message_post', post)}
            several['queue get'] = asking('queue_get', {'queue_name': 'beside'})
            scale.measure('idle connections', size, several)


def run(options: argparse.Namespace) -> list[Row]:
    """All axes, each on a server of its own."""
    axes: list[tuple[Callable[[Scale, Sequence[int]], None], Sequence[int]]] = [
        (lengths, options.lengths),
        (withheld, options.withheld),
        (queues, options.queues),
        (connections, options.connections),
    ]
    found = []
    for axis, sizes in axes:
        with Fleet() as fleet, on_core(CLIENT_CORE):
            scale = Scale(fleet.own(config=_ROOMY), options.seconds, options.rounds)
            axis(scale, sizes)
            found += scale.found
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--lengths', type=int, nargs='+', default=LENGTHS)
    parser.add_argument('--queues', type=int, nargs='+', default=QUEUES)
    parser.add_argument('--withheld', type=int, nargs='+', default=WITHHELD)
    parser.add_argument('--connections', type=int, nargs='+', default=CONNECTIONS)
    parser.add_argument('--seconds', type=float, default=0.5)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--out', type=pathlib.Path, default=results.DIRECTORY, help='directory')
    options = parser.parse_args(argv)
    end_orderly()
    allow_files()
    found = run(options)
    print(tables.scale(found))
    print(results.save('scale', found, options.out))


if __name__ == '__main__':
    main()
