"""`claim`: messages for this one to work on, and claims given back."""

from __future__ import annotations

import argparse

from zaqar_gevent.client import Client
from zaqar_gevent.terminal.display import Display, complain
from zaqar_gevent.terminal.listing import show_message
from zaqar_gevent.terminal.queues import exists, tell_missing


def run(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Claim messages, print them and delete them if that is wanted; returns the exit status.

    What is not deleted stays claimed until the claim's TTL is over, or it is given back.
    """
    if arguments.release:
        return _release(client, arguments, display)
    if arguments.delay is not None:
        complain('--delay is for messages that are given back: it needs --release')
        return 2
    options = {name: getattr(arguments, name) for name in ('ttl', 'grace', 'wait')}
    given = {name: value for name, value in options.items() if value is not None}
    queue = client.queue(arguments.queue)
    claim = queue.claim(limit=arguments.limit, **given)
    if not claim.messages and not exists(queue):
        return tell_missing(queue)
    for message in claim.messages:
        show_message(message, display)
        if arguments.delete:
            message.delete()
    return 0


def _release(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    queue = client.queue(arguments.queue)
    for claim_id in arguments.release:
        # The server takes the id of a claim that does not exist as well.
        client.call('claim_get', queue_name=queue.name, claim_id=claim_id)
    for claim_id in arguments.release:
        given = {} if arguments.delay is None else {'delay': arguments.delay}
        client.call('claim_delete', queue_name=queue.name, claim_id=claim_id, **given)
        display.show({'claim_id': claim_id, 'released': True}, f'{claim_id} given back.')
    return 0
