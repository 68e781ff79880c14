"""`get`: messages by their ids."""

from __future__ import annotations

import argparse

from zaqar_gevent.client import Client, Message
from zaqar_gevent.client.sync.queue import PAGE_MESSAGES
from zaqar_gevent.terminal.display import Display, complain
from zaqar_gevent.terminal.listing import show_message
from zaqar_gevent.terminal.queues import source_of


def run(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Print messages; returns 1 if any is gone."""
    source = source_of(client, arguments)
    found: dict[str, Message] = {}
    for start in range(0, len(arguments.ids), PAGE_MESSAGES):
        some = source.get_messages(arguments.ids[start : start + PAGE_MESSAGES])
        found |= {message.id: message for message in some}
    for message_id in arguments.ids:
        if message_id in found:
            show_message(found[message_id], display, whole=True)
        else:
            complain(f'there is no message {message_id} in {source.name}')
    return 0 if len(found) == len(set(arguments.ids)) else 1
