"""`subscription`: URIs that the server tells of each message of a queue or topic."""

from __future__ import annotations

import argparse
import itertools
from typing import Any

from zaqar_gevent.client import Client, Queue, Topic
from zaqar_gevent.client.filters import FilterError, parse
from zaqar_gevent.terminal.confirmation import confirmed
from zaqar_gevent.terminal.display import Display, compact, complain, span
from zaqar_gevent.terminal.queues import exists, tell_missing


def run_list(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Print the subscriptions of a queue or topic."""
    source = _source(client, arguments)
    records = list(itertools.islice(source.subscriptions(), arguments.limit))
    if not records and not exists(source):
        return tell_missing(source)
    columns = ('id', 'subscriber', 'confirmed', 'ttl', 'age', 'options')
    rows = [
        (
            one['id'],
            one.get('subscriber') or '',
            'yes' if one.get('confirmed', True) else 'no',
            span(one.get('ttl', 0)),
            span(one.get('age', 0)),
            compact(one.get('options') or {}),
        )
        for one in records
    ]
    display.show_table(records, columns, rows)
    return 0


def run_create(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Have messages sent to a URI from now on."""
    subscription_id = _source(client, arguments).notify(
        arguments.uri, ttl=arguments.ttl, options=_options(arguments)
    )
    display.show({'id': subscription_id}, f'Subscribed as {subscription_id}.', whole=True)
    return 0


def run_show(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Print a subscription, and how its deliveries go."""
    found = _source(client, arguments).get_subscription(arguments.subscription)
    display.show_fields(found, found)
    return 0


def run_set(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Change where a subscription leads, how long it lives, or its options."""
    given = {
        'subscriber': arguments.uri,
        'ttl': arguments.ttl,
        'options': _options(arguments),
    }
    if not any(value is not None for value in given.values()):
        complain('nothing to set: give --uri, --ttl, --option or --filter')
        return 2
    _source(client, arguments).update_subscription(arguments.subscription, **given)
    display.show({'id': arguments.subscription, 'changed': True}, 'Changed.')
    return 0


def run_delete(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """End subscriptions."""
    source = _source(client, arguments)
    ids: list[str] = arguments.subscriptions
    for subscription_id in ids:
        # The server takes the id of a subscription that does not exist as well.
        source.get_subscription(subscription_id)
    noun = 'subscription' if len(ids) == 1 else f'{len(ids)} subscriptions'
    if not confirmed(f'Delete {noun} of {source.name}. Go on', arguments):
        return 1
    for subscription_id in ids:
        source.unsubscribe(subscription_id)
        record: dict[str, Any] = {'id': subscription_id, 'deleted': True}
        display.show(record, f'{subscription_id} deleted.', whole=True)
    return 0


def filter_of(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The filter that the options `--filter` make together; None without any."""
    if not arguments.filter:
        return None
    wanted = {name: one for part in arguments.filter for name, one in part.items()}
    try:
        parse(wanted, 'filter')
    except FilterError as error:
        complain(str(error))
        raise SystemExit(2) from None
    return wanted


def _options(arguments: argparse.Namespace) -> dict[str, Any] | None:
    wanted = filter_of(arguments)
    return (dict(arguments.option) | ({} if wanted is None else {'filter': wanted})) or None


def _source(client: Client, arguments: argparse.Namespace) -> Queue | Topic:
    name: str = arguments.source
    return client.topic(name) if arguments.topic else client.queue(name)
