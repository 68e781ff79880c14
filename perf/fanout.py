"""Push: one post to many subscribers of one queue, and the time from a post to its push.

    python perf/fanout.py [--subscribers 1000] [--posts 50]

Subscribes that many connections to a queue of a server of its own, durable as ever, posts one
message after the other, and reports deliveries a second (over the wall and over the server's
processor time), how long after its post a message arrived, and the same for a single subscriber.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import selectors
import socket
import statistics
import tempfile
import threading
import time

import psutil
from cpu import HEADERS, connect, frame_size, mask, start

QUEUE = {'queue_name': 'q'}


class Poster:
    """Posts over a connection of its own, and knows when."""

    def __init__(self, port: int) -> None:
        self._socket = connect(port, upgrade=True)
        self.posted_at: list[float] = []

    def post(self, count: int) -> None:
        for _ in range(count):
            body = {**QUEUE, 'messages': [{'body': len(self.posted_at), 'ttl': 300}]}
            self.posted_at.append(time.perf_counter())
            ask(self._socket, 'message_post', body)


def ask(client: socket.socket, action: str, body: dict[str, object]) -> bytearray:
    """Send a request and wait for the answer."""
    client.sendall(mask(json.dumps({'action': action, 'headers': HEADERS, 'body': body}).encode()))
    received = bytearray()
    while not (size := frame_size(received)) or len(received) < size:
        received += client.recv(65536)
    return received


def deliver(clients: list[socket.socket], poster: Poster, posts: int) -> tuple[list[float], float]:
    """Post, and wait until every client has every message: the latencies, and the time it took."""
    selector = selectors.DefaultSelector()
    for client in clients:
        selector.register(client, selectors.EVENT_READ, (bytearray(), [len(poster.posted_at)]))
    began = time.perf_counter()
    thread = threading.Thread(target=poster.post, args=(posts,))
    thread.start()
    latencies: list[float] = []
    while len(latencies) < posts * len(clients):
        for key, _ in selector.select(10):
            received, number = key.data
            received += key.fileobj.recv(65536)
            now = time.perf_counter()
            while (size := frame_size(received)) and len(received) >= size:
                del received[:size]
                latencies.append(now - poster.posted_at[number[0]])
                number[0] += 1
    thread.join()
    return latencies, time.perf_counter() - began


def measure(port: int, server: psutil.Process, subscribers: int, posts: int) -> None:
    clients = [
        connect(port, upgrade=True, source=f'127.0.1.{1 + i // 900}') for i in range(subscribers)
    ]
    for client in clients:
        assert b'201' in ask(client, 'subscription_create', QUEUE)
    time.sleep(2)
    before = server.cpu_times()
    latencies, took = deliver(clients, Poster(port), posts)
    after = server.cpu_times()
    spent = after.user + after.system - before.user - before.system
    p50, p99 = statistics.median(latencies), statistics.quantiles(latencies, n=100)[98]
    print(
        f'{subscribers} subscribers, {posts} posts: {len(latencies) / took:.0f} deliveries/s, '
        f'{len(latencies) / spent:.0f}/s of processor time, '
        f'latency p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms'
    )
    for client in clients:
        client.close()
    time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--subscribers', type=int, default=1000)
    parser.add_argument('--posts', type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        config = pathlib.Path(directory, 'zaqar.conf')
        config.write_text('[drivers:transport:gevent]\nmax_connections = 20000\n')
        process, port = start(directory, '--config-file', str(config))
        server = psutil.Process(process.pid)
        try:
            measure(port, server, 1, 500)
            measure(port, server, options.subscribers, 1)
            measure(port, server, options.subscribers, options.posts)
        finally:
            process.terminate()
            process.wait()


if __name__ == '__main__':
    main()
