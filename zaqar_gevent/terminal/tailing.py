"""`tail`: messages as they are posted."""

from __future__ import annotations

import argparse
import itertools

from zaqar_gevent.client import Client
from zaqar_gevent.terminal.display import Display, complain
from zaqar_gevent.terminal.listing import show_message
from zaqar_gevent.terminal.queues import exists, source_of, tell_missing
from zaqar_gevent.terminal.reader import being_read
from zaqar_gevent.terminal.subscriptions import filter_of


def run(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Print messages until interrupted or at the limit; returns the exit status."""

    def tell_restart() -> None:
        complain(f'The server does not know the marker; {arguments.queue} begins anew.')

    queue = source_of(client, arguments)
    if not exists(queue):
        return tell_missing(queue)
    with (
        being_read(),
        queue.subscribe(
            marker=arguments.marker, filter=filter_of(arguments), on_restart=tell_restart
        ) as subscription,
    ):
        display.say(f'Following {arguments.queue}; Ctrl-C ends it.')
        for message in itertools.islice(subscription, arguments.limit):
            show_message(message, display)
    return 0
