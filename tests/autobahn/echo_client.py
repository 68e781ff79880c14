"""The Python client's WebSocket as Autobahn's fuzzing server wants it: echoing what it is sent.

It runs every case that the server has, and lets it write its report; with `--gevent` in greenlets.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

SECONDS = 60.0
# Some cases are messages of 16 MiB.
MAX_MESSAGE_BYTES = 32 * 1024 * 1024


def main() -> None:
    """Run all cases as the agent of that name."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('url')
    parser.add_argument('agent')
    parser.add_argument('--gevent', action='store_true')
    options = parser.parse_args()
    if options.gevent:
        from gevent import monkey

        monkey.patch_all()
    [count] = echo(f'{options.url}/getCaseCount')
    for case in range(1, int(count) + 1):
        try:
            echo(f'{options.url}/runCase?case={case}&agent={options.agent}')
        except OSError as error:
            # Whether that was right is said by the report.
            print(f'case {case}: {error!r}', file=sys.stderr)
    echo(f'{options.url}/updateReports?agent={options.agent}')


def echo(url: str) -> list[bytes]:
    """Send back every message until the server closes; gives what was received."""
    from zaqar_gevent.client.sync.websocket import WebSocket

    connection = WebSocket.connect(url, seconds=SECONDS, max_message_bytes=MAX_MESSAGE_BYTES)
    received = []
    try:
        while not connection.is_over:
            came, messages = connection.receive(SECONDS)
            assert came, f'nothing comes from {url}'
            for message in messages:
                received.append(message.payload)
                _send_back(connection, message)
    finally:
        connection.release()
    return received


def _send_back(connection: Any, message: Any) -> None:
    try:
        connection.send(message.payload, binary=message.binary, seconds=SECONDS)
    except OSError:
        # In many a case the server broke the protocol right after the message.
        if not connection.is_over:
            raise


if __name__ == '__main__':
    main()
