"""Subscriptions to the messages of queues."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from oslo_utils import timeutils
from zaqar.storage import base, errors

from zaqar_gevent.markers import MarkerNotGiven
from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.core.pages import decode_id, encode_id
from zaqar_gevent.storage.postgresql import numbers
from zaqar_gevent.storage.postgresql.tables import Table

if TYPE_CHECKING:
    from zaqar_gevent.storage.postgresql.driver import DataDriver

Subscription = dict[str, Any]

_SELECT = """SELECT json_build_array(id, source, subscriber, ttl, created, confirmed, options::json)
    FROM {schema}.subscriptions
    WHERE project = $1 AND source = $2 AND expires - $3::float8 > 0 AND """
_ONE = _SELECT + 'id = $4::bigint'
_BY_SUBSCRIBER = _SELECT + 'md5(subscriber) = md5($4::text) AND subscriber = $4'
_PAGE = _SELECT + 'id > $4::bigint ORDER BY id LIMIT $5::int'

_COUNT = """SELECT to_json(count(*)) FROM {schema}.subscriptions
    WHERE project = $1 AND source = $2 AND expires > $3::float8"""

# An expired duplicate must not be in the way.
_CREATE = """INSERT INTO {schema}.subscriptions AS s
        (project, source, subscriber, ttl, created, expires, options)
    VALUES ($1, $2, $3::text, $4::int, $5::float8, $5::float8 + $4::int, $6::text)
    ON CONFLICT (project, source, md5(subscriber)) DO UPDATE SET
        id = DEFAULT,
        ttl = excluded.ttl, created = excluded.created, expires = excluded.expires,
        options = excluded.options, confirmed = false
        WHERE s.expires <= $5::float8
    RETURNING to_json(id)"""

# Whether there is such a subscription, and whether another one has the subscriber.
_TWIN = """SELECT json_build_array(
        EXISTS (SELECT 1 FROM {schema}.subscriptions WHERE project = $1 AND source = $2
            AND expires > $3::float8 AND id = $4::bigint),
        EXISTS (SELECT 1 FROM {schema}.subscriptions WHERE project = $1 AND source = $2
            AND md5(subscriber) = md5($5::text) AND id <> $4::bigint))"""
_UPDATE = """UPDATE {schema}.subscriptions SET
        subscriber = coalesce($5::text, subscriber), ttl = coalesce($6::int, ttl),
        expires = coalesce($3::float8 + $6::int, expires), options = coalesce($7::text, options),
        confirmed = coalesce($8::bool, confirmed)
    WHERE project = $1 AND source = $2 AND expires > $3::float8 AND id = $4::bigint
    RETURNING 'true'::json"""
_DELETE = """DELETE FROM {schema}.subscriptions
    WHERE project = $1 AND source = $2 AND id = $3::bigint"""
_LAST = 'SELECT to_json(last_value) FROM {schema}.subscriptions_id_seq'


class SubscriptionController(own_drivers.SubscriptionController):
    """The subscriptions of one database."""

    def __init__(self, driver: DataDriver) -> None:
        super().__init__(driver)
        self._table = Table(driver.server, 'subscriptions')

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
        if after and after > self._table.read(_LAST)[0]:
            raise MarkerNotGiven(str(marker))
        now = timeutils.utcnow_ts(microsecond=True)
        rows = self._table.read(_PAGE, project or '', queue, now, after, limit or None)
        last = encode_id(rows[-1][0]) if rows else None
        return iter((iter([_present(row, now) for row in rows]), last))

    def get(self, queue: str, subscription_id: str, project: str | None = None) -> Subscription:
        """One subscription, or `SubscriptionDoesNotExist`."""
        number = decode_id(str(subscription_id))
        return self._get_one(_ONE, queue, number, project, subscription_id)

    def get_with_subscriber(
        self, queue: str, subscriber: str, project: str | None = None
    ) -> Subscription:
        """The subscription of `subscriber`, or `SubscriptionDoesNotExist`."""
        return self._get_one(_BY_SUBSCRIBER, queue, subscriber, project, subscriber)

    def count(self, queue: str, project: str | None = None) -> int:
        """How many subscriptions a queue has."""
        now = timeutils.utcnow_ts(microsecond=True)
        return int(self._table.read(_COUNT, project or '', queue, now)[0])

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
        document = msgspec.json.encode(options)
        place = (project or '', queue, subscriber)
        created = self._table.write(_CREATE, *place, numbers.clamp(ttl), now, document)
        return encode_id(created[0]) if created else None

    def update(
        self, queue: str, subscription_id: str, project: str | None = None, **kwargs: Any
    ) -> None:
        """Change the `subscriber`, `ttl` (which starts anew) or `options`.

        Raises `SubscriptionDoesNotExist` or `SubscriptionAlreadyExists`.
        """
        subscriber, ttl, options = map(kwargs.get, ('subscriber', 'ttl', 'options'))
        assert not subscriber is ttl is options is None, (
            '`subscriber`, `ttl` or `options` not found in kwargs'
        )
        document = None if options is None else msgspec.json.encode(options)
        ttl = None if ttl is None else numbers.clamp(ttl)
        self._change(queue, subscription_id, project, subscriber, ttl, document, None)

    def confirm(
        self,
        queue: str,
        subscription_id: str,
        project: str | None = None,
        confirmed: bool = True,
    ) -> None:
        """Confirm a subscription, or take that back; raises `SubscriptionDoesNotExist`."""
        self._change(queue, subscription_id, project, None, None, None, bool(confirmed))

    def delete(self, queue: str, subscription_id: str, project: str | None = None) -> None:
        """End a subscription, which may have ended already."""
        number = decode_id(str(subscription_id))
        if number is not None:
            self._table.write(_DELETE, project or '', queue, number)

    def _get_one(
        self, statement: str, queue: str, key: Any, project: str | None, named: str
    ) -> Subscription:
        now = timeutils.utcnow_ts(microsecond=True)
        found = key is not None and self._table.read(statement, project or '', queue, now, key)
        if not found:
            raise errors.SubscriptionDoesNotExist(named)
        return _present(found[0], now)

    def _change(
        self,
        queue: str,
        subscription_id: str,
        project: str | None,
        subscriber: str | None,
        *changes: Any,
    ) -> None:
        now = timeutils.utcnow_ts(microsecond=True)
        number = decode_id(str(subscription_id))
        if number is None:
            raise errors.SubscriptionDoesNotExist(subscription_id)
        place = (project or '', queue, now, number)
        if subscriber is not None:
            [(is_there, has_twin)] = self._table.read(_TWIN, *place, subscriber)
            if is_there and has_twin:
                raise errors.SubscriptionAlreadyExists()
        if not self._table.write(_UPDATE, *place, subscriber, *changes):
            raise errors.SubscriptionDoesNotExist(subscription_id)


def _present(row: list[Any], now: float) -> Subscription:
    number, source, subscriber, ttl, created, confirmed, options = row
    return {
        'id': encode_id(number),
        'source': source,
        'subscriber': subscriber,
        'ttl': ttl,
        'age': max(0, int(now - created)),
        'options': options,
        'confirmed': confirmed,
    }
