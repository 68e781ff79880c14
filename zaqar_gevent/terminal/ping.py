"""`ping`: whether the server is there, how it is reached, and how long an answer takes."""

from __future__ import annotations

import argparse
import time

from zaqar_gevent.client import Client
from zaqar_gevent.terminal.display import Display


def run(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Ask as often as wanted; returns the exit status."""
    # The time to connect is not part of the time of an answer.
    server = client.capabilities().server
    url = client.url
    for number in range(arguments.count):
        if number:
            time.sleep(arguments.interval)
        began = time.perf_counter()
        client.ping()
        milliseconds = round((time.perf_counter() - began) * 1000, 3)
        way = _way(client, server)
        told = ', '.join(way.values())
        display.show(
            {'url': url, 'milliseconds': milliseconds, **way},
            f'{url} answers in {milliseconds:.1f} ms ({told})',
            whole=True,
        )
    return 0


def _way(client: Client, server: str) -> dict[str, str]:
    """How the server is reached, as far as that can be told."""
    if client.state == 'polling':
        way = {'server': server, 'transport': 'rest', 'encoding': 'json'}
    else:
        way = {
            'server': server,
            'transport': client.state,
            'protocol': client.protocol or '',
            'encoding': client.encoding,
        }
    return {name: value for name, value in way.items() if value}
