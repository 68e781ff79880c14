"""`tail`: messages as they are posted."""

from __future__ import annotations

import argparse
import itertools

from zaqar_gevent.client import Client
from zaqar_gevent.terminal.display import Display
from zaqar_gevent.terminal.listing import show_message
from zaqar_gevent.terminal.reader import being_read


def run(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Print messages until interrupted or at the limit; returns the exit status."""
    with (
        being_read(),
        client.queue(arguments.queue).subscribe(marker=arguments.marker) as subscription,
    ):
        display.say(f'Following {arguments.queue}; Ctrl-C ends it.')
        for message in itertools.islice(subscription, arguments.limit):
            show_message(message, display)
    return 0
