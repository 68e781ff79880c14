"""The URLs by which servers of a fleet reach each other's connections, read from their store.

Clients are not shown them.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import sqlite3
from collections.abc import Callable
from typing import Any

from tests.postgres_process import PostgresProcess
from zaqar_gevent.api.push import Source
from zaqar_gevent.push.fleet import PROJECT, QUEUE, Fleet
from zaqar_gevent.storage.core.pages import encode_id

Urls = Callable[[], dict[str, str]]
"""Gives the URLs that are in a store now, by the id of the subscription."""


def _select(state: pathlib.Path, statement: str, *parameters: Any) -> list[Any]:
    """Read beside the processes, which may stand still."""
    [store] = state.rglob('zaqar.sqlite')
    with contextlib.closing(sqlite3.connect(store)) as program:
        return program.execute(statement, parameters).fetchall()


def in_sqlite(state: pathlib.Path) -> Urls:
    """Those of servers on one file."""

    def read() -> dict[str, str]:
        rows = _select(state, 'SELECT id, subscriber FROM subscriptions')
        return {encode_id(number): subscriber for number, subscriber in rows}

    return read


def in_redis(client: Any) -> Urls:
    """Those of servers on one Redis."""

    def read() -> dict[str, str]:
        found = {}
        for key in client.keys('*.subscriptions'):
            for name in client.zrange(key, 0, -1):
                subscriber = client.hget(name, 'u')
                if subscriber is not None:
                    found[name.decode()] = subscriber.decode()
        return found

    return read


def in_postgresql(postgres: PostgresProcess, schema: str) -> Urls:
    """Those of servers on one database."""

    def read() -> dict[str, str]:
        rows = postgres.run(f'SELECT id, subscriber FROM {schema}.subscriptions')
        return {encode_id(number): subscriber for number, subscriber in rows}

    return read


def fleet_in_sqlite(state: pathlib.Path) -> Fleet:
    """Another server of the fleet that is on this file, which signs as those do."""
    [[metadata]] = _select(
        state, 'SELECT metadata FROM queues WHERE project = ? AND name = ?', PROJECT, QUEUE
    )
    key = json.loads(metadata)['key']
    return Fleet(lambda new: key)


def subscribe(state: pathlib.Path, place: str, project_id: str, queue_name: str) -> str:
    """Have a connection of another server subscribed; its URL, which begins with `place`."""
    url = fleet_in_sqlite(state).sign(place, Source(project_id, queue_name))
    insert(state, url, project_id, queue_name)
    return url


def insert(state: pathlib.Path, url: str, project_id: str, queue_name: str) -> None:
    """Have any URL subscribed, as no client can."""
    [store] = state.rglob('zaqar.sqlite')
    with contextlib.closing(sqlite3.connect(store, timeout=60)) as program, program:
        program.execute(
            """INSERT INTO subscriptions
            (project, source, subscriber, ttl, created, expires, options)
            VALUES (?, ?, ?, 600, unixepoch(), unixepoch() + 600, '{}')""",
            (project_id, queue_name, url),
        )
