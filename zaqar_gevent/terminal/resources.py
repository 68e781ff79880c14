"""`pool` and `flavor`: where a server with pools keeps messages; for operators."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from typing import Any

from zaqar_gevent.client import APIError, Client
from zaqar_gevent.client.sync.admin import Resources
from zaqar_gevent.terminal.confirmation import confirmed
from zaqar_gevent.terminal.display import Display, complain, text

_COLUMNS = {
    'pool': ('name', 'uri', 'weight', 'flavor'),
    'flavor': ('name', 'pool_list'),
}
_Run = Callable[[Client, argparse.Namespace, Display], int]


def _with_pools(run: _Run) -> _Run:
    """`run`, which says what is missing on a server without pools."""

    def running(client: Client, arguments: argparse.Namespace, display: Display) -> int:
        try:
            return run(client, arguments, display)
        except APIError as error:
            # Operations without such a route do not name the pool.
            named = getattr(arguments, 'name', arguments.kind) in str(error)
            if error.code != 'unknown_action' and (error.status != 404 or named):
                raise
            complain(
                'this server does not manage pools: its zaqar.conf needs pooling = true and '
                'admin_mode = true in [DEFAULT]'
            )
            return 1

    return running


@_with_pools
def run_list(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Print all pools or flavors."""
    found = _resources(client, arguments).list(detailed=True)
    records = list(itertools.islice(found, arguments.limit))
    columns = _COLUMNS[arguments.kind]
    rows = [tuple(text(one.get(column)) for column in columns) for one in records]
    display.show_table(records, columns, rows)
    return 0


@_with_pools
def run_show(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Print a pool or flavor."""
    found = _resources(client, arguments).get(arguments.name)
    display.show_fields(found, found)
    return 0


@_with_pools
def run_create(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Register a pool or flavor."""
    _resources(client, arguments).create(arguments.name, **_members(arguments))
    record = {'name': arguments.name, 'created': True}
    display.show(record, f'{arguments.name} created.')
    return 0


@_with_pools
def run_set(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Change a pool or flavor."""
    members = _members(arguments)
    if not members:
        complain(f'nothing to set: see `zaqar-gevent {arguments.kind} set --help`')
        return 2
    changed = _resources(client, arguments).update(arguments.name, **members)
    display.show_fields(changed, changed)
    return 0


@_with_pools
def run_delete(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Remove a pool or flavor from the catalogue; the pool's store keeps its data."""
    # The server takes a name that does not exist as well.
    _resources(client, arguments).get(arguments.name)
    question = f'Delete {arguments.kind} {arguments.name}. Go on'
    if not confirmed(question, arguments):
        return 1
    _resources(client, arguments).delete(arguments.name)
    record = {'name': arguments.name, 'deleted': True}
    display.show(record, f'{arguments.name} deleted.')
    return 0


def _resources(client: Client, arguments: argparse.Namespace) -> Resources:
    return client.pools if arguments.kind == 'pool' else client.flavors


def _members(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.kind == 'flavor':
        given: dict[str, Any] = {'pool_list': arguments.pool or None}
    else:
        given = {name: getattr(arguments, name) for name in ('uri', 'weight', 'flavor')}
        given['options'] = dict(arguments.option) or None
    return {name: value for name, value in given.items() if value is not None}
