"""Requests in flight together on one connection of `zaqar.v2`, against one at a time.

    python perf/pipeline.py [--seconds 3] [--rounds 3] [--in-flight 16]

Posts one message after the other to a server of its own, durable as ever, and reports posts a
second and the server's processor time for each.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import tempfile
import time

import psutil
from cpu import HEADERS, MESSAGE, connect, frame_size, mask, start

POST = {'action': 'message_post', 'body': {'queue_name': 'q', 'messages': [MESSAGE]}}


class Client:
    """One connection, whose answers are counted by their frames."""

    def __init__(self, port: int) -> None:
        self._socket: socket.socket = connect(port, upgrade=True, subprotocol='zaqar.v2')
        self._received = bytearray()
        self.send({'action': 'hello', 'headers': HEADERS})
        while not self.answers():
            pass

    def send(self, document: dict[str, object]) -> None:
        self._socket.sendall(mask(json.dumps(document).encode()))

    def answers(self) -> int:
        """Wait for something, and count the whole answers in it."""
        self._received += self._socket.recv(65536)
        count = 0
        while (size := frame_size(self._received)) and len(self._received) >= size:
            del self._received[:size]
            count += 1
        return count

    def post(self, seconds: float, in_flight: int) -> tuple[int, float]:
        """Keep `in_flight` posts on their way; how many were answered, and in what time."""
        began = time.monotonic()
        sent = answered = 0
        while time.monotonic() - began < seconds or answered < sent:
            while time.monotonic() - began < seconds and sent - answered < in_flight:
                self.send({'id': sent, **POST})
                sent += 1
            answered += self.answers()
        return answered, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=3)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--in-flight', type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        process, port = start(directory)
        server = psutil.Process(process.pid)
        try:
            client = Client(port)
            numbers = (1, options.in_flight)
            rates: dict[int, list[float]] = {number: [] for number in numbers}
            costs: dict[int, list[float]] = {number: [] for number in numbers}
            for _ in range(options.rounds):
                for in_flight in numbers:
                    before = server.cpu_times()
                    answered, took = client.post(options.seconds, in_flight)
                    after = server.cpu_times()
                    used = after.user + after.system - before.user - before.system
                    rates[in_flight].append(answered / took)
                    costs[in_flight].append(used / answered * 1e6)
            for in_flight, found in rates.items():
                rate, cost = statistics.median(found), statistics.median(costs[in_flight])
                ratio = rate / statistics.median(rates[1])
                print(f'{in_flight:3} in flight {rate:8.0f}/s {cost:6.0f} us of CPU  {ratio:4.1f}x')
        finally:
            process.terminate()
            process.wait()


if __name__ == '__main__':
    main()
