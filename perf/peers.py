"""Beside brokers that are made for speed: RabbitMQ over Web-STOMP, and NATS over WebSocket.

    python -m perf.peers [--seconds 1] [--rounds 3]

The same bodies, posted by the same client over as many WebSockets, each post confirmed when it is
stored. What "stored" means differs, and is said of each. A broker that is not installed is left out
(`apt-get install rabbitmq-server`; NATS comes with the extra `perf`). Writes `results/peers.json`.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from perf import results, tables
from perf.brokers import JetStream, Nats, Rabbit, Stomp
from perf.load import Driver, Exchange
from perf.machine import CLIENT_CORE, end_orderly, on_core
from perf.servers import Fleet
from perf.wire import Compact, Dialect
from perf.workloads import POST, SIZES, Cell, body_of, exchange_of

_NORMAL = (
    '[drivers:message_store:sqlite]\nsynchronous = normal\n'
    '[drivers:management_store:sqlite]\nsynchronous = normal\n'
)
FSYNCED, WRITTEN = 'fsynced', 'written, not fsynced'
GUARANTEES = {
    'head': [
        *('', 'a post is confirmed when', 'survives kill -9', 'survives a power cut', 'over'),
        'a message is taken by',
    ],
    'rows': [
        [
            *('zaqar_gevent, `synchronous = full`', 'fsynced, many together'),
            *('yes', 'yes', 'JSON or MsgPack in WebSocket; REST'),
            'claims with a lease, consumers with credit, subscriptions with a marker, paging',
        ],
        [
            *('zaqar_gevent, `synchronous = normal`', 'written to its file'),
            *('yes', 'the last commits may be lost', 'the same', 'the same'),
        ],
        [
            *('RabbitMQ, durable classic queue, persistent messages, receipts',),
            *('fsynced, many together', 'yes', 'yes', 'STOMP in WebSocket'),
            'consumers with prefetch; what is read is gone; no paging, no resuming from a marker',
        ],
        [
            *('NATS JetStream, file storage, `sync_interval: always`', 'fsynced, each by itself'),
            *('yes', 'yes', "NATS's protocol in WebSocket"),
            'consumers of a log, from any sequence number',
        ],
        [
            *('NATS JetStream, file storage', 'written; fsynced every two minutes'),
            *('yes', 'what came after the last fsync may be lost', 'the same', 'the same'),
        ],
    ],
}


class Peer(NamedTuple):
    """Something that takes posts. connect: None for a connection as its dialect has it."""

    name: str
    durability: str
    port: int
    pids: Sequence[int]
    dialect: Dialect
    connect: Callable[[int], socket.socket] | None = None


def peers(fleet: Fleet) -> list[Peer]:
    """All that run here."""
    full, normal = fleet.own(), fleet.own(config=_NORMAL)
    dialect = Compact(binary=False)
    found = [
        Peer('zaqar_gevent, zaqar.v2', FSYNCED, full.port, full.pids, dialect),
        Peer('zaqar_gevent, zaqar.v2', WRITTEN, normal.port, normal.pids, dialect),
    ]
    if Rabbit.is_installed():
        rabbit = Rabbit(fleet.directory())
        fleet.callback(rabbit.stop)
        known = ('RabbitMQ, Web-STOMP', FSYNCED, rabbit.port, rabbit.pids)
        found.append(Peer(*known, Stomp(), rabbit.connect))
    if Nats.is_installed():
        for durability in (FSYNCED, WRITTEN):
            nats = Nats(fleet.directory(), durable=durability == FSYNCED)
            fleet.callback(nats.stop)
            known = ('NATS JetStream', durability, nats.port, nats.pids)
            found.append(Peer(*known, JetStream(), nats.connect))
    return found


def _exchange(peer: Peer, size: str) -> Exchange:
    if peer.connect is None:
        return exchange_of(Cell(POST, size), peer.dialect, f'peers-{SIZES[size]}')
    body = {'payload': msgspec.json.encode(body_of(SIZES[size]))}
    return Exchange(functools.partial(peer.dialect.encode, 'post', body))


def measure(seconds: float, rounds: int) -> dict[str, Any]:
    """Every peer with every size, one at a time on each connection and several."""
    rows = []
    with Fleet() as fleet, on_core(CLIENT_CORE):
        several = peers(fleet)
        for size, in_flight in (
            ('100 B', 1),
            ('100 B', 16),
            ('4 KB', 1),
            ('4 KB', 16),
            ('64 KB', 1),
        ):
            samples: dict[int, list[Any]] = {}
            for _ in range(rounds):
                for number, peer in enumerate(several):
                    driver = Driver(
                        *(peer.port, peer.dialect, _exchange(peer, size), peer.pids),
                        in_flight=in_flight,
                        open_one=peer.connect,
                    )
                    samples.setdefault(number, []).append(driver.run(seconds))
            for number, peer in enumerate(several):
                rows.append(_row(peer, size, in_flight, samples[number]))
    return {'rows': rows, 'guarantees': GUARANTEES}


def _row(peer: Peer, size: str, in_flight: int, samples: Sequence[Any]) -> dict[str, Any]:
    return {
        'peer': peer.name,
        'durability': peer.durability,
        'is_fsynced': peer.durability == FSYNCED,
        'size': size,
        'in_flight': in_flight,
        'rate': results.middle([one.exchanges / one.seconds for one in samples]),
        'server_us': results.middle([one.server / one.exchanges * 1e6 for one in samples]),
        'bytes': results.middle([(one.sent + one.received) / one.exchanges for one in samples]),
        'client_share': results.middle([one.client / one.seconds for one in samples]),
        'latency': results.percentiles([late for one in samples for late in one.latencies]),
    }


def main(argv: Sequence[str] | None = None) -> None:
    options = results.options(__doc__, argv, seconds=1.0)
    end_orderly()
    found = measure(options.seconds, options.rounds)
    print(tables.peers(found))
    print(results.save('peers', found, options.out))


if __name__ == '__main__':
    main()
