"""Subscriptions to the messages of queues."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from oslo_utils import timeutils
from zaqar.storage import base, errors

from zaqar_gevent.markers import MarkerNotGiven
from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.core.pages import decode_id, encode_id

if TYPE_CHECKING:
    from zaqar_gevent.storage.sqlite.driver import DataDriver

Subscription = dict[str, Any]

_SELECT = """SELECT id, source, subscriber, ttl, created, confirmed, options FROM subscriptions
    WHERE project = ? AND source = ? AND expires > ? AND """
_ONE = _SELECT + 'id = ?'
_BY_SUBSCRIBER = _SELECT + 'subscriber = ?'
_PAGE = _SELECT + 'id > ? ORDER BY id LIMIT ?'

_COUNT = 'SELECT count(*) FROM subscriptions WHERE project = ? AND source = ? AND expires > ?'

_LAST_ID = "SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'subscriptions'"

# An expired duplicate must not be in the way.
_DROP_EXPIRED = """DELETE FROM subscriptions
    WHERE project = ? AND source = ? AND subscriber = ? AND expires <= ?"""
_INSERT = """INSERT OR IGNORE INTO subscriptions
    (project, source, subscriber, ttl, created, expires, options) VALUES (?, ?, ?, ?, ?, ?, ?)"""
_DUPLICATE = """SELECT 1 FROM subscriptions
    WHERE project = ? AND source = ? AND subscriber = ? AND id != ?"""


class SubscriptionController(own_drivers.SubscriptionController):
    """The subscriptions of one file."""

    def __init__(self, driver: DataDriver) -> None:
        super().__init__(driver)
        self._database = driver.database

    def list(
        self,
        queue: str,
        project: str | None = None,
        marker: str | None = None,
        limit: int = base.DEFAULT_SUBSCRIPTIONS_PER_PAGE,
    ) -> Iterator[Any]:
        """A page of a queue's subscriptions, oldest first, and the marker of the next.

        Raises `MarkerNotGiven` for an id that no subscription has had yet.
        """
        after = decode_id(marker) if marker else 0
        if after is None:
            return iter((iter(()), None))
        if after and after > self._database.get_row(_LAST_ID, ())[0]:
            raise MarkerNotGiven(str(marker))
        now = timeutils.utcnow_ts(microsecond=True)
        rows = self._database.read(
            _fetch_all, _PAGE, (project or '', queue, now, after, limit or -1)
        )
        last = encode_id(rows[-1][0]) if rows else None
        return iter((iter([_present(row, now) for row in rows]), last))

    def get(self, queue: str, subscription_id: str, project: str | None = None) -> Subscription:
        """One subscription, or `SubscriptionDoesNotExist`."""
        return self._get_one(_ONE, queue, decode_id(str(subscription_id)), project, subscription_id)

    def get_with_subscriber(
        self, queue: str, subscriber: str, project: str | None = None
    ) -> Subscription:
        """The subscription of `subscriber`, or `SubscriptionDoesNotExist`."""
        return self._get_one(_BY_SUBSCRIBER, queue, subscriber, project, subscriber)

    def count(self, queue: str, project: str | None = None) -> int:
        """How many subscriptions a queue has."""
        now = timeutils.utcnow_ts(microsecond=True)
        found: int = self._database.get_row(_COUNT, (project or '', queue, now))[0]
        return found

    def create(
        self,
        queue: str,
        subscriber: str,
        ttl: int,
        options: dict[str, Any],
        project: str | None = None,
    ) -> str | None:
        """Subscribe for `ttl` seconds; the new id, or None when there is one already."""
        now = timeutils.utcnow_ts(microsecond=True)
        document = msgspec.json.encode(options).decode()
        number = self._database.write(_create, project or '', queue, subscriber, ttl, now, document)
        return None if number is None else encode_id(number)

    def update(
        self, queue: str, subscription_id: str, project: str | None = None, **kwargs: Any
    ) -> None:
        """Change the `subscriber`, `ttl` (which starts anew) or `options`.

        Raises `SubscriptionDoesNotExist` or `SubscriptionAlreadyExists`.
        """
        now = timeutils.utcnow_ts(microsecond=True)
        changes = {
            key: kwargs[key]
            for key in ('subscriber', 'ttl', 'options')
            if kwargs.get(key) is not None
        }
        assert changes, '`subscriber`, `ttl` or `options` not found in kwargs'
        if 'ttl' in changes:
            changes['expires'] = now + changes['ttl']
        if 'options' in changes:
            changes['options'] = msgspec.json.encode(changes['options']).decode()
        self._change(queue, subscription_id, project, changes, now)

    def confirm(
        self,
        queue: str,
        subscription_id: str,
        project: str | None = None,
        confirmed: bool = True,
    ) -> None:
        """Confirm a subscription, or take that back; raises `SubscriptionDoesNotExist`."""
        now = timeutils.utcnow_ts(microsecond=True)
        self._change(queue, subscription_id, project, {'confirmed': bool(confirmed)}, now)

    def delete(self, queue: str, subscription_id: str, project: str | None = None) -> None:
        """End a subscription, which may have ended already."""
        number = decode_id(str(subscription_id))
        if number is not None:
            self._database.write(_delete, project or '', queue, number)

    def _get_one(
        self, statement: str, queue: str, key: Any, project: str | None, named: str
    ) -> Subscription:
        now = timeutils.utcnow_ts(microsecond=True)
        row = self._database.get_row(statement, (project or '', queue, now, key))
        if row is None:
            raise errors.SubscriptionDoesNotExist(named)
        return _present(row, now)

    def _change(
        self,
        queue: str,
        subscription_id: str,
        project: str | None,
        changes: dict[str, Any],
        now: float,
    ) -> None:
        number = decode_id(str(subscription_id))
        if number is None or not self._database.write(
            _update, project or '', queue, number, changes, now
        ):
            raise errors.SubscriptionDoesNotExist(subscription_id)


def _present(row: tuple[Any, ...], now: float) -> Subscription:
    number, source, subscriber, ttl, created, confirmed, options = row
    return {
        'id': encode_id(number),
        'source': source,
        'subscriber': subscriber,
        'ttl': ttl,
        'age': max(0, int(now - created)),
        'options': msgspec.json.decode(options),
        'confirmed': bool(confirmed),
    }


def _fetch_all(
    connection: sqlite3.Connection, statement: str, parameters: tuple[Any, ...]
) -> list[tuple[Any, ...]]:
    return connection.execute(statement, parameters).fetchall()


def _create(
    cursor: sqlite3.Cursor,
    project: str,
    source: str,
    subscriber: str,
    ttl: int,
    now: float,
    options: str,
) -> int | None:
    cursor.execute(_DROP_EXPIRED, (project, source, subscriber, now))
    cursor.execute(_INSERT, (project, source, subscriber, ttl, now, now + ttl, options))
    return cursor.lastrowid if cursor.rowcount > 0 else None


def _update(
    cursor: sqlite3.Cursor,
    project: str,
    source: str,
    number: int,
    changes: dict[str, Any],
    now: float,
) -> bool:
    if cursor.execute(_ONE, (project, source, now, number)).fetchone() is None:
        return False
    subscriber = changes.get('subscriber')
    if subscriber is not None:
        twin = cursor.execute(_DUPLICATE, (project, source, subscriber, number)).fetchone()
        if twin is not None:
            raise errors.SubscriptionAlreadyExists()
    assignments = ', '.join(f'{column} = :{column}' for column in changes)
    cursor.execute(
        f'UPDATE subscriptions SET {assignments} WHERE id = :id', {**changes, 'id': number}
    )
    return True


def _delete(cursor: sqlite3.Cursor, project: str, source: str, number: int) -> None:
    cursor.execute(
        'DELETE FROM subscriptions WHERE project = ? AND source = ? AND id = ?',
        (project, source, number),
    )
