"""Push: one post to many subscribers of one queue, and the time from a post to its push.

    python -m perf.fanout [--subscribers 1 10 100 1000 5000] [--in-flight 1 16] [--deliveries 40000]

Subscribes that many connections to a queue of a server of its own, durable as ever, posts messages,
of which one is in flight or several are, and reports deliveries a second (over the wall, and over
the server's processor time) and how long after its post a message arrived. Writes
`results/fanout.json`.
"""

from __future__ import annotations

import argparse
import pathlib
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from perf import results, tables
from perf.crowd import allow_files, open_one
from perf.machine import CLIENT_CORE, end_orderly, on_core, processor_time
from perf.servers import Fleet, Server
from perf.wire import Compact, connect, frame_size, receive
from perf.workloads import body_of, expect

SUBSCRIBERS = (1, 10, 100, 1000, 5000)
IN_FLIGHT = (1, 16)
MOST_POSTS = 500
ANSWER_SECONDS = 30
_ROOMY = '[drivers:transport:gevent]\nmax_connections = 40000\nping_interval = 0\n'


class Poster:
    """Posts over a connection of its own, and knows when.

    in_flight: how many posts are not answered yet at a time.
    """

    def __init__(self, port: int, queue: str, in_flight: int) -> None:
        self._dialect = Compact(binary=True)
        self._socket = connect(port, self._dialect)
        self._body = {'queue_name': queue, 'messages': [{'body': body_of(100), 'ttl': 300}]}
        self._in_flight = in_flight
        self.posted_at: list[float] = []

    def post(self, count: int) -> None:
        with self._socket:
            received = bytearray()
            answered = 0
            while answered < count:
                self._send(min(count, answered + self._in_flight))
                received += self._socket.recv(65536)
                while (size := frame_size(received)) and len(received) >= size:
                    expect(self._dialect.decode(received[:size]))
                    del received[:size]
                    answered += 1

    def _send(self, until: int) -> None:
        """Post until there have been so many."""
        begin = len(self.posted_at)
        self.posted_at += [time.perf_counter()] * (until - begin)
        requests = [
            self._dialect.encode('message_post', self._body, number)
            for number in range(begin, until)
        ]
        self._socket.sendall(b''.join(requests))


def subscribe(port: int, number: int, queue: str) -> socket.socket:
    """A connection that is pushed what is posted to the queue."""
    dialect = Compact(binary=False)
    client = open_one(port, number, dialect)
    client.sendall(dialect.encode('subscription_create', {'queue_name': queue}, 1))
    expect(dialect.decode(receive(client, dialect)))
    return client


def deliver(
    clients: Sequence[socket.socket], poster: Poster, posts: int
) -> tuple[list[float], float, float]:
    """Post, and wait until every client has every message.

    Gives the latencies, the time it took, and the processor time that the client took of it.
    """
    selector = selectors.DefaultSelector()
    for client in clients:
        selector.register(client, selectors.EVENT_READ, [bytearray(), 0])
    began, before = time.perf_counter(), time.process_time()
    thread = threading.Thread(target=poster.post, args=(posts,))
    thread.start()
    latencies: list[float] = []
    while len(latencies) < posts * len(clients):
        ready = selector.select(ANSWER_SECONDS)
        if not ready:
            raise TimeoutError(f'{len(latencies)} of {posts * len(clients)} messages came')
        for key, _ in ready:
            _take(key, poster.posted_at, latencies)
    took, used = time.perf_counter() - began, time.process_time() - before
    thread.join()
    selector.close()
    return latencies, took, used


def _take(key: selectors.SelectorKey, posted_at: list[float], latencies: list[float]) -> None:
    """Read pushes, and note how long each took."""
    received: bytearray = key.data[0]
    received += key.fileobj.recv(65536)  # type: ignore[union-attr]
    now = time.perf_counter()
    while (size := frame_size(received)) and len(received) >= size:
        del received[:size]
        latencies.append(now - posted_at[key.data[1]])
        key.data[1] += 1


def measure(
    server: Server, subscribers: int, deliveries: int, in_flight: int = 1
) -> dict[str, Any]:
    """Push to so many, until there were about so many deliveries."""
    queue = f'q{subscribers}-{in_flight}'
    clients = [subscribe(server.port, number, queue) for number in range(subscribers)]
    time.sleep(1)
    posts = min(MOST_POSTS, max(5, deliveries // subscribers))
    before = processor_time(server.pids)
    latencies, took, busy = deliver(clients, Poster(server.port, queue, in_flight), posts)
    used = processor_time(server.pids) - before
    for client in clients:
        client.close()
    return {
        'subscribers': subscribers,
        'in_flight': in_flight,
        'posts': posts,
        'rate': results.significant(len(latencies) / took),
        'rate_of_processor': results.significant(len(latencies) / used),
        'server_us': results.significant(used / len(latencies) * 1e6),
        'client_share': results.significant(busy / took, 2),
        'latency': results.percentiles(latencies),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--subscribers', type=int, nargs='+', default=SUBSCRIBERS)
    parser.add_argument('--in-flight', type=int, nargs='+', default=IN_FLIGHT)
    parser.add_argument('--deliveries', type=int, default=60_000)
    parser.add_argument('--out', type=pathlib.Path, default=results.DIRECTORY, help='directory')
    options = parser.parse_args(argv)
    end_orderly()
    allow_files()
    with Fleet() as fleet, on_core(CLIENT_CORE):
        server = fleet.own(config=_ROOMY)
        found = [
            measure(server, number, options.deliveries, in_flight)
            for in_flight in options.in_flight
            for number in options.subscribers
        ]
    print(tables.fanout(found))
    print(results.save('fanout', found, options.out))


if __name__ == '__main__':
    main()
