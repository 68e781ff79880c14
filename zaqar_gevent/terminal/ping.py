"""`ping`: whether the server is there, how it is reached, and how long an answer takes."""

from __future__ import annotations

import argparse
import time

from zaqar_gevent.client import Client
from zaqar_gevent.terminal.display import Display


def run(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Ask as often as wanted; returns the exit status."""
    for number in range(arguments.count):
        if number:
            time.sleep(arguments.interval)
        began = time.perf_counter()
        client.ping()
        milliseconds = round((time.perf_counter() - began) * 1000, 3)
        way = {
            'transport': {'polling': 'rest'}.get(client.state, client.state),
            'protocol': client.protocol,
            'encoding': client.encoding,
        }
        told = ', '.join(str(value) for value in way.values() if value)
        display.show(
            {'url': arguments.url, 'milliseconds': milliseconds, **way},
            f'{arguments.url} answers in {milliseconds:.1f} ms ({told})',
        )
    return 0
