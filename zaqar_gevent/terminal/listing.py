"""`list`: the messages of a queue, or the queues."""

from __future__ import annotations

import argparse
import itertools
import shlex
from typing import Any

from zaqar_gevent.client import Client, Message
from zaqar_gevent.terminal.display import Display, compact, span
from zaqar_gevent.terminal.queues import exists, source_of, tell_missing


def run(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Print what there is, page after page; returns the exit status."""
    if arguments.queue is None:
        _list_names(client, arguments, display)
        return 0
    return _list_messages(client, arguments, display)


def _list_names(client: Client, arguments: argparse.Namespace, display: Display) -> None:
    list_all = client.topics if arguments.topic else client.queues
    for source in itertools.islice(list_all(marker=arguments.marker), arguments.limit):
        display.show({'name': source.name}, source.name)


def _list_messages(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    queue = source_of(client, arguments)
    messages = queue.messages(
        marker=arguments.marker,
        include_claimed=not arguments.unclaimed,
        include_delayed=arguments.delayed,
    )
    is_empty = True
    for message in itertools.islice(messages, arguments.limit):
        is_empty = False
        show_message(message, display)
    return tell_missing(queue) if is_empty and not exists(queue) else 0


def show_message(message: Message, display: Display, *, whole: bool = False) -> None:
    """Print a message: all of it in a pipe, its id, age, group, attributes and body on a terminal.

    whole: do not cut it to the width of the terminal.
    """
    claimed = ' claimed' if message.claim_id else ''
    group = f'  [{shlex.quote(message.group)}]' if message.group is not None else ''
    attributes = ''.join(
        f'  {name}={shlex.quote(value)}' for name, value in message.attributes.items()
    )
    text = (
        f'{message.id}  {span(message.age):>4}{claimed}{group}{attributes}  {compact(message.body)}'
    )
    display.show(record_of(message), text, whole=whole)


def record_of(message: Message) -> dict[str, Any]:
    """A message as JSON-able values."""
    record = {
        'id': message.id,
        'queue': message.queue_name,
        'body': message.body,
        'ttl': message.ttl,
        'age': message.age,
    }
    details = {
        'claim_id': message.claim_id,
        'checksum': message.checksum,
        'attributes': message.attributes or None,
        'group': message.group,
        'dead_letter': message.dead_letter,
        'attempt': message.attempt,
    }
    return record | {name: value for name, value in details.items() if value is not None}
